//! Selection of the k best of a stream of scores.

use super::kernel::{LANES, Lanes};

/// The k best (score, item) pairs pushed so far, among others that have not been removed yet.
#[derive(Debug, Default)]
pub struct TopK {
    k: usize,
    /// The [`key`] of each kept pair, in no order.
    keys: Vec<u64>,
    /// Score that later candidates with larger items must exceed; NaN until k candidates have been selected.
    pub threshold: f32,
}

impl TopK {
    /// Removes all pairs and sets k.
    pub fn clear(&mut self, k: usize) {
        self.k = k;
        self.keys.clear();
        self.threshold = if k == 0 { f32::INFINITY } else { f32::NAN };
    }

    /// Pushes the items `first + lane` of the bits set in `mask`, which are larger than all earlier items,
    /// unless their score is NaN.
    #[inline(always)]
    pub fn push_lanes(&mut self, first: usize, scores: &Lanes, mut mask: u32) {
        self.make_room();
        while mask != 0 {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let score = scores.0[lane];
            if !score.is_nan() {
                self.push(score, (first + lane) as i32);
            }
        }
    }

    /// Pushes one pair; [`make_room`](Self::make_room) must be called before each panel.
    #[inline(always)]
    pub fn push(&mut self, score: f32, item: i32) {
        self.keys.push(key(score, item));
    }

    /// Selects the best k if the buffer cannot hold another panel. Its capacity of k + max(k, 64) makes
    /// selections rare.
    #[inline(always)]
    pub fn make_room(&mut self) {
        if self.keys.len() > self.k + self.k.max(64) - LANES {
            self.select();
        }
    }

    /// Removes all but the best k pairs, and raises the threshold.
    #[inline(never)]
    fn select(&mut self) {
        let (_, &mut worst, _) = self.keys.select_nth_unstable(self.k - 1);
        self.threshold = score_of(worst);
        self.keys.truncate(self.k);
    }

    /// Writes the pairs, best first; positions beyond the last pair get item -1 and score -inf.
    pub fn write_sorted(&mut self, items: &mut [i32], scores: &mut [f32]) {
        self.keys.sort_unstable();
        items.fill(-1);
        scores.fill(f32::NEG_INFINITY);
        for ((item, score), &key) in items.iter_mut().zip(scores).zip(&self.keys) {
            (*score, *item) = (score_of(key), key as u32 as i32);
        }
    }
}

/// A sort key of a pair: smaller for a higher score, and for a smaller item at equal scores.
#[inline(always)]
fn key(score: f32, item: i32) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0 becomes +0: they are equal scores
    // Floats order like their bits as integers, negative ones in reverse.
    let ascending = bits ^ ((bits as i32 >> 31) as u32 | 1 << 31);
    u64::from(!ascending) << 32 | u64::from(item as u32)
}

/// The score of a [`key`].
fn score_of(key: u64) -> f32 {
    let ascending = !(key >> 32) as u32;
    let mask = match ascending >> 31 {
        1 => 1 << 31,
        _ => u32::MAX,
    };
    f32::from_bits(ascending ^ mask)
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

            let mut top = TopK::default();
            top.clear(k as usize);
            for (index, scores) in scores.chunks(LANES).enumerate() {
                let mut lanes = Lanes([f32::NAN; LANES]);
                lanes.0[..scores.len()].copy_from_slice(scores);
                let threshold = top.threshold;
                let mask = (0..LANES).fold(0, |mask, lane| {
                    mask | u32::from(!(lanes.0[lane] <= threshold)) << lane
                });
                top.push_lanes(index * LANES, &lanes, mask);
            }
            let (mut items, mut found) = (vec![0; k as usize], vec![0.0; k as usize]);
            top.write_sorted(&mut items, &mut found);
            let found: Vec<(f32, i32)> = found.into_iter().zip(items).collect();
            assert_eq!(found, expected, "case {case}");
        }
    }
}
