//! Joining shards into one store: bytes are copied, and checked while they are copied.

use std::path::{Path, PathBuf};

use super::files::ChunkReader;
use super::manifest::{Files, Manifest, TokenDtype};
use super::open::OffsetCheck;
use super::writer::NpyWriter;
use super::{FileEntry, REMAKE};
use crate::npy::Dtype;
use crate::{Cancel, Error, Result};

/// Called with the number of bytes done since the last call.
pub type OnBytes<'a> = &'a mut (dyn FnMut(u64) + Send);

/// What a new store holds; its manifest is still to be written.
#[derive(Clone, Debug)]
pub struct Joined {
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
}

/// The four writers of a new store, filled together and committed together.
#[derive(Debug)]
pub(super) struct StoreWriter {
    dtype: TokenDtype,
    dim: usize,
    pub(super) tokens: NpyWriter,
    pub(super) spans: NpyWriter,
    pub(super) keys: NpyWriter,
    offsets: NpyWriter,
    rows: i64,
}

impl StoreWriter {
    pub(super) fn create(folder: &Path, dtype: TokenDtype, dim: usize) -> Result<Self> {
        let mut offsets = NpyWriter::create(folder, "offsets", Dtype::I64, &[])?;
        offsets.write(&0_i64.to_le_bytes())?;
        Ok(StoreWriter {
            dtype,
            dim,
            tokens: NpyWriter::create(folder, "tokens", dtype.on_disk(), &[dim])?,
            spans: NpyWriter::create(folder, "spans", Dtype::U32, &[2])?,
            keys: NpyWriter::create(folder, "keys", Dtype::U8, &[16])?,
            offsets,
            rows: 0,
        })
    }

    /// Ends a passage of `rows` tokens.
    pub(super) fn end_passage(&mut self, rows: usize) -> Result<()> {
        self.rows += rows as i64;
        self.offsets.write(&self.rows.to_le_bytes())
    }

    pub(super) fn commit(self) -> Result<Joined> {
        // All four are complete and synced before the first gets its name.
        let [tokens, offsets, spans, keys] =
            [self.tokens, self.offsets, self.spans, self.keys].map(NpyWriter::finish);
        let (tokens, offsets, spans, keys) = (tokens?, offsets?, spans?, keys?);
        let (rows, passages) = (tokens.rows(), keys.rows());
        debug_assert_eq!((rows, rows as i64), (spans.rows(), self.rows));
        debug_assert_eq!(passages + 1, offsets.rows());
        Ok(Joined {
            dtype: self.dtype,
            dim: self.dim,
            rows,
            passages,
            files: Files {
                tokens: tokens.commit()?,
                offsets: offsets.commit()?,
                spans: spans.commit()?,
                keys: keys.commit()?,
            },
        })
    }
}

/// Joins `shards`, in the order given, into the data files of a store in `out`.
///
/// Needs a few MiB of memory whatever the size. On an error `out` is as before, but for complete
/// files that no manifest names, where already the renaming of the last files failed.
///
/// # Errors
/// [`Error::Data`] for a damaged shard or one of another type or dimension, [`Error::Io`] (a full
/// disk among them), [`Error::Interrupted`].
pub fn consolidate_shards(
    shards: &[PathBuf],
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
    let mut writer = StoreWriter::create(out, first.dtype, first.dim)?;
    for (shard, manifest) in shards.iter().zip(&manifests) {
        append(&mut writer, shard, manifest, on_bytes, cancel)?;
    }
    writer.commit()
}

fn append(
    writer: &mut StoreWriter,
    shard: &Path,
    manifest: &Manifest,
    on_bytes: OnBytes<'_>,
    cancel: &Cancel,
) -> Result<()> {
    let [tokens, offsets, spans, keys] = manifest.expected();
    for ((entry, header), writer) in [
        (tokens, &mut writer.tokens),
        (spans, &mut writer.spans),
        (keys, &mut writer.keys),
    ] {
        let mut reader = ChunkReader::open(shard, entry, &header)?;
        while let Some((bytes, chunk)) = reader.next_chunk()? {
            cancel.check()?;
            writer.write_chunk(bytes, chunk)?;
            on_bytes(chunk.bytes);
        }
    }
    let (entry, header) = offsets;
    let base = writer.rows;
    writer.rows += append_offsets(
        &mut writer.offsets,
        ChunkReader::open(shard, entry, &header)?,
        (base, manifest.rows),
        entry,
        cancel,
    )?;
    on_bytes(entry.bytes);
    Ok(())
}

/// Copies a shard's offsets but for the first, raised by `base`; returns the shard's rows.
fn append_offsets(
    writer: &mut NpyWriter,
    mut reader: ChunkReader<'_>,
    (base, rows): (i64, usize),
    entry: &FileEntry,
    cancel: &Cancel,
) -> Result<i64> {
    let path = reader.path().to_path_buf();
    if entry.chunks.iter().any(|chunk| chunk.bytes % 8 != 0) {
        return Err(Error::data(
            &path,
            format!("a checksum ends inside an offset; {REMAKE}"),
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
