//! Copying rows past the cache.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;

/// Copies `bytes` to `out` without reading `out` into the cache first, which saves a third of the traffic of a
/// copy that is larger than the cache: 1.3 to 1.5 times the speed of `copy_from_slice` there. At the end it asks
/// for the first bytes of `next`, which the caller will copy then. To be followed by a [`fence`].
///
/// # Panics
/// Where the lengths differ.
pub fn stream(out: &mut [u8], bytes: &[u8], next: &[u8]) {
    assert_eq!(out.len(), bytes.len(), "equal lengths");
    #[cfg(target_arch = "x86_64")]
    {
        // Whole cache lines, at their own addresses.
        // SAFETY: any 64 bytes are a valid line.
        let (head, lines, tail) = unsafe { out.align_to_mut::<Line>() };
        let (first, rest) = bytes.split_at(head.len());
        let (blocks, last) = rest.as_chunks::<64>();
        head.copy_from_slice(first);
        match Level::best() {
            // SAFETY: the processor has AVX-512 F.
            Level::Avx512 => unsafe { stream_wide(lines, blocks, next) },
            _ => stream_lines(lines, blocks),
        }
        tail.copy_from_slice(last);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = next;
        out.copy_from_slice(bytes);
    }
}

/// Orders what was [streamed](stream) before whatever tells another thread of it.
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of x86-64.
    unsafe {
        _mm_sfence()
    };
}

/// Lines to read ahead into the second cache: what the processor prefetches by itself ends at every page, and the
/// few buffers of the first cache are taken by the stores.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 192;

/// A cache line.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Line([u8; 64]);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn stream_wide(lines: &mut [Line], blocks: &[[u8; 64]], next: &[u8]) {
    #[inline(always)]
    fn copy(lines: &mut [Line], blocks: &[[u8; 64]], ahead: *const u8) {
        for (place, (line, block)) in lines.iter_mut().zip(blocks).enumerate() {
            // SAFETY: a prefetch may name any address; both have 64 bytes, and the line is aligned to as many.
            // The caller has AVX-512 F.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(64 * place).cast());
                let vector = _mm512_loadu_si512(block.as_ptr().cast());
                _mm512_stream_si512(line.0.as_mut_ptr().cast(), vector);
            }
        }
    }
    let far = blocks.len().saturating_sub(AHEAD);
    copy(
        &mut lines[..far],
        &blocks[..far],
        blocks[blocks.len() - far..].as_ptr().cast(),
    );
    copy(&mut lines[far..], &blocks[far..], next.as_ptr());
}

#[cfg(target_arch = "x86_64")]
fn stream_lines(lines: &mut [Line], blocks: &[[u8; 64]]) {
    for (line, block) in lines.iter_mut().zip(blocks) {
        for part in (0..64).step_by(16) {
            // SAFETY: SSE2 is part of x86-64; both have 64 bytes, and the line is aligned to as many.
            unsafe {
                let vector = _mm_loadu_si128(block[part..].as_ptr().cast());
                _mm_stream_si128(line.0[part..].as_mut_ptr().cast(), vector);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_and_no_other_changes() {
        let bytes: Vec<u8> = (0..4000u32).map(|n| (n * 7 + n / 256) as u8).collect();
        for start in (0..70).chain([128]) {
            for length in [0, 1, 15, 16, 63, 64, 65, 200, 768, 3000] {
                let mut out = vec![0xaa; 3500];
                let source = &bytes[start * 3..][..length];
                stream(&mut out[start..][..length], source, &bytes[..start]);
                assert_eq!(&out[start..][..length], source);
                assert!(out[..start].iter().all(|byte| *byte == 0xaa));
                assert!(out[start + length..].iter().all(|byte| *byte == 0xaa));
            }
        }
    }
}
