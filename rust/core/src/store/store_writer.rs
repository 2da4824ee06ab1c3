//! Writing all data files of a store together.

use std::path::Path;

use super::checksums::write_checksums;
use super::chunk::Chunk;
use super::manifest::{Files, KEYS, SCALES, SPANS, TOKENS, TokenDtype};
use super::writer::{FinishedNpy, NpyWriter};
use crate::Result;
use crate::npy::Dtype;

/// A progress callback, called with the number of bytes processed since the last call.
pub type Progress<'a> = &'a mut (dyn FnMut(u64) + Send);

/// The data files of a new store, for its manifest, which is written by the caller.
#[derive(Clone, Debug)]
pub struct StoreFiles {
    /// Dtype of the token embeddings.
    pub dtype: TokenDtype,
    /// Dimension of a token embedding.
    pub dim: usize,
    /// Number of tokens.
    pub rows: usize,
    /// Number of passages.
    pub passages: usize,
    /// The data files.
    pub files: Files,
}

/// Writers of all data files of a store, which are committed together.
#[derive(Debug)]
pub(super) struct StoreWriter {
    dtype: TokenDtype,
    dim: usize,
    pub(super) tokens: NpyWriter,
    pub(super) spans: NpyWriter,
    pub(super) keys: NpyWriter,
    /// For int8 only.
    pub(super) scales: Option<NpyWriter>,
    pub(super) offsets: NpyWriter,
    channels: Option<NpyWriter>,
    pub(super) rows: i64,
}

impl StoreWriter {
    /// Creates the files in `folder`.
    ///
    /// `channels`: the per-channel scales as bytes, float32 `[dim]`, for int8 only.
    pub(super) fn create(
        folder: &Path,
        dtype: TokenDtype,
        dim: usize,
        channels: Option<&[u8]>,
    ) -> Result<Self> {
        debug_assert_eq!(channels.is_some(), dtype == TokenDtype::Int8);
        let create = |stem, dtype, tail: &[usize]| NpyWriter::create(folder, stem, dtype, tail);
        let mut offsets = create("offsets", Dtype::I64, &[])?;
        offsets.write(&0_i64.to_le_bytes())?;
        let (scales, channels) = match channels {
            None => (None, None),
            Some(bytes) => {
                let mut channels = create("channels", Dtype::F32, &[])?;
                channels.write(bytes)?;
                (Some(create("scales", Dtype::F16, &[])?), Some(channels))
            }
        };
        Ok(StoreWriter {
            dtype,
            dim,
            tokens: create("tokens", dtype.npy_dtype(), &[dim])?,
            spans: create("spans", Dtype::U32, &[2])?,
            keys: create("keys", Dtype::U8, &[16])?,
            scales,
            offsets,
            channels,
            rows: 0,
        })
    }

    /// The writers of files with one row per token or passage, each with its index in
    /// [`Manifest::data_files`](super::Manifest::data_files).
    pub(super) fn row_writers(&mut self) -> impl Iterator<Item = (usize, &mut NpyWriter)> {
        let unconditional = [
            (TOKENS, &mut self.tokens),
            (SPANS, &mut self.spans),
            (KEYS, &mut self.keys),
        ];
        let scales = self.scales.iter_mut().map(|scales| (SCALES, scales));
        unconditional.into_iter().chain(scales)
    }

    /// Completes a passage of `rows` tokens.
    pub(super) fn end_passage(&mut self, rows: usize) -> Result<()> {
        self.rows += rows as i64;
        self.offsets.write(&self.rows.to_le_bytes())
    }

    /// Completes all files and gives them their final names.
    pub(super) fn commit(self, folder: &Path) -> Result<StoreFiles> {
        // All files are complete and synced before the first is renamed.
        let [tokens, offsets, spans, keys] =
            [self.tokens, self.offsets, self.spans, self.keys].map(NpyWriter::finish);
        let (tokens, offsets, spans, keys) = (tokens?, offsets?, spans?, keys?);
        let [scales, channels] =
            [self.scales, self.channels].map(|writer| writer.map(NpyWriter::finish).transpose());
        let (scales, channels) = (scales?, channels?);
        let (rows, passages) = (tokens.rows(), keys.rows());
        debug_assert_eq!((rows, rows as i64), (spans.rows(), self.rows));
        debug_assert_eq!(passages + 1, offsets.rows());
        let mut all_chunks: Vec<Chunk> = Vec::new();
        let mut commit = |ready: FinishedNpy| {
            let (entry, chunks) = ready.commit()?;
            all_chunks.extend(chunks);
            Ok(entry)
        };
        let mut files = Files {
            tokens: commit(tokens)?,
            offsets: commit(offsets)?,
            spans: commit(spans)?,
            keys: commit(keys)?,
            scales: scales.map(&mut commit).transpose()?,
            channels: channels.map(&mut commit).transpose()?,
            checksums: None,
        };
        files.checksums = Some(write_checksums(folder, &all_chunks)?);
        Ok(StoreFiles {
            dtype: self.dtype,
            dim: self.dim,
            rows,
            passages,
            files,
        })
    }
}
