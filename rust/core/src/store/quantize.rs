//! From float32 to the type of a store, and back.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::manifest::TokenDtype;
use crate::cpu::{Level, dispatch};

/// The largest number of int8: -128 is not used, so that signs are symmetric.
const MOST: f32 = 127.0;

/// How float32 rows become those of a store.
#[derive(Debug)]
pub(super) enum Rounding {
    /// To the nearest number of the type, ties to even.
    Nearest(TokenDtype),
    /// To int8, given what each dimension is divided by.
    Int8(Vec<f32>),
}

impl Rounding {
    /// Largest magnitude that the type can hold.
    pub fn largest(&self) -> f32 {
        match self {
            // Halfway between the largest value and the next power of two rounds to infinity.
            Rounding::Nearest(TokenDtype::Float16) => 65_520_f32.next_down(),
            Rounding::Nearest(TokenDtype::BFloat16) => f32::from_bits(0x7f7f_8000).next_down(),
            Rounding::Nearest(_) | Rounding::Int8(_) => f32::MAX,
        }
    }

    /// Appends a row of finite float32 to `tokens`, and its scale, if it has one, to `scales`; false where its
    /// magnitude is beyond any scale.
    #[must_use]
    pub fn append(&self, row: &[u8], tokens: &mut Vec<u8>, scales: &mut Vec<u8>) -> bool {
        let values = floats(row);
        match self {
            Rounding::Nearest(TokenDtype::Float16) => {
                tokens.extend(values.flat_map(|value| f16::from_f32(value).to_le_bytes()));
            }
            Rounding::Nearest(TokenDtype::BFloat16) => {
                tokens.extend(values.flat_map(|value| bf16::from_f32(value).to_le_bytes()));
            }
            Rounding::Nearest(_) => tokens.extend_from_slice(row),
            Rounding::Int8(channels) => {
                let start = tokens.len();
                tokens.resize(start + channels.len(), 0);
                let scale = quantize(Level::best(), row, channels, &mut tokens[start..]);
                scales.extend_from_slice(&scale.to_le_bytes());
                return scale.is_finite();
            }
        }
        true
    }
}

/// Rounds a row x of float32 bytes to int8 q and returns its scale s: x is nearly q · s · channel.
///
/// y = x / channel; s = max |y| / 127 as float16, one step higher where that would leave y beyond ±127;
/// q = y / s to the nearest integer, ties to even. Infinite where float16 has no such s.
fn quantize(level: Level, row: &[u8], channels: &[f32], out: &mut [u8]) -> f16 {
    #[inline(always)]
    fn largest(row: &[u8], channels: &[f32]) -> f32 {
        let mut lanes = [0f32; 16];
        let (blocks, rest) = row.as_chunks::<64>();
        let (channel_blocks, channel_rest) = channels.as_chunks::<16>();
        for (block, channels) in blocks.iter().zip(channel_blocks) {
            for ((lane, value), channel) in lanes.iter_mut().zip(floats(block)).zip(channels) {
                *lane = lane.max((value / channel).abs());
            }
        }
        let rest = floats(rest)
            .zip(channel_rest)
            .map(|(value, channel)| (value / channel).abs());
        lanes.into_iter().chain(rest).fold(0.0, f32::max)
    }
    #[inline(always)]
    fn round(row: &[u8], channels: &[f32], scale: f32, out: &mut [u8]) {
        for ((out, value), channel) in out.iter_mut().zip(floats(row)).zip(channels) {
            *out = (value / channel / scale).round_ties_even() as i8 as u8;
        }
    }
    let largest = dispatch!(level, (row: &[u8] = row, channels: &[f32] = channels) -> f32 {
        portable: largest(row, channels),
        avx2: largest(row, channels),
        avx512: largest(row, channels),
    });
    let mut scale = f16::from_f32(largest / MOST);
    if largest / scale.to_f32() >= MOST + 0.5 {
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    if largest == 0.0 || !scale.is_finite() {
        return scale; // all are 0 already
    }
    dispatch!(level, (
        row: &[u8] = row,
        channels: &[f32] = channels,
        scale: f32 = scale.to_f32(),
        out: &mut [u8] = out,
    ) -> () {
        portable: round(row, channels, scale, out),
        avx2: round(row, channels, scale, out),
        avx512: round(row, channels, scale, out),
    });
    scale
}

/// The float32 numbers of a file.
#[inline(always)]
pub(super) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
}

/// Writes q · s · channel of whole int8 rows `[n, dim]` with float16 scales `[n]`.
pub(super) fn from_int8(out: &mut [f32], rows: &[u8], scales: &[u8], channels: &[f32]) {
    #[inline(always)]
    fn convert(out: &mut [f32], rows: &[u8], scales: &[u8], channels: &[f32]) {
        let dim = channels.len();
        let rows = out.chunks_exact_mut(dim).zip(rows.chunks_exact(dim));
        for ((out, row), scale) in rows.zip(scales.as_chunks::<2>().0) {
            let scale = f16::from_le_bytes(*scale).to_f32_const();
            for ((out, &number), channel) in out.iter_mut().zip(row).zip(channels) {
                *out = f32::from(number as i8) * scale * channel;
            }
        }
    }
    dispatch!(Level::best(), (
        out: &mut [f32] = out,
        rows: &[u8] = rows,
        scales: &[u8] = scales,
        channels: &[f32] = channels,
    ) -> () {
        portable: convert(out, rows, scales, channels),
        avx2: convert(out, rows, scales, channels),
        avx512: convert(out, rows, scales, channels),
    });
}

/// Copies float32.
pub(super) fn from_float32(out: &mut [f32], bytes: &[u8]) {
    for (out, value) in out.iter_mut().zip(floats(bytes)) {
        *out = value;
    }
}

/// Widens bfloat16, exactly.
pub(super) fn from_bfloat16(out: &mut [f32], bytes: &[u8]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

/// Widens float16, exactly.
pub(super) fn from_float16(out: &mut [f32], bytes: &[u8]) {
    // SAFETY: any two bytes are a valid u16.
    let (before, bits, after) = unsafe { bytes.align_to::<u16>() };
    assert!(
        before.is_empty() && after.is_empty(),
        "rows of a store are aligned"
    );
    bits.reinterpret_cast::<f16>().convert_to_f32_slice(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::block_u32s;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn largest_values_stay_finite_and_their_neighbours_do_not() {
        for dtype in [TokenDtype::Float16, TokenDtype::BFloat16] {
            let rounding = Rounding::Nearest(dtype);
            let finite = |value: f32| {
                let mut tokens = Vec::new();
                assert!(rounding.append(&value.to_le_bytes(), &mut tokens, &mut vec![]));
                let bits = [tokens[0], tokens[1]];
                match dtype {
                    TokenDtype::Float16 => f16::from_le_bytes(bits).is_finite(),
                    _ => bf16::from_le_bytes(bits).is_finite(),
                }
            };
            assert!(finite(rounding.largest()));
            assert!(!finite(rounding.largest().next_up()));
        }
    }

    /// The formula, number by number.
    fn naive(row: &[f32], channels: &[f32]) -> (Vec<i8>, f16) {
        let scaled: Vec<f32> = row.iter().zip(channels).map(|(x, c)| x / c).collect();
        let largest = scaled.iter().fold(0f32, |most, y| most.max(y.abs()));
        let mut scale = f16::from_f32(largest / 127.0);
        if (largest / scale.to_f32()).round_ties_even() > 127.0 {
            scale = f16::from_bits(scale.to_bits() + 1);
        }
        let integer = |y: &f32| match largest == 0.0 {
            true => 0,
            false => {
                let exact = y / scale.to_f32();
                let (low, part) = (exact.floor(), exact - exact.floor());
                let up = part > 0.5 || part == 0.5 && low.rem_euclid(2.0) == 1.0;
                (low + f32::from(up)) as i8
            }
        };
        (scaled.iter().map(integer).collect(), scale)
    }

    #[test]
    fn int8_is_the_formula_on_every_processor_and_comes_back_within_half_a_step() {
        let mut rows: Vec<Vec<f32>> = vec![
            vec![0.0; 5],
            vec![127.0, 0.5, 1.5, 2.5, -2.5, -3.5, -127.0], // scale 1: ties
            vec![1e-7, -1e-7, 0.0],                         // below the smallest scale of float16
            vec![1e-30, 1e-38],
            vec![8e6, 1.0],
        ];
        for (length, size) in (1..70).zip([1e-3f32, 1.0, 100.0].into_iter().cycle()) {
            let drawn = (0..length).map(|at| block_u32s(3, length as u32, at, 0)[0]);
            rows.push(
                drawn
                    .map(|word| (word as i32 as f32) / 2f32.powi(31) * size)
                    .collect(),
            );
        }
        for row in rows {
            let channels: Vec<f32> = (0..row.len()).map(|at| [1.0, 0.3, 8.0][at % 3]).collect();
            for channels in [vec![1.0; row.len()], channels] {
                let (expected, scale) = naive(&row, &channels);
                for level in Level::all() {
                    let mut found = vec![0; row.len()];
                    assert_eq!(quantize(level, &bytes(&row), &channels, &mut found), scale);
                    let found: Vec<i8> = found.into_iter().map(|byte| byte as i8).collect();
                    assert_eq!(found, expected, "{row:?} by {channels:?} on {level:?}");
                }
                assert!(expected.iter().all(|&number| number != -128));
                let mut back = vec![0.0; row.len()];
                let integers: Vec<u8> = expected.iter().map(|&number| number as u8).collect();
                from_int8(&mut back, &integers, &scale.to_le_bytes(), &channels);
                for ((back, value), channel) in back.iter().zip(&row).zip(&channels) {
                    let step = scale.to_f32() * channel;
                    assert!((back - value).abs() <= 0.5001 * step, "{back} for {value}");
                }
            }
        }
    }

    #[test]
    fn a_row_beyond_any_scale_is_refused() {
        let rounding = Rounding::Int8(vec![1.0, 1.0]);
        let run = |row: &[f32]| rounding.append(&bytes(row), &mut vec![], &mut vec![]);
        assert!(run(&[8.3e6, 1.0]));
        assert!(!run(&[8.4e6, 1.0]));
        assert!(!Rounding::Int8(vec![1e-10, 1.0]).append(
            &bytes(&[f32::MAX, 0.0]),
            &mut vec![],
            &mut vec![]
        ));
    }
}
