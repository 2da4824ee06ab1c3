//! The best k of a stream of scores.

use std::cmp::Ordering;

/// Scores compared at a time against the score to beat.
const STRIP: usize = 32;

/// Keeps the k best (score, item) pairs offered so far, and some that may still turn out among them.
///
/// Items must be offered in increasing order: a later item never beats an equal score, so ties go to the
/// smaller item.
#[derive(Debug, Default)]
pub struct Top {
    k: usize,
    kept: Vec<(f32, i32)>,
    /// The k-th best score once known: what a later item has to exceed.
    bar: Option<f32>,
}

impl Top {
    /// Starts over with an empty list of `k`.
    pub fn clear(&mut self, k: usize) {
        self.k = k;
        self.kept.clear();
        self.bar = None;
    }

    /// Offers items `first..` with these scores; NaN marks an item that is no candidate.
    #[inline(always)]
    pub fn offer(&mut self, first: usize, scores: &[f32]) {
        if self.k == 0 {
            return;
        }
        for (strip, scores) in scores.chunks(STRIP).enumerate() {
            if let Some(bar) = self.bar
                && !scores.iter().fold(false, |any, &score| any | (score > bar))
            {
                continue;
            }
            self.offer_each(first + strip * STRIP, scores);
        }
    }

    #[inline(never)]
    fn offer_each(&mut self, first: usize, scores: &[f32]) {
        // Room for as many again makes a selection rare; at least a strip keeps it rare for small k.
        let capacity = self.k + self.k.max(STRIP);
        for (lane, &score) in scores.iter().enumerate() {
            let enters = self.bar.map_or(!score.is_nan(), |bar| score > bar);
            if enters {
                self.kept.push((score, (first + lane) as i32));
                if self.kept.len() == capacity {
                    self.select();
                }
            }
        }
    }

    fn select(&mut self) {
        let (_, worst, _) = self.kept.select_nth_unstable_by(self.k - 1, best_first);
        self.bar = Some(worst.0);
        self.kept.truncate(self.k);
    }

    /// Writes the list, best first; positions beyond the candidates get item -1 and score -inf.
    pub fn write(&mut self, items: &mut [i32], scores: &mut [f32]) {
        if self.kept.len() > self.k {
            self.select();
        }
        self.kept.sort_unstable_by(best_first);
        items.fill(-1);
        scores.fill(f32::NEG_INFINITY);
        for ((item, score), kept) in items.iter_mut().zip(scores).zip(&self.kept) {
            (*score, *item) = *kept;
        }
    }
}

fn best_first(a: &(f32, i32), b: &(f32, i32)) -> Ordering {
    let by_score = b.0.partial_cmp(&a.0).expect("kept scores are not NaN");
    by_score.then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn agrees_with_a_full_sort() {
        let mut stream = Stream::new(11, 0, 0);
        for case in 0..300 {
            let (length, k, levels) = (stream.below(300), stream.below(40), 1 + stream.below(50));
            let scores: Vec<f32> = (0..length)
                .map(|_| match stream.below(levels) as f32 {
                    1.0 => f32::NAN,
                    2.0 => f32::NEG_INFINITY,
                    score => score,
                })
                .collect();
            let mut expected: Vec<(f32, i32)> = scores.iter().copied().zip(0..).collect();
            expected.retain(|(score, _)| !score.is_nan());
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            expected.resize(k as usize, (f32::NEG_INFINITY, -1));

            let mut top = Top::default();
            top.clear(k as usize);
            let tile = 1 + stream.below(70) as usize;
            for (index, scores) in scores.chunks(tile).enumerate() {
                top.offer(index * tile, scores);
            }
            let (mut items, mut found) = (vec![0; k as usize], vec![0.0; k as usize]);
            top.write(&mut items, &mut found);
            let found: Vec<(f32, i32)> = found.into_iter().zip(items).collect();
            assert_eq!(found, expected, "case {case}");
        }
    }
}
