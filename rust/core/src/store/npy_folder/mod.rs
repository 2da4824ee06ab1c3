//! Folders of one `.npy` file per document: padded token embeddings of users and items, and their masks.

mod blocks;
mod numbered;
mod side;

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::manifest::TokenDtype;
use super::quantize::{Quantizer, f32_values};
use super::store_writer::{Progress, StoreFiles, StoreWriter};
use super::writer::{FinishedNpy, NpyWriter};
use crate::hash::passage_key;
use crate::npy::Dtype;
use crate::random::block_u32s;
use crate::{Cancel, Error, Result};
use blocks::for_each_block;
use numbered::NumberedArrays;
use side::{Side, parse_mask, read_mask};

/// The sample of rows from which per-channel scales are computed: rows in total, rows per document, and seed.
const SAMPLE_ROWS: u64 = 8192;
const ROWS_PER_DOCUMENT: u64 = 32;
const SAMPLE_SEED: u64 = 0x696e_7438;

/// A folder with any of the subfolders `{user,item}_{embeddings,masks}/`, each of which has files `0.npy`,
/// `1.npy`, …
#[derive(Debug)]
pub struct NpyFolder {
    sides: Vec<Side>,
}

/// An array written by [`NpyFolder::write_padded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddedArray {
    /// File name.
    pub name: String,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// Dtype of the elements.
    pub dtype: Dtype,
}

impl NpyFolder {
    /// Lists the files of `folder`, and checks their numbering, their counts, and the first file of each
    /// subfolder.
    ///
    /// # Errors
    /// [`Error::Data`] naming the invalid file; [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Self> {
        let mut sides = Vec::new();
        for name in ["user", "item"] {
            let side = Side::open(folder, name)?;
            if side.embeddings.is_some() || side.masks.is_some() {
                sides.push(side);
            }
        }
        if sides.is_empty() {
            return Err(Error::data(
                folder,
                "has none of the folders user_embeddings/, user_masks/, item_embeddings/, item_masks/",
            ));
        }
        Ok(NpyFolder { sides })
    }

    /// Number of documents of a side, `user` or `item`; 0 if it is absent.
    pub fn documents(&self, side: &str) -> usize {
        let side = self.sides.iter().find(|s| s.name == side);
        let arrays = side.and_then(|s| s.embeddings.as_ref().or(s.masks.as_ref()));
        arrays.map_or(0, |arrays| arrays.count)
    }

    /// Data bytes of all files, the total for progress callbacks.
    pub fn bytes(&self) -> u64 {
        let arrays = self
            .sides
            .iter()
            .flat_map(|side| [&side.embeddings, &side.masks]);
        arrays
            .flatten()
            .map(|s| s.count as u64 * s.header.data_bytes().unwrap_or(0))
            .sum()
    }

    /// Writes the arrays of each subfolder into one file: `all_user_embeddings.npy` `[N, T, D]`,
    /// `all_user_masks.npy` `[N, T]`, and the same for items.
    ///
    /// All files are complete before the first is renamed. Needs a few MiB of memory.
    ///
    /// # Errors
    /// [`Error::Data`] naming the invalid file, [`Error::Io`], [`Error::Interrupted`].
    pub fn write_padded(
        &self,
        out: &Path,
        progress: Progress<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<PaddedArray>> {
        let mut finished = Vec::new();
        for side in &self.sides {
            if let Some(arrays) = &side.embeddings {
                let stem = format!("all_{}_embeddings", side.name);
                let mut writer =
                    NpyWriter::without_checksums(out, &stem, Dtype::F32, &arrays.header.shape)?;
                for_each_block(arrays, f32::MAX, cancel, |block| {
                    progress(block.length as u64);
                    writer.write(block.bytes())
                })?;
                finished.push((stem, arrays, writer.finish()?));
            }
            if let Some(arrays) = &side.masks {
                let stem = format!("all_{}_masks", side.name);
                let header = &arrays.header;
                let mut writer =
                    NpyWriter::without_checksums(out, &stem, header.dtype, &header.shape)?;
                for number in 0..arrays.count {
                    cancel.check()?;
                    let bytes = read_mask(arrays, number)?;
                    parse_mask(arrays, number, &bytes)?;
                    progress(bytes.len() as u64);
                    writer.write(&bytes)?;
                }
                finished.push((stem, arrays, writer.finish()?));
            }
        }
        let commit = |(stem, arrays, mut file): (String, &NumberedArrays, FinishedNpy)| {
            let shape = std::iter::once(arrays.count).chain(arrays.header.shape.iter().copied());
            let name = format!("{stem}.npy");
            file.rename(&name)?;
            Ok(PaddedArray {
                name,
                shape: shape.collect(),
                dtype: arrays.header.dtype,
            })
        };
        finished.into_iter().map(commit).collect()
    }

    /// Writes the data files of a store with one passage per document: all users, then all items.
    ///
    /// Masked rows are dropped, and embeddings are rounded to `dtype`. For int8, the scale of a channel is
    /// its root mean square in a sample of the rows. The key of a passage is the hash of `user:<n>` or
    /// `item:<n>`. Needs a few MiB of memory.
    ///
    /// # Errors
    /// [`Error::Data`] naming the invalid file, [`Error::Io`], [`Error::Interrupted`].
    pub fn write_store(
        &self,
        out: &Path,
        dtype: TokenDtype,
        progress: Progress<'_>,
        cancel: &Cancel,
    ) -> Result<StoreFiles> {
        let mut dim = None;
        for side in &self.sides {
            let Some(arrays) = &side.embeddings else {
                let path = side
                    .masks
                    .as_ref()
                    .map(|masks| masks.path(0))
                    .unwrap_or_default();
                return Err(Error::data(
                    &path,
                    format!(
                        "a mask without {}_embeddings/; write the embeddings too, or remove the masks",
                        side.name
                    ),
                ));
            };
            let found = arrays.header.shape[1];
            let expected = *dim.get_or_insert(found);
            if found != expected {
                return Err(Error::data(
                    &arrays.path(0),
                    format!(
                        "dimension {found}, but user_embeddings/ have {expected}; write all embeddings with \
                         the same dimension"
                    ),
                ));
            }
        }
        let dim = dim.expect("`open` has found a side");
        let (quantizer, channels) = match dtype {
            TokenDtype::Int8 => {
                let channels = self.channels(dim, cancel)?;
                let bytes: Vec<u8> = channels.iter().flat_map(|c| c.to_le_bytes()).collect();
                (Quantizer::Int8(channels), Some(bytes))
            }
            _ => (Quantizer::Nearest(dtype), None),
        };
        let mut writer = StoreWriter::create(out, dtype, dim, channels.as_deref())?;
        for side in &self.sides {
            let arrays = side.embeddings.as_ref().expect("checked above");
            let (mut kept, mut scales, mut mask) = (Vec::new(), Vec::new(), Vec::new());
            for_each_block(arrays, quantizer.max_magnitude(), cancel, |block| {
                let number = block.number;
                if block.first_row == 0 {
                    mask = side.mask(number)?;
                    progress(side.mask_bytes());
                }
                progress(block.length as u64);
                kept.clear();
                scales.clear();
                for (index, row) in block.bytes().chunks_exact(dim * 4).enumerate() {
                    let token = block.first_row + index;
                    if mask[token] && !quantizer.push_row(row, &mut kept, &mut scales) {
                        return Err(Error::data(
                            &arrays.path(number),
                            format!(
                                "token {token} has a magnitude out of the range of int8; choose bfloat16 or \
                                 float32"
                            ),
                        ));
                    }
                }
                writer.tokens.write(&kept)?;
                if let Some(writer) = &mut writer.scales {
                    writer.write(&scales)?;
                }
                if !block.last {
                    return Ok(());
                }
                let rows = mask.iter().filter(|real| **real).count();
                writer.spans.write(&vec![0; rows * 8])?;
                writer
                    .keys
                    .write(&passage_key(&format!("{}:{number}", side.name)))?;
                writer.end_passage(rows)
            })?;
        }
        writer.commit(out)
    }

    /// Per-channel scales for int8: the root mean square of each channel over [`SAMPLE_ROWS`] rows of
    /// uniformly drawn documents, and at least a thousandth of the root mean square over all channels.
    fn channels(&self, dim: usize, cancel: &Cancel) -> Result<Vec<f32>> {
        let documents = |side: &Side| side.embeddings.as_ref().map_or(0, |arrays| arrays.count);
        let total: usize = self.sides.iter().map(documents).sum();
        let mut sample: Vec<(usize, u32)> = (0..SAMPLE_ROWS / ROWS_PER_DOCUMENT)
            .map(|index| block_u32s(SAMPLE_SEED, 0, index, 0))
            .map(|[high, low, row, _]| {
                let number = (u64::from(high) << 32) | u64::from(low);
                let document = (u128::from(number) * total as u128) >> 64;
                (document as usize, row)
            })
            .collect();
        sample.sort_unstable(); // read files in order
        let (mut squares, mut count) = (vec![0.0; dim], 0u64);
        let mut row = vec![0; dim * 4];
        for (mut document, seed) in sample {
            cancel.check()?;
            let contains = |side: &&Side| match document.checked_sub(documents(side)) {
                Some(rest) => {
                    document = rest;
                    false
                }
                None => true,
            };
            let side = self.sides.iter().find(contains).expect("below the total");
            let arrays = side.embeddings.as_ref().expect("it has documents");
            let mask = side.mask(document)?;
            let real: Vec<usize> = (0..mask.len()).filter(|&token| mask[token]).collect();
            let (file, data_offset) = arrays.open_file(document)?;
            for index in 0..ROWS_PER_DOCUMENT.min(real.len() as u64) {
                let [number, ..] = block_u32s(SAMPLE_SEED, 1 + seed, index, 0);
                let token = real[((u64::from(number) * real.len() as u64) >> 32) as usize];
                file.read_exact_at(&mut row, data_offset + (token * dim * 4) as u64)
                    .map_err(Error::io(&arrays.path(document)))?;
                for (square, value) in squares.iter_mut().zip(f32_values(&row)) {
                    *square += f64::from(value) * f64::from(value);
                }
                count += 1;
            }
        }
        let means = squares.iter().map(|square| square / count.max(1) as f64);
        let least = means.clone().sum::<f64>().sqrt() / (dim as f64).sqrt() / 1000.0;
        let channel = |mean: f64| match mean.sqrt().max(least) as f32 {
            channel if channel.is_normal() => channel,
            _ => 1.0, // all zeros, or values that `write_store` refuses
        };
        Ok(means.map(channel).collect())
    }
}
