//! Opening and reading a store, memory-mapped or loaded into memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::{Mmap, MmapMut, MmapOptions};

use super::chunk::{CHUNK_BYTES, Chunk};
use super::files::{FileEntry, REBUILD, checksum_error, open_checked};
use super::keys::KeyIndex;
use super::manifest::{Manifest, TOKENS};
use crate::npy::Header;
use crate::threads::parallel_for_each;
use crate::{Cancel, Error, Result};

/// How the data of a store is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// Memory-mapped: pages are read on first access into the page cache, which all processes share.
    Mmap,
    /// Loaded into memory of this process, in huge pages where the system supports them.
    Ram,
}

/// An opened data file.
#[derive(Debug)]
struct DataFile {
    bytes: Bytes,
    data_offset: usize,
}

/// Memory of a file, private to this process.
#[derive(Debug)]
enum Bytes {
    /// Tokens, which Python may write to.
    Writable(MmapMut),
    /// All other data: what was checked stays as it is.
    ReadOnly(Mmap),
}

impl DataFile {
    /// Opens the file of an entry, whose header must be `header`.
    fn open(
        folder: &Path,
        (entry, header): (&FileEntry, &Header),
        is_writable: bool,
        loading: Loading,
        cancel: &Cancel,
    ) -> Result<Self> {
        let path = folder.join(&entry.name);
        let (file, data_offset) = open_checked(folder, &entry.name, header)?;
        // Not the present length of the file, which may have changed since it was checked.
        let length = (data_offset + entry.bytes) as usize;
        if data_offset % 64 != 0 {
            return Err(Error::data(
                &path,
                format!("data is not aligned to 64 bytes; {REBUILD}"),
            ));
        }
        let writable = match loading {
            // SAFETY: a data file is never modified, as its name contains its content hash; the mapping is
            // private, so writes through it do not reach the file. Should somebody modify it all the same,
            // its values are wrong, but offsets are checked at each use; reading past the end of a file that
            // was truncated is a SIGBUS. Without reserving swap, a store may be larger than memory.
            Loading::Mmap => unsafe {
                MmapOptions::new()
                    .len(length)
                    .no_reserve_swap()
                    .map_copy(&file)
            }
            .map_err(Error::io(&path))?,
            Loading::Ram => read_all(&file, length, &path, cancel)?,
        };
        let bytes = match is_writable {
            true => Bytes::Writable(writable),
            false => Bytes::ReadOnly(writable.make_read_only().map_err(Error::io(&path))?),
        };
        Ok(DataFile {
            bytes,
            data_offset: data_offset as usize,
        })
    }

    /// The data bytes.
    fn as_slice(&self) -> &[u8] {
        let bytes: &[u8] = match &self.bytes {
            Bytes::Writable(bytes) => bytes,
            Bytes::ReadOnly(bytes) => bytes,
        };
        &bytes[self.data_offset..]
    }

    /// Verifies all data, in parallel.
    fn verify(&self, path: &Path, chunks: &[Chunk], cancel: &Cancel) -> Result<()> {
        let mut rest = self.as_slice();
        let mut tasks = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let offset = (self.as_slice().len() - rest.len()) as u64;
            let (bytes, following) = rest.split_at(chunk.bytes as usize);
            tasks.push((offset, bytes, chunk));
            rest = following;
        }
        parallel_for_each(tasks.into_iter(), |_: &mut (), (offset, bytes, chunk)| {
            cancel.check()?;
            match Chunk::of(bytes) == *chunk {
                true => Ok(()),
                false => Err(checksum_error(path, offset, chunk)),
            }
        })
    }
}

/// Reads the first `length` bytes of a file into anonymous memory, in parallel.
fn read_all(file: &File, length: usize, path: &Path, cancel: &Cancel) -> Result<MmapMut> {
    let mut memory = MmapMut::map_anon(length).map_err(Error::io(path))?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage); // optional: fails on systems without huge pages
    let blocks = memory.chunks_mut(CHUNK_BYTES).enumerate();
    parallel_for_each(blocks, |_: &mut (), (index, block)| {
        cancel.check()?;
        let offset = (index * CHUNK_BYTES) as u64;
        file.read_exact_at(block, offset).map_err(Error::io(path))
    })?;
    Ok(memory)
}

/// An opened store, with the data of its files as byte slices.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    manifest: Manifest,
    tokens: DataFile,
    offsets: DataFile,
    spans: DataFile,
    keys: DataFile,
    scales: Option<DataFile>,
    channels: Option<DataFile>,
    offsets_checked: OnceLock<()>,
    index: OnceLock<KeyIndex>,
}

impl Store {
    /// Opens a store and checks that manifest, headers, file lengths and number of rows agree.
    ///
    /// This reads a few pages of each file. With `verify`, all data is read and compared with the checksums.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no manifest, [`Error::Data`] if a file is damaged or inconsistent with the
    /// manifest, [`Error::Interrupted`].
    pub fn open(folder: &Path, loading: Loading, verify: bool, cancel: &Cancel) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let data_files = manifest.data_files();
        let open = |(index, (entry, header)): (usize, &(&FileEntry, Header))| {
            DataFile::open(folder, (entry, header), index == TOKENS, loading, cancel)
        };
        let data: Vec<DataFile> = data_files
            .iter()
            .enumerate()
            .map(open)
            .collect::<Result<_>>()?;
        if verify {
            let all = data_files
                .iter()
                .zip(&data)
                .zip(manifest.checksums(folder)?);
            for (((entry, _), data), chunks) in all {
                data.verify(&folder.join(&entry.name), &chunks, cancel)?;
            }
        }
        let mut data = data.into_iter();
        let mut next = || data.next().expect("four files, and two more of int8");
        let [tokens, offsets, spans, keys] = [(); 4].map(|()| next());
        let is_int8 = manifest.files.scales.is_some();
        let store = Store {
            folder: folder.to_path_buf(),
            tokens,
            offsets,
            spans,
            keys,
            scales: is_int8.then(&mut next),
            channels: is_int8.then(&mut next),
            manifest,
            offsets_checked: OnceLock::new(),
            index: OnceLock::new(),
        };
        // Only the first and last offset; the others are checked at the first use.
        let offsets = store.offsets.as_slice();
        let first_and_last = [&offsets[..8], &offsets[offsets.len() - 8..]].concat();
        let first_and_last = if store.manifest.passages == 0 {
            &first_and_last[..8]
        } else {
            &first_and_last
        };
        check_offsets(first_and_last, store.manifest.rows, &store.offsets_path())?;
        if verify {
            store.offsets()?;
        }
        Ok(store)
    }

    /// Folder of the store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest of the store.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Token embeddings `[rows, dim]`, of the dtype in the manifest; their memory alone is writable.
    pub fn tokens(&self) -> &[u8] {
        self.tokens.as_slice()
    }

    /// Row offsets of the passages, int64 `[passages + 1]`; validated at the first call.
    ///
    /// # Errors
    /// [`Error::Data`] if they do not start at 0, decrease, or do not end at the number of rows.
    pub fn offsets(&self) -> Result<&[u8]> {
        let offsets = self.offsets.as_slice();
        if self.offsets_checked.get().is_none() {
            check_offsets(offsets, self.manifest.rows, &self.offsets_path())?;
            self.offsets_checked.get_or_init(|| ());
        }
        Ok(offsets)
    }

    /// Path of the offsets file.
    pub(super) fn offsets_path(&self) -> PathBuf {
        self.folder.join(&self.manifest.files.offsets.name)
    }

    /// Character spans of the tokens, uint32 `[rows, 2]`.
    pub fn spans(&self) -> &[u8] {
        self.spans.as_slice()
    }

    /// Keys of the passages, uint8 `[passages, 16]`.
    pub fn keys(&self) -> &[u8] {
        self.keys.as_slice()
    }

    /// Per-token scales of int8 embeddings, float16 `[rows]`; empty for other dtypes.
    pub fn scales(&self) -> &[u8] {
        self.scales.as_ref().map_or(&[], DataFile::as_slice)
    }

    /// Per-channel scales of int8 embeddings, float32 `[dim]`; empty for other dtypes.
    pub fn channels(&self) -> &[u8] {
        self.channels.as_ref().map_or(&[], DataFile::as_slice)
    }

    /// Passage index of each 16-byte key; -1 for a key that the store does not have.
    ///
    /// # Errors
    /// [`Error::Argument`] if the length of `keys` is not a multiple of 16, or if the index of the keys does
    /// not fit into memory; [`Error::Interrupted`].
    pub fn find(&self, keys: &[u8], cancel: &Cancel) -> Result<Vec<i64>> {
        let index = match self.index.get() {
            Some(index) => index,
            None => {
                let index = KeyIndex::new(self.keys())?;
                self.index.get_or_init(|| index)
            }
        };
        index.find(self.keys(), keys, cancel)
    }

    /// Passage index of each 16-byte key, all of which must be in the store.
    ///
    /// # Errors
    /// As [`find`](Self::find), and [`Error::Data`] if keys are missing; the message has their number and the
    /// first.
    pub fn lookup(&self, keys: &[u8], cancel: &Cancel) -> Result<Vec<i64>> {
        let found = self.find(keys, cancel)?;
        let Some(first) = found.iter().position(|&passage| passage < 0) else {
            return Ok(found);
        };
        let missing = found.iter().filter(|&&passage| passage < 0).count();
        let key: String = keys[first * 16..][..16]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Err(Error::data(
            &self.folder,
            format!(
                "{missing} of {} passages are not in the store, the first is number {first} (key {key}); \
                 run `llmdirect precompute` and `llmdirect consolidate` again, which add what is new",
                found.len()
            ),
        ))
    }
}

/// Checks that offsets start at 0, never decrease, and end at `rows`.
fn check_offsets(bytes: &[u8], rows: usize, path: &Path) -> Result<()> {
    let mut check = OffsetValidator::default();
    check.update(bytes, path)?;
    check.finish(rows, path)
}

/// Validates offsets incrementally: they must start at 0, never decrease, and end at the number of rows.
#[derive(Debug, Default)]
pub(super) struct OffsetValidator {
    last: Option<i64>,
    count: usize,
}

impl OffsetValidator {
    /// Checks the next offsets, 8 bytes each.
    pub(super) fn update(&mut self, bytes: &[u8], path: &Path) -> Result<()> {
        for bytes in bytes.chunks_exact(8) {
            let value = i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            let valid = self.last.map_or(value == 0, |last| value >= last);
            if !valid {
                let data_files = self
                    .last
                    .map_or("0".into(), |last| format!("at least {last}"));
                return Err(Error::data(
                    path,
                    format!(
                        "offset {} is {value}, expected {data_files}; {REBUILD}",
                        self.count
                    ),
                ));
            }
            self.last = Some(value);
            self.count += 1;
        }
        Ok(())
    }

    /// Checks that the last offset is the number of rows.
    pub(super) fn finish(&self, rows: usize, path: &Path) -> Result<()> {
        let last = self.last.unwrap_or(-1);
        if usize::try_from(last) != Ok(rows) {
            return Err(Error::data(
                path,
                format!("last offset is {last}, expected {rows} rows; {REBUILD}"),
            ));
        }
        Ok(())
    }
}
