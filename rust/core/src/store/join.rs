//! Consolidating shards into one store: data is copied and verified at the same time.

use std::path::{Path, PathBuf};

use super::chunk::Chunk;
use super::files::{ChunkReader, FileEntry, REBUILD};
use super::manifest::{KEYS, Manifest, OFFSETS};
use super::open::OffsetValidator;
use super::store_writer::{Progress, StoreFiles, StoreWriter};
use super::writer::NpyWriter;
use crate::npy::Header;
use crate::{Cancel, Error, Result};

/// Concatenates shards, in the given order, into the data files of a store in the folder `out`.
///
/// `kept` selects passages of each shard; `None` keeps all, and copies whole chunks with their checksums.
///
/// Needs a few MiB of memory. After an error `out` is unchanged; only if renaming the finished files fails,
/// some may remain that no manifest lists.
///
/// # Errors
/// [`Error::Data`] if a shard is damaged or differs in dtype or dimension, [`Error::Io`], for example if the
/// disk is full, [`Error::Argument`] if `kept` does not match the shards, [`Error::Interrupted`].
pub fn consolidate_shards(
    shards: &[PathBuf],
    kept: &[Option<Vec<bool>>],
    out: &Path,
    progress: Progress<'_>,
    cancel: &Cancel,
) -> Result<StoreFiles> {
    let manifests = shards
        .iter()
        .map(|shard| Manifest::read(shard))
        .collect::<Result<Vec<_>>>()?;
    let Some(first) = manifests.first() else {
        return Err(Error::Argument("no shards to consolidate".into()));
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
            "kept has {} entries for {} shards",
            kept.len(),
            shards.len()
        )));
    }
    let channels = shared_channels(shards, &manifests)?;
    let mut writer = StoreWriter::create(out, first.dtype, first.dim, channels.as_deref())?;
    for ((folder, manifest), kept) in shards.iter().zip(&manifests).zip(kept) {
        let (shard, rows) = (Shard::open(folder, manifest, progress)?, manifest.rows);
        match kept {
            None => append_all(&mut writer, &shard, rows, progress, cancel)?,
            Some(kept) if kept.len() != manifest.passages => {
                return Err(Error::Argument(format!(
                    "{}: kept has {} entries for {} passages",
                    folder.display(),
                    kept.len(),
                    manifest.passages
                )));
            }
            Some(kept) => append_kept(&mut writer, &shard, rows, kept, progress, cancel)?,
        }
    }
    writer.commit(out)
}

/// The per-channel scales of int8 shards, which must be equal in all of them; `None` for other dtypes.
fn shared_channels(shards: &[PathBuf], manifests: &[Manifest]) -> Result<Option<Vec<u8>>> {
    let Some(first) = &manifests[0].files.channels else {
        return Ok(None);
    };
    // File names contain the content hash.
    let differs = |manifest: &Manifest| {
        manifest
            .files
            .channels
            .as_ref()
            .map(|channels| &channels.name)
            != Some(&first.name)
    };
    if let Some(index) = manifests.iter().position(differs) {
        return Err(Error::data(
            &Manifest::path(&shards[index]),
            format!(
                "its per-channel scales differ from those of {}; remove the shards of one of the \
                 two runs and run `llmdirect precompute` again",
                shards[0].display()
            ),
        ));
    }
    let data_files = manifests[0].data_files();
    let (index, (entry, header)) = data_files.iter().enumerate().next_back().expect("channels");
    let chunks = &manifests[0].checksums(&shards[0])?[index];
    let mut reader = ChunkReader::open(&shards[0], entry, header, chunks)?;
    let mut bytes = Vec::new();
    while let Some((chunk, _)) = reader.next_chunk()? {
        bytes.extend_from_slice(chunk);
    }
    Ok(Some(bytes))
}

/// A shard to copy: its data files in the order of [`Manifest::data_files`].
struct Shard<'a> {
    folder: &'a Path,
    files: Vec<(&'a FileEntry, Header)>,
    chunks: Vec<Vec<Chunk>>,
}

impl<'a> Shard<'a> {
    /// Reads the checksums of a shard, and reports the bytes of files that are not copied by chunks.
    fn open(folder: &'a Path, manifest: &'a Manifest, progress: Progress<'_>) -> Result<Self> {
        let chunks = manifest.checksums(folder)?;
        let uncopied = [&manifest.files.checksums, &manifest.files.channels];
        progress(
            uncopied
                .into_iter()
                .flatten()
                .map(|entry| entry.bytes)
                .sum(),
        );
        Ok(Shard {
            folder,
            files: manifest.data_files(),
            chunks,
        })
    }

    /// Opens a data file of the shard.
    fn reader(&self, file: usize) -> Result<ChunkReader<'_>> {
        let (entry, header) = &self.files[file];
        ChunkReader::open(self.folder, entry, header, &self.chunks[file])
    }

    /// Bytes per row of a data file.
    fn row_bytes(&self, file: usize) -> u64 {
        let header = &self.files[file].1;
        (header.shape[1..].iter().product::<usize>() * header.dtype.size) as u64
    }
}

/// Copies all passages, as whole chunks with their checksums.
fn append_all(
    writer: &mut StoreWriter,
    shard: &Shard<'_>,
    rows: usize,
    progress: Progress<'_>,
    cancel: &Cancel,
) -> Result<()> {
    for (file, out) in writer.row_writers() {
        let mut reader = shard.reader(file)?;
        while let Some((bytes, chunk)) = reader.next_chunk()? {
            cancel.check()?;
            out.write_chunk(bytes, chunk)?;
            progress(chunk.bytes);
        }
    }
    let from = (writer.rows, rows);
    let (reader, chunks) = (shard.reader(OFFSETS)?, &shard.chunks[OFFSETS]);
    writer.rows += append_offsets(&mut writer.offsets, reader, from, chunks, cancel)?;
    progress(shard.files[OFFSETS].0.bytes);
    Ok(())
}

/// Copies the passages selected by `kept`. All data of the shard is read and verified.
fn append_kept(
    writer: &mut StoreWriter,
    shard: &Shard<'_>,
    rows: usize,
    kept: &[bool],
    progress: Progress<'_>,
    cancel: &Cancel,
) -> Result<()> {
    let mut reader = shard.reader(OFFSETS)?;
    let (path, mut validator) = (reader.path().to_path_buf(), OffsetValidator::default());
    let mut offsets: Vec<u64> = Vec::with_capacity(kept.len() + 1);
    while let Some((bytes, chunk)) = reader.next_chunk()? {
        validator.update(bytes, &path)?;
        let values = bytes.as_chunks::<8>().0.iter();
        offsets.extend(values.map(|value| u64::from_le_bytes(*value)));
        progress(chunk.bytes);
    }
    validator.finish(rows, &path)?;
    let (mut rows, mut passages) = (Vec::new(), Vec::new());
    for (passage, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
        let (start, stop) = (offsets[passage], offsets[passage + 1]);
        writer.end_passage((stop - start) as usize)?;
        push_range(&mut rows, start, stop);
        push_range(&mut passages, passage as u64, passage as u64 + 1);
    }

    for (file, out) in writer.row_writers() {
        let size = shard.row_bytes(file);
        let mut ranges = if file == KEYS { &passages } else { &rows }
            .iter()
            .map(|&(start, stop)| (start * size, stop * size))
            .peekable();
        let mut reader = shard.reader(file)?;
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
                    break; // the rest of the range is in the next chunk
                }
                ranges.next();
            }
            done = end;
            progress(chunk.bytes);
        }
    }
    Ok(())
}

/// Appends start..stop to ascending ranges, merging it with an adjacent last one.
fn push_range(ranges: &mut Vec<(u64, u64)>, start: u64, stop: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 == start => last.1 = stop,
        _ => ranges.push((start, stop)),
    }
}

/// Appends the offsets of a shard except the first, each plus `base`; returns the number of rows of the
/// shard.
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
            format!("a checksum covers part of an offset; {REBUILD}"),
        ));
    }
    let mut validator = OffsetValidator::default();
    let mut shifted = Vec::new();
    let mut skip = 1; // the first offset, 0, equals the last one of the previous shard
    while let Some((bytes, _)) = reader.next_chunk()? {
        cancel.check()?;
        validator.update(bytes, &path)?;
        shifted.clear();
        for value in &bytes.as_chunks::<8>().0[skip..] {
            shifted.extend_from_slice(&(i64::from_le_bytes(*value) + base).to_le_bytes());
        }
        skip = 0;
        writer.write(&shifted)?;
    }
    validator.finish(rows, &path)?;
    Ok(rows as i64)
}
