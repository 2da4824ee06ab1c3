//! Negative sampling: items that a user has no interaction with, each equally likely.

use rayon::prelude::*;

use crate::csr::Csr;
use crate::random::Stream;
use crate::{Cancel, Error, Result};

/// Negatives that one task draws: long enough to hide the cost of a task, short enough to stop at once.
const CHUNK: usize = 1 << 14;

/// Which negatives to draw.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// Number of items; positives lie below it.
    pub num_items: usize,
    /// Negatives of each entry of `users`, drawn with replacement.
    pub num_negatives: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the draw, such as the epoch: each has its own stream.
    pub draw: u32,
}

/// Draws negatives `[users, num_negatives]` uniformly from the items outside each user's row of `positives`.
///
/// The negative at a position depends on seed, draw, position and the user's positives alone, so any number
/// of threads gives the same result.
///
/// # Errors
/// [`Error::Argument`] for a user without a row, a user who has every item, or positives beyond `num_items`.
pub fn sample_negatives(
    users: &[i32],
    positives: &Csr,
    draw: Draw,
    cancel: &Cancel,
) -> Result<Vec<i32>> {
    let Draw {
        num_items,
        num_negatives,
        ..
    } = draw;
    if num_items > i32::MAX as usize {
        return Err(Error::Argument(format!(
            "{num_items} items do not fit into int32 indices"
        )));
    }
    positives.expect("positives", None, num_items)?;
    for (position, &user) in users.iter().enumerate() {
        if user < 0 || user as usize >= positives.num_rows() {
            let rows = positives.num_rows();
            return Err(Error::Argument(format!(
                "users[{position}] is {user}, but positives has {rows} rows"
            )));
        }
        if positives.row(user as usize).len() == num_items {
            return Err(Error::Argument(format!(
                "user {user} has all {num_items} items, so there is no negative to draw; leave this user out"
            )));
        }
    }
    let mut negatives = vec![0; users.len() * num_negatives];
    if negatives.is_empty() {
        return Ok(negatives);
    }
    let rows = (CHUNK / num_negatives).max(1);
    negatives
        .par_chunks_mut(rows * num_negatives)
        .zip(users.par_chunks(rows))
        .enumerate()
        .try_for_each(|(chunk, (negatives, users))| {
            cancel.check()?;
            let start = chunk * rows * num_negatives;
            let mut stream = Stream::new(draw.seed, draw.draw, start as u64);
            for (negatives, &user) in negatives.chunks_exact_mut(num_negatives).zip(users) {
                let positives = positives.row(user as usize);
                let count = (num_items - positives.len()) as u32;
                negatives.fill_with(|| negative(positives, stream.below(count) as i32));
            }
            Ok(())
        })?;
    Ok(negatives)
}

/// The item that has exactly `rank` items outside `positives` (sorted) before it, and is outside itself.
fn negative(positives: &[i32], rank: i32) -> i32 {
    // positives[j] has positives[j] - j negatives before it, which never decreases with j. A rank that
    // reaches that count lies behind positives[j] and is moved up by one for each such positive.
    let (mut low, mut high) = (0, positives.len());
    while low < high {
        let middle = (low + high) / 2;
        if positives[middle] - middle as i32 <= rank {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    rank + low as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_rows(num_users: usize, num_items: usize, seed: u64) -> Csr {
        let mut stream = Stream::new(seed, 0, 0);
        let (mut indptr, mut indices) = (vec![0], vec![]);
        for _ in 0..num_users {
            let density = stream.below(80);
            let row: Vec<i32> = (0..num_items as i32)
                .filter(|_| stream.below(100) < density)
                .collect();
            indices.extend(row);
            indptr.push(indices.len() as i64);
        }
        Csr::new(indptr, indices).unwrap()
    }

    fn draw(num_items: usize, num_negatives: usize) -> Draw {
        Draw {
            num_items,
            num_negatives,
            seed: 242,
            draw: 0,
        }
    }

    #[test]
    fn the_map_enumerates_the_negatives_in_order() {
        let rows = random_rows(200, 23, 1);
        for user in 0..rows.num_rows() {
            let row = rows.row(user);
            let expected: Vec<i32> = (0..23).filter(|item| !row.contains(item)).collect();
            let found: Vec<i32> = (0..23 - row.len() as i32)
                .map(|rank| negative(row, rank))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn threads_do_not_change_the_draw() {
        let rows = random_rows(50, 101, 2);
        let users: Vec<i32> = (0..30_000).map(|n| n % 50).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| sample_negatives(&users, &rows, draw(101, 3), &Cancel::new()))
                .unwrap()
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(8));
        for (negatives, &user) in one.chunks(3).zip(&users) {
            assert!(
                negatives
                    .iter()
                    .all(|n| !rows.row(user as usize).contains(n))
            );
        }
    }

    #[test]
    fn errors_name_the_user() {
        let rows = Csr::new(vec![0, 1, 4], vec![0, 0, 1, 2]).unwrap();
        let run =
            |users: &[i32], items| sample_negatives(users, &rows, draw(items, 1), &Cancel::new());
        let message = |result: Result<Vec<i32>>| result.unwrap_err().to_string();
        assert!(message(run(&[0, 1], 3)).contains("user 1 has all 3 items"));
        assert!(message(run(&[0, 2], 3)).contains("users[1] is 2"));
        assert!(message(run(&[-1], 3)).contains("users[0] is -1"));
        assert!(message(run(&[0], 2)).contains("positives holds index 2"));
        assert!(run(&[0, 0], 3).is_ok());
    }

    #[test]
    fn a_set_flag_stops_the_draw() {
        let rows = random_rows(1, 10, 3);
        let cancel = Cancel::new();
        cancel.set();
        let result = sample_negatives(&[0; 10], &rows, draw(11, 1), &cancel);
        assert!(matches!(result, Err(Error::Interrupted)));
    }
}
