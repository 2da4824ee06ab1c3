//! Negative sampling: items that a user has no interaction with, equally likely or by weight.

mod alias;
mod row;

use crate::cpu::{Level, dispatch};
use crate::csr::Csr;
use crate::random::{WORDS, below, words};
use crate::threads::share;
use crate::{Cancel, Error, Result};
pub use alias::AliasTable;
use row::Row;

/// Negatives that one task draws: its random words stay in the innermost cache.
const CHUNK: usize = 1 << 12;
/// Users whose filters are on their way: users are shuffled, so each is somewhere else in memory.
const AHEAD: usize = 16;
/// Draws that may hit a positive before the slower way is taken.
const ATTEMPTS: u32 = 64;

/// Which negatives to draw.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Number of items; positives lie below it.
    pub num_items: usize,
    /// Negatives of each entry of `users`, drawn with replacement.
    pub num_negatives: usize,
    /// The chance of each item among the negatives of a user; `None`: all equal.
    pub weights: Option<&'a AliasTable>,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the draw, such as the epoch: each has its own stream.
    pub draw: u32,
}

/// Draws negatives `[users, num_negatives]` from the items outside each user's row of `positives`.
///
/// The negative at a position depends on seed, draw, position, weights and the user's positives alone, so
/// any number of threads gives the same result.
///
/// # Errors
/// [`Error::Argument`] for a user without a row, a user who has every item (of a weight above 0), positives
/// beyond `num_items`, or weights of another number of items; among several users the first.
pub fn sample_negatives(
    users: &[i32],
    positives: &Csr,
    draw: Draw,
    cancel: &Cancel,
) -> Result<Vec<i32>> {
    sample_at(Level::best(), users, positives, draw, cancel)
}

fn sample_at(
    level: Level,
    users: &[i32],
    positives: &Csr,
    draw: Draw,
    cancel: &Cancel,
) -> Result<Vec<i32>> {
    let num_items = draw.num_items;
    if num_items > i32::MAX as usize {
        return Err(Error::Argument(format!(
            "{num_items} items do not fit into int32 indices"
        )));
    }
    positives.expect("positives", None, num_items)?;
    if let Some(weights) = draw.weights
        && weights.len() != num_items
    {
        let found = weights.len();
        return Err(Error::Argument(format!(
            "weights are those of {found} items, but there are {num_items}"
        )));
    }
    let filter = positives.filter();
    let mut negatives = vec![0; users.len() * draw.num_negatives];
    // Whole blocks of random words a task, at least one user.
    let rows = (CHUNK / draw.num_negatives.max(1)).next_multiple_of(WORDS);
    let parts = negatives
        .chunks_mut((rows * draw.num_negatives).max(1))
        .zip(users.chunks(rows))
        .enumerate();
    share(parts, |buffers: &mut Buffers, (chunk, (negatives, users))| {
        cancel.check()?;
        let part = Part {
            first_user: chunk * rows,
            users,
            positives,
            filter,
            draw,
        };
        fill(level, &part, buffers, negatives)
    })?;
    Ok(negatives)
}

/// What one task draws.
struct Part<'a> {
    first_user: usize,
    users: &'a [i32],
    positives: &'a Csr,
    filter: &'a [u64],
    draw: Draw<'a>,
}

/// What one thread works in.
#[derive(Default)]
struct Buffers {
    words: Vec<u32>,
    /// One a draw: 1 where the filter may know the item.
    doubtful: Vec<u8>,
}

fn fill(level: Level, part: &Part, buffers: &mut Buffers, negatives: &mut [i32]) -> Result<()> {
    dispatch!(level, (
        part: &Part = part,
        buffers: &mut Buffers = buffers,
        negatives: &mut [i32] = negatives,
    ) -> Result<()> {
        portable: part.fill::<false>(buffers, negatives),
        avx2: part.fill::<false>(buffers, negatives),
        avx512: part.fill::<true>(buffers, negatives),
    })
}

impl Part<'_> {
    #[inline(always)]
    fn fill<const WIDE: bool>(&self, buffers: &mut Buffers, negatives: &mut [i32]) -> Result<()> {
        let Draw { seed, draw, .. } = self.draw;
        let first = self.first_user * self.draw.num_negatives;
        let count = negatives.len();
        buffers.words.resize(count.next_multiple_of(WORDS), 0);
        let blocks = buffers.words.as_chunks_mut::<WORDS>().0.iter_mut();
        for (index, block) in blocks.enumerate() {
            *block = words(seed, draw, (first / WORDS + index) as u64, 0);
        }
        buffers.doubtful.resize(count.next_multiple_of(8), 0);
        buffers.doubtful[count..].fill(0); // what a task before has left
        match self.draw.weights {
            None => {
                let bound = self.draw.num_items as u32;
                for (negative, &word) in negatives.iter_mut().zip(&buffers.words) {
                    *negative = below(word, bound).map_or(-1, |item| item as i32);
                }
            }
            Some(table) => table.items_of_halves::<WIDE>(&buffers.words[..count], negatives),
        }
        match self.draw.num_negatives {
            1 => self.settle_all(1, buffers, negatives), // a constant makes for a third less work
            width => self.settle_all(width, buffers, negatives),
        }
    }

    /// Replaces the negatives that are none: -1, where a word did not say which item, and positives.
    #[inline(always)]
    fn settle_all(
        &self,
        width: usize,
        buffers: &mut Buffers,
        negatives: &mut [i32],
    ) -> Result<()> {
        let doubtful = &mut buffers.doubtful;
        // First without a jump that depends on the filter: a wrong guess would wait for its word to come from
        // memory, one in twenty times.
        let lists = negatives.chunks_exact_mut(width).zip(doubtful.chunks_mut(width));
        for (place, ((negatives, doubtful), &user)) in lists.zip(self.users).enumerate() {
            if user as usize >= self.positives.num_rows() {
                return Err(self.no_such_user(place, user));
            }
            if let Some(&later) = self.users.get(place + AHEAD) {
                self.positives.prefetch_filter(self.filter, later as usize);
            }
            let filtered = self.positives.filtered(self.filter, user as usize);
            for (negative, doubtful) in negatives.iter_mut().zip(doubtful) {
                let known = filtered.may_contain(*negative as u32);
                *doubtful = u8::from((*negative < 0) | known);
            }
        }
        for (block, flags) in doubtful.as_chunks::<8>().0.iter().enumerate() {
            let mut flags = u64::from_le_bytes(*flags);
            while flags != 0 {
                let at = block * 8 + flags.trailing_zeros() as usize / 8;
                flags &= flags - 1;
                let user = self.users[at / width];
                let row = Row::new(self.positives, user as usize);
                if negatives[at] >= 0 && !row.contains(negatives[at]) {
                    continue;
                }
                let position = self.first_user * width + at;
                negatives[at] = self.settle(row, user, position)?;
            }
        }
        Ok(())
    }

    /// The negative of a position whose first attempt is a positive, or not decided by its word.
    #[cold]
    fn settle(&self, row: Row, user: i32, position: usize) -> Result<i32> {
        let Draw { seed, draw, .. } = self.draw;
        let word = |attempt| {
            let index = (position / WORDS) as u64;
            words(seed, draw, index, attempt)[position % WORDS]
        };
        // The upper half of the first is the word that was there already.
        let number = |attempt| {
            u64::from(word(2 * attempt)) << 32 | u64::from(word(2 * attempt + 1))
        };
        for attempt in 0..ATTEMPTS {
            let item = match self.draw.weights {
                None => match below(word(attempt), self.draw.num_items as u32) {
                    Some(item) => item as i32,
                    None => continue,
                },
                Some(table) => table.item(number(attempt)),
            };
            if !row.contains(item) {
                return Ok(item);
            }
        }
        // A user with nearly everything: given that all attempts failed, any exact way will do.
        match self.draw.weights {
            None => {
                let count = self.draw.num_items - row.items().len();
                if count == 0 {
                    return Err(self.nothing_to_draw(user, ""));
                }
                let rank = (ATTEMPTS..).find_map(|attempt| below(word(attempt), count as u32));
                Ok(row.negative(rank.expect("an attempt of 2^32 succeeds") as i32))
            }
            Some(table) => table
                .item_outside(row.items(), number(ATTEMPTS))
                .ok_or_else(|| self.nothing_to_draw(user, " of a weight above 0")),
        }
    }

    #[cold]
    fn no_such_user(&self, place: usize, user: i32) -> Error {
        let (position, rows) = (self.first_user + place, self.positives.num_rows());
        Error::Argument(format!(
            "users[{position}] is {user}, but positives has {rows} rows"
        ))
    }

    #[cold]
    fn nothing_to_draw(&self, user: i32, which: &str) -> Error {
        let num_items = self.draw.num_items;
        Error::Argument(format!(
            "user {user} has all {num_items} items{which}, so there is no negative to draw; leave this user out"
        ))
    }
}

#[cfg(test)]
mod tests;
