//! XXH3 hashes of texts: fast, not cryptographic.

use xxhash_rust::xxh3;

/// 128-bit content hash of a passage, little-endian: its key in the embedding store.
pub fn passage_key(text: &str) -> [u8; 16] {
    xxh3::xxh3_128(text.as_bytes()).to_le_bytes()
}

/// 64-bit hash of a string with a seed, by which splits order interactions.
pub fn seeded_hash(text: &str, seed: u64) -> u64 {
    xxh3::xxh3_64_with_seed(text.as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_match_the_reference_implementation() {
        // Test vectors of the XXH3 reference implementation for the empty input.
        assert_eq!(seeded_hash("", 0), 0x2d06_8005_38d3_94c2);
        assert_eq!(
            u128::from_le_bytes(passage_key("")),
            0x99aa_06d3_0147_98d8_6001_c324_468d_497f
        );
    }
}
