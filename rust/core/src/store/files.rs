//! One data file of a store: its entry in the manifest, and reading it with its checksums.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::chunk::Chunk;
use crate::files::open_inside;
use crate::npy::{Header, shape_text};
use crate::{Error, Result};

/// How to repair a damaged store or shard, appended to error messages.
pub(super) const REBUILD: &str =
    "remove its folder, then run `llmdirect precompute` and `llmdirect consolidate` again";

/// The entry of one file in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FileEntry {
    /// File name, which contains the content hash.
    pub name: String,
    /// Number of data bytes, without the header.
    pub bytes: u64,
    /// Checksums of the data bytes, in order; only in manifests of version 1.
    #[serde(default)]
    pub(super) chunks: Vec<Chunk>,
}

impl FileEntry {
    /// Checks the entry against the header that its file must have.
    pub(super) fn check(&self, header: &Header) -> std::result::Result<(), String> {
        let name = &self.name;
        if name.contains('/') || name.starts_with('.') || !name.ends_with(".npy") {
            return Err(format!("{name:?} is not the name of a data file"));
        }
        if header.data_bytes() != Some(self.bytes) {
            let shape = shape_text(&header.shape);
            return Err(format!(
                "{name}: {} bytes, but an array of shape {shape} and dtype {} has another size",
                self.bytes, header.dtype
            ));
        }
        Ok(())
    }
}

/// Opens a data file and checks its header and length; returns the file and the offset of its data.
pub(super) fn open_checked(folder: &Path, name: &str, expected: &Header) -> Result<(File, u64)> {
    let path = &folder.join(name);
    let file = open_inside(folder, name).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Error::data(
            path,
            format!("missing, but the manifest lists it; {REBUILD}"),
        ),
        error => error,
    })?;
    let (header, data_offset) = Header::read(&file, path)?;
    if header != *expected {
        return Err(Error::data(
            path,
            format!(
                "shape {} and dtype {}, but the manifest says {} and {}; {REBUILD}",
                shape_text(&header.shape),
                header.dtype,
                shape_text(&expected.shape),
                expected.dtype
            ),
        ));
    }
    Ok((file, data_offset))
}

/// The error for a chunk whose checksum differs.
pub(super) fn checksum_error(path: &Path, offset: u64, chunk: &Chunk) -> Error {
    Error::data(
        path,
        format!(
            "checksum of data bytes {offset} to {} differs: the file was changed or the disk is failing; {REBUILD}",
            offset + chunk.bytes
        ),
    )
}

/// Reads a data file by chunks and verifies the checksum of each.
#[derive(Debug)]
pub(super) struct ChunkReader<'a> {
    path: PathBuf,
    file: File,
    data_offset: u64,
    position: u64,
    chunks: std::slice::Iter<'a, Chunk>,
    buffer: Vec<u8>,
}

impl<'a> ChunkReader<'a> {
    /// Opens the file of an entry, whose header must be `expected`.
    ///
    /// # Errors
    /// [`Error::Data`] if the file is missing, truncated or has another header.
    pub fn open(
        folder: &Path,
        entry: &FileEntry,
        expected: &Header,
        chunks: &'a [Chunk],
    ) -> Result<Self> {
        let path = folder.join(&entry.name);
        let (file, data_offset) = open_checked(folder, &entry.name, expected)?;
        Ok(ChunkReader {
            path,
            file,
            data_offset,
            position: 0,
            chunks: chunks.iter(),
            buffer: Vec::new(),
        })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and verifies the next chunk; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Data`] if its checksum differs; [`Error::Io`].
    pub fn next_chunk(&mut self) -> Result<Option<(&[u8], Chunk)>> {
        let Some(chunk) = self.chunks.next() else {
            return Ok(None);
        };
        self.buffer.resize(chunk.bytes as usize, 0);
        self.file
            .read_exact_at(&mut self.buffer, self.data_offset + self.position)
            .map_err(Error::io(&self.path))?;
        if Chunk::of(&self.buffer) != *chunk {
            return Err(checksum_error(&self.path, self.position, chunk));
        }
        self.position += chunk.bytes;
        Ok(Some((&self.buffer, *chunk)))
    }
}
