//! Writing all data files of a store together.

use std::path::Path;

use super::checksums::write_checksums;
use super::chunk::Chunk;
use super::manifest::{Files, KEYS, SCALES, SPANS, TOKENS, TokenDtype};
use super::writer::{NpyWriter, Ready};
use crate::Result;
use crate::npy::Dtype;

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

/// The writers of a new store, filled together and committed together.
#[derive(Debug)]
pub(super) struct StoreWriter {
    dtype: TokenDtype,
    dim: usize,
    pub(super) tokens: NpyWriter,
    pub(super) spans: NpyWriter,
    pub(super) keys: NpyWriter,
    /// Of int8 alone, as `channels`.
    pub(super) scales: Option<NpyWriter>,
    pub(super) offsets: NpyWriter,
    channels: Option<NpyWriter>,
    pub(super) rows: i64,
}

impl StoreWriter {
    /// `channels`: float32 `[dim]` as bytes, of int8 alone.
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
            tokens: create("tokens", dtype.on_disk(), &[dim])?,
            spans: create("spans", Dtype::U32, &[2])?,
            keys: create("keys", Dtype::U8, &[16])?,
            scales,
            offsets,
            channels,
            rows: 0,
        })
    }

    /// The writers of what has a row for each token or passage, each with its place in [`Manifest::expected`](super::Manifest::expected).
    pub(super) fn rows_and_passages(&mut self) -> impl Iterator<Item = (usize, &mut NpyWriter)> {
        let always = [
            (TOKENS, &mut self.tokens),
            (SPANS, &mut self.spans),
            (KEYS, &mut self.keys),
        ];
        let scales = self.scales.iter_mut().map(|scales| (SCALES, scales));
        always.into_iter().chain(scales)
    }

    /// Ends a passage of `rows` tokens.
    pub(super) fn end_passage(&mut self, rows: usize) -> Result<()> {
        self.rows += rows as i64;
        self.offsets.write(&self.rows.to_le_bytes())
    }

    pub(super) fn commit(self, folder: &Path) -> Result<Joined> {
        // All are complete and synced before the first gets its name.
        let [tokens, offsets, spans, keys] =
            [self.tokens, self.offsets, self.spans, self.keys].map(NpyWriter::finish);
        let (tokens, offsets, spans, keys) = (tokens?, offsets?, spans?, keys?);
        let [scales, channels] =
            [self.scales, self.channels].map(|writer| writer.map(NpyWriter::finish).transpose());
        let (scales, channels) = (scales?, channels?);
        let (rows, passages) = (tokens.rows(), keys.rows());
        debug_assert_eq!((rows, rows as i64), (spans.rows(), self.rows));
        debug_assert_eq!(passages + 1, offsets.rows());
        let mut all: Vec<Chunk> = Vec::new();
        let mut commit = |ready: Ready| {
            let (entry, chunks) = ready.commit()?;
            all.extend(chunks);
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
        files.checksums = Some(write_checksums(folder, &all)?);
        Ok(Joined {
            dtype: self.dtype,
            dim: self.dim,
            rows,
            passages,
            files,
        })
    }
}
