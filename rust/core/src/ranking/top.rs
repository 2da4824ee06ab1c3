//! The best k of a stream of scores.

use super::kernel::{LANES, Strip};

/// Keeps the k best (score, item) pairs offered so far, and some that may still turn out among them.
#[derive(Debug, Default)]
pub struct Top {
    k: usize,
    /// One [`key`] a pair, the best k of those offered among them.
    keys: Vec<u64>,
    /// What the score of a larger item has to exceed to enter; NaN until k candidates are known.
    pub bar: f32,
}

impl Top {
    /// Starts over with an empty list of `k`.
    pub fn clear(&mut self, k: usize) {
        self.k = k;
        self.keys.clear();
        self.bar = if k == 0 { f32::INFINITY } else { f32::NAN };
    }

    /// Offers those of the items `first..`, larger than all before, whose bit in `enters` is set; NaN marks
    /// one that is no candidate.
    #[inline(always)]
    pub fn offer(&mut self, first: usize, scores: &Strip, mut enters: u32) {
        self.make_room();
        while enters != 0 {
            let lane = enters.trailing_zeros() as usize;
            enters &= enters - 1;
            let score = scores.0[lane];
            if !score.is_nan() {
                self.push(score, (first + lane) as i32);
            }
        }
    }

    /// Adds one candidate; [`make_room`](Self::make_room) comes before each strip of them.
    #[inline(always)]
    pub fn push(&mut self, score: f32, item: i32) {
        self.keys.push(key(score, item));
    }

    /// Makes room for a strip: as much again as the list makes a selection rare, and 64 keep it rare for small k.
    #[inline(always)]
    pub fn make_room(&mut self) {
        if self.keys.len() > self.k + self.k.max(64) - LANES {
            self.select();
        }
    }

    #[inline(never)]
    fn select(&mut self) {
        let (_, &mut worst, _) = self.keys.select_nth_unstable(self.k - 1);
        self.bar = score_of(worst);
        self.keys.truncate(self.k);
    }

    /// Writes the list, best first; positions beyond the candidates get item -1 and score -inf.
    pub fn write(&mut self, items: &mut [i32], scores: &mut [f32]) {
        self.keys.sort_unstable();
        items.fill(-1);
        scores.fill(f32::NEG_INFINITY);
        for ((item, score), &key) in items.iter_mut().zip(scores).zip(&self.keys) {
            (*score, *item) = (score_of(key), key as u32 as i32);
        }
    }
}

/// A number that is smaller for a better pair: a higher score, or an equal score and a smaller item.
#[inline(always)]
fn key(score: f32, item: i32) -> u64 {
    let bits = (score + 0.0).to_bits(); // -0 becomes 0, which it ties with
    // Numbers order like their bits, negative ones the other way round.
    let ascending = bits ^ ((bits as i32 >> 31) as u32 | 1 << 31);
    u64::from(!ascending) << 32 | u64::from(item as u32)
}

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

            let mut top = Top::default();
            top.clear(k as usize);
            for (index, scores) in scores.chunks(LANES).enumerate() {
                let mut strip = Strip([f32::NAN; LANES]);
                strip.0[..scores.len()].copy_from_slice(scores);
                let bar = top.bar;
                let enters = (0..LANES).fold(0, |mask, lane| {
                    mask | u32::from(!(strip.0[lane] <= bar)) << lane
                });
                top.offer(index * LANES, &strip, enters);
            }
            let (mut items, mut found) = (vec![0; k as usize], vec![0.0; k as usize]);
            top.write(&mut items, &mut found);
            let found: Vec<(f32, i32)> = found.into_iter().zip(items).collect();
            assert_eq!(found, expected, "case {case}");
        }
    }
}
