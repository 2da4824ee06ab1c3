//! A counter-based generator: a number depends on where it is used, never on which thread used it.

/// Philox2x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#[inline(always)]
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

/// Numbers of 64 bits a block.
pub const NUMBERS: usize = 2;

/// The numbers of block `index` of a (seed, draw). One that cannot be used is replaced by the one at the
/// same place of the block's next `attempt`.
#[inline(always)]
pub fn numbers(seed: u64, draw: u32, index: u64, attempt: u32) -> [u64; NUMBERS] {
    philox([index, u64::from(attempt) << 32 | u64::from(draw)], seed)
}

/// Words of 32 bits a block.
pub const WORDS: usize = 4;

/// The same block as words.
#[inline(always)]
pub fn words(seed: u64, draw: u32, index: u64, attempt: u32) -> [u32; WORDS] {
    let [left, right] = numbers(seed, draw, index, attempt);
    [
        left as u32,
        (left >> 32) as u32,
        right as u32,
        (right >> 32) as u32,
    ]
}

/// Maps a random word to a number below `bound`, each equally likely; `None` for one of the fewer than
/// `bound` words (of 2^32) that would make some numbers likelier.
///
/// Lemire, "Fast random integer generation in an interval", 2019.
#[inline(always)]
pub fn below(word: u32, bound: u32) -> Option<u32> {
    let product = u64::from(word) * u64::from(bound);
    let low = product as u32;
    if low < bound && low < bound.wrapping_neg() % bound {
        return None;
    }
    Some((product >> 32) as u32)
}

/// One stream of numbers for a (seed, draw), for those who need them one after the other.
#[derive(Debug, Clone)]
pub struct Stream {
    seed: u64,
    draw: u32,
    position: u64,
}

impl Stream {
    /// The stream of this seed and draw, from `position` on.
    pub fn new(seed: u64, draw: u32, position: u64) -> Self {
        Self {
            seed,
            draw,
            position,
        }
    }

    /// A number below `bound` for this position, each equally likely; goes on to the next position.
    pub fn below(&mut self, bound: u32) -> u32 {
        let (index, lane) = (self.position / WORDS as u64, self.position as usize % WORDS);
        self.position += 1;
        (0..)
            .find_map(|attempt| below(words(self.seed, self.draw, index, attempt)[lane], bound))
            .expect("an attempt of 2^32 succeeds")
    }
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
