//! Dot products of a group of users and a panel of items, accumulated in registers.
//!
//! Every product is summed over the dimension in order, so it does not depend on the grouping of users and
//! items; [`Panels::dot`] of one pair is bit-identical.

use crate::threads::parallel_for_each;
use crate::{Cancel, Result};

/// Panels packed per task.
const PANELS_PER_TASK: usize = 16;
/// Items per panel: two AVX-512 vectors.
pub const LANES: usize = 32;

/// One value per item of a panel, aligned to cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; LANES]);

impl Lanes {
    /// All zeros.
    pub const ZERO: Self = Self([0.0; LANES]);

    /// Adds the biases to text terms. Returns whether any score is NaN or +inf, and a mask of the lanes whose
    /// score exceeds `threshold` (all lanes if it is NaN).
    #[inline(always)]
    pub fn add_biases<const AVX512: bool>(
        &mut self,
        bias: f32,
        biases: &Lanes,
        threshold: f32,
    ) -> (bool, u32) {
        #[cfg(target_arch = "x86_64")]
        if AVX512 {
            // SAFETY: the caller guarantees that the processor supports AVX-512 F.
            return unsafe { avx512::add_biases(self, bias, biases, threshold) };
        }
        // One flag per lane: flags are then vectorised and reduced once.
        let (mut invalid, mut above) = ([0u32; LANES], [0u32; LANES]);
        for lane in 0..LANES {
            let score = self.0[lane] + (bias + biases.0[lane]);
            self.0[lane] = score;
            invalid[lane] = u32::from(!(score < f32::INFINITY));
            above[lane] = u32::from(!(score <= threshold));
        }
        (to_mask(invalid) != 0, to_mask(above))
    }

    /// Divides each value by that of `masses` plus `eps`.
    #[inline(always)]
    pub fn divide(&mut self, masses: &Lanes, eps: f32) {
        for lane in 0..LANES {
            self.0[lane] /= masses.0[lane] + eps;
        }
    }
}

/// One counter per lane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([u32; LANES]);

impl Counts {
    /// Adds 2 to the counter of each lane below `bound`, 1 where it is equal, and 0 where it is NaN.
    #[inline(always)]
    pub fn add(&mut self, lanes: &Lanes, bound: f32) {
        for (count, &number) in self.0.iter_mut().zip(&lanes.0) {
            *count += u32::from(number < bound) + u32::from(number <= bound);
        }
    }

    /// Returns the sum of all counters and resets them.
    pub fn take_sum(&mut self) -> u64 {
        let counts = std::mem::take(&mut self.0);
        counts.iter().map(|&count| u64::from(count)).sum()
    }
}

/// Item vectors packed as `[panels][dim][LANES]`, the last panel padded with zeros.
#[derive(Debug)]
pub struct Panels {
    data: Vec<Lanes>,
    dim: usize,
}

impl Panels {
    /// Packs row-major item vectors `[items, dim]`.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn new(vectors: &[f32], dim: usize, cancel: &Cancel) -> Result<Self> {
        if dim == 0 {
            return Ok(Self { data: vec![], dim }); // all products are 0
        }
        let num_panels = (vectors.len() / dim).div_ceil(LANES);
        let mut data = vec![Lanes::ZERO; num_panels * dim];
        let task_len = dim * PANELS_PER_TASK;
        let tasks = data
            .chunks_mut(task_len)
            .zip(vectors.chunks(task_len * LANES));
        parallel_for_each(tasks, |_: &mut (), (panels, vectors)| {
            cancel.check()?;
            for (panel, vectors) in panels.chunks_mut(dim).zip(vectors.chunks(dim * LANES)) {
                for (lane, vector) in vectors.chunks_exact(dim).enumerate() {
                    for (lanes, &value) in panel.iter_mut().zip(vector) {
                        lanes.0[lane] = value;
                    }
                }
            }
            Ok(())
        })?;
        Ok(Self { data, dim })
    }

    /// The vectors of one panel `[dim]`.
    #[inline(always)]
    pub fn panel(&self, panel: usize) -> &[Lanes] {
        &self.data[panel * self.dim..][..self.dim]
    }

    /// Dot products of the users of a group, `[dim][USERS]`, and the items of a panel.
    ///
    /// With `AVX512`, the processor must support [`Level::Avx512`](crate::cpu::Level); with `FMA`, fused
    /// multiply-add.
    #[inline(always)]
    pub fn multiply<const USERS: usize, const FMA: bool, const AVX512: bool>(
        &self,
        panel: usize,
        group: &[[f32; USERS]],
        products: &mut [Lanes; USERS],
    ) {
        let panel = self.panel(panel);
        #[cfg(target_arch = "x86_64")]
        if AVX512 {
            // SAFETY: the caller guarantees that the processor supports AVX-512 F.
            return unsafe { avx512::multiply(panel, group, products) };
        }
        // Half a panel at a time, so that the sums fit into 16 registers.
        for half in [0, LANES / 2] {
            let mut sums = [[0.0; LANES / 2]; USERS];
            for (items, users) in panel.iter().zip(group) {
                let items = &items.0[half..][..LANES / 2];
                for (sums, &user) in sums.iter_mut().zip(users) {
                    for (sum, &item) in sums.iter_mut().zip(items) {
                        *sum = multiply_add::<FMA>(user, item, *sum);
                    }
                }
            }
            for (product, sums) in products.iter_mut().zip(&sums) {
                product.0[half..][..LANES / 2].copy_from_slice(sums);
            }
        }
    }

    /// The dot product of one user and one item, bit-identical to that of [`multiply`](Self::multiply).
    #[inline(always)]
    pub fn dot<const FMA: bool>(&self, item: usize, user: &[f32]) -> f32 {
        let panel = self.panel(item / LANES).iter();
        panel.zip(user).fold(0.0, |sum, (items, &user)| {
            multiply_add::<FMA>(user, items.0[item % LANES], sum)
        })
    }
}

/// A mask of the items of a panel whose score may reach `min_score`, computed without a division.
///
/// Text and mass are the dot products of the query with the two vectors of the item. A bit is set unless text
/// < (min_score - (bias + item bias)) (mass + eps). If any bit is set, `texts` and `masses` are written.
#[inline(always)]
pub fn ratio_candidates<const FMA: bool, const AVX512: bool>(
    (items, item_masses): (&[Lanes], &[Lanes]),
    query: &[f32],
    eps: f32,
    (min_score, bias, biases): (f32, f32, &Lanes),
    (texts, masses): (&mut Lanes, &mut Lanes),
) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if AVX512 {
        // SAFETY: the caller guarantees that the processor supports AVX-512 F.
        return unsafe {
            avx512::ratio_candidates(
                (items, item_masses),
                query,
                eps,
                (min_score, bias, biases),
                (texts, masses),
            )
        };
    }
    (*texts, *masses) = (Lanes::ZERO, Lanes::ZERO);
    for ((items, item_masses), &user) in items.iter().zip(item_masses).zip(query) {
        for lane in 0..LANES {
            texts.0[lane] = multiply_add::<FMA>(user, items.0[lane], texts.0[lane]);
            masses.0[lane] = multiply_add::<FMA>(user, item_masses.0[lane], masses.0[lane]);
        }
    }
    let mut reaches = [0u32; LANES];
    for lane in 0..LANES {
        let required = (min_score - (bias + biases.0[lane])) * (masses.0[lane] + eps);
        reaches[lane] = u32::from(!(texts.0[lane] < required));
    }
    to_mask(reaches)
}

/// Packs flags into a mask: bit `lane` is `flags[lane]`.
#[inline(always)]
fn to_mask(flags: [u32; LANES]) -> u32 {
    match flags.iter().fold(0, |any, flag| any | flag) {
        0 => 0,
        _ => (0..LANES).fold(0, |mask, lane| mask | flags[lane] << lane),
    }
}

/// a · b + c, with one rounding if `FMA`, which the processor must support.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Kernels in 512-bit registers.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{LANES, Lanes};
    use std::arch::x86_64::*;

    /// [`Panels::multiply`](super::Panels::multiply) in 512-bit registers. Auto-vectorised code uses 256-bit
    /// registers at best, and spills them: it has a seventh of the speed.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn multiply<const USERS: usize>(
        panel: &[Lanes],
        group: &[[f32; USERS]],
        products: &mut [Lanes; USERS],
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; USERS];
        for (items, users) in panel.iter().zip(group) {
            let items = load(items);
            for (sums, &user) in sums.iter_mut().zip(users) {
                let user = _mm512_set1_ps(user);
                sums[0] = _mm512_fmadd_ps(user, items[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(user, items[1], sums[1]);
            }
        }
        for (product, sums) in products.iter_mut().zip(sums) {
            store(product, sums);
        }
    }

    /// [`Lanes::add_biases`]; the compiler does not vectorise its comparisons.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn add_biases(lanes: &mut Lanes, bias: f32, biases: &Lanes, threshold: f32) -> (bool, u32) {
        let (texts, biases) = (load(lanes), load(biases));
        let (bias, threshold, infinity) = (
            _mm512_set1_ps(bias),
            _mm512_set1_ps(threshold),
            _mm512_set1_ps(f32::INFINITY),
        );
        let scores =
            [0, 1].map(|half| _mm512_add_ps(texts[half], _mm512_add_ps(bias, biases[half])));
        store(lanes, scores);
        let invalid = scores.map(|scores| _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(scores, infinity));
        let above = scores.map(|scores| _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(scores, threshold));
        let above = u32::from(above[0]) | u32::from(above[1]) << (LANES / 2);
        (invalid[0] | invalid[1] != 0, above)
    }

    /// The function of the same name outside this module; the compiler does not vectorise its comparisons.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn ratio_candidates(
        (items, item_masses): (&[Lanes], &[Lanes]),
        query: &[f32],
        eps: f32,
        (min_score, bias, biases): (f32, f32, &Lanes),
        (texts, masses): (&mut Lanes, &mut Lanes),
    ) -> u32 {
        let (mut text, mut mass) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
        for ((items, item_masses), &user) in items.iter().zip(item_masses).zip(query) {
            let (items, item_masses) = (load(items), load(item_masses));
            let user = _mm512_set1_ps(user);
            for half in [0, 1] {
                text[half] = _mm512_fmadd_ps(user, items[half], text[half]);
                mass[half] = _mm512_fmadd_ps(user, item_masses[half], mass[half]);
            }
        }
        let biases = load(biases);
        let (min_score, bias, eps) = (
            _mm512_set1_ps(min_score),
            _mm512_set1_ps(bias),
            _mm512_set1_ps(eps),
        );
        let reaches = [0, 1].map(|half| {
            let min_text = _mm512_sub_ps(min_score, _mm512_add_ps(bias, biases[half]));
            let required = _mm512_mul_ps(min_text, _mm512_add_ps(mass[half], eps));
            u32::from(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(text[half], required))
        });
        let reaches = reaches[0] | reaches[1] << (LANES / 2);
        if reaches != 0 {
            store(texts, text);
            store(masses, mass);
        }
        reaches
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store(lanes: &mut Lanes, halves: [__m512; 2]) {
        let start = lanes.0.as_mut_ptr();
        // SAFETY: both halves are inside the lanes, which are aligned to 64 bytes.
        unsafe {
            _mm512_store_ps(start, halves[0]);
            _mm512_store_ps(start.add(LANES / 2), halves[1]);
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(lanes: &Lanes) -> [__m512; 2] {
        let start = lanes.0.as_ptr();
        // SAFETY: both halves are inside the lanes, which are aligned to 64 bytes.
        unsafe { [_mm512_load_ps(start), _mm512_load_ps(start.add(LANES / 2))] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn products_match_plain_loops() {
        let mut stream = Stream::new(5, 0, 0);
        let mut number = || stream.below(2001) as f32 / 1000.0 - 1.0;
        for dim in [0, 1, 5, 33] {
            let items: Vec<f32> = (0..37 * dim).map(|_| number()).collect();
            let users: Vec<f32> = (0..2 * dim).map(|_| number()).collect();
            let panels = Panels::new(&items, dim, &Cancel::new()).unwrap();
            let group: Vec<[f32; 2]> = (0..dim)
                .map(|axis| [users[axis], users[dim + axis]])
                .collect();
            for item in 0..37 {
                let mut products = [Lanes([f32::NAN; LANES]); 2];
                panels.multiply::<2, false, false>(item / LANES, &group, &mut products);
                for user in 0..2 {
                    let mut expected = 0.0;
                    for axis in 0..dim {
                        expected += users[user * dim + axis] * items[item * dim + axis];
                    }
                    assert_eq!(products[user].0[item % LANES], expected);
                    assert_eq!(
                        panels.dot::<false>(item, &users[user * dim..][..dim]),
                        expected
                    );
                }
            }
        }
    }
}
