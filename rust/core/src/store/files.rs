//! One data file of a store: its entry in the manifest, and reading it against its checksums.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::chunk::Chunk;
use crate::npy::{Header, shape_text};
use crate::{Error, Result};

/// The cure for a damaged store or shard, as error messages end.
pub(super) const REBUILD: &str =
    "remove its folder, then run `llmdirect precompute` and `llmdirect consolidate` again";

/// What a manifest says about one file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FileEntry {
    /// File name inside the folder, with the hash of the content.
    pub name: String,
    /// Bytes of data, without the header.
    pub bytes: u64,
    /// Checksums that cover the data bytes in order: in manifests of version 1 alone.
    #[serde(default)]
    pub(super) chunks: Vec<Chunk>,
}

impl FileEntry {
    /// Checks the entry itself against the header that its file must have.
    pub(super) fn check(&self, header: &Header) -> std::result::Result<(), String> {
        let name = &self.name;
        if name.contains('/') || name.starts_with('.') || !name.ends_with(".npy") {
            return Err(format!("{name:?} is not the name of a data file"));
        }
        if header.data_bytes() != Some(self.bytes) {
            let shape = shape_text(&header.shape);
            return Err(format!(
                "{name}: {} bytes do not hold {shape} of {}",
                self.bytes, header.dtype
            ));
        }
        Ok(())
    }
}

/// Opens a file of a store and checks header and length: the file and the position of its data.
pub(super) fn open_checked(path: &Path, expected: &Header) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::data(
            path,
            format!("missing, though the manifest names it; {REBUILD}"),
        ),
        _ => Error::io(path)(error),
    })?;
    let (header, data_at) = Header::read(&file, path)?;
    if header != *expected {
        return Err(Error::data(
            path,
            format!(
                "{} of {}, where the manifest says {} of {}; {REBUILD}",
                shape_text(&header.shape),
                header.dtype,
                shape_text(&expected.shape),
                expected.dtype
            ),
        ));
    }
    Ok((file, data_at))
}

/// The error of a chunk whose bytes are not those that were written.
pub(super) fn checksum_error(path: &Path, at: u64, chunk: &Chunk) -> Error {
    Error::data(
        path,
        format!(
            "checksum of data bytes {at} to {} differs: the file was changed or the disk is failing; {REBUILD}",
            at + chunk.bytes
        ),
    )
}

/// Reads a file chunk by chunk, and hands out only bytes whose checksum is right.
#[derive(Debug)]
pub(super) struct ChunkReader<'a> {
    path: PathBuf,
    file: File,
    data_at: u64,
    done: u64,
    chunks: std::slice::Iter<'a, Chunk>,
    buffer: Vec<u8>,
}

impl<'a> ChunkReader<'a> {
    /// Opens `folder/entry.name`, whose header must be `expected`.
    ///
    /// # Errors
    /// [`Error::Data`] for a missing or truncated file, or another header.
    pub fn open(
        folder: &Path,
        entry: &FileEntry,
        expected: &Header,
        chunks: &'a [Chunk],
    ) -> Result<Self> {
        let path = folder.join(&entry.name);
        let (file, data_at) = open_checked(&path, expected)?;
        Ok(ChunkReader {
            path,
            file,
            data_at,
            done: 0,
            chunks: chunks.iter(),
            buffer: Vec::new(),
        })
    }

    /// The file being read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next chunk with its checksum, verified; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Data`] where a checksum is wrong.
    pub fn next_chunk(&mut self) -> Result<Option<(&[u8], Chunk)>> {
        let Some(chunk) = self.chunks.next() else {
            return Ok(None);
        };
        self.buffer.resize(chunk.bytes as usize, 0);
        self.file
            .read_exact_at(&mut self.buffer, self.data_at + self.done)
            .map_err(Error::io(&self.path))?;
        if Chunk::of(&self.buffer) != *chunk {
            return Err(checksum_error(&self.path, self.done, chunk));
        }
        self.done += chunk.bytes;
        Ok(Some((&self.buffer, *chunk)))
    }
}
