//! Copying the rows of chosen passages into one buffer.

use std::ops::Range;

use super::copy::{fence, stream};
use super::manifest::TokenDtype;
use super::open::Store;
use super::quantize::{floats, from_bfloat16, from_float16, from_float32, from_int8};
use crate::threads::parallel_for_each;
use crate::{Cancel, Error, Result};

/// Bytes from which copying past the cache is faster than through it.
const PAST_CACHE: usize = 24 << 20;
/// Bytes that one thread copies at a time: up to this many, no other one is woken.
const PIECE: usize = 1 << 20;

/// Where gathered rows go.
#[derive(Debug)]
pub enum Destination<'a> {
    /// Bytes of the store's own type.
    Same(&'a mut [u8]),
    /// Converted to float32: exactly, but for int8, which becomes the product of number, scale and channel.
    Float32(&'a mut [f32]),
}

/// What is to be gathered.
struct Plan<'a> {
    /// Rows of each passage.
    rows: Vec<Range<usize>>,
    /// Rows that each passage gets in the buffer, those behind its own filled with zeros; `None`: as many as it
    /// has.
    padded_to: Option<usize>,
    /// Bytes of a row in the store.
    row_bytes: usize,
    cancel: &'a Cancel,
}

impl Store {
    /// Copies the rows of `passages` one after another into `out`, or, with `padded_to`, into as many rows each;
    /// returns the offsets of the passages without padding, `[n + 1]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a passage out of range or with more rows than `padded_to`, or a buffer that is
    /// too short; [`Error::Data`] for damaged offsets; [`Error::Interrupted`].
    pub fn gather(
        &self,
        passages: &[i64],
        padded_to: Option<usize>,
        out: Destination<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<i64>> {
        let (dtype, dim) = (self.manifest().dtype, self.manifest().dim);
        let plan = Plan {
            rows: self.rows_of(passages)?,
            padded_to,
            row_bytes: dim * dtype.on_disk().size,
            cancel,
        };
        let offsets = plan.offsets();
        plan.check(passages)?;
        match (out, dtype) {
            (Destination::Same(out), _) => {
                let past_cache = out.len() >= PAST_CACHE;
                plan.fill(out, plan.row_bytes, |out, rows, next| match past_cache {
                    true => stream(out, self.rows(rows), self.rows(next)),
                    false => out.copy_from_slice(self.rows(rows)),
                })?;
            }
            (Destination::Float32(out), TokenDtype::Int8) => {
                let scales = self.scales();
                let channels: Vec<f32> = floats(self.channels()).collect();
                plan.fill(out, dim, |out, rows, _| {
                    let scales = &scales[rows.start * 2..rows.end * 2];
                    from_int8(out, self.rows(rows), scales, &channels);
                })?;
            }
            (Destination::Float32(out), _) => {
                let convert = match dtype {
                    TokenDtype::Float16 => from_float16,
                    TokenDtype::BFloat16 => from_bfloat16,
                    _ => from_float32,
                };
                plan.fill(out, dim, |out, rows, _| convert(out, self.rows(rows)))?;
            }
        }
        Ok(offsets)
    }

    fn rows(&self, rows: Range<usize>) -> &[u8] {
        let row_bytes = self.manifest().dim * self.manifest().dtype.on_disk().size;
        &self.tokens()[rows.start * row_bytes..rows.end * row_bytes]
    }

    fn rows_of(&self, passages: &[i64]) -> Result<Vec<Range<usize>>> {
        let offsets = self.offsets()?.as_chunks::<8>().0;
        let offset = |at: usize| i64::from_le_bytes(offsets[at]) as usize;
        let rows = |&passage: &i64| match usize::try_from(passage) {
            Ok(place) if place + 1 < offsets.len() => Ok(offset(place)..offset(place + 1)),
            _ => Err(Error::Argument(format!(
                "passage {passage} is out of range: {} holds {}",
                self.folder().display(),
                self.manifest().passages
            ))),
        };
        passages.iter().map(rows).collect()
    }
}

impl Plan<'_> {
    fn offsets(&self) -> Vec<i64> {
        let mut total = 0;
        let ends = self.rows.iter().map(|rows| {
            total += rows.len() as i64;
            total
        });
        std::iter::once(0).chain(ends).collect()
    }

    fn check(&self, passages: &[i64]) -> Result<()> {
        let Some(width) = self.padded_to else {
            return Ok(());
        };
        match self.rows.iter().position(|rows| rows.len() > width) {
            None => Ok(()),
            Some(place) => Err(Error::Argument(format!(
                "passage {} has {} rows, out only {width} for each",
                passages[place],
                self.rows[place].len()
            ))),
        }
    }

    /// Gives each passage its part of `out`, `width` elements a row, and fills them in parallel: `copy` gets the
    /// part, the passage's rows and those of the passage after it.
    fn fill<T: Default + Clone + Send>(
        &self,
        mut out: &mut [T],
        width: usize,
        copy: impl Fn(&mut [T], Range<usize>, Range<usize>) + Sync,
    ) -> Result<()> {
        let slot = |rows: &Range<usize>| self.padded_to.unwrap_or(rows.len()) * width;
        let needed: usize = self.rows.iter().map(slot).sum();
        if out.len() < needed {
            return Err(Error::Argument(format!(
                "out holds {} rows, the passages have {}",
                out.len() / width,
                needed / width
            )));
        }
        // Passages are grouped into pieces of equal size, nearly.
        let mut pieces = vec![(Vec::new(), 0)];
        for rows in &self.rows {
            let (part, rest) = out.split_at_mut(slot(rows));
            out = rest;
            let (piece, bytes) = pieces.last_mut().expect("there is one");
            piece.push((part, rows.clone()));
            *bytes += rows.len() * self.row_bytes;
            if *bytes >= PIECE {
                pieces.push((Vec::new(), 0));
            }
        }
        parallel_for_each(pieces.into_iter(), |_: &mut (), (piece, _)| {
            self.cancel.check()?;
            let mut next = piece
                .iter()
                .map(|(_, rows)| rows.clone())
                .skip(1)
                .collect::<Vec<_>>();
            next.push(0..0);
            for ((part, rows), next) in piece.into_iter().zip(next) {
                let (own, padding) = part.split_at_mut(rows.len() * width);
                copy(own, rows, next);
                padding.fill(T::default());
            }
            fence();
            Ok(())
        })
    }
}
