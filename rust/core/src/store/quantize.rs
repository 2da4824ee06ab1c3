//! Conversion of float32 embeddings to the dtype of a store, and back.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::manifest::TokenDtype;
use crate::cpu::{Level, dispatch};

/// The largest magnitude of quantized integers; -128 is not used, so that the range is symmetric.
const INT8_MAX: f32 = 127.0;

/// Conversion of float32 rows to the dtype of a store.
#[derive(Debug)]
pub(super) enum Quantizer {
    /// Rounding to the nearest value of the dtype, ties to even.
    Nearest(TokenDtype),
    /// Quantization to int8 with these per-channel scales.
    Int8(Vec<f32>),
}

impl Quantizer {
    /// Largest magnitude that stays finite in the dtype.
    pub fn max_magnitude(&self) -> f32 {
        match self {
            // The midpoint of the largest value and the next power of two rounds to infinity.
            Quantizer::Nearest(TokenDtype::Float16) => 65_520_f32.next_down(),
            Quantizer::Nearest(TokenDtype::BFloat16) => f32::from_bits(0x7f7f_8000).next_down(),
            Quantizer::Nearest(_) | Quantizer::Int8(_) => f32::MAX,
        }
    }

    /// Appends a converted row of finite float32 values to `tokens` and, for int8, its scale to `scales`;
    /// false if the scale does not fit into float16.
    #[must_use]
    pub fn push_row(&self, row: &[u8], tokens: &mut Vec<u8>, scales: &mut Vec<u8>) -> bool {
        let values = f32_values(row);
        match self {
            Quantizer::Nearest(TokenDtype::Float16) => {
                tokens.extend(values.flat_map(|value| f16::from_f32(value).to_le_bytes()));
            }
            Quantizer::Nearest(TokenDtype::BFloat16) => {
                tokens.extend(values.flat_map(|value| bf16::from_f32(value).to_le_bytes()));
            }
            Quantizer::Nearest(_) => tokens.extend_from_slice(row),
            Quantizer::Int8(channels) => {
                let start = tokens.len();
                tokens.resize(start + channels.len(), 0);
                let scale = quantize_row(Level::best(), row, channels, &mut tokens[start..]);
                scales.extend_from_slice(&scale.to_le_bytes());
                return scale.is_finite();
            }
        }
        true
    }
}

/// Quantizes a row x, float32 as bytes, to int8 values q and returns its scale s, such that x ≈ q · s ·
/// channel.
///
/// y = x / channel; s = max |y| / 127 as float16, rounded up if q would exceed ±127 otherwise; q = y / s
/// rounded to the nearest integer, ties to even. The scale is infinite if it does not fit into float16.
fn quantize_row(level: Level, row: &[u8], channels: &[f32], out: &mut [u8]) -> f16 {
    #[inline(always)]
    fn max_magnitude(row: &[u8], channels: &[f32]) -> f32 {
        let mut lanes = [0f32; 16];
        let (blocks, rest) = row.as_chunks::<64>();
        let (channel_blocks, channel_rest) = channels.as_chunks::<16>();
        for (block, channels) in blocks.iter().zip(channel_blocks) {
            for ((lane, value), channel) in lanes.iter_mut().zip(f32_values(block)).zip(channels) {
                *lane = lane.max((value / channel).abs());
            }
        }
        let rest = f32_values(rest)
            .zip(channel_rest)
            .map(|(value, channel)| (value / channel).abs());
        lanes.into_iter().chain(rest).fold(0.0, f32::max)
    }
    #[inline(always)]
    fn round(row: &[u8], channels: &[f32], scale: f32, out: &mut [u8]) {
        for ((out, value), channel) in out.iter_mut().zip(f32_values(row)).zip(channels) {
            *out = (value / channel / scale).round_ties_even() as i8 as u8;
        }
    }
    let max_magnitude = dispatch!(level, (row: &[u8] = row, channels: &[f32] = channels) -> f32 {
        portable: max_magnitude(row, channels),
        avx2: max_magnitude(row, channels),
        avx512: max_magnitude(row, channels),
    });
    let mut scale = f16::from_f32(max_magnitude / INT8_MAX);
    if max_magnitude / scale.to_f32() >= INT8_MAX + 0.5 {
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    if max_magnitude == 0.0 || !scale.is_finite() {
        return scale; // `out` is all zeros
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

/// The float32 values of little-endian bytes.
#[inline(always)]
pub(super) fn f32_values(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
}

/// Dequantizes int8 rows `[n, dim]` with float16 scales `[n]` to q · s · channel.
pub(super) fn dequantize(out: &mut [f32], rows: &[u8], scales: &[u8], channels: &[f32]) {
    #[inline(always)]
    fn convert(out: &mut [f32], rows: &[u8], scales: &[u8], channels: &[f32]) {
        let dim = channels.len();
        let rows = out.chunks_exact_mut(dim).zip(rows.chunks_exact(dim));
        for ((out, row), scale) in rows.zip(scales.as_chunks::<2>().0) {
            let scale = f16::from_le_bytes(*scale).to_f32_const();
            for ((out, &value), channel) in out.iter_mut().zip(row).zip(channels) {
                *out = f32::from(value as i8) * scale * channel;
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

/// Copies float32 values.
pub(super) fn decode_float32(out: &mut [f32], bytes: &[u8]) {
    for (out, value) in out.iter_mut().zip(f32_values(bytes)) {
        *out = value;
    }
}

/// Converts bfloat16 to float32, exactly.
pub(super) fn decode_bfloat16(out: &mut [f32], bytes: &[u8]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

/// Converts float16 to float32, exactly.
pub(super) fn decode_float16(out: &mut [f32], bytes: &[u8]) {
    // SAFETY: any two bytes are a valid u16.
    let (before, bits, after) = unsafe { bytes.align_to::<u16>() };
    assert!(
        before.is_empty() && after.is_empty(),
        "rows of a store are aligned to 2 bytes"
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
    fn the_largest_magnitude_is_the_last_that_stays_finite() {
        for dtype in [TokenDtype::Float16, TokenDtype::BFloat16] {
            let quantizer = Quantizer::Nearest(dtype);
            let finite = |value: f32| {
                let mut tokens = Vec::new();
                assert!(quantizer.push_row(&value.to_le_bytes(), &mut tokens, &mut vec![]));
                let bits = [tokens[0], tokens[1]];
                match dtype {
                    TokenDtype::Float16 => f16::from_le_bytes(bits).is_finite(),
                    _ => bf16::from_le_bytes(bits).is_finite(),
                }
            };
            assert!(finite(quantizer.max_magnitude()));
            assert!(!finite(quantizer.max_magnitude().next_up()));
        }
    }

    /// The formula, applied to one value at a time.
    fn reference(row: &[f32], channels: &[f32]) -> (Vec<i8>, f16) {
        let scaled: Vec<f32> = row.iter().zip(channels).map(|(x, c)| x / c).collect();
        let max_magnitude = scaled.iter().fold(0f32, |max, y| max.max(y.abs()));
        let mut scale = f16::from_f32(max_magnitude / 127.0);
        if (max_magnitude / scale.to_f32()).round_ties_even() > 127.0 {
            scale = f16::from_bits(scale.to_bits() + 1);
        }
        let integer = |y: &f32| match max_magnitude == 0.0 {
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
    fn int8_matches_the_formula_at_every_simd_level_with_an_error_of_half_a_step() {
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
                let (expected, scale) = reference(&row, &channels);
                for level in Level::all() {
                    let mut quantized = vec![0; row.len()];
                    assert_eq!(
                        quantize_row(level, &bytes(&row), &channels, &mut quantized),
                        scale
                    );
                    let quantized: Vec<i8> = quantized.into_iter().map(|byte| byte as i8).collect();
                    assert_eq!(quantized, expected, "{row:?} by {channels:?} on {level:?}");
                }
                assert!(expected.iter().all(|&value| value != -128));
                let mut dequantized = vec![0.0; row.len()];
                let integers: Vec<u8> = expected.iter().map(|&value| value as u8).collect();
                dequantize(&mut dequantized, &integers, &scale.to_le_bytes(), &channels);
                for ((dequantized, value), channel) in dequantized.iter().zip(&row).zip(&channels) {
                    let step = scale.to_f32() * channel;
                    assert!(
                        (dequantized - value).abs() <= 0.5001 * step,
                        "{dequantized} for {value}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_whose_scale_overflows_float16_is_refused() {
        let quantizer = Quantizer::Int8(vec![1.0, 1.0]);
        let push = |row: &[f32]| quantizer.push_row(&bytes(row), &mut vec![], &mut vec![]);
        assert!(push(&[8.3e6, 1.0]));
        assert!(!push(&[8.4e6, 1.0]));
        assert!(!Quantizer::Int8(vec![1e-10, 1.0]).push_row(
            &bytes(&[f32::MAX, 0.0]),
            &mut vec![],
            &mut vec![]
        ));
    }
}
