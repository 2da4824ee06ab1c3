//! A counter-based random number generator: each number is a function of seed, draw and position, so results do
//! not depend on the number of threads.

/// The block function of Philox2x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
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

/// 64-bit numbers per block.
pub const U64S_PER_BLOCK: usize = 2;

/// Block `index` of the sequence of a (seed, draw), as 64-bit numbers.
///
/// A number that is rejected is replaced by the number at the same position of the block with the next `attempt`.
#[inline(always)]
pub fn block_u64s(seed: u64, draw: u32, index: u64, attempt: u32) -> [u64; U64S_PER_BLOCK] {
    philox([index, u64::from(attempt) << 32 | u64::from(draw)], seed)
}

/// 32-bit numbers per block.
pub const U32S_PER_BLOCK: usize = 4;

/// The same block as 32-bit numbers, the lower half of each 64-bit number first.
#[inline(always)]
pub fn block_u32s(seed: u64, draw: u32, index: u64, attempt: u32) -> [u32; U32S_PER_BLOCK] {
    let [left, right] = block_u64s(seed, draw, index, attempt);
    [
        left as u32,
        (left >> 32) as u32,
        right as u32,
        (right >> 32) as u32,
    ]
}

/// Maps a uniform 32-bit number to a uniform number below `bound`; `None` where it must be rejected, which
/// happens for fewer than `bound` of the 2^32 numbers.
///
/// Lemire, "Fast random integer generation in an interval", 2019.
#[inline(always)]
pub fn below(number: u32, bound: u32) -> Option<u32> {
    let product = u64::from(number) * u64::from(bound);
    let low = product as u32;
    if low < bound && low < bound.wrapping_neg() % bound {
        return None;
    }
    Some((product >> 32) as u32)
}

/// A sequential generator over the numbers of a (seed, draw).
#[derive(Debug, Clone)]
pub struct Stream {
    seed: u64,
    draw: u32,
    position: u64,
}

impl Stream {
    /// The sequence of this seed and draw, starting at `position`.
    pub fn new(seed: u64, draw: u32, position: u64) -> Self {
        Self {
            seed,
            draw,
            position,
        }
    }

    /// The next uniform number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        let (index, lane) = (
            self.position / U32S_PER_BLOCK as u64,
            self.position as usize % U32S_PER_BLOCK,
        );
        self.position += 1;
        (0..)
            .find_map(|attempt| {
                below(
                    block_u32s(self.seed, self.draw, index, attempt)[lane],
                    bound,
                )
            })
            .expect("a number is accepted within 2^32 attempts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_known_answer_vectors() {
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
    fn a_stream_can_start_at_any_position() {
        let mut whole = Stream::new(7, 3, 0);
        let numbers: Vec<u32> = (0..100).map(|_| whole.below(1000)).collect();
        for start in 0..100 {
            let mut part = Stream::new(7, 3, start as u64);
            assert!(numbers[start..].iter().all(|&n| n == part.below(1000)));
        }
    }

    #[test]
    fn seeds_and_draws_have_different_sequences() {
        let first = |seed, draw| {
            let mut stream = Stream::new(seed, draw, 0);
            (0..4).map(|_| stream.below(u32::MAX)).collect::<Vec<_>>()
        };
        assert_ne!(first(1, 0), first(2, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_eq!(first(1, 1), first(1, 1));
    }
}
