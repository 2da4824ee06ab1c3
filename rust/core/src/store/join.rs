//! Joining shards into one store: bytes are copied, and checked while they are copied.

use std::path::{Path, PathBuf};

use super::chunk::Chunk;
use super::files::{ChunkReader, FileEntry, REBUILD};
use super::manifest::{KEYS, Manifest, OFFSETS};
use super::open::OffsetCheck;
use super::store_writer::{Joined, StoreWriter};
use super::writer::NpyWriter;
use crate::npy::Header;
use crate::{Cancel, Error, Result};

/// Called with the number of bytes done since the last call.
pub type OnBytes<'a> = &'a mut (dyn FnMut(u64) + Send);

/// Joins `shards`, in the order given, into the data files of a store in `out`.
///
/// `kept`: for each shard which of its passages go into the store; `None` for all, which copies whole chunks
/// with their checksums.
///
/// Needs a few MiB of memory whatever the size. On an error `out` is as before, but for complete
/// files that no manifest names, where already the renaming of the last files failed.
///
/// # Errors
/// [`Error::Data`] for a damaged shard or one of another type or dimension, [`Error::Io`] (a full
/// disk among them), [`Error::Interrupted`], [`Error::Argument`] where `kept` does not fit the shards.
pub fn consolidate_shards(
    shards: &[PathBuf],
    kept: &[Option<Vec<bool>>],
    out: &Path,
    on_bytes: OnBytes<'_>,
    cancel: &Cancel,
) -> Result<Joined> {
    let manifests = shards
        .iter()
        .map(|shard| Manifest::read(shard))
        .collect::<Result<Vec<_>>>()?;
    let Some(first) = manifests.first() else {
        return Err(Error::Argument("no shards to join".into()));
    };
    for (shard, manifest) in shards.iter().zip(&manifests) {
        let (found, expected) = ((manifest.dtype, manifest.dim), (first.dtype, first.dim));
        if found != expected {
            return Err(Error::data(
                &Manifest::path(shard),
                format!(
                    "{} of dimension {}, but {} has {} of dimension {}; remove the shards of one of the two \
                     models and run `llmdirect precompute` again",
                    found.0.name(),
                    found.1,
                    shards[0].display(),
                    expected.0.name(),
                    expected.1
                ),
            ));
        }
    }
    if kept.len() != shards.len() {
        return Err(Error::Argument(format!(
            "{} choices of passages for {} shards",
            kept.len(),
            shards.len()
        )));
    }
    let channels = common_channels(shards, &manifests)?;
    let mut writer = StoreWriter::create(out, first.dtype, first.dim, channels.as_deref())?;
    for ((shard, manifest), kept) in shards.iter().zip(&manifests).zip(kept) {
        let (source, rows) = (Source::open(shard, manifest, on_bytes)?, manifest.rows);
        match kept {
            None => append(&mut writer, &source, rows, on_bytes, cancel)?,
            Some(kept) if kept.len() != manifest.passages => {
                return Err(Error::Argument(format!(
                    "{}: {} choices for {} passages",
                    shard.display(),
                    kept.len(),
                    manifest.passages
                )));
            }
            Some(kept) => append_chosen(&mut writer, &source, rows, kept, on_bytes, cancel)?,
        }
    }
    writer.commit(out)
}

/// What the dimensions of all shards are multiplied by, where they are int8.
fn common_channels(shards: &[PathBuf], manifests: &[Manifest]) -> Result<Option<Vec<u8>>> {
    let Some(first) = &manifests[0].files.channels else {
        return Ok(None);
    };
    // The name carries the hash of the content.
    let other = |manifest: &Manifest| {
        manifest
            .files
            .channels
            .as_ref()
            .map(|channels| &channels.name)
            != Some(&first.name)
    };
    if let Some(place) = manifests.iter().position(other) {
        return Err(Error::data(
            &Manifest::path(&shards[place]),
            format!(
                "its dimensions are scaled by other numbers than those of {}; remove the shards of one of the \
                 two runs and run `llmdirect precompute` again",
                shards[0].display()
            ),
        ));
    }
    let expected = manifests[0].expected();
    let (place, (entry, header)) = expected.iter().enumerate().next_back().expect("channels");
    let chunks = &manifests[0].checksums(&shards[0])?[place];
    let mut reader = ChunkReader::open(&shards[0], entry, header, chunks)?;
    let mut bytes = Vec::new();
    while let Some((chunk, _)) = reader.next_chunk()? {
        bytes.extend_from_slice(chunk);
    }
    Ok(Some(bytes))
}

/// A shard that is copied: its data files in the order of [`Manifest::expected`].
struct Source<'a> {
    folder: &'a Path,
    files: Vec<(&'a FileEntry, Header)>,
    chunks: Vec<Vec<Chunk>>,
}

impl<'a> Source<'a> {
    /// Reads the checksums; counts the bytes of files that are read as a whole.
    fn open(folder: &'a Path, manifest: &'a Manifest, on_bytes: OnBytes<'_>) -> Result<Self> {
        let chunks = manifest.checksums(folder)?;
        let beside = [&manifest.files.checksums, &manifest.files.channels];
        on_bytes(beside.into_iter().flatten().map(|entry| entry.bytes).sum());
        Ok(Source {
            folder,
            files: manifest.expected(),
            chunks,
        })
    }

    fn reader(&self, file: usize) -> Result<ChunkReader<'_>> {
        let (entry, header) = &self.files[file];
        ChunkReader::open(self.folder, entry, header, &self.chunks[file])
    }

    fn row_bytes(&self, file: usize) -> u64 {
        let header = &self.files[file].1;
        (header.shape[1..].iter().product::<usize>() * header.dtype.size) as u64
    }
}

/// Copies all passages, whole chunks with their checksums.
fn append(
    writer: &mut StoreWriter,
    source: &Source<'_>,
    rows: usize,
    on_bytes: OnBytes<'_>,
    cancel: &Cancel,
) -> Result<()> {
    for (file, out) in writer.rows_and_passages() {
        let mut reader = source.reader(file)?;
        while let Some((bytes, chunk)) = reader.next_chunk()? {
            cancel.check()?;
            out.write_chunk(bytes, chunk)?;
            on_bytes(chunk.bytes);
        }
    }
    let from = (writer.rows, rows);
    let (reader, chunks) = (source.reader(OFFSETS)?, &source.chunks[OFFSETS]);
    writer.rows += append_offsets(&mut writer.offsets, reader, from, chunks, cancel)?;
    on_bytes(source.files[OFFSETS].0.bytes);
    Ok(())
}

/// Copies the passages that are `kept` alone. Every byte of the shard is read and checked.
fn append_chosen(
    writer: &mut StoreWriter,
    source: &Source<'_>,
    rows: usize,
    kept: &[bool],
    on_bytes: OnBytes<'_>,
    cancel: &Cancel,
) -> Result<()> {
    let mut reader = source.reader(OFFSETS)?;
    let (path, mut check) = (reader.path().to_path_buf(), OffsetCheck::default());
    let mut borders: Vec<u64> = Vec::with_capacity(kept.len() + 1);
    while let Some((bytes, chunk)) = reader.next_chunk()? {
        check.feed(bytes, &path)?;
        let values = bytes.as_chunks::<8>().0.iter();
        borders.extend(values.map(|value| u64::from_le_bytes(*value)));
        on_bytes(chunk.bytes);
    }
    check.finish(rows, &path)?;
    let (mut rows, mut passages) = (Vec::new(), Vec::new());
    for (passage, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
        let (start, stop) = (borders[passage], borders[passage + 1]);
        writer.end_passage((stop - start) as usize)?;
        lengthen(&mut rows, start, stop);
        lengthen(&mut passages, passage as u64, passage as u64 + 1);
    }

    for (file, out) in writer.rows_and_passages() {
        let size = source.row_bytes(file);
        let mut ranges = if file == KEYS { &passages } else { &rows }
            .iter()
            .map(|&(start, stop)| (start * size, stop * size))
            .peekable();
        let mut reader = source.reader(file)?;
        let mut done = 0;
        while let Some((bytes, chunk)) = reader.next_chunk()? {
            cancel.check()?;
            let end = done + chunk.bytes;
            while let Some(&(start, stop)) = ranges.peek()
                && start < end
            {
                let (low, high) = (start.max(done) - done, stop.min(end) - done);
                out.write(&bytes[low as usize..high as usize])?;
                if stop > end {
                    break; // the rest of it is in the next chunk
                }
                ranges.next();
            }
            done = end;
            on_bytes(chunk.bytes);
        }
    }
    Ok(())
}

/// Appends [start, stop) to ascending ranges, or lengthens the last of them.
fn lengthen(ranges: &mut Vec<(u64, u64)>, start: u64, stop: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 == start => last.1 = stop,
        _ => ranges.push((start, stop)),
    }
}

/// Copies a shard's offsets but for the first, raised by `base`; returns the shard's rows.
fn append_offsets(
    writer: &mut NpyWriter,
    mut reader: ChunkReader<'_>,
    (base, rows): (i64, usize),
    chunks: &[Chunk],
    cancel: &Cancel,
) -> Result<i64> {
    let path = reader.path().to_path_buf();
    if chunks.iter().any(|chunk| chunk.bytes % 8 != 0) {
        return Err(Error::data(
            &path,
            format!("a checksum ends inside an offset; {REBUILD}"),
        ));
    }
    let mut check = OffsetCheck::default();
    let mut raised = Vec::new();
    let mut skip = 1; // the leading 0 is the end of the shard before
    while let Some((bytes, _)) = reader.next_chunk()? {
        cancel.check()?;
        check.feed(bytes, &path)?;
        raised.clear();
        for value in &bytes.as_chunks::<8>().0[skip..] {
            raised.extend_from_slice(&(i64::from_le_bytes(*value) + base).to_le_bytes());
        }
        skip = 0;
        writer.write(&raised)?;
    }
    check.finish(rows, &path)?;
    Ok(rows as i64)
}
