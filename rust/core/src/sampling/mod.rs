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
/// beyond `num_items`, weights of another number of items, or no items; among several users the first.
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
    if num_items == 0 && !users.is_empty() && draw.num_negatives > 0 {
        return Err(Error::Argument("there are 0 items to draw from".into()));
    }
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
    share(
        parts,
        |buffers: &mut Buffers, (chunk, (negatives, users))| {
            cancel.check()?;
            let part = Part {
                first_user: chunk * rows,
                users,
                positives,
                filter,
                draw,
            };
            fill(level, &part, buffers, negatives)
        },
    )?;
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
    /// 1 for each draw that has to be looked at again.
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
        match self.draw.weights {
            None => {
                let bound = self.draw.num_items as u32;
                for (negative, &word) in negatives.iter_mut().zip(&buffers.words) {
                    *negative = below(word, bound).map_or(-1, |item| item as i32);
                }
            }
            Some(table) => table.items_of_halves::<WIDE>(&buffers.words[..count], negatives),
        }
        let num_rows = self.positives.num_rows();
        if let Some(place) = self
            .users
            .iter()
            .position(|&user| user as usize >= num_rows)
        {
            return Err(self.no_such_user(place));
        }
        // First without a jump that depends on the filter: a wrong guess would wait for its word to come from
        // memory, one in twenty times.
        match self.draw.num_negatives {
            1 => self.doubt::<WIDE>(1, negatives, &mut buffers.doubtful), // a constant makes for less work
            width => self.doubt::<WIDE>(width, negatives, &mut buffers.doubtful),
        }
        for (place, eight) in buffers.doubtful.as_chunks::<8>().0.iter().enumerate() {
            let mut eight = u64::from_le_bytes(*eight);
            while eight != 0 {
                let at = place * 8 + eight.trailing_zeros() as usize / 8;
                eight &= eight - 1;
                let user = self.users[at / self.draw.num_negatives];
                let row = Row::new(self.positives, user as usize);
                if negatives[at] < 0 || row.contains(negatives[at]) {
                    negatives[at] = self.settle(row, user, first + at)?;
                }
            }
        }
        Ok(())
    }

    /// 1 for each draw that is -1 or a positive, and for few others; else 0, up to a multiple of eight.
    #[inline(always)]
    fn doubt<const WIDE: bool>(&self, width: usize, drawn: &[i32], doubtful: &mut Vec<u8>) {
        doubtful.clear();
        doubtful.resize(drawn.len().next_multiple_of(8), 0);
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if WIDE && width == 1 {
            let eights = self
                .users
                .as_chunks::<8>()
                .0
                .iter()
                .zip(drawn.as_chunks::<8>().0);
            done = 8 * eights.len();
            for ((users, items), doubtful) in eights.zip(doubtful.as_chunks_mut().0) {
                // SAFETY: `fill` has checked the users, and this is compiled for the widest level alone.
                *doubtful = unsafe { self.positives.eight_may_contain(self.filter, users, items) };
            }
        }
        for place in done..self.users.len() {
            if let Some(&later) = self.users.get(place + AHEAD) {
                self.positives.prefetch_filter(self.filter, later as usize);
            }
            let filtered = self
                .positives
                .filtered(self.filter, self.users[place] as usize);
            let list = place * width..(place + 1) * width;
            for (doubtful, &item) in doubtful[list.clone()].iter_mut().zip(&drawn[list]) {
                *doubtful = u8::from((item < 0) | filtered.may_contain(item as u32));
            }
        }
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
        let number =
            |attempt| u64::from(word(2 * attempt)) << 32 | u64::from(word(2 * attempt + 1));
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
    fn no_such_user(&self, place: usize) -> Error {
        let (position, user) = (self.first_user + place, self.users[place]);
        let rows = self.positives.num_rows();
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
