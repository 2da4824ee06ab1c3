//! Copying large blocks of memory with non-temporal stores, which bypass the cache.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;

/// Copies `bytes` to `out` with non-temporal stores.
///
/// They do not load `out` into the cache first, which saves a third of the memory traffic: copies larger than
/// the cache have 1.3 to 1.5 times the speed of `copy_from_slice`. The first bytes of `next`, which the
/// caller copies next, are prefetched. A [`store_fence`] must follow.
///
/// # Panics
/// If the lengths differ.
pub fn copy_non_temporal(out: &mut [u8], bytes: &[u8], next: &[u8]) {
    assert_eq!(out.len(), bytes.len(), "equal lengths");
    #[cfg(target_arch = "x86_64")]
    {
        // The cache lines that are entirely inside `out`.
        // SAFETY: any 64 bytes are a valid line.
        let (head, lines, tail) = unsafe { out.align_to_mut::<Line>() };
        let (head_bytes, rest) = bytes.split_at(head.len());
        let (blocks, tail_bytes) = rest.as_chunks::<64>();
        head.copy_from_slice(head_bytes);
        match Level::best() {
            // SAFETY: the processor supports AVX-512 F.
            Level::Avx512 => unsafe { copy_lines_avx512(lines, blocks, next) },
            _ => copy_lines_sse2(lines, blocks),
        }
        tail.copy_from_slice(tail_bytes);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = next;
        out.copy_from_slice(bytes);
    }
}

/// Makes preceding [non-temporal stores](copy_non_temporal) visible to other threads before any later store.
pub fn store_fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        _mm_sfence()
    };
}

/// Cache lines to prefetch ahead into the L2 cache. The hardware prefetcher stops at page boundaries, and the
/// line fill buffers of the L1 cache are occupied by the stores.
#[cfg(target_arch = "x86_64")]
const PREFETCH_LINES: usize = 192;

/// A cache line.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Copies cache lines with 64-byte non-temporal stores.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn copy_lines_avx512(lines: &mut [Line], blocks: &[[u8; 64]], next: &[u8]) {
    #[inline(always)]
    fn copy(lines: &mut [Line], blocks: &[[u8; 64]], ahead: *const u8) {
        for (index, (line, block)) in lines.iter_mut().zip(blocks).enumerate() {
            // SAFETY: any address can be prefetched; both arrays have 64 bytes, and the line is aligned to 64
            // bytes. The caller supports AVX-512 F.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(64 * index).cast());
                let vector = _mm512_loadu_si512(block.as_ptr().cast());
                _mm512_stream_si512(line.0.as_mut_ptr().cast(), vector);
            }
        }
    }
    let split = blocks.len().saturating_sub(PREFETCH_LINES);
    copy(
        &mut lines[..split],
        &blocks[..split],
        blocks[blocks.len() - split..].as_ptr().cast(),
    );
    copy(&mut lines[split..], &blocks[split..], next.as_ptr());
}

/// Copies cache lines with 16-byte non-temporal stores.
#[cfg(target_arch = "x86_64")]
fn copy_lines_sse2(lines: &mut [Line], blocks: &[[u8; 64]]) {
    for (line, block) in lines.iter_mut().zip(blocks) {
        for part in (0..64).step_by(16) {
            // SAFETY: SSE2 is part of x86-64; both arrays have 64 bytes, and the line is aligned to 64 bytes.
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
    fn exactly_the_given_bytes_are_written() {
        let bytes: Vec<u8> = (0..4000u32).map(|n| (n * 7 + n / 256) as u8).collect();
        for start in (0..70).chain([128]) {
            for length in [0, 1, 15, 16, 63, 64, 65, 200, 768, 3000] {
                let mut out = vec![0xaa; 3500];
                let source = &bytes[start * 3..][..length];
                copy_non_temporal(&mut out[start..][..length], source, &bytes[..start]);
                assert_eq!(&out[start..][..length], source);
                assert!(out[..start].iter().all(|byte| *byte == 0xaa));
                assert!(out[start + length..].iter().all(|byte| *byte == 0xaa));
            }
        }
    }
}
