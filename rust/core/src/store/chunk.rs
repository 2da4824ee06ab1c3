//! Checksums of chunks of a data file, and the content hash of the file.

use serde::Deserialize;
use xxhash_rust::xxh3;

use crate::npy::Header;

/// Largest number of bytes that one checksum covers.
pub const CHUNK_BYTES: usize = 4 << 20;

/// The checksum of a run of consecutive data bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "(u64, String)")]
pub struct Chunk {
    /// Number of bytes.
    pub bytes: u64,
    /// 64-bit XXH3 of the bytes.
    pub hash: u64,
}

impl Chunk {
    /// Computes the checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Chunk {
            bytes: bytes.len() as u64,
            hash: xxh3::xxh3_64(bytes),
        }
    }
}

/// The format of manifests of version 1: number of bytes, and the hash as 16 hexadecimal digits.
impl TryFrom<(u64, String)> for Chunk {
    type Error = String;

    fn try_from((bytes, hex): (u64, String)) -> std::result::Result<Self, String> {
        let digits = hex.len() == 16 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u64::from_str_radix(&hex, 16) {
            Ok(hash) if digits => Ok(Chunk { bytes, hash }),
            _ => Err(format!(
                "{hex:?} is not a checksum of 16 lower-case hexadecimal digits"
            )),
        }
    }
}

/// The content hash in the name of a data file: a hash of its dtype, shape and checksums.
pub(super) fn content_hash(npy_header: &Header, chunks: &[Chunk]) -> u64 {
    let shape: Vec<String> = npy_header.shape.iter().map(usize::to_string).collect();
    let hashes: Vec<String> = chunks.iter().map(|c| format!("{:016x}", c.hash)).collect();
    xxh3::xxh3_64(
        format!(
            "{}|{}|{}",
            npy_header.dtype,
            shape.join(","),
            hashes.join(",")
        )
        .as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_manifest_version_1_are_16_lower_case_digits() {
        let parse = |text: &str| serde_json::from_str::<Chunk>(text);
        let chunk = Chunk::of(b"abc");
        let text = format!(r#"[3, "{:016x}"]"#, chunk.hash);
        assert_eq!(parse(&text).unwrap(), chunk);
        for bad in [
            r#"[3, "12"]"#,
            r#"[3, "+23456789012345f"]"#,
            r#"[3, "ABCDEF0123456789"]"#,
            "[3]",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
