//! The documents of the users or of the items: embeddings, masks, and their consistency.

use std::os::unix::fs::FileExt;
use std::path::Path;

use half::f16;

use super::numbered::NumberedArrays;
use crate::npy::{Dtype, Kind};
use crate::{Error, Result};

/// The arrays of the users or of the items: embeddings `[T, D]` and masks `[T]` of each document.
#[derive(Debug)]
pub(super) struct Side {
    /// `user` or `item`.
    pub(super) name: &'static str,
    pub(super) embeddings: Option<NumberedArrays>,
    pub(super) masks: Option<NumberedArrays>,
}

impl Side {
    /// Opens the subfolders of a side, either of which may be missing, and checks that they are consistent.
    ///
    /// # Errors
    /// [`Error::Data`] naming the invalid file; [`Error::Io`].
    pub(super) fn open(folder: &Path, name: &'static str) -> Result<Self> {
        let side = Side {
            name,
            embeddings: NumberedArrays::open(&folder.join(format!("{name}_embeddings")))?,
            masks: NumberedArrays::open(&folder.join(format!("{name}_masks")))?,
        };
        side.check()?;
        Ok(side)
    }

    /// Whether each token of a document is real, not padding.
    pub(super) fn mask(&self, number: usize) -> Result<Vec<bool>> {
        match &self.masks {
            Some(masks) => parse_mask(masks, number, &read_mask(masks, number)?),
            None => {
                let tokens = self.embeddings.as_ref().map_or(0, |e| e.header.shape[0]);
                Ok(vec![true; tokens])
            }
        }
    }

    /// Data bytes of one mask.
    pub(super) fn mask_bytes(&self) -> u64 {
        let bytes = self.masks.as_ref().and_then(|m| m.header.data_bytes());
        bytes.unwrap_or(0)
    }

    /// Checks dtypes, shapes and counts of embeddings and masks.
    fn check(&self) -> Result<()> {
        if let Some(embeddings) = &self.embeddings {
            embeddings.check_header(Some(Dtype::F32), 2, "[T, D] of <f4")?;
        }
        if let Some(masks) = &self.masks {
            masks.check_header(None, 1, "[T] of bool, integers or floats")?;
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
            let existing = more.path(fewer.count);
            return Err(Error::data(
                &missing,
                format!("missing, but {} exists; write it again", existing.display()),
            ));
        }
        let (tokens, masked) = (embeddings.header.shape[0], masks.header.shape[0]);
        if tokens != masked {
            return Err(Error::data(
                &masks.path(0),
                format!(
                    "mask of {masked} tokens, but the embeddings have {tokens}; write the masks again"
                ),
            ));
        }
        Ok(())
    }
}

/// Reads the data bytes of a mask.
pub(super) fn read_mask(arrays: &NumberedArrays, number: usize) -> Result<Vec<u8>> {
    let (file, data_offset) = arrays.open_file(number)?;
    let path = arrays.path(number);
    let mut bytes = vec![0; arrays.header.shape[0] * arrays.header.dtype.size];
    file.read_exact_at(&mut bytes, data_offset)
        .map_err(Error::io(&path))?;
    Ok(bytes)
}

/// Whether each token of a mask is real: its value is not zero.
pub(super) fn parse_mask(
    arrays: &NumberedArrays,
    number: usize,
    bytes: &[u8],
) -> Result<Vec<bool>> {
    let Dtype { kind, size } = arrays.header.dtype;
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
                &arrays.path(number),
                format!("{value} at token {token}: not finite; write it again"),
            ));
        }
        Ok(value != 0.0)
    };
    bytes.chunks_exact(size).enumerate().map(real).collect()
}
