//! Opening a store: a private map of its files, or all of it in memory, checked before use.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::{MmapMut, MmapOptions};

use super::chunk::{CHUNK_BYTES, Chunk};
use super::files::{FileEntry, REBUILD, checksum_error, open_checked};
use super::keys::KeyIndex;
use super::manifest::Manifest;
use crate::npy::Header;
use crate::threads::parallel_for_each;
use crate::{Cancel, Error, Result};

/// Where the data of an opened store lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// In the page cache, shared by all processes; pages are read when they are touched.
    Map,
    /// In this process's memory, in huge pages where the system grants them.
    Ram,
}

/// The data bytes of one file.
#[derive(Debug)]
struct Data {
    bytes: MmapMut,
    data_at: usize,
}

impl Data {
    fn open(
        folder: &Path,
        entry: &FileEntry,
        header: &Header,
        loading: Loading,
        cancel: &Cancel,
    ) -> Result<Self> {
        let path = folder.join(&entry.name);
        let (file, data_at) = open_checked(&path, header)?;
        if data_at % 64 != 0 {
            return Err(Error::data(
                &path,
                format!("data is not aligned to 64 bytes; {REBUILD}"),
            ));
        }
        let bytes = match loading {
            // SAFETY: data files never change under their name, which is the hash of their content;
            // the map is private, so nothing written through it reaches the file.
            // Without swap reserved, a store may be larger than memory.
            Loading::Map => unsafe { MmapOptions::new().no_reserve_swap().map_copy(&file) }
                .map_err(Error::io(&path))?,
            Loading::Ram => read_all(&file, &path, cancel)?,
        };
        Ok(Data {
            bytes,
            data_at: data_at as usize,
        })
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.data_at..]
    }

    fn verify(&self, path: &Path, chunks: &[Chunk], cancel: &Cancel) -> Result<()> {
        let mut rest = self.as_slice();
        let mut pieces = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let at = (self.as_slice().len() - rest.len()) as u64;
            let (bytes, behind) = rest.split_at(chunk.bytes as usize);
            pieces.push((at, bytes, chunk));
            rest = behind;
        }
        parallel_for_each(pieces.into_iter(), |_: &mut (), (at, bytes, chunk)| {
            cancel.check()?;
            match Chunk::of(bytes) == *chunk {
                true => Ok(()),
                false => Err(checksum_error(path, at, chunk)),
            }
        })
    }
}

/// The whole file in anonymous memory, read at many positions at once.
fn read_all(file: &File, path: &Path, cancel: &Cancel) -> Result<MmapMut> {
    let length = file.metadata().map_err(Error::io(path))?.len() as usize;
    let mut memory = MmapMut::map_anon(length).map_err(Error::io(path))?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage); // a wish: systems without huge pages refuse it
    let blocks = memory.chunks_mut(CHUNK_BYTES).enumerate();
    parallel_for_each(blocks, |_: &mut (), (number, block)| {
        cancel.check()?;
        let at = (number * CHUNK_BYTES) as u64;
        file.read_exact_at(block, at).map_err(Error::io(path))
    })?;
    Ok(memory)
}

/// An opened store: plain slices, and passages [gathered](Store::gather) from them.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    manifest: Manifest,
    tokens: Data,
    offsets: Data,
    spans: Data,
    keys: Data,
    scales: Option<Data>,
    channels: Option<Data>,
    offsets_checked: OnceLock<()>,
    index: OnceLock<KeyIndex>,
}

impl Store {
    /// Opens `folder` and checks that manifest, headers, file lengths and number of rows agree: a few pages are
    /// read, whatever the size.
    ///
    /// With `verify`, every byte is read and compared with the checksums.
    ///
    /// # Errors
    /// [`Error::Io`] where there is no manifest, [`Error::Data`] where anything does not fit.
    pub fn open(folder: &Path, loading: Loading, verify: bool, cancel: &Cancel) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let expected = manifest.expected();
        let open = |(entry, header): &(&FileEntry, Header)| {
            Data::open(folder, entry, header, loading, cancel)
        };
        let data: Vec<Data> = expected.iter().map(open).collect::<Result<_>>()?;
        if verify {
            let all = expected.iter().zip(&data).zip(manifest.checksums(folder)?);
            for (((entry, _), data), chunks) in all {
                data.verify(&folder.join(&entry.name), &chunks, cancel)?;
            }
        }
        let mut data = data.into_iter();
        let mut next = || data.next().expect("four files, and two more of int8");
        let [tokens, offsets, spans, keys] = [(); 4].map(|()| next());
        let scaled = manifest.files.scales.is_some();
        let store = Store {
            folder: folder.to_path_buf(),
            tokens,
            offsets,
            spans,
            keys,
            scales: scaled.then(&mut next),
            channels: scaled.then(&mut next),
            manifest,
            offsets_checked: OnceLock::new(),
            index: OnceLock::new(),
        };
        // What lies between is read at the first use.
        let borders = store.offsets.as_slice();
        let ends = [&borders[..8], &borders[borders.len() - 8..]].concat();
        let ends = if store.manifest.passages == 0 {
            &ends[..8]
        } else {
            &ends
        };
        check_offsets(ends, store.manifest.rows, &store.offsets_path())?;
        if verify {
            store.offsets()?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the store holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Token embeddings, `[rows, dim]` of the store's type.
    pub fn tokens(&self) -> &[u8] {
        self.tokens.as_slice()
    }

    /// Offsets, int64 `[passages + 1]`: they start at 0, never fall and end at the number of rows, which the
    /// first call makes sure of.
    ///
    /// # Errors
    /// [`Error::Data`] where they don't.
    pub fn offsets(&self) -> Result<&[u8]> {
        let offsets = self.offsets.as_slice();
        if self.offsets_checked.get().is_none() {
            check_offsets(offsets, self.manifest.rows, &self.offsets_path())?;
            self.offsets_checked.get_or_init(|| ());
        }
        Ok(offsets)
    }

    fn offsets_path(&self) -> PathBuf {
        self.folder.join(&self.manifest.files.offsets.name)
    }

    /// Spans, uint32 `[rows, 2]`.
    pub fn spans(&self) -> &[u8] {
        self.spans.as_slice()
    }

    /// Keys, uint8 `[passages, 16]`.
    pub fn keys(&self) -> &[u8] {
        self.keys.as_slice()
    }

    /// Scales of int8 tokens, float16 `[rows]`; empty for other types.
    pub fn scales(&self) -> &[u8] {
        self.scales.as_ref().map_or(&[], Data::as_slice)
    }

    /// Scales of the dimensions of int8 tokens, float32 `[dim]`; empty for other types.
    pub fn channels(&self) -> &[u8] {
        self.channels.as_ref().map_or(&[], Data::as_slice)
    }

    /// Passage of each 16-byte key; -1 where the store has no such key.
    ///
    /// # Errors
    /// [`Error::Argument`] where `keys` are not 16 bytes each, [`Error::Interrupted`].
    pub fn find(&self, keys: &[u8], cancel: &Cancel) -> Result<Vec<i64>> {
        let index = self.index.get_or_init(|| KeyIndex::new(self.keys()));
        index.find(self.keys(), keys, cancel)
    }

    /// As [`find`](Self::find), where every key must be present.
    ///
    /// # Errors
    /// Also [`Error::Data`] that names how many keys are missing, and the first.
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

/// Offsets start at 0, never fall, and end at `rows`.
fn check_offsets(bytes: &[u8], rows: usize, path: &Path) -> Result<()> {
    let mut check = OffsetCheck::default();
    check.feed(bytes, path)?;
    check.finish(rows, path)
}

/// Checks offsets that come in pieces of whole numbers.
#[derive(Debug, Default)]
pub(super) struct OffsetCheck {
    last: Option<i64>,
    count: usize,
}

impl OffsetCheck {
    pub(super) fn feed(&mut self, bytes: &[u8], path: &Path) -> Result<()> {
        for bytes in bytes.chunks_exact(8) {
            let value = i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            let good = self.last.map_or(value == 0, |last| value >= last);
            if !good {
                let expected = self
                    .last
                    .map_or("0".into(), |last| format!("at least {last}"));
                return Err(Error::data(
                    path,
                    format!(
                        "offset {} is {value}, expected {expected}; {REBUILD}",
                        self.count
                    ),
                ));
            }
            self.last = Some(value);
            self.count += 1;
        }
        Ok(())
    }

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
