//! Ranking metrics of one list, and their evaluation over many lists.
//!
//! A metric sees `hits`, one flag for each of the k positions of a list, and `num_relevant > 0`, the number
//! of relevant items of its user. Relevance is binary.

use crate::csr::Csr;
use crate::threads::share;
use crate::{Cancel, Error, Result};

/// Lists that one task evaluates.
const CHUNK: usize = 1024;

/// A metric of one list.
pub type Metric = fn(hits: &[bool], num_relevant: usize) -> f64;

/// Each metric by its name.
pub const METRICS: [(&str, Metric); 6] = [
    ("recall", recall),
    ("precision", precision),
    ("hit_rate", hit_rate),
    ("ndcg", ndcg),
    ("mrr", mrr),
    ("map", map),
];

/// The metric of this name.
///
/// # Errors
/// [`Error::Argument`] that lists the names there are.
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

/// Share of the relevant items that the list holds.
pub fn recall(hits: &[bool], num_relevant: usize) -> f64 {
    count(hits) / num_relevant as f64
}

/// Share of the k positions that hold a relevant item; k counts in full, even where the list is shorter.
pub fn precision(hits: &[bool], _num_relevant: usize) -> f64 {
    count(hits) / hits.len() as f64
}

/// 1 if the list holds any relevant item, else 0.
pub fn hit_rate(hits: &[bool], _num_relevant: usize) -> f64 {
    f64::from(u8::from(hits.contains(&true)))
}

/// Σ 1/log2(rank + 1) over the hits, divided by the same sum of the best list of k positions.
pub fn ndcg(hits: &[bool], num_relevant: usize) -> f64 {
    let discount = |position: usize| 1.0 / (position as f64 + 2.0).log2();
    let gain: f64 = hit_positions(hits).map(discount).sum();
    let ideal: f64 = (0..num_relevant.min(hits.len())).map(discount).sum();
    gain / ideal
}

/// 1/rank of the first hit, 0 without one.
pub fn mrr(hits: &[bool], _num_relevant: usize) -> f64 {
    hit_positions(hits)
        .next()
        .map_or(0.0, |position| 1.0 / (position as f64 + 1.0))
}

/// Precision at the rank of each hit, summed, divided by the most hits that k positions can hold.
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

/// Evaluates `requests` (metric, cutoff k) for each list: `[lists, requests]`, row by row.
///
/// `lists` is `[rows of relevant, width]`, best first, padded at the end with -1. A user without relevant
/// items gets NaN for every metric.
///
/// # Errors
/// [`Error::Argument`] for a cutoff of 0 or beyond the width of the lists, for an index below -1, an item
/// behind the padding, or an item that occurs twice in a list.
pub fn evaluate(
    lists: &[i32],
    width: usize,
    relevant: &Csr,
    requests: &[(Metric, usize)],
    cancel: &Cancel,
) -> Result<Vec<f64>> {
    if lists.len() != relevant.num_rows() * width {
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
    let chunks = values.chunks_mut(CHUNK * requests.len()).enumerate();
    share(
        chunks,
        |(hits, sorted): &mut (Vec<bool>, Vec<i32>), (chunk, values)| {
            cancel.check()?;
            for (offset, values) in values.chunks_exact_mut(requests.len()).enumerate() {
                let row = chunk * CHUNK + offset;
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

/// Refuses what would count a hit twice or miscount a position.
fn check_list(row: usize, list: &[i32], sorted: &mut Vec<i32>) -> Result<()> {
    let wrong = |message: String| Err(Error::Argument(format!("list {row} {message}")));
    let length = list
        .iter()
        .position(|&item| item == -1)
        .unwrap_or(list.len());
    if let Some(item) = list[length..].iter().find(|item| **item != -1) {
        return wrong(format!("holds {item} behind its padding of -1"));
    }
    sorted.clear();
    sorted.extend_from_slice(&list[..length]);
    sorted.sort_unstable();
    if let Some(&item) = sorted.first()
        && item < 0
    {
        return wrong(format!("holds the negative index {item}"));
    }
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => wrong(format!("holds item {} twice", pair[0])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hits at ranks 1 and 3 of 4, three relevant items.
    const HITS: [bool; 4] = [true, false, true, false];

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn hand_worked_values() {
        close(recall(&HITS, 3), 2.0 / 3.0);
        close(precision(&HITS, 3), 2.0 / 4.0);
        close(hit_rate(&HITS, 3), 1.0);
        close(mrr(&HITS[1..], 3), 1.0 / 2.0);
        close(map(&HITS, 3), (1.0 / 1.0 + 2.0 / 3.0) / 3.0);
        // Gain 1/log2(2) + 1/log2(4) = 1.5; the best list has its three at ranks 1, 2, 3.
        close(ndcg(&HITS, 3), 1.5 / (1.0 + 1.0 / 3f64.log2() + 0.5));
    }

    #[test]
    fn no_hit_is_zero_and_a_perfect_list_one() {
        for (name, metric) in METRICS {
            close(metric(&[false; 3], 2), 0.0);
            if name != "recall" {
                close(metric(&[true; 3], 5), 1.0);
            }
        }
        close(recall(&[true; 3], 5), 3.0 / 5.0);
    }

    #[test]
    fn lists_are_checked() {
        let relevant = Csr::new(vec![0, 1], vec![2]).unwrap();
        let run = |list: &[i32], k| evaluate(list, 3, &relevant, &[(recall, k)], &Cancel::new());
        assert_eq!(run(&[0, 2, -1], 3).unwrap(), [1.0]);
        for (list, k, message) in [
            (&[0, 1, 2], 4, "cutoff 4"),
            (&[0, 1, 2], 0, "cutoff 0"),
            (&[0, -1, 2], 3, "list 0 holds 2 behind its padding"),
            (&[2, 1, 2], 3, "list 0 holds item 2 twice"),
            (&[2, 1, -2], 3, "list 0 holds the negative index -2"),
        ] {
            let error = run(list, k).unwrap_err().to_string();
            assert!(error.contains(message), "{error} lacks {message:?}");
        }
    }
}
