//! Reading embeddings in blocks of whole rows, which another thread reads and validates ahead.

use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use super::numbered::NumberedArrays;
use crate::cpu::{Level, dispatch};
use crate::store::quantize::f32_values;
use crate::{Cancel, Error, Result};

/// Consecutive rows of one file.
pub(super) struct Block {
    /// Number of the file.
    pub(super) number: usize,
    /// First row of the block in the file.
    pub(super) first_row: usize,
    buffer: Vec<u8>,
    /// Number of data bytes in the buffer.
    pub(super) length: usize,
    /// Whether this is the last block of the file.
    pub(super) last: bool,
}

impl Block {
    /// The rows, as bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// Approximate size of a block: small enough that it stays in the cache while it is validated and written.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that are read ahead.
const QUEUED_BLOCKS: usize = 4;

/// Calls `visit` on every block of every file in order, while another thread reads and validates the next
/// ones.
///
/// Values whose magnitude exceeds `max_magnitude` would overflow the dtype that is written, and are refused.
///
/// # Errors
/// [`Error::Data`] for such values, and values that are not finite; the errors of `visit`; [`Error::Io`];
/// [`Error::Interrupted`].
pub(super) fn for_each_block(
    arrays: &NumberedArrays,
    max_magnitude: f32,
    cancel: &Cancel,
    mut visit: impl FnMut(&Block) -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let (block_sender, blocks) = mpsc::sync_channel::<Block>(QUEUED_BLOCKS);
        let (buffer_sender, buffers) = mpsc::channel::<Vec<u8>>();
        let reader = scope.spawn(move || -> Result<()> {
            for number in 0..arrays.count {
                let read = read_blocks(arrays, number, max_magnitude, cancel, |block| {
                    block_sender
                        .send(block)
                        .is_ok()
                        .then(|| buffers.try_recv().unwrap_or_default())
                })?;
                if !read {
                    break; // the receiver has failed
                }
            }
            Ok(())
        });
        for block in blocks {
            visit(&block)?;
            let _ = buffer_sender.send(block.buffer); // the reader may have ended
        }
        reader.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Passes each block of file `number` to `send`, which returns an empty buffer, or `None` to stop; false if
/// stopped.
fn read_blocks(
    arrays: &NumberedArrays,
    number: usize,
    max_magnitude: f32,
    cancel: &Cancel,
    mut send: impl FnMut(Block) -> Option<Vec<u8>>,
) -> Result<bool> {
    let (file, data_offset) = arrays.open_file(number)?;
    let path = arrays.path(number);
    let (rows, dim) = (arrays.header.shape[0], arrays.header.shape[1]);
    let rows_per_block = (BLOCK_BYTES / (dim * 4)).max(1);
    let mut buffer = Vec::new();
    for first_row in (0..rows).step_by(rows_per_block) {
        cancel.check()?;
        let last = first_row + rows_per_block >= rows;
        let length = rows_per_block.min(rows - first_row) * dim * 4;
        buffer.resize(rows_per_block * dim * 4, 0);
        let bytes = &mut buffer[..length];
        file.read_exact_at(bytes, data_offset + (first_row * dim * 4) as u64)
            .map_err(Error::io(&path))?;
        if max_magnitude_bits(Level::best(), bytes) > max_magnitude.to_bits() {
            return Err(value_error(&path, bytes, first_row, dim, max_magnitude));
        }
        let block = Block {
            number,
            first_row,
            buffer,
            length,
            last,
        };
        match send(block) {
            Some(empty) => buffer = empty,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// The error for the first value that is not finite, or exceeds `max_magnitude`.
#[cold]
fn value_error(
    path: &Path,
    bytes: &[u8],
    first_row: usize,
    dim: usize,
    max_magnitude: f32,
) -> Error {
    let invalid = |(_, value): &(usize, f32)| value.is_nan() || value.abs() > max_magnitude;
    let (index, value) = f32_values(bytes)
        .enumerate()
        .find(invalid)
        .expect("a value is invalid");
    let (token, dimension) = (first_row + index / dim, index % dim);
    let problem = match value.is_finite() {
        true => "too large for the chosen dtype; choose bfloat16 or float32",
        false => "not finite; write it again",
    };
    Error::data(
        path,
        format!("{value} at token {token}, dimension {dimension}: {problem}"),
    )
}

/// The largest magnitude as bits, which order like the values, with NaN above infinity.
fn max_magnitude_bits(level: Level, bytes: &[u8]) -> u32 {
    #[inline(always)]
    fn max_magnitude(bytes: &[u8]) -> u32 {
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
        portable: max_magnitude(bytes),
        avx2: max_magnitude(bytes),
        avx512: max_magnitude(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitude_is_found_at_any_position() {
        for length in [0, 1, 31, 32, 33, 100] {
            for position in 0..length {
                for value in [-7.5f32, 9.0, f32::NEG_INFINITY, f32::NAN] {
                    let mut values = vec![-1.0f32; length];
                    values[position] = value;
                    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                    for level in Level::all() {
                        let found = max_magnitude_bits(level, &bytes);
                        assert_eq!(
                            found,
                            value.abs().to_bits(),
                            "{level:?}, {position} of {length}"
                        );
                    }
                }
            }
        }
        assert!(f32::NAN.to_bits() > f32::INFINITY.to_bits());
    }
}
