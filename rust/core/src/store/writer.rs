//! Writing one `.npy` file that appears under its name complete and synced, or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use super::FileEntry;
use super::checksums::{Chunk, content_hash};
use crate::npy::{Dtype, Header};
use crate::{Error, Result};

/// Most bytes that one checksum covers, and the size of every buffer.
pub const CHUNK_BYTES: usize = 4 << 20;
/// Written bytes are sent to the disk in steps of this while the next are made. Smaller steps were faster for
/// some layouts and slower for others.
const SYNC_BYTES: u64 = 256 << 20;

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
    chunks: Vec<Chunk>,
    pending: Vec<u8>,
    written: u64,
    synced: u64,
    syncer: Option<Syncer>,
}

/// A thread that syncs a file whenever it is told to, so that the disk works while bytes are read and checked.
#[derive(Debug)]
struct Syncer {
    wake: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncer {
    fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        // Room for one request: a writer that is two steps ahead of the disk waits for it.
        let (wake, requests) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("llmdirect-sync".into())
            .spawn(move || requests.iter().try_for_each(|()| file.sync_data()))?;
        Ok(Self { wake, thread })
    }

    /// Waits for the last sync; the error of the first that failed.
    fn stop(self) -> io::Result<()> {
        drop(self.wake);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that syncs the file has died")))
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
            chunks: Vec::new(),
            pending: Vec::new(),
            written: 0,
            synced: 0,
            syncer: None,
        };
        writer.write_all(&writer.header.to_bytes())?;
        Ok(writer)
    }

    /// Appends data bytes; checksums cover [`CHUNK_BYTES`] each.
    ///
    /// # Errors
    /// [`Error::Io`], a full disk among them.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.pending.is_empty() && bytes.len() >= CHUNK_BYTES {
                let (chunk, rest) = bytes.split_at(CHUNK_BYTES);
                self.append(chunk, Chunk::of(chunk))?;
                bytes = rest;
                continue;
            }
            let room = CHUNK_BYTES - self.pending.len();
            let (head, rest) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(head);
            if self.pending.len() == CHUNK_BYTES {
                self.flush()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Appends bytes whose checksum is already known to be right, as a chunk of their own.
    ///
    /// # Errors
    /// [`Error::Io`], a full disk among them.
    pub fn write_chunk(&mut self, bytes: &[u8], chunk: Chunk) -> Result<()> {
        self.flush()?;
        self.append(bytes, chunk)
    }

    /// Completes the header and syncs the file; it appears when [`Ready::commit`] is called.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Argument`] where the bytes are no whole number of rows.
    pub fn finish(mut self) -> Result<Ready> {
        self.flush()?;
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
        if let Some(syncer) = self.syncer.take() {
            syncer.stop().map_err(Error::io(&self.target()))?;
        }
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
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        let chunk = Chunk::of(&pending);
        self.append(&pending, chunk)?;
        pending.clear();
        self.pending = pending; // keeps its capacity
        Ok(())
    }

    fn append(&mut self, bytes: &[u8], chunk: Chunk) -> Result<()> {
        self.write_all(bytes)?;
        self.chunks.push(chunk);
        self.written += bytes.len() as u64;
        if self.written - self.synced >= SYNC_BYTES {
            self.synced = self.written;
            self.sync_soon().map_err(Error::io(&self.target()))?;
        }
        Ok(())
    }

    fn sync_soon(&mut self) -> io::Result<()> {
        let syncer = match &mut self.syncer {
            Some(syncer) => syncer,
            none => none.insert(Syncer::start(&self.file)?),
        };
        if syncer.wake.send(()).is_err() {
            // It has stopped at an error, which it returns.
            return self.syncer.take().map_or(Ok(()), Syncer::stop);
        }
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(Error::io(&self.target()))
    }
}

impl Drop for NpyWriter {
    fn drop(&mut self) {
        if let Some(syncer) = self.syncer.take() {
            let _ = syncer.stop(); // the file goes anyway
        }
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
    pub fn commit(mut self) -> Result<(FileEntry, Vec<Chunk>)> {
        let hash = content_hash(&self.0.header, &self.0.chunks);
        let name = format!("{}-{hash:016x}.npy", self.0.stem);
        self.rename(&name)?;
        let entry = FileEntry {
            name,
            bytes: self.0.written,
            chunks: Vec::new(),
        };
        Ok((entry, std::mem::take(&mut self.0.chunks)))
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
