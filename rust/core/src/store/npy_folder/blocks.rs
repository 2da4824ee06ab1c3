//! Blocks of whole rows of the arrays of a series, read and checked ahead of those who take them.

use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use super::super::quantize::floats;
use super::numbered::Series;
use crate::cpu::{Level, dispatch};
use crate::{Cancel, Error, Result};

/// Whole rows of one file.
pub(super) struct Block {
    pub(super) number: usize,
    pub(super) first_row: usize,
    buffer: Vec<u8>,
    /// How much of the buffer they fill.
    pub(super) length: usize,
    /// Whether the file ends here.
    pub(super) last: bool,
}

impl Block {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// Bytes of a block, roughly: what was read is still in the cache when it is checked, and when it is written.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that are read and checked before the one at hand is done with.
const AHEAD: usize = 4;

/// Hands every block of every file to `take`, in order, while a thread reads and checks the next ones.
///
/// `largest`: magnitudes above it become infinite in the type that is written, and are refused.
pub(super) fn each_block(
    series: &Series,
    largest: f32,
    cancel: &Cancel,
    mut take: impl FnMut(&Block) -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let (full, blocks) = mpsc::sync_channel::<Block>(AHEAD);
        let (used, empty) = mpsc::channel::<Vec<u8>>();
        let reader = scope.spawn(move || -> Result<()> {
            for number in 0..series.count {
                let read = read_blocks(series, number, largest, cancel, |block| {
                    full.send(block)
                        .is_ok()
                        .then(|| empty.try_recv().unwrap_or_default())
                })?;
                if !read {
                    break; // nobody takes blocks any more
                }
            }
            Ok(())
        });
        for block in blocks {
            take(&block)?;
            let _ = used.send(block.buffer); // the reader may have ended
        }
        reader.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Gives each block of file `number` away for an empty buffer; false where none is given.
fn read_blocks(
    series: &Series,
    number: usize,
    largest: f32,
    cancel: &Cancel,
    mut give: impl FnMut(Block) -> Option<Vec<u8>>,
) -> Result<bool> {
    let (file, data_at) = series.file(number)?;
    let path = series.path(number);
    let (rows, dim) = (series.header.shape[0], series.header.shape[1]);
    let step = (BLOCK_BYTES / (dim * 4)).max(1);
    let mut buffer = Vec::new();
    for first_row in (0..rows).step_by(step) {
        cancel.check()?;
        let last = first_row + step >= rows;
        let length = step.min(rows - first_row) * dim * 4;
        buffer.resize(step * dim * 4, 0);
        let bytes = &mut buffer[..length];
        file.read_exact_at(bytes, data_at + (first_row * dim * 4) as u64)
            .map_err(Error::io(&path))?;
        if largest_magnitude(Level::best(), bytes) > largest.to_bits() {
            return Err(bad_value(&path, bytes, first_row, dim, largest));
        }
        let block = Block {
            number,
            first_row,
            buffer,
            length,
            last,
        };
        match give(block) {
            Some(empty) => buffer = empty,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Names the first value that is not finite, or will not be in the type that is written.
#[cold]
fn bad_value(path: &Path, bytes: &[u8], first_row: usize, dim: usize, largest: f32) -> Error {
    let bad = |(_, value): &(usize, f32)| value.is_nan() || value.abs() > largest;
    let (at, value) = floats(bytes)
        .enumerate()
        .find(bad)
        .expect("one is too large");
    let (token, dimension) = (first_row + at / dim, at % dim);
    let what = match value.is_finite() {
        true => "too large for the chosen dtype; choose bfloat16 or float32",
        false => "not finite; write it again",
    };
    Error::data(
        path,
        format!("{value} at token {token}, dimension {dimension}: {what}"),
    )
}

/// The largest of the values without their signs, as bits: these order like the numbers, and NaN is above all.
fn largest_magnitude(level: Level, bytes: &[u8]) -> u32 {
    #[inline(always)]
    fn largest(bytes: &[u8]) -> u32 {
        let mut lanes = [0u32; 32];
        let (blocks, rest) = bytes.as_chunks::<128>();
        for block in blocks {
            for (lane, bytes) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
                *lane = (*lane).max(u32::from_le_bytes(*bytes) & !(1 << 31));
            }
        }
        let rest = rest.as_chunks::<4>().0.iter();
        let rest = rest.map(|bytes| u32::from_le_bytes(*bytes) & !(1 << 31));
        lanes.into_iter().chain(rest).fold(0, u32::max)
    }
    dispatch!(level, (bytes: &[u8] = bytes) -> u32 {
        portable: largest(bytes),
        avx2: largest(bytes),
        avx512: largest(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitude_is_found_wherever_it_stands() {
        for length in [0, 1, 31, 32, 33, 100] {
            for place in 0..length {
                for value in [-7.5f32, 9.0, f32::NEG_INFINITY, f32::NAN] {
                    let mut values = vec![-1.0f32; length];
                    values[place] = value;
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    for level in Level::all() {
                        let found = largest_magnitude(level, &bytes);
                        assert_eq!(
                            found,
                            value.abs().to_bits(),
                            "{level:?}, {place} of {length}"
                        );
                    }
                }
            }
        }
        assert!(f32::NAN.to_bits() > f32::INFINITY.to_bits());
    }
}
