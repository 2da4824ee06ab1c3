//! Gathering the token embeddings of passages into one buffer.

use std::ops::Range;

use super::copy::{copy_non_temporal, store_fence};
use super::files::REBUILD;
use super::manifest::TokenDtype;
use super::open::Store;
use super::quantize::{decode_bfloat16, decode_float16, decode_float32, dequantize, f32_values};
use crate::threads::parallel_for_each;
use crate::{Cancel, Error, Result};

/// Size of the buffer from which non-temporal stores are faster.
const NON_TEMPORAL_BYTES: usize = 24 << 20;
/// Bytes to copy per task.
const BYTES_PER_TASK: usize = 1 << 20;

/// The buffer that receives gathered rows.
#[derive(Debug)]
pub enum Destination<'a> {
    /// Bytes of the dtype of the store.
    Stored(&'a mut [u8]),
    /// Values converted to float32, exactly; int8 values are multiplied by their per-token and per-channel
    /// scale.
    Float32(&'a mut [f32]),
}

/// The passages of one call, and their layout in the buffer.
struct Plan<'a> {
    /// Rows of each passage in the store.
    rows: Vec<Range<usize>>,
    /// Rows per passage in the buffer, padded with zeros; `None`: without padding.
    padded_to: Option<usize>,
    /// Bytes per row in the store.
    row_bytes: usize,
    cancel: &'a Cancel,
}

impl Store {
    /// Copies the rows of `passages` into `out`, concatenated or each padded with zeros to `padded_to` rows.
    ///
    /// Returns the row offsets of the passages without padding, `[n + 1]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a passage is out of range or has more rows than `padded_to`, or if the buffer
    /// is too short; [`Error::Data`] for damaged offsets; [`Error::Interrupted`].
    pub fn gather(
        &self,
        passages: &[i64],
        padded_to: Option<usize>,
        out: Destination<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<i64>> {
        let (dtype, dim) = (self.manifest().dtype, self.manifest().dim);
        let plan = Plan {
            rows: self.passage_rows(passages)?,
            padded_to,
            row_bytes: dim * dtype.npy_dtype().size,
            cancel,
        };
        let offsets = plan.offsets();
        plan.check(passages)?;
        match (out, dtype) {
            (Destination::Stored(out), _) => {
                let non_temporal = out.len() >= NON_TEMPORAL_BYTES;
                plan.fill(out, plan.row_bytes, |out, rows, next| match non_temporal {
                    true => copy_non_temporal(out, self.rows(rows), self.rows(next)),
                    false => out.copy_from_slice(self.rows(rows)),
                })?;
            }
            (Destination::Float32(out), TokenDtype::Int8) => {
                let scales = self.scales();
                let channels: Vec<f32> = f32_values(self.channels()).collect();
                plan.fill(out, dim, |out, rows, _| {
                    let scales = &scales[rows.start * 2..rows.end * 2];
                    dequantize(out, self.rows(rows), scales, &channels);
                })?;
            }
            (Destination::Float32(out), _) => {
                let convert = match dtype {
                    TokenDtype::Float16 => decode_float16,
                    TokenDtype::BFloat16 => decode_bfloat16,
                    _ => decode_float32,
                };
                plan.fill(out, dim, |out, rows, _| convert(out, self.rows(rows)))?;
            }
        }
        Ok(offsets)
    }

    /// Bytes of a range of rows.
    fn rows(&self, rows: Range<usize>) -> &[u8] {
        let row_bytes = self.manifest().dim * self.manifest().dtype.npy_dtype().size;
        &self.tokens()[rows.start * row_bytes..rows.end * row_bytes]
    }

    /// Rows of each passage.
    fn passage_rows(&self, passages: &[i64]) -> Result<Vec<Range<usize>>> {
        let offsets = self.offsets()?.as_chunks::<8>().0;
        let offset = |index: usize| i64::from_le_bytes(offsets[index]) as usize;
        let num_rows = self.manifest().rows;
        let rows = |&passage: &i64| match usize::try_from(passage) {
            Ok(index) if index + 1 < offsets.len() => {
                let rows = offset(index)..offset(index + 1);
                // Checked before: only a file that was modified since gives others.
                match rows.start <= rows.end && rows.end <= num_rows {
                    true => Ok(rows),
                    false => Err(Error::data(
                        &self.offsets_path(),
                        format!("changed while the store was open; {REBUILD}"),
                    )),
                }
            }
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
    /// Row offsets of the passages without padding.
    fn offsets(&self) -> Vec<i64> {
        let mut total = 0;
        let ends = self.rows.iter().map(|rows| {
            total += rows.len() as i64;
            total
        });
        std::iter::once(0).chain(ends).collect()
    }

    /// Checks that every passage fits into `padded_to` rows.
    fn check(&self, passages: &[i64]) -> Result<()> {
        let Some(width) = self.padded_to else {
            return Ok(());
        };
        match self.rows.iter().position(|rows| rows.len() > width) {
            None => Ok(()),
            Some(index) => Err(Error::Argument(format!(
                "passage {} has {} rows, but out has only {width} rows for each passage",
                passages[index],
                self.rows[index].len()
            ))),
        }
    }

    /// Fills `out`, `width` elements per row, in parallel: `copy` is called for each passage with its part of
    /// `out`, its rows, and the rows of the next passage of the task.
    fn fill<T: Default + Clone + Send>(
        &self,
        mut out: &mut [T],
        width: usize,
        copy: impl Fn(&mut [T], Range<usize>, Range<usize>) + Sync,
    ) -> Result<()> {
        let padded_rows = |rows: &Range<usize>| self.padded_to.unwrap_or(rows.len());
        let needed = self.rows.iter().fold(0usize, |needed, rows| {
            needed.saturating_add(padded_rows(rows))
        });
        if out.len() / width < needed {
            return Err(Error::Argument(format!(
                "out has {} rows, but the passages need {needed}",
                out.len() / width,
            )));
        }
        let padded_len = |rows: &Range<usize>| padded_rows(rows) * width;
        // Group passages into tasks of about equal size.
        let mut tasks = vec![(Vec::new(), 0)];
        for rows in &self.rows {
            let (slice, rest) = out.split_at_mut(padded_len(rows));
            out = rest;
            let (task, bytes) = tasks.last_mut().expect("not empty");
            task.push((slice, rows.clone()));
            *bytes += rows.len() * self.row_bytes;
            if *bytes >= BYTES_PER_TASK {
                tasks.push((Vec::new(), 0));
            }
        }
        parallel_for_each(tasks.into_iter(), |_: &mut (), (task, _)| {
            self.cancel.check()?;
            let mut next = task
                .iter()
                .map(|(_, rows)| rows.clone())
                .skip(1)
                .collect::<Vec<_>>();
            next.push(0..0);
            for ((slice, rows), next) in task.into_iter().zip(next) {
                let (own, padding) = slice.split_at_mut(rows.len() * width);
                copy(own, rows, next);
                padding.fill(T::default());
            }
            store_fence();
            Ok(())
        })
    }
}
