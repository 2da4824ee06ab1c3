//! The manifest of a store, `manifest.json`: dtype, shapes and data files.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::checksums;
use super::chunk::Chunk;
use super::files::{FileEntry, REBUILD};
use crate::files::read_limited;
use crate::npy::{Dtype, Header};
use crate::{Error, Result};

/// Value of the field `format`.
const FORMAT: &str = "llmdirect-store";
/// Newest version of the format.
const VERSION: u64 = 2;
/// Limit of a manifest; those of version 1 hold the checksums of all data, 60 bytes per 4 MiB.
const MAX_MANIFEST_BYTES: u64 = 1 << 28;
/// Largest dimension of a token embedding.
const MAX_DIM: usize = 1 << 20;
/// Largest number of passages: the key index counts them in 32 bits, one of which marks an empty slot.
const MAX_PASSAGES: usize = u32::MAX as usize - 1;
/// File name of manifests.
const FILE_NAME: &str = "manifest.json";

/// Index of each data file in [`Manifest::data_files`].
pub(super) const TOKENS: usize = 0;
pub(super) const OFFSETS: usize = 1;
pub(super) const SPANS: usize = 2;
pub(super) const KEYS: usize = 3;
pub(super) const SCALES: usize = 4;

/// Dtype of token embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenDtype {
    /// IEEE half precision, `<f2` on disk.
    Float16,
    /// The upper half of a float32, `<u2` on disk, as NumPy has no bfloat16.
    BFloat16,
    /// Single precision, `<f4` on disk.
    Float32,
    /// Integers of -127 to 127, `|i1` on disk, with per-token and per-channel scales.
    Int8,
}

impl TokenDtype {
    /// Name of the dtype in manifests and in Python.
    pub fn name(self) -> &'static str {
        match self {
            TokenDtype::Float16 => "float16",
            TokenDtype::BFloat16 => "bfloat16",
            TokenDtype::Float32 => "float32",
            TokenDtype::Int8 => "int8",
        }
    }

    /// Dtype of the elements in the `.npy` file.
    pub fn npy_dtype(self) -> Dtype {
        match self {
            TokenDtype::Float16 => Dtype::F16,
            TokenDtype::BFloat16 => Dtype::U16,
            TokenDtype::Float32 => Dtype::F32,
            TokenDtype::Int8 => Dtype::I8,
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
            "int8" => Ok(TokenDtype::Int8),
            _ => Err(Error::Argument(format!(
                "dtype {name:?}, expected float16, bfloat16, float32 or int8"
            ))),
        }
    }
}

/// The data files of a store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Files {
    /// Token embeddings `[rows, dim]`.
    pub tokens: FileEntry,
    /// Row offsets of the passages, ending with the number of rows: int64 `[passages + 1]`.
    pub offsets: FileEntry,
    /// Start and end of each token in the characters of its passage: uint32 `[rows, 2]`.
    pub spans: FileEntry,
    /// Key of each passage, a hash of its text: uint8 `[passages, 16]`.
    pub keys: FileEntry,
    /// Per-token scales, for int8 only: float16 `[rows]`.
    pub scales: Option<FileEntry>,
    /// Per-channel scales, for int8 only: float32 `[dim]`.
    pub channels: Option<FileEntry>,
    /// Checksums of all other files: uint64 `[chunks, 2]`. In version 1 they are in the manifest instead.
    pub checksums: Option<FileEntry>,
}

/// The part of a manifest that describes the data; Python reads and writes the other fields.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    format: String,
    version: u64,
    /// Type of the token embeddings.
    pub dtype: TokenDtype,
    /// Dimension of a token embedding.
    pub dim: usize,
    /// Number of tokens.
    pub rows: usize,
    /// Number of passages.
    pub passages: usize,
    /// The data files.
    pub files: Files,
    /// The text of the whole manifest.
    #[serde(skip)]
    pub text: String,
}

impl Manifest {
    /// Path of the manifest of a store.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(FILE_NAME)
    }

    /// Reads and validates the manifest of a store.
    ///
    /// # Errors
    /// [`Error::Io`] if there is none, [`Error::Data`] if it is invalid.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        let bytes = read_limited(&path, MAX_MANIFEST_BYTES)?;
        let invalid = |what: String| Error::data(&path, format!("{what}; {REBUILD}"));
        let text = String::from_utf8(bytes).map_err(|_| invalid("not UTF-8".into()))?;
        let mut manifest: Manifest = serde_json::from_str(&text)
            .map_err(|error| invalid(format!("not the manifest of a store ({error})")))?;
        if manifest.format != FORMAT || !(1..=VERSION).contains(&manifest.version) {
            return Err(invalid(format!(
                "format {:?} version {}, expected {FORMAT:?} version 1 to {VERSION}",
                manifest.format, manifest.version
            )));
        }
        for (key, value, least, most) in [
            ("dim", manifest.dim, 1, MAX_DIM),
            ("passages", manifest.passages, 0, MAX_PASSAGES),
        ] {
            if !(least..=most).contains(&value) {
                return Err(invalid(format!(
                    "{key} is {value}, expected {least} to {most}"
                )));
            }
        }
        let files = &manifest.files;
        let is_int8 = manifest.dtype == TokenDtype::Int8;
        if files.scales.is_some() != is_int8 || files.channels.is_some() != is_int8 {
            return Err(invalid(
                "files.scales and files.channels must be given for dtype int8, and only for int8"
                    .into(),
            ));
        }
        match &files.checksums {
            Some(entry) if manifest.version > 1 => entry
                .check(&checksums::file_header(entry.bytes))
                .map_err(invalid)?,
            None if manifest.version == 1 => {}
            _ => {
                return Err(invalid(
                    "files.checksums must be given from version 2 on, and not in version 1".into(),
                ));
            }
        }
        for (entry, header) in manifest.data_files() {
            entry.check(&header).map_err(invalid)?;
        }
        manifest.text = text;
        Ok(manifest)
    }

    /// The entry of each data file and the header it must have: tokens, offsets, spans, keys, and for int8
    /// scales and channels.
    pub fn data_files(&self) -> Vec<(&FileEntry, Header)> {
        let header = |dtype, shape: &[usize]| Header {
            dtype,
            shape: shape.to_vec(),
        };
        let (files, rows, dim) = (&self.files, self.rows, self.dim);
        let num_offsets = self.passages.saturating_add(1);
        let unconditional = [
            (&files.tokens, header(self.dtype.npy_dtype(), &[rows, dim])),
            (&files.offsets, header(Dtype::I64, &[num_offsets])),
            (&files.spans, header(Dtype::U32, &[rows, 2])),
            (&files.keys, header(Dtype::U8, &[self.passages, 16])),
        ];
        let scales = files
            .scales
            .iter()
            .map(|entry| (entry, header(Dtype::F16, &[rows])));
        let channels = files
            .channels
            .iter()
            .map(|entry| (entry, header(Dtype::F32, &[dim])));
        unconditional
            .into_iter()
            .chain(scales)
            .chain(channels)
            .collect()
    }

    /// The checksums of each of the [`data_files`](Self::data_files).
    ///
    /// # Errors
    /// [`Error::Data`] if they are damaged or do not match these files.
    pub fn checksums(&self, folder: &Path) -> Result<Vec<Vec<Chunk>>> {
        let data_files = self.data_files();
        let entries = data_files.iter().map(|(entry, _)| *entry);
        let (path, all) = match &self.files.checksums {
            Some(file) => (
                folder.join(&file.name),
                checksums::read(folder, file, entries)?,
            ),
            None => (
                Self::path(folder),
                entries.map(|entry| entry.chunks.clone()).collect(),
            ),
        };
        for ((entry, header), chunks) in data_files.iter().zip(&all) {
            checksums::check(entry, header, chunks)
                .map_err(|what| Error::data(&path, format!("{what}; {REBUILD}")))?;
        }
        Ok(all)
    }
}
