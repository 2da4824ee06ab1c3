//! `manifest.json`: what a store holds, and the checksums of its files.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3;

use super::FileEntry;
use crate::npy::{Dtype, Header};
use crate::{Error, Result};

const FORMAT: &str = "llmdirect-store";
const VERSION: u64 = 1;
const NAME: &str = "manifest.json";

/// Type of the token embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenDtype {
    /// IEEE half precision, `<f2` on disk.
    Float16,
    /// The upper half of a float32, `<u2` on disk: NumPy has no name for it.
    BFloat16,
    /// Single precision, `<f4` on disk.
    Float32,
}

impl TokenDtype {
    /// Name in manifests and in Python.
    pub fn name(self) -> &'static str {
        match self {
            TokenDtype::Float16 => "float16",
            TokenDtype::BFloat16 => "bfloat16",
            TokenDtype::Float32 => "float32",
        }
    }

    /// Type of the elements on disk.
    pub fn on_disk(self) -> Dtype {
        match self {
            TokenDtype::Float16 => Dtype::F16,
            TokenDtype::BFloat16 => Dtype::U16,
            TokenDtype::Float32 => Dtype::F32,
        }
    }

    /// Appends `values` rounded to this type, to nearest with ties to even.
    pub fn append(self, values: &[f32], bytes: &mut Vec<u8>) {
        match self {
            TokenDtype::Float16 => {
                bytes.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()))
            }
            TokenDtype::BFloat16 => {
                bytes.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()))
            }
            TokenDtype::Float32 => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        }
    }

    /// Largest float32 that does not become infinite.
    pub fn largest(self) -> f32 {
        match self {
            // Halfway between the largest value and the next power of two rounds to infinity.
            TokenDtype::Float16 => 65_520_f32.next_down(),
            TokenDtype::BFloat16 => f32::from_bits(0x7f7f_8000).next_down(),
            TokenDtype::Float32 => f32::MAX,
        }
    }
}

impl std::str::FromStr for TokenDtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "float16" => Ok(TokenDtype::Float16),
            "bfloat16" => Ok(TokenDtype::BFloat16),
            "float32" => Ok(TokenDtype::Float32),
            _ => Err(Error::Argument(format!(
                "dtype {name:?}, expected float16, bfloat16 or float32"
            ))),
        }
    }
}

/// A run of data bytes and its XXH3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u64, String)", into = "(u64, String)")]
pub struct Chunk {
    /// Number of bytes.
    pub bytes: u64,
    /// 64-bit XXH3 of the bytes.
    pub hash: u64,
}

impl Chunk {
    /// The chunk made of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Chunk {
            bytes: bytes.len() as u64,
            hash: xxh3::xxh3_64(bytes),
        }
    }

    /// The checksum as 16 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.hash)
    }
}

impl TryFrom<(u64, String)> for Chunk {
    type Error = String;

    fn try_from((bytes, hex): (u64, String)) -> std::result::Result<Self, String> {
        let digits = hex.len() == 16 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u64::from_str_radix(&hex, 16) {
            Ok(hash) if digits => Ok(Chunk { bytes, hash }),
            _ => Err(format!("{hex:?} is no checksum of 16 hexadecimal digits")),
        }
    }
}

impl From<Chunk> for (u64, String) {
    fn from(chunk: Chunk) -> Self {
        (chunk.bytes, chunk.hex())
    }
}

/// Hash in the name of a data file: over its type, its shape and its checksums.
pub(super) fn content_hash(header: &Header, chunks: &[Chunk]) -> u64 {
    let shape: Vec<String> = header.shape.iter().map(usize::to_string).collect();
    let hashes: Vec<String> = chunks.iter().map(Chunk::hex).collect();
    xxh3::xxh3_64(format!("{}|{}|{}", header.dtype, shape.join(","), hashes.join(",")).as_bytes())
}

/// The four files of a store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Files {
    /// Token embeddings `[rows, dim]`.
    pub tokens: FileEntry,
    /// First row of each passage, and the number of rows: int64 `[passages + 1]`.
    pub offsets: FileEntry,
    /// Characters that each token covers: uint32 `[rows, 2]`.
    pub spans: FileEntry,
    /// Content hash of each passage: uint8 `[passages, 16]`.
    pub keys: FileEntry,
}

/// The part of `manifest.json` that describes the data; encoder and source are Python's.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    format: String,
    version: u64,
    /// Type of the token embeddings.
    pub dtype: TokenDtype,
    /// Length of a token embedding.
    pub dim: usize,
    /// Number of tokens.
    pub rows: usize,
    /// Number of passages.
    pub passages: usize,
    /// The data files.
    pub files: Files,
}

impl Manifest {
    /// Where the manifest of a store lies.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    /// Reads and checks `folder/manifest.json`.
    ///
    /// # Errors
    /// [`Error::Io`] where there is none, [`Error::Data`] where it does not describe a store.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        let text = std::fs::read(&path).map_err(Error::io(&path))?;
        let bad = |what: String| Error::data(&path, format!("{what}; make the store again"));
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("not a store's manifest ({error})")))?;
        if manifest.format != FORMAT || manifest.version != VERSION {
            return Err(bad(format!(
                "format {:?} version {}, expected {FORMAT:?} version {VERSION}",
                manifest.format, manifest.version
            )));
        }
        if manifest.dim == 0 {
            return Err(bad("dim is 0".into()));
        }
        for (entry, header) in manifest.expected() {
            entry.check(&header).map_err(bad)?;
        }
        Ok(manifest)
    }

    /// Each file's entry with the header that it must have.
    pub fn expected(&self) -> [(&FileEntry, Header); 4] {
        let header = |dtype, shape: &[usize]| Header {
            dtype,
            shape: shape.to_vec(),
        };
        let files = &self.files;
        [
            (
                &files.tokens,
                header(self.dtype.on_disk(), &[self.rows, self.dim]),
            ),
            (
                &files.offsets,
                header(Dtype::I64, &[self.passages.saturating_add(1)]),
            ),
            (&files.spans, header(Dtype::U32, &[self.rows, 2])),
            (&files.keys, header(Dtype::U8, &[self.passages, 16])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_values_stay_finite_and_their_neighbours_do_not() {
        for dtype in [TokenDtype::Float16, TokenDtype::BFloat16] {
            let finite = |value: f32| {
                let mut bytes = Vec::new();
                dtype.append(&[value], &mut bytes);
                let bits = [bytes[0], bytes[1]];
                match dtype {
                    TokenDtype::Float16 => f16::from_le_bytes(bits).is_finite(),
                    _ => bf16::from_le_bytes(bits).is_finite(),
                }
            };
            assert!(finite(dtype.largest()));
            assert!(!finite(dtype.largest().next_up()));
        }
    }

    #[test]
    fn checksums_are_sixteen_lower_case_digits() {
        let parse = |text: &str| serde_json::from_str::<Chunk>(text);
        let chunk = Chunk::of(b"abc");
        assert_eq!(
            parse(&serde_json::to_string(&chunk).unwrap()).unwrap(),
            chunk
        );
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
