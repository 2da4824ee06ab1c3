//! Negative sampling: items outside the positives of a user, drawn uniformly or in proportion to weights.

mod alias;
mod row;

use crate::cpu::{Level, dispatch};
use crate::csr::Csr;
use crate::memory::filled;
use crate::random::{U32S_PER_BLOCK, below, block_u32s};
use crate::threads::parallel_for_each;
use crate::{Cancel, Error, Result};
pub use alias::AliasTable;
use row::UserPositives;

/// Negatives per task: few enough that its random numbers stay in the L1 cache.
const NEGATIVES_PER_TASK: usize = 1 << 12;
/// How many users ahead filters are prefetched; users are shuffled, so their filters are scattered in memory.
const PREFETCH_DISTANCE: usize = 16;
/// Largest number of negatives per user; a task of one thread holds those of 16 users.
pub const MAX_NEGATIVES: usize = 1 << 20;
/// Rejected attempts after which a negative is drawn directly.
const MAX_ATTEMPTS: u32 = 64;

/// Parameters of a draw of negatives.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Number of items; all positives are below it.
    pub num_items: usize,
    /// Negatives per entry of `users`, drawn with replacement; at most [`MAX_NEGATIVES`].
    pub num_negatives: usize,
    /// Weights of the items, to which their probabilities are proportional; `None`: uniform.
    pub weights: Option<&'a AliasTable>,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the draw, such as the epoch: each has its own random sequence.
    pub draw: u32,
}

/// Draws negatives `[users, num_negatives]` from the items outside each user's row of `positives`.
///
/// A negative is a function of seed, draw, position, weights and the positives of its user, so the result
/// does not depend on the number of threads.
///
/// # Errors
/// [`Error::Argument`] for a user without a row in `positives`, a user whose positives include every item
/// (with a weight above 0), positives of `num_items` or more, a number of weights other than `num_items`, no
/// items, or more negatives than [`MAX_NEGATIVES`] or than fit into memory. With several invalid users, the first is named.
pub fn sample_negatives(
    users: &[i32],
    positives: &Csr,
    draw: Draw,
    cancel: &Cancel,
) -> Result<Vec<i32>> {
    sample_at_level(Level::best(), users, positives, draw, cancel)
}

fn sample_at_level(
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
    if draw.num_negatives > MAX_NEGATIVES {
        return Err(Error::Argument(format!(
            "`num_negatives`: {}, expected 0 to {MAX_NEGATIVES}",
            draw.num_negatives
        )));
    }
    positives.check_shape("positives", None, num_items)?;
    if num_items == 0 && !users.is_empty() && draw.num_negatives > 0 {
        return Err(Error::Argument("there are 0 items to draw from".into()));
    }
    if let Some(weights) = draw.weights
        && weights.len() != num_items
    {
        let found = weights.len();
        return Err(Error::Argument(format!(
            "weights has {found} entries, but there are {num_items} items"
        )));
    }
    let filter = positives.filter();
    let mut negatives = filled(0, users.len(), draw.num_negatives, "num_negatives")?;
    // Whole blocks of random numbers per task, and at least one user.
    let rows = (NEGATIVES_PER_TASK / draw.num_negatives.max(1)).max(1);
    let rows = rows.next_multiple_of(U32S_PER_BLOCK);
    let tasks = negatives
        .chunks_mut((rows * draw.num_negatives).max(1))
        .zip(users.chunks(rows))
        .enumerate();
    parallel_for_each(
        tasks,
        |buffers: &mut Buffers, (chunk, (negatives, users))| {
            cancel.check()?;
            let task = Task {
                first_user: chunk * rows,
                users,
                positives,
                filter,
                draw,
            };
            fill(level, &task, buffers, negatives)
        },
    )?;
    Ok(negatives)
}

/// The users of one task.
struct Task<'a> {
    first_user: usize,
    users: &'a [i32],
    positives: &'a Csr,
    filter: &'a [u64],
    draw: Draw<'a>,
}

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    numbers: Vec<u32>,
    /// 1 for each negative that must be checked exactly, else 0.
    flags: Vec<u8>,
}

fn fill(level: Level, task: &Task, buffers: &mut Buffers, negatives: &mut [i32]) -> Result<()> {
    dispatch!(level, (
        task: &Task = task,
        buffers: &mut Buffers = buffers,
        negatives: &mut [i32] = negatives,
    ) -> Result<()> {
        portable: task.fill::<false>(buffers, negatives),
        avx2: task.fill::<false>(buffers, negatives),
        avx512: task.fill::<true>(buffers, negatives),
    })
}

impl Task<'_> {
    #[inline(always)]
    fn fill<const AVX512: bool>(&self, buffers: &mut Buffers, negatives: &mut [i32]) -> Result<()> {
        let Draw { seed, draw, .. } = self.draw;
        let first = self.first_user * self.draw.num_negatives;
        let count = negatives.len();
        buffers
            .numbers
            .resize(count.next_multiple_of(U32S_PER_BLOCK), 0);
        let blocks = buffers
            .numbers
            .as_chunks_mut::<U32S_PER_BLOCK>()
            .0
            .iter_mut();
        for (index, block) in blocks.enumerate() {
            *block = block_u32s(seed, draw, (first / U32S_PER_BLOCK + index) as u64, 0);
        }
        match self.draw.weights {
            None => {
                let bound = self.draw.num_items as u32;
                for (negative, &word) in negatives.iter_mut().zip(&buffers.numbers) {
                    *negative = below(word, bound).map_or(-1, |item| item as i32);
                }
            }
            Some(table) => {
                table.items_from_upper_halves::<AVX512>(&buffers.numbers[..count], negatives)
            }
        }
        let num_rows = self.positives.num_rows();
        if let Some(index) = self
            .users
            .iter()
            .position(|&user| user as usize >= num_rows)
        {
            return Err(self.user_error(index));
        }
        // First without a branch on the filter: a misprediction, one in twenty times, would wait for a cache
        // miss.
        match self.draw.num_negatives {
            1 => self.flag_positives::<AVX512>(1, negatives, &mut buffers.flags), // a constant width is faster
            width => self.flag_positives::<AVX512>(width, negatives, &mut buffers.flags),
        }
        for (index, eight) in buffers.flags.as_chunks::<8>().0.iter().enumerate() {
            let mut eight = u64::from_le_bytes(*eight);
            while eight != 0 {
                let position = index * 8 + eight.trailing_zeros() as usize / 8;
                eight &= eight - 1;
                let user = self.users[position / self.draw.num_negatives];
                let row = UserPositives::new(self.positives, user as usize);
                if negatives[position] < 0 || row.contains(negatives[position]) {
                    negatives[position] = self.redraw(row, user, first + position)?;
                }
            }
        }
        Ok(())
    }

    /// Sets `flags` to 1 for each negative that is -1 or a positive, and for a few others (false positives of
    /// the filter), else to 0; their length is rounded up to a multiple of eight.
    #[inline(always)]
    fn flag_positives<const AVX512: bool>(&self, width: usize, drawn: &[i32], flags: &mut Vec<u8>) {
        flags.clear();
        flags.resize(drawn.len().next_multiple_of(8), 0);
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if AVX512 && width == 1 {
            let eights = self
                .users
                .as_chunks::<8>()
                .0
                .iter()
                .zip(drawn.as_chunks::<8>().0);
            done = 8 * eights.len();
            for ((users, items), flags) in eights.zip(flags.as_chunks_mut().0) {
                // SAFETY: `fill` has checked the users, and `AVX512` is set only where the processor supports
                // it.
                *flags = unsafe { self.positives.may_contain_x8(self.filter, users, items) };
            }
        }
        for index in done..self.users.len() {
            if let Some(&later) = self.users.get(index + PREFETCH_DISTANCE) {
                self.positives.prefetch_filter(self.filter, later as usize);
            }
            let row_filter = self
                .positives
                .row_filter(self.filter, self.users[index] as usize);
            let list = index * width..(index + 1) * width;
            for (flags, &item) in flags[list.clone()].iter_mut().zip(&drawn[list]) {
                *flags = u8::from((item < 0) | row_filter.may_contain(item as u32));
            }
        }
    }

    /// The negative at a position whose first attempt was rejected or needs a second random number.
    #[cold]
    fn redraw(&self, row: UserPositives, user: i32, position: usize) -> Result<i32> {
        let Draw { seed, draw, .. } = self.draw;
        let u32_of = |attempt| {
            let index = (position / U32S_PER_BLOCK) as u64;
            block_u32s(seed, draw, index, attempt)[position % U32S_PER_BLOCK]
        };
        // The upper half of the first number is the random number of the first attempt.
        let u64_of =
            |attempt| u64::from(u32_of(2 * attempt)) << 32 | u64::from(u32_of(2 * attempt + 1));
        for attempt in 0..MAX_ATTEMPTS {
            let item = match self.draw.weights {
                None => match below(u32_of(attempt), self.draw.num_items as u32) {
                    Some(item) => item as i32,
                    None => continue,
                },
                Some(table) => table.item(u64_of(attempt)),
            };
            if !row.contains(item) {
                return Ok(item);
            }
        }
        // Almost all items are positives: draw from the remaining ones directly, with the same probabilities.
        match self.draw.weights {
            None => {
                let count = self.draw.num_items - row.items().len();
                if count == 0 {
                    return Err(self.no_negatives_error(user, ""));
                }
                let rank =
                    (MAX_ATTEMPTS..).find_map(|attempt| below(u32_of(attempt), count as u32));
                Ok(row
                    .nth_negative(rank.expect("a number is accepted within 2^32 attempts") as i32))
            }
            Some(table) => table
                .draw_excluding(row.items(), u64_of(MAX_ATTEMPTS))
                .ok_or_else(|| self.no_negatives_error(user, " with a weight above 0")),
        }
    }

    #[cold]
    fn user_error(&self, index: usize) -> Error {
        let (position, user) = (self.first_user + index, self.users[index]);
        let rows = self.positives.num_rows();
        Error::Argument(format!(
            "users[{position}] is {user}, but positives has {rows} rows"
        ))
    }

    #[cold]
    fn no_negatives_error(&self, user: i32, condition: &str) -> Error {
        let num_items = self.draw.num_items;
        Error::Argument(format!(
            "user {user} has all {num_items} items{condition}, so there is no negative to draw; leave this user out"
        ))
    }
}

#[cfg(test)]
mod tests;
