//! The published format: folders of padded arrays, one file a document, with masks beside them.

mod blocks;
mod numbered;

use std::os::unix::fs::FileExt;
use std::path::Path;

use half::f16;

use super::join::OnBytes;
use super::manifest::TokenDtype;
use super::quantize::{Rounding, floats};
use super::store_writer::{Joined, StoreWriter};
use super::writer::{NpyWriter, Ready};
use crate::hash::passage_key;
use crate::npy::{Dtype, Kind};
use crate::random::block_u32s;
use crate::{Cancel, Error, Result};
use blocks::each_block;
use numbered::Series;

/// Rows that the scale of each dimension is found from, in how many of one document, drawn from which seed.
const SAMPLE: u64 = 8192;
const ROWS: u64 = 32;
const SAMPLE_SEED: u64 = 0x696e_7438;

/// Users or items: embeddings `[T, D]` and masks `[T]`, one file each a document.
#[derive(Debug)]
struct Side {
    name: &'static str,
    embeddings: Option<Series>,
    masks: Option<Series>,
}

/// A folder in the published format: any of `{user,item}_{embeddings,masks}/`.
#[derive(Debug)]
pub struct Published {
    sides: Vec<Side>,
}

/// One array written by [`Published::write_padded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padded {
    /// File name.
    pub name: String,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub dtype: Dtype,
}

impl Published {
    /// Lists `folder` and checks numbering, counts, and the first file of each series.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file at fault; [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Self> {
        let mut sides = Vec::new();
        for name in ["user", "item"] {
            let side = Side {
                name,
                embeddings: Series::open(&folder.join(format!("{name}_embeddings")))?,
                masks: Series::open(&folder.join(format!("{name}_masks")))?,
            };
            side.check()?;
            if side.embeddings.is_some() || side.masks.is_some() {
                sides.push(side);
            }
        }
        if sides.is_empty() {
            return Err(Error::data(
                folder,
                "holds none of user_embeddings/, user_masks/, item_embeddings/, item_masks/",
            ));
        }
        Ok(Published { sides })
    }

    /// Number of documents of a side, `user` or `item`; 0 where it is absent.
    pub fn documents(&self, side: &str) -> usize {
        let side = self.sides.iter().find(|s| s.name == side);
        let series = side.and_then(|s| s.embeddings.as_ref().or(s.masks.as_ref()));
        series.map_or(0, |series| series.count)
    }

    /// Bytes of data in all files: what a progress bar counts to.
    pub fn bytes(&self) -> u64 {
        let series = self
            .sides
            .iter()
            .flat_map(|side| [&side.embeddings, &side.masks]);
        series
            .flatten()
            .map(|s| s.count as u64 * s.header.data_bytes().unwrap_or(0))
            .sum()
    }

    /// Writes `all_user_embeddings.npy` `[N, T, D]`, `all_user_masks.npy` `[N, T]`, and for items.
    ///
    /// All arrays are complete before the first appears. Needs a few MiB of memory.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file at fault, [`Error::Io`], [`Error::Interrupted`].
    pub fn write_padded(
        &self,
        out: &Path,
        on_bytes: OnBytes<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<Padded>> {
        let mut ready = Vec::new();
        for side in &self.sides {
            if let Some(series) = &side.embeddings {
                let stem = format!("all_{}_embeddings", side.name);
                let mut writer = NpyWriter::plain(out, &stem, Dtype::F32, &series.header.shape)?;
                each_block(series, f32::MAX, cancel, |block| {
                    on_bytes(block.length as u64);
                    writer.write(block.bytes())
                })?;
                ready.push((stem, series, writer.finish()?));
            }
            if let Some(series) = &side.masks {
                let stem = format!("all_{}_masks", side.name);
                let header = &series.header;
                let mut writer = NpyWriter::plain(out, &stem, header.dtype, &header.shape)?;
                for number in 0..series.count {
                    cancel.check()?;
                    let bytes = read_mask(series, number)?;
                    parse_mask(series, number, &bytes)?;
                    on_bytes(bytes.len() as u64);
                    writer.write(&bytes)?;
                }
                ready.push((stem, series, writer.finish()?));
            }
        }
        let commit = |(stem, series, mut ready): (String, &Series, Ready)| {
            let shape = std::iter::once(series.count).chain(series.header.shape.iter().copied());
            let name = format!("{stem}.npy");
            ready.rename(&name)?;
            Ok(Padded {
                name,
                shape: shape.collect(),
                dtype: series.header.dtype,
            })
        };
        ready.into_iter().map(commit).collect()
    }

    /// Writes the data files of a store: users first, then items, one passage a document, rows that
    /// the mask hides dropped, embeddings rounded to `dtype`; int8 after each dimension was divided by its
    /// root mean square in a sample of the rows.
    ///
    /// The key of a passage is the content hash of `user:<n>` or `item:<n>`. Needs a few MiB of memory.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file at fault, [`Error::Io`], [`Error::Interrupted`].
    pub fn write_store(
        &self,
        out: &Path,
        dtype: TokenDtype,
        on_bytes: OnBytes<'_>,
        cancel: &Cancel,
    ) -> Result<Joined> {
        let mut dim = None;
        for side in &self.sides {
            let Some(series) = &side.embeddings else {
                let path = side
                    .masks
                    .as_ref()
                    .map(|masks| masks.path(0))
                    .unwrap_or_default();
                return Err(Error::data(
                    &path,
                    format!(
                        "a mask without {}_embeddings/; write them too, or remove the masks",
                        side.name
                    ),
                ));
            };
            let found = series.header.shape[1];
            let expected = *dim.get_or_insert(found);
            if found != expected {
                return Err(Error::data(
                    &series.path(0),
                    format!(
                        "dimension {found}, but user_embeddings/ have {expected}; write them again"
                    ),
                ));
            }
        }
        let dim = dim.expect("a published folder has a side");
        let (rounding, channels) = match dtype {
            TokenDtype::Int8 => {
                let channels = self.channels(dim, cancel)?;
                let bytes: Vec<u8> = channels.iter().flat_map(|c| c.to_le_bytes()).collect();
                (Rounding::Int8(channels), Some(bytes))
            }
            _ => (Rounding::Nearest(dtype), None),
        };
        let mut writer = StoreWriter::create(out, dtype, dim, channels.as_deref())?;
        for side in &self.sides {
            let series = side.embeddings.as_ref().expect("checked above");
            let (mut kept, mut scales, mut mask) = (Vec::new(), Vec::new(), Vec::new());
            each_block(series, rounding.largest(), cancel, |block| {
                let number = block.number;
                if block.first_row == 0 {
                    mask = side.mask(number)?;
                    on_bytes(side.mask_bytes());
                }
                on_bytes(block.length as u64);
                kept.clear();
                scales.clear();
                for (place, row) in block.bytes().chunks_exact(dim * 4).enumerate() {
                    let token = block.first_row + place;
                    if mask[token] && !rounding.append(row, &mut kept, &mut scales) {
                        return Err(Error::data(
                            &series.path(number),
                            format!(
                                "token {token} is too far from the others for int8; choose bfloat16 or float32"
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

    /// What the dimensions are divided by before they become int8: the root mean square of each over
    /// [`SAMPLE`] rows, drawn with equal chance, first the document and then the row; no less than a thousandth
    /// of the root mean square of all.
    fn channels(&self, dim: usize, cancel: &Cancel) -> Result<Vec<f32>> {
        let documents = |side: &Side| side.embeddings.as_ref().map_or(0, |series| series.count);
        let total: usize = self.sides.iter().map(documents).sum();
        let mut drawn: Vec<(usize, u32)> = (0..SAMPLE / ROWS)
            .map(|index| block_u32s(SAMPLE_SEED, 0, index, 0))
            .map(|[high, low, row, _]| {
                let number = (u64::from(high) << 32) | u64::from(low);
                let document = (u128::from(number) * total as u128) >> 64;
                (document as usize, row)
            })
            .collect();
        drawn.sort_unstable(); // files are read in order
        let (mut squares, mut count) = (vec![0.0; dim], 0u64);
        let mut row = vec![0; dim * 4];
        for (mut document, seed) in drawn {
            cancel.check()?;
            let holds = |side: &&Side| match document.checked_sub(documents(side)) {
                Some(behind) => {
                    document = behind;
                    false
                }
                None => true,
            };
            let side = self.sides.iter().find(holds).expect("below the total");
            let series = side.embeddings.as_ref().expect("it has documents");
            let mask = side.mask(document)?;
            let real: Vec<usize> = (0..mask.len()).filter(|&token| mask[token]).collect();
            let (file, data_at) = series.file(document)?;
            for index in 0..ROWS.min(real.len() as u64) {
                let [word, ..] = block_u32s(SAMPLE_SEED, 1 + seed, index, 0);
                let token = real[((u64::from(word) * real.len() as u64) >> 32) as usize];
                file.read_exact_at(&mut row, data_at + (token * dim * 4) as u64)
                    .map_err(Error::io(&series.path(document)))?;
                for (square, value) in squares.iter_mut().zip(floats(&row)) {
                    *square += f64::from(value) * f64::from(value);
                }
                count += 1;
            }
        }
        let means = squares.iter().map(|square| square / count.max(1) as f64);
        let least = means.clone().sum::<f64>().sqrt() / (dim as f64).sqrt() / 1000.0;
        let channel = |mean: f64| match mean.sqrt().max(least) as f32 {
            channel if channel.is_normal() => channel,
            _ => 1.0, // nothing but zeros, or what an error will name when it is read again
        };
        Ok(means.map(channel).collect())
    }
}

impl Side {
    /// Which tokens of a document are real.
    fn mask(&self, number: usize) -> Result<Vec<bool>> {
        match &self.masks {
            Some(masks) => parse_mask(masks, number, &read_mask(masks, number)?),
            None => {
                let tokens = self.embeddings.as_ref().map_or(0, |e| e.header.shape[0]);
                Ok(vec![true; tokens])
            }
        }
    }

    /// Bytes of one mask.
    fn mask_bytes(&self) -> u64 {
        let bytes = self.masks.as_ref().and_then(|m| m.header.data_bytes());
        bytes.unwrap_or(0)
    }

    fn check(&self) -> Result<()> {
        if let Some(embeddings) = &self.embeddings {
            embeddings.expect(Some(Dtype::F32), 2, "[T, D] of <f4")?;
        }
        if let Some(masks) = &self.masks {
            masks.expect(None, 1, "[T] of bool, integers or floats")?;
        }
        let (Some(embeddings), Some(masks)) = (&self.embeddings, &self.masks) else {
            return Ok(());
        };
        let (fewer, more) = match embeddings.count < masks.count {
            true => (embeddings, masks),
            false => (masks, embeddings),
        };
        if fewer.count < more.count {
            let missing = fewer.path(fewer.count);
            let beside = more.path(fewer.count);
            return Err(Error::data(
                &missing,
                format!(
                    "missing, while there is {}; write it again",
                    beside.display()
                ),
            ));
        }
        let (tokens, masked) = (embeddings.header.shape[0], masks.header.shape[0]);
        if tokens != masked {
            return Err(Error::data(
                &masks.path(0),
                format!("mask of {masked} tokens, the embeddings have {tokens}; write it again"),
            ));
        }
        Ok(())
    }
}

fn read_mask(series: &Series, number: usize) -> Result<Vec<u8>> {
    let (file, data_at) = series.file(number)?;
    let path = series.path(number);
    let mut bytes = vec![0; series.header.shape[0] * series.header.dtype.size];
    file.read_exact_at(&mut bytes, data_at)
        .map_err(Error::io(&path))?;
    Ok(bytes)
}

/// Which tokens are real: everything but zero.
fn parse_mask(series: &Series, number: usize, bytes: &[u8]) -> Result<Vec<bool>> {
    let Dtype { kind, size } = series.header.dtype;
    let real = |(token, bytes): (usize, &[u8])| {
        if kind != Kind::Float {
            return Ok(bytes.iter().any(|byte| *byte != 0));
        }
        let value = match *bytes {
            [a, b] => f16::from_le_bytes([a, b]).to_f64(),
            [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
            _ => f64::from_le_bytes(bytes.try_into().expect("floats have 2, 4 or 8 bytes")),
        };
        if !value.is_finite() {
            return Err(Error::data(
                &series.path(number),
                format!("{value} at token {token}: not finite; write it again"),
            ));
        }
        Ok(value != 0.0)
    };
    bytes.chunks_exact(size).enumerate().map(real).collect()
}
