//! Ranking metrics with binary relevance, and their evaluation over many lists.
//!
//! A metric is a function of `hits`, whether the item at each of the k ranks is relevant, and of `num_relevant > 0`,
//! the number of relevant items of the user.

use crate::csr::Csr;
use crate::threads::parallel_for_each;
use crate::{Cancel, Error, Result};

/// Lists per task.
const LISTS_PER_TASK: usize = 1024;

/// A ranking metric of one list.
pub type Metric = fn(hits: &[bool], num_relevant: usize) -> f64;

/// All metrics with their names.
pub const METRICS: [(&str, Metric); 6] = [
    ("recall", recall),
    ("precision", precision),
    ("hit_rate", hit_rate),
    ("ndcg", ndcg),
    ("mrr", mrr),
    ("map", map),
];

/// The metric of a name.
///
/// # Errors
/// [`Error::Argument`] for an unknown name; the message lists the known ones.
pub fn by_name(name: &str) -> Result<Metric> {
    let found = METRICS.iter().find(|(known, _)| *known == name);
    found.map(|(_, metric)| *metric).ok_or_else(|| {
        let known: Vec<&str> = METRICS.iter().map(|(known, _)| *known).collect();
        Error::Argument(format!(
            "no metric {name:?}; there are {}",
            known.join(", ")
        ))
    })
}

/// Recall@k: fraction of the relevant items that are in the list.
pub fn recall(hits: &[bool], num_relevant: usize) -> f64 {
    count(hits) / num_relevant as f64
}

/// Precision@k: number of hits divided by k, also for a list of fewer than k items.
pub fn precision(hits: &[bool], _num_relevant: usize) -> f64 {
    count(hits) / hits.len() as f64
}

/// Hit rate@k: 1 if any item of the list is relevant, else 0.
pub fn hit_rate(hits: &[bool], _num_relevant: usize) -> f64 {
    f64::from(u8::from(hits.contains(&true)))
}

/// NDCG@k: Σ 1/log2(rank + 1) over the hits, divided by the same sum for an ideal list of length k.
pub fn ndcg(hits: &[bool], num_relevant: usize) -> f64 {
    let discount = |position: usize| 1.0 / (position as f64 + 2.0).log2();
    let gain: f64 = hit_positions(hits).map(discount).sum();
    let ideal: f64 = (0..num_relevant.min(hits.len())).map(discount).sum();
    gain / ideal
}

/// Reciprocal rank@k, whose mean is MRR: 1/rank of the first hit, 0 without hits.
pub fn mrr(hits: &[bool], _num_relevant: usize) -> f64 {
    hit_positions(hits)
        .next()
        .map_or(0.0, |position| 1.0 / (position as f64 + 1.0))
}

/// Average precision@k, whose mean is MAP: Σ precision@rank over the hits, divided by min(`num_relevant`, k).
pub fn map(hits: &[bool], num_relevant: usize) -> f64 {
    let precisions = hit_positions(hits).zip(1..);
    let sum: f64 = precisions
        .map(|(position, hits)| f64::from(hits) / (position as f64 + 1.0))
        .sum();
    sum / num_relevant.min(hits.len()) as f64
}

fn count(hits: &[bool]) -> f64 {
    hits.iter().filter(|hit| **hit).count() as f64
}

fn hit_positions(hits: &[bool]) -> impl Iterator<Item = usize> {
    hits.iter()
        .enumerate()
        .filter(|(_, hit)| **hit)
        .map(|(position, _)| position)
}

/// Evaluates `requests` (metric, cutoff k) on each list; returns `[lists, requests]`, row-major.
///
/// `lists` is `[rows of relevant, width]`, best first, padded at the end with -1. The metrics of a user without
/// relevant items are NaN.
///
/// # Errors
/// [`Error::Argument`] for a cutoff of 0 or beyond the width of the lists, for an index below -1, an item
/// after the padding, or an item that occurs twice in a list.
pub fn evaluate(
    lists: &[i32],
    width: usize,
    relevant: &Csr,
    requests: &[(Metric, usize)],
    cancel: &Cancel,
) -> Result<Vec<f64>> {
    if relevant.num_rows().checked_mul(width) != Some(lists.len()) {
        return Err(Error::Argument(format!(
            "{} entries are not {} lists of {width} items, one for each row of relevant",
            lists.len(),
            relevant.num_rows()
        )));
    }
    if let Some((_, k)) = requests.iter().find(|(_, k)| *k == 0 || *k > width) {
        return Err(Error::Argument(format!(
            "cutoff {k} is outside 1 to {width}, the length of the lists"
        )));
    }
    let mut values = vec![f64::NAN; relevant.num_rows() * requests.len()];
    if values.is_empty() {
        return Ok(values);
    }
    let tasks = values
        .chunks_mut(LISTS_PER_TASK * requests.len())
        .enumerate();
    parallel_for_each(
        tasks,
        |(hits, sorted): &mut (Vec<bool>, Vec<i32>), (task, values)| {
            cancel.check()?;
            for (offset, values) in values.chunks_exact_mut(requests.len()).enumerate() {
                let row = task * LISTS_PER_TASK + offset;
                let list = &lists[row * width..][..width];
                check_list(row, list, sorted)?;
                let relevant = relevant.row(row);
                if relevant.is_empty() {
                    continue;
                }
                hits.clear();
                hits.extend(list.iter().map(|item| relevant.binary_search(item).is_ok()));
                for (value, (metric, k)) in values.iter_mut().zip(requests) {
                    *value = metric(&hits[..*k], relevant.len());
                }
            }
            Ok(())
        },
    )?;
    Ok(values)
}

/// Checks that a list has distinct items of at least 0 and padding at its end only.
fn check_list(row: usize, list: &[i32], sorted: &mut Vec<i32>) -> Result<()> {
    let invalid = |message: String| Err(Error::Argument(format!("list {row} {message}")));
    let length = list
        .iter()
        .position(|&item| item == -1)
        .unwrap_or(list.len());
    if let Some(item) = list[length..].iter().find(|item| **item != -1) {
        return invalid(format!("holds {item} after its padding of -1"));
    }
    sorted.clear();
    sorted.extend_from_slice(&list[..length]);
    sorted.sort_unstable();
    if let Some(&item) = sorted.first()
        && item < 0
    {
        return invalid(format!("holds the negative index {item}"));
    }
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => invalid(format!("holds item {} twice", pair[0])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hits at ranks 1 and 3 of 4, three relevant items.
    const HITS: [bool; 4] = [true, false, true, false];

    fn assert_close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn values_computed_by_hand() {
        assert_close(recall(&HITS, 3), 2.0 / 3.0);
        assert_close(precision(&HITS, 3), 2.0 / 4.0);
        assert_close(hit_rate(&HITS, 3), 1.0);
        assert_close(mrr(&HITS[1..], 3), 1.0 / 2.0);
        assert_close(map(&HITS, 3), (1.0 / 1.0 + 2.0 / 3.0) / 3.0);
        // DCG 1/log2(2) + 1/log2(4) = 1.5; the ideal list has its three hits at ranks 1, 2, 3.
        assert_close(ndcg(&HITS, 3), 1.5 / (1.0 + 1.0 / 3f64.log2() + 0.5));
    }

    #[test]
    fn no_hit_gives_zero_and_a_perfect_list_one() {
        for (name, metric) in METRICS {
            assert_close(metric(&[false; 3], 2), 0.0);
            if name != "recall" {
                assert_close(metric(&[true; 3], 5), 1.0);
            }
        }
        assert_close(recall(&[true; 3], 5), 3.0 / 5.0);
    }

    #[test]
    fn invalid_lists_are_refused() {
        let relevant = Csr::new(vec![0, 1], vec![2]).unwrap();
        let run = |list: &[i32], k| evaluate(list, 3, &relevant, &[(recall, k)], &Cancel::new());
        assert_eq!(run(&[0, 2, -1], 3).unwrap(), [1.0]);
        for (list, k, message) in [
            (&[0, 1, 2], 4, "cutoff 4"),
            (&[0, 1, 2], 0, "cutoff 0"),
            (&[0, -1, 2], 3, "list 0 holds 2 after its padding"),
            (&[2, 1, 2], 3, "list 0 holds item 2 twice"),
            (&[2, 1, -2], 3, "list 0 holds the negative index -2"),
        ] {
            let error = run(list, k).unwrap_err().to_string();
            assert!(error.contains(message), "{error} lacks {message:?}");
        }
        // Four rows of this width overflow to no entry at all.
        let relevant = Csr::new(vec![0; 5], vec![]).unwrap();
        let width = 1 << (usize::BITS - 2);
        assert!(evaluate(&[], width, &relevant, &[(recall, 1)], &Cancel::new()).is_err());
    }
}
