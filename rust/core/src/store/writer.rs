//! Writing one `.npy` file atomically: it appears under its name complete and synced, or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::Xxh3Default;

use super::chunk::{CHUNK_BYTES, Chunk, content_hash};
use super::files::FileEntry;
use crate::npy::{Dtype, Header};
use crate::{Error, Result};

/// Size of the buffer of short writes.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes after which write-back to the disk is started, so that it does not all happen in the final sync.
const WRITE_BACK_BYTES: u64 = 8 << 20;

/// Writes rows to a temporary file next to the target `.npy` file; it is removed if the writer is dropped
/// before the file is renamed.
///
/// The length of the first axis is the number of rows written; the header is completed at the end.
#[derive(Debug)]
pub struct NpyWriter {
    folder: PathBuf,
    stem: String,
    temporary: PathBuf,
    file: File,
    header: Header,
    /// Checksums of the complete chunks, and the current chunk; `None` for a file without checksums.
    checksums: Option<(Vec<Chunk>, OpenChunk)>,
    buffer: Vec<u8>,
    data_bytes: u64,
    write_back_start: u64,
}

/// The checksum state of the current chunk.
#[derive(Default)]
struct OpenChunk {
    bytes: usize,
    hash: Xxh3Default,
}

impl std::fmt::Debug for OpenChunk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OpenChunk")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl OpenChunk {
    /// Returns the checksum and starts the next chunk.
    fn close(&mut self) -> Chunk {
        let chunk = Chunk {
            bytes: self.bytes as u64,
            hash: self.hash.digest(),
        };
        *self = Self::default();
        chunk
    }
}

impl NpyWriter {
    /// Creates a file for an array of shape `[n, tail…]` in `folder`; its name will start with `stem`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created.
    pub fn create(folder: &Path, stem: &str, dtype: Dtype, tail: &[usize]) -> Result<Self> {
        // Several threads may write files with the same stem at the same time.
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{stem}.tmp{}-{number}", std::process::id()));
        let shape = std::iter::once(0).chain(tail.iter().copied()).collect();
        let file = File::create(&temporary).map_err(Error::io(&temporary))?;
        let mut writer = NpyWriter {
            folder: folder.to_path_buf(),
            stem: stem.to_owned(),
            temporary,
            file,
            header: Header { dtype, shape },
            checksums: Some(Default::default()),
            buffer: Vec::new(),
            data_bytes: 0,
            write_back_start: 0,
        };
        writer.write_all(&writer.header.to_bytes())?;
        Ok(writer)
    }

    /// Creates a file without checksums, which is named by [`FinishedNpy::rename`].
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn without_checksums(
        folder: &Path,
        stem: &str,
        dtype: Dtype,
        tail: &[usize],
    ) -> Result<Self> {
        let mut writer = Self::create(folder, stem, dtype, tail)?;
        writer.checksums = None;
        Ok(writer)
    }

    /// Appends data bytes, in checksummed chunks of [`CHUNK_BYTES`].
    ///
    /// # Errors
    /// [`Error::Io`], for example if the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
            if bytes.len() > BUFFER_BYTES {
                return self.append(bytes);
            }
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends a verified chunk together with its checksum.
    ///
    /// # Errors
    /// [`Error::Io`], for example if the disk is full.
    pub fn write_chunk(&mut self, bytes: &[u8], chunk: Chunk) -> Result<()> {
        self.flush()?;
        self.close_chunk();
        if let Some((chunks, _)) = &mut self.checksums {
            chunks.push(chunk);
        }
        self.append_unchecked(bytes)
    }

    /// Completes the header and syncs the file, which keeps its temporary name until [`FinishedNpy::commit`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] if the data is not a whole number of rows.
    pub fn finish(mut self) -> Result<FinishedNpy> {
        self.flush()?;
        self.close_chunk();
        let row_bytes: usize =
            self.header.shape[1..].iter().product::<usize>() * self.header.dtype.size;
        let is_whole = if row_bytes == 0 {
            self.data_bytes == 0
        } else {
            self.data_bytes.is_multiple_of(row_bytes as u64)
        };
        if !is_whole {
            return Err(Error::Argument(format!(
                "{}: {} bytes are not a multiple of the {row_bytes} bytes of a row",
                self.stem, self.data_bytes
            )));
        }
        self.header.shape[0] = if row_bytes == 0 {
            0
        } else {
            (self.data_bytes / row_bytes as u64) as usize
        };
        self.file
            .write_all_at(&self.header.to_bytes(), 0)
            .map_err(Error::io(&self.target()))?;
        self.file.sync_all().map_err(Error::io(&self.target()))?;
        Ok(FinishedNpy(self))
    }

    /// Path by which errors name the file.
    fn target(&self) -> PathBuf {
        self.folder.join(format!("{}.npy", self.stem))
    }

    /// Writes the buffer to the file.
    fn flush(&mut self) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.append(&buffer)?;
        buffer.clear();
        self.buffer = buffer; // keeps its capacity
        Ok(())
    }

    /// Completes the current chunk.
    fn close_chunk(&mut self) {
        if let Some((chunks, open)) = &mut self.checksums
            && open.bytes > 0
        {
            chunks.push(open.close());
        }
    }

    /// Writes bytes and updates checksums.
    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let mut count = bytes.len().min(CHUNK_BYTES);
            if let Some((chunks, open)) = &mut self.checksums {
                count = count.min(CHUNK_BYTES - open.bytes);
                open.hash.update(&bytes[..count]);
                open.bytes += count;
                if open.bytes == CHUNK_BYTES {
                    chunks.push(open.close());
                }
            }
            let (head, rest) = bytes.split_at(count);
            self.append_unchecked(head)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Writes bytes without updating checksums.
    fn append_unchecked(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes)?;
        self.data_bytes += bytes.len() as u64;
        if self.data_bytes - self.write_back_start >= WRITE_BACK_BYTES {
            write_back(&self.file, self.write_back_start, self.data_bytes);
            self.write_back_start = self.data_bytes;
        }
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(Error::io(&self.target()))
    }
}

/// Starts write-back of a byte range to the disk; a hint, whose errors are reported by the final sync.
fn write_back(file: &File, from: u64, to: u64) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: a system call with integer arguments, on an open file.
        unsafe {
            libc::sync_file_range(
                file.as_raw_fd(),
                from as libc::off64_t,
                (to - from) as libc::off64_t,
                libc::SYNC_FILE_RANGE_WRITE,
            )
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, from, to);
}

impl Drop for NpyWriter {
    fn drop(&mut self) {
        // After a rename the temporary file is gone; if it cannot be removed, the next run deletes it.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A complete, synced file under its temporary name.
#[derive(Debug)]
pub struct FinishedNpy(NpyWriter);

impl FinishedNpy {
    /// Length of the first axis.
    pub fn rows(&self) -> usize {
        self.0.header.shape[0]
    }

    /// Renames the file to `<stem>-<content hash>.npy` and syncs the folder; returns its entry and checksums.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If the file was written without checksums.
    pub fn commit(mut self) -> Result<(FileEntry, Vec<Chunk>)> {
        let (chunks, _) = self.0.checksums.take().expect("the file has checksums");
        let hash = content_hash(&self.0.header, &chunks);
        let name = format!("{}-{hash:016x}.npy", self.0.stem);
        self.rename(&name)?;
        let entry = FileEntry {
            name,
            bytes: self.0.data_bytes,
            chunks: Vec::new(),
        };
        Ok((entry, chunks))
    }

    /// Renames the file to `name` and syncs the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rename(&mut self, name: &str) -> Result<()> {
        let writer = &self.0;
        let target = writer.folder.join(name);
        fs::rename(&writer.temporary, &target).map_err(Error::io(&target))?;
        let folder = File::open(&writer.folder).map_err(Error::io(&writer.folder))?;
        folder.sync_all().map_err(Error::io(&writer.folder))
    }
}
