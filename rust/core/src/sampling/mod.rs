//! Negative sampling: items that a user has no interaction with, equally likely or by weight.

mod alias;
mod row;

use rayon::prelude::*;

use crate::cpu::{Level, dispatch};
use crate::csr::Csr;
use crate::random::{NUMBERS, WORDS, below, numbers, words};
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
    let outcomes: Vec<Result<()>> = negatives
        .par_chunks_mut((rows * draw.num_negatives).max(1))
        .zip(users.par_chunks(rows))
        .enumerate()
        .map(|(chunk, (negatives, users))| {
            cancel.check()?;
            let part = Part {
                first_user: chunk * rows,
                users,
                positives,
                filter,
                draw,
            };
            fill(level, &part, negatives)
        })
        .collect();
    outcomes.into_iter().collect::<Result<()>>()?;
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

fn fill(level: Level, part: &Part, negatives: &mut [i32]) -> Result<()> {
    dispatch!(level, (part: &Part = part, negatives: &mut [i32] = negatives) -> Result<()> {
        portable: part.fill(negatives),
        avx2: part.fill(negatives),
        avx512: part.fill(negatives),
    })
}

impl Part<'_> {
    #[inline(always)]
    fn fill(&self, negatives: &mut [i32]) -> Result<()> {
        match self.draw.weights {
            None => self.fill_equal(negatives),
            Some(table) => self.fill_weighted(table, negatives),
        }
    }

    #[inline(always)]
    fn fill_equal(&self, negatives: &mut [i32]) -> Result<()> {
        let Draw { seed, draw, .. } = self.draw;
        let width = self.draw.num_negatives;
        let first = self.first_user * width;
        let mut drawn = vec![0; negatives.len().next_multiple_of(WORDS)];
        for (index, block) in drawn.as_chunks_mut::<WORDS>().0.iter_mut().enumerate() {
            *block = words(seed, draw, (first / WORDS + index) as u64, 0);
        }
        let count = self.draw.num_items as u32;
        self.fill_each(negatives, &drawn, |word| below(word, count))
    }

    #[inline(always)]
    fn fill_weighted(&self, table: &AliasTable, negatives: &mut [i32]) -> Result<()> {
        let Draw { seed, draw, .. } = self.draw;
        let first = self.first_user * self.draw.num_negatives;
        let mut drawn = vec![0; negatives.len().next_multiple_of(NUMBERS)];
        for (index, block) in drawn.as_chunks_mut::<NUMBERS>().0.iter_mut().enumerate() {
            *block = numbers(seed, draw, (first / NUMBERS + index) as u64, 0);
        }
        self.fill_each(negatives, &drawn, |number| Some(table.item(number) as u32))
    }

    /// One negative for each drawn number, the first attempt of its position.
    #[inline(always)]
    fn fill_each<T: Copy>(
        &self,
        negatives: &mut [i32],
        drawn: &[T],
        item_of: impl Fn(T) -> Option<u32>,
    ) -> Result<()> {
        match self.draw.num_negatives {
            1 => self.fill_rows(1, negatives, drawn, item_of), // a constant makes for a third less work
            width => self.fill_rows(width, negatives, drawn, item_of),
        }
    }

    #[inline(always)]
    fn fill_rows<T: Copy>(
        &self,
        width: usize,
        negatives: &mut [i32],
        drawn: &[T],
        item_of: impl Fn(T) -> Option<u32>,
    ) -> Result<()> {
        // First without a jump that depends on the filter: a wrong guess would wait for its word to come from
        // memory, one in twenty times.
        let mut doubtful = vec![false; negatives.len()];
        let lists = negatives.chunks_exact_mut(width).zip(drawn.chunks(width));
        let lists = lists.zip(doubtful.chunks_exact_mut(width));
        for (place, (((negatives, drawn), doubtful), &user)) in lists.zip(self.users).enumerate() {
            if user as usize >= self.positives.num_rows() {
                return Err(self.no_such_user(place, user));
            }
            if let Some(&later) = self.users.get(place + AHEAD) {
                self.positives.prefetch_filter(self.filter, later as usize);
            }
            let filtered = self.positives.filtered(self.filter, user as usize);
            for ((negative, doubtful), &drawn) in negatives.iter_mut().zip(doubtful).zip(drawn) {
                let item = item_of(drawn);
                *negative = item.map_or(-1, |item| item as i32);
                *doubtful = item.is_none() | filtered.may_contain(item.unwrap_or(0));
            }
        }
        for (at, doubtful) in doubtful.into_iter().enumerate() {
            if doubtful {
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

    /// The negative of a position whose first attempt is a positive, or would bias the draw.
    #[cold]
    fn settle(&self, row: Row, user: i32, position: usize) -> Result<i32> {
        let Draw { seed, draw, .. } = self.draw;
        let number = |attempt| {
            let index = (position / NUMBERS) as u64;
            numbers(seed, draw, index, attempt)[position % NUMBERS]
        };
        let below = |attempt, bound| {
            let index = (position / WORDS) as u64;
            below(words(seed, draw, index, attempt)[position % WORDS], bound)
        };
        for attempt in 1..ATTEMPTS {
            let item = match self.draw.weights {
                None => match below(attempt, self.draw.num_items as u32) {
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
                let rank = (ATTEMPTS..).find_map(|attempt| below(attempt, count as u32));
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
