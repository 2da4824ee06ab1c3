//! Copying the rows of chosen passages into one buffer.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rayon::prelude::*;

use super::copy::stream;
use super::manifest::TokenDtype;
use super::open::Store;
use crate::{Cancel, Error, Result};

/// Bytes from which copying past the cache is faster than through it.
const PAST_CACHE: usize = 24 << 20;
/// Bytes up to which one thread has copied before a second one is awake.
const ALONE: usize = 1 << 20;

/// Where gathered rows go.
#[derive(Debug)]
pub enum Destination<'a> {
    /// Bytes of the store's own type.
    Same(&'a mut [u8]),
    /// Converted to float32, exactly.
    Float32(&'a mut [f32]),
}

impl Store {
    /// Where each of `passages` starts in a gathered buffer, and the number of rows: `[n + 1]`.
    ///
    /// # Errors
    /// [`Error::Argument`] naming a passage that the store does not have.
    pub fn gathered_offsets(&self, passages: &[i64]) -> Result<Vec<i64>> {
        let mut total = 0;
        let mut offsets = Vec::with_capacity(passages.len() + 1);
        offsets.push(0);
        for &passage in passages {
            let rows = self.rows_of(passage).ok_or_else(|| {
                Error::Argument(format!(
                    "passage {passage} is out of range: {} holds {}",
                    self.folder().display(),
                    self.manifest().passages
                ))
            })?;
            total += rows.len() as i64;
            offsets.push(total);
        }
        Ok(offsets)
    }

    /// Whether [`gather`](Self::gather) of these passages is too little for a second thread.
    pub fn gathers_alone(&self, passages: &[i64]) -> bool {
        let rows = passages.iter().filter_map(|&passage| self.rows_of(passage));
        let row_bytes = self.manifest().dim * self.manifest().dtype.on_disk().size;
        rows.map(|rows| rows.len()).sum::<usize>() * row_bytes <= ALONE
    }

    /// Copies the rows of `passages` one after another into `out`; returns their offsets `[n + 1]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a passage out of range or a buffer that is too short.
    pub fn gather(
        &self,
        passages: &[i64],
        out: Destination<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<i64>> {
        let offsets = self.gathered_offsets(passages)?;
        let dtype = self.manifest().dtype;
        let row_bytes = self.manifest().dim * dtype.on_disk().size;
        match out {
            Destination::Same(out) => {
                let copy = match offsets[passages.len()] as usize * row_bytes >= PAST_CACHE {
                    true => stream,
                    false => <[u8]>::copy_from_slice,
                };
                self.scatter(passages, &offsets, out, row_bytes, cancel, copy)?;
            }
            Destination::Float32(out) => {
                let convert = match dtype {
                    TokenDtype::Float16 => from_float16,
                    TokenDtype::BFloat16 => from_bfloat16,
                    TokenDtype::Float32 => from_float32,
                };
                self.scatter(
                    passages,
                    &offsets,
                    out,
                    self.manifest().dim,
                    cancel,
                    convert,
                )?;
            }
        }
        Ok(offsets)
    }

    /// Cuts `out` into one slice a passage, `width` elements a row, and fills them in parallel.
    fn scatter<T: Send>(
        &self,
        passages: &[i64],
        offsets: &[i64],
        mut out: &mut [T],
        width: usize,
        cancel: &Cancel,
        copy: fn(&mut [T], &[u8]),
    ) -> Result<()> {
        let rows = offsets[passages.len()] as usize;
        if out.len() < rows * width {
            return Err(Error::Argument(format!(
                "out holds {} rows, the passages have {rows}",
                out.len() / width
            )));
        }
        let row_bytes = self.manifest().dim * self.manifest().dtype.on_disk().size;
        let mut pieces = Vec::with_capacity(passages.len());
        for &passage in passages {
            let rows = self.rows_of(passage).expect("checked by gathered_offsets");
            let (piece, rest) = out.split_at_mut(rows.len() * width);
            pieces.push((
                piece,
                &self.tokens()[rows.start * row_bytes..rows.end * row_bytes],
            ));
            out = rest;
        }
        let each = |(piece, bytes): (&mut [T], &[u8])| {
            cancel.check()?;
            copy(piece, bytes);
            Ok(())
        };
        match rows * row_bytes <= ALONE {
            true => pieces.into_iter().try_for_each(each),
            false => pieces.into_par_iter().try_for_each(each),
        }
    }
}

fn from_float32(out: &mut [f32], bytes: &[u8]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = f32::from_le_bytes(*bytes);
    }
}

fn from_bfloat16(out: &mut [f32], bytes: &[u8]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

fn from_float16(out: &mut [f32], bytes: &[u8]) {
    // SAFETY: any two bytes are a valid u16.
    let (before, bits, after) = unsafe { bytes.align_to::<u16>() };
    assert!(
        before.is_empty() && after.is_empty(),
        "rows of a store are aligned"
    );
    bits.reinterpret_cast::<f16>().convert_to_f32_slice(out);
}
