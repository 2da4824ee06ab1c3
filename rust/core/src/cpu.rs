//! SIMD levels of the processor, detected at run time, and dispatch to code compiled for them.

/// A set of SIMD instructions that a kernel may use.
///
/// Results are bit-identical at all levels, except for sums of products: levels with fused multiply-add round once
/// per term, the others twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The baseline of the compilation target: SSE2 on x86-64, NEON on 64-bit ARM.
    Portable,
    /// AVX2 with fused multiply-add and BMI2: x86-64-v3.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: x86-64-v4.
    Avx512,
}

impl Level {
    /// The highest level that this processor supports.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi2");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512) {
                (true, true) => return Level::Avx512,
                (true, false) => return Level::Avx2,
                _ => {}
            }
        }
        Level::Portable
    }

    /// All levels that this processor supports, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        let best = Self::best();
        [Level::Portable, Level::Avx2, Level::Avx512]
            .into_iter()
            .filter(move |level| *level <= best)
    }
}

/// Prefetches the cache line of `value`; does nothing on processors other than x86-64.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Evaluates the expression given for a [`Level`], compiled with the instructions of that level.
///
/// `dispatch!(level, (name: Type = value, …) -> Result { portable: …, avx2: …, avx512: … })`: the expressions can
/// use only the listed names. Functions that they call must be `#[inline(always)]`; others are compiled for the
/// portable level.
macro_rules! dispatch {
    ($level:expr, ($($name:ident: $type:ty = $value:expr),* $(,)?) -> $result:ty {
        portable: $portable:expr, avx2: $avx2:expr, avx512: $avx512:expr $(,)?
    }) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
            fn on_avx2($($name: $type),*) -> $result {
                $avx2
            }
            #[target_feature(
                enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl"
            )]
            fn on_avx512($($name: $type),*) -> $result {
                $avx512
            }
            match $level {
                $crate::cpu::Level::Portable => { $(let $name: $type = $value;)* $portable }
                // SAFETY: `Level::best` has found these features on this processor.
                $crate::cpu::Level::Avx2 => unsafe { on_avx2($($value),*) },
                // SAFETY: as above.
                $crate::cpu::Level::Avx512 => unsafe { on_avx512($($value),*) },
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = $level;
            $(let $name: $type = $value;)*
            $portable
        }
    }};
}

pub(crate) use dispatch;
