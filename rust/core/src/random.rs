//! A counter-based generator: a number depends on where it is used, never on which thread used it.

/// Philox2x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
pub fn philox(counter: [u64; 2], key: u64) -> [u64; 2] {
    const MULTIPLIER: u64 = 0xd2b7_4407_b1ce_6e93;
    const WEYL: u64 = 0x9e37_79b9_7f4a_7c15;
    let ([mut left, mut right], mut key) = (counter, key);
    for _ in 0..10 {
        let product = u128::from(left) * u128::from(MULTIPLIER);
        left = (product >> 64) as u64 ^ key ^ right;
        right = product as u64;
        key = key.wrapping_add(WEYL);
    }
    [left, right]
}

/// One stream of numbers for a (seed, draw); consecutive positions share a block of the generator.
#[derive(Debug, Clone)]
pub struct Stream {
    seed: u64,
    draw: u32,
    position: u64,
    odd_word: u64,
}

impl Stream {
    /// The stream of this seed and draw, from `position` on.
    pub fn new(seed: u64, draw: u32, position: u64) -> Self {
        let [_, odd_word] = block(seed, draw, position, 0);
        Self {
            seed,
            draw,
            position,
            odd_word,
        }
    }

    /// A number below `bound` for this position, each equally likely; goes on to the next position.
    ///
    /// Lemire, "Fast random integer generation in an interval", 2019. A word that would bias the result
    /// (fewer than one in 2^32 for any `bound` below 2^32) is replaced by the same position's next attempt.
    pub fn below(&mut self, bound: u32) -> u32 {
        let bound = u64::from(bound);
        let mut product = u128::from(self.word()) * u128::from(bound);
        if (product as u64) < bound {
            let biased = bound.wrapping_neg() % bound;
            let mut attempt = 0;
            while (product as u64) < biased {
                attempt += 1;
                let words = block(self.seed, self.draw, self.position, attempt);
                product = u128::from(words[(self.position % 2) as usize]) * u128::from(bound);
            }
        }
        self.position += 1;
        (product >> 64) as u32
    }

    fn word(&mut self) -> u64 {
        if self.position % 2 == 1 {
            return self.odd_word;
        }
        let [even_word, odd_word] = block(self.seed, self.draw, self.position, 0);
        self.odd_word = odd_word;
        even_word
    }
}

/// The two words of a pair of positions.
fn block(seed: u64, draw: u32, position: u64, attempt: u32) -> [u64; 2] {
    philox(
        [position / 2, u64::from(attempt) << 32 | u64::from(draw)],
        seed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        // kat_vectors of the authors' library Random123.
        assert_eq!(
            philox([0, 0], 0),
            [0xca00_a045_9843_d731, 0x66c2_4222_c9a8_45b5]
        );
        assert_eq!(
            philox([u64::MAX, u64::MAX], u64::MAX),
            [0x65b0_21d6_0cd8_310f, 0x4d02_f322_2f86_df20]
        );
        assert_eq!(
            philox(
                [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344],
                0xa409_3822_299f_31d0
            ),
            [0x0a5e_742c_2997_341c, 0xb0f8_83d3_8000_de5d]
        );
    }

    #[test]
    fn a_stream_may_start_anywhere() {
        let mut whole = Stream::new(7, 3, 0);
        let numbers: Vec<u32> = (0..100).map(|_| whole.below(1000)).collect();
        for start in 0..100 {
            let mut part = Stream::new(7, 3, start as u64);
            assert!(numbers[start..].iter().all(|&n| n == part.below(1000)));
        }
    }

    #[test]
    fn seeds_and_draws_differ() {
        let first = |seed, draw| {
            let mut stream = Stream::new(seed, draw, 0);
            (0..4).map(|_| stream.below(u32::MAX)).collect::<Vec<_>>()
        };
        assert_ne!(first(1, 0), first(2, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_eq!(first(1, 1), first(1, 1));
    }
}
