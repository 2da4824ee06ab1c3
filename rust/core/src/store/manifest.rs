//! `manifest.json`: what a store holds, in which files.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::checksums;
use super::chunk::Chunk;
use super::files::{FileEntry, REBUILD};
use crate::npy::{Dtype, Header};
use crate::{Error, Result};

const FORMAT: &str = "llmdirect-store";
const VERSION: u64 = 2;
const NAME: &str = "manifest.json";

/// Index of each data file in [`Manifest::expected`].
pub(super) const TOKENS: usize = 0;
pub(super) const OFFSETS: usize = 1;
pub(super) const SPANS: usize = 2;
pub(super) const KEYS: usize = 3;
pub(super) const SCALES: usize = 4;

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
    /// Integers of -127 to 127, `|i1` on disk, times a scale a token and a scale a dimension.
    Int8,
}

impl TokenDtype {
    /// Name in manifests and in Python.
    pub fn name(self) -> &'static str {
        match self {
            TokenDtype::Float16 => "float16",
            TokenDtype::BFloat16 => "bfloat16",
            TokenDtype::Float32 => "float32",
            TokenDtype::Int8 => "int8",
        }
    }

    /// Type of the elements on disk.
    pub fn on_disk(self) -> Dtype {
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

/// The files of a store, by what they hold.
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
    /// Of int8 alone, what a token's numbers are multiplied by: float16 `[rows]`.
    pub scales: Option<FileEntry>,
    /// Of int8 alone, what each dimension is multiplied by: float32 `[dim]`.
    pub channels: Option<FileEntry>,
    /// Checksums of all the others: uint64 `[chunks, 2]`. Version 1 has them in the manifest.
    pub checksums: Option<FileEntry>,
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
    /// The whole manifest as it was read.
    #[serde(skip)]
    pub text: String,
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
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let bad = |what: String| Error::data(&path, format!("{what}; {REBUILD}"));
        let text = String::from_utf8(bytes).map_err(|_| bad("not UTF-8".into()))?;
        let mut manifest: Manifest = serde_json::from_str(&text)
            .map_err(|error| bad(format!("not a store's manifest ({error})")))?;
        if manifest.format != FORMAT || !(1..=VERSION).contains(&manifest.version) {
            return Err(bad(format!(
                "format {:?} version {}, expected {FORMAT:?} version 1 to {VERSION}",
                manifest.format, manifest.version
            )));
        }
        if manifest.dim == 0 {
            return Err(bad("dim is 0".into()));
        }
        let files = &manifest.files;
        let scaled = manifest.dtype == TokenDtype::Int8;
        if files.scales.is_some() != scaled || files.channels.is_some() != scaled {
            return Err(bad(
                "scales and channels are files of int8, and only of int8".into(),
            ));
        }
        match &files.checksums {
            Some(entry) if manifest.version > 1 => entry
                .check(&checksums::file_header(entry.bytes))
                .map_err(bad)?,
            None if manifest.version == 1 => {}
            _ => return Err(bad("checksums are a file from version 2 on".into())),
        }
        for (entry, header) in manifest.expected() {
            entry.check(&header).map_err(bad)?;
        }
        manifest.text = text;
        Ok(manifest)
    }

    /// Each data file's entry with the header that it must have: tokens, offsets, spans, keys, and of int8
    /// scales and channels.
    pub fn expected(&self) -> Vec<(&FileEntry, Header)> {
        let header = |dtype, shape: &[usize]| Header {
            dtype,
            shape: shape.to_vec(),
        };
        let (files, rows, dim) = (&self.files, self.rows, self.dim);
        let borders = self.passages.saturating_add(1);
        let always = [
            (&files.tokens, header(self.dtype.on_disk(), &[rows, dim])),
            (&files.offsets, header(Dtype::I64, &[borders])),
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
        always.into_iter().chain(scales).chain(channels).collect()
    }

    /// The checksums of each file of [`expected`](Self::expected).
    ///
    /// # Errors
    /// [`Error::Data`] where they are damaged or not those of these files.
    pub fn checksums(&self, folder: &Path) -> Result<Vec<Vec<Chunk>>> {
        let expected = self.expected();
        let entries = expected.iter().map(|(entry, _)| *entry);
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
        for ((entry, header), chunks) in expected.iter().zip(&all) {
            checksums::check(entry, header, chunks)
                .map_err(|what| Error::data(&path, format!("{what}; {REBUILD}")))?;
        }
        Ok(all)
    }
}
