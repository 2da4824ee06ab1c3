//! Writing one `.npy` file that appears under its name complete and synced, or not at all.

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

/// Shorter writes are gathered in memory until there are so many bytes.
const GATHERED: usize = 64 << 10;
/// The disk begins to write when there are so many bytes, while the next are made: else all of it would be
/// written at the end.
const WRITE_BACK: u64 = 8 << 20;

/// Streams rows into a hidden sibling of an `.npy` file; dropped unfinished, it leaves nothing.
///
/// The first axis is counted, not announced: the header is completed at the end.
#[derive(Debug)]
pub struct NpyWriter {
    folder: PathBuf,
    stem: String,
    temporary: PathBuf,
    file: File,
    header: Header,
    /// Checksums of what is written, and the state of the one that is not complete; `None`: without.
    checksums: Option<(Vec<Chunk>, Open)>,
    gathered: Vec<u8>,
    written: u64,
    written_back: u64,
}

/// The checksum of a chunk to which bytes are still added.
#[derive(Default)]
struct Open {
    bytes: usize,
    hash: Xxh3Default,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Open")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Open {
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
    /// Starts a file of `[n, tail…]` in `folder`; `stem` names it.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder cannot be written.
    pub fn create(folder: &Path, stem: &str, dtype: Dtype, tail: &[usize]) -> Result<Self> {
        // Threads of one process may write the same stem at the same time.
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
            gathered: Vec::new(),
            written: 0,
            written_back: 0,
        };
        writer.write_all(&writer.header.to_bytes())?;
        Ok(writer)
    }

    /// As [`create`](Self::create), for a file that gets a [plain name](Ready::rename) and no checksums.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn plain(folder: &Path, stem: &str, dtype: Dtype, tail: &[usize]) -> Result<Self> {
        let mut writer = Self::create(folder, stem, dtype, tail)?;
        writer.checksums = None;
        Ok(writer)
    }

    /// Appends data bytes; checksums cover [`CHUNK_BYTES`] each.
    ///
    /// # Errors
    /// [`Error::Io`], a full disk among them.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.gathered.len() + bytes.len() > GATHERED {
            self.flush()?;
            if bytes.len() > GATHERED {
                return self.append(bytes);
            }
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends bytes whose checksum is already known to be right, as a chunk of their own.
    ///
    /// # Errors
    /// [`Error::Io`], a full disk among them.
    pub fn write_chunk(&mut self, bytes: &[u8], chunk: Chunk) -> Result<()> {
        self.flush()?;
        self.close_chunk();
        if let Some((chunks, _)) = &mut self.checksums {
            chunks.push(chunk);
        }
        self.append_unchecked(bytes)
    }

    /// Completes the header and syncs the file; it appears when [`Ready::commit`] is called.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] where the bytes are no whole number of rows.
    pub fn finish(mut self) -> Result<Ready> {
        self.flush()?;
        self.close_chunk();
        let row: usize = self.header.shape[1..].iter().product::<usize>() * self.header.dtype.size;
        let whole = if row == 0 {
            self.written == 0
        } else {
            self.written.is_multiple_of(row as u64)
        };
        if !whole {
            return Err(Error::Argument(format!(
                "{}: {} bytes are no whole number of rows of {row} bytes",
                self.stem, self.written
            )));
        }
        self.header.shape[0] = if row == 0 {
            0
        } else {
            (self.written / row as u64) as usize
        };
        self.file
            .write_all_at(&self.header.to_bytes(), 0)
            .map_err(Error::io(&self.target()))?;
        self.file.sync_all().map_err(Error::io(&self.target()))?;
        Ok(Ready(self))
    }

    fn target(&self) -> PathBuf {
        self.folder.join(format!("{}.npy", self.stem))
    }

    fn flush(&mut self) -> Result<()> {
        let mut gathered = std::mem::take(&mut self.gathered);
        self.append(&gathered)?;
        gathered.clear();
        self.gathered = gathered; // keeps its capacity
        Ok(())
    }

    fn close_chunk(&mut self) {
        if let Some((chunks, open)) = &mut self.checksums
            && open.bytes > 0
        {
            chunks.push(open.close());
        }
    }

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

    fn append_unchecked(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes)?;
        self.written += bytes.len() as u64;
        if self.written - self.written_back >= WRITE_BACK {
            write_back(&self.file, self.written_back, self.written);
            self.written_back = self.written;
        }
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(Error::io(&self.target()))
    }
}

/// Asks the system to begin writing these bytes of a file to the disk. It need not, and errors show at the sync.
fn write_back(file: &File, from: u64, to: u64) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: a call of the system that takes numbers alone, on a file that is open.
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
        // After a commit the sibling has gone; a failure to remove is cleaned at the next start.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A complete, synced file that still has its hidden name.
#[derive(Debug)]
pub struct Ready(NpyWriter);

impl Ready {
    /// Length of the first axis.
    pub fn rows(&self) -> usize {
        self.0.header.shape[0]
    }

    /// Renames the file to `<stem>-<hash>.npy` and syncs the folder; returns its checksums too.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses the rename.
    ///
    /// # Panics
    /// Where the file was written without checksums.
    pub fn commit(mut self) -> Result<(FileEntry, Vec<Chunk>)> {
        let (chunks, _) = self.0.checksums.take().expect("a file with checksums");
        let hash = content_hash(&self.0.header, &chunks);
        let name = format!("{}-{hash:016x}.npy", self.0.stem);
        self.rename(&name)?;
        let entry = FileEntry {
            name,
            bytes: self.0.written,
            chunks: Vec::new(),
        };
        Ok((entry, chunks))
    }

    /// Renames the file to `name` and syncs the folder.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses the rename.
    pub fn rename(&mut self, name: &str) -> Result<()> {
        let writer = &self.0;
        let target = writer.folder.join(name);
        fs::rename(&writer.temporary, &target).map_err(Error::io(&target))?;
        let folder = File::open(&writer.folder).map_err(Error::io(&writer.folder))?;
        folder.sync_all().map_err(Error::io(&writer.folder))
    }
}
