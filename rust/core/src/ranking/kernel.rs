//! Products of a few users with a panel of items, in registers.
//!
//! Every product is summed over the dimension in order, so it does not depend on how users and items were
//! grouped; [`Panels::dot`] gives the very same bits for one pair.

use crate::threads::share;
use crate::{Cancel, Result};

/// Panels that one thread lays out at a time.
const PANELS: usize = 16;
/// Items of a panel: two of the widest vectors.
pub const LANES: usize = 32;

/// One number for each item of a panel, where no vector crosses a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Strip(pub [f32; LANES]);

impl Strip {
    /// All 0.
    pub const ZERO: Self = Self([0.0; LANES]);

    /// Makes scores of text terms. Returns whether any of them is NaN or +inf, and a bit for each lane that
    /// exceeds `bar` (all where the bar is NaN).
    #[inline(always)]
    pub fn finish<const WIDE: bool>(&mut self, bias: f32, biases: &Strip, bar: f32) -> (bool, u32) {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: the caller has made sure that the processor has AVX-512 F.
            return unsafe { wide::finish(self, bias, biases, bar) };
        }
        // One flag a lane: a vector of them is reduced once, a single one at every lane.
        let (mut bad, mut better) = ([0u32; LANES], [0u32; LANES]);
        for lane in 0..LANES {
            let score = self.0[lane] + (bias + biases.0[lane]);
            self.0[lane] = score;
            bad[lane] = u32::from(!(score < f32::INFINITY));
            better[lane] = u32::from(!(score <= bar));
        }
        (to_mask(bad) != 0, to_mask(better))
    }

    /// Divides each number by that of `masses` plus `eps`.
    #[inline(always)]
    pub fn divide(&mut self, masses: &Strip, eps: f32) {
        for lane in 0..LANES {
            self.0[lane] /= masses.0[lane] + eps;
        }
    }
}

/// Counters, one a lane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([u32; LANES]);

impl Counts {
    /// Counts 2 for each number below `bound`, and 1 for one that is equal; NaN counts for neither.
    #[inline(always)]
    pub fn add(&mut self, strip: &Strip, bound: f32) {
        for (count, &number) in self.0.iter_mut().zip(&strip.0) {
            *count += u32::from(number < bound) + u32::from(number <= bound);
        }
    }

    /// The sum of all, which start again from 0.
    pub fn take(&mut self) -> u64 {
        let counts = std::mem::take(&mut self.0);
        counts.iter().map(|&count| u64::from(count)).sum()
    }
}

/// Item vectors laid out as `[panels][dim][LANES]`, the last panel filled up with zeros.
#[derive(Debug)]
pub struct Panels {
    data: Vec<Strip>,
    dim: usize,
}

impl Panels {
    /// Lays out row-major item vectors `[items, dim]`.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn new(vectors: &[f32], dim: usize, cancel: &Cancel) -> Result<Self> {
        if dim == 0 {
            return Ok(Self { data: vec![], dim }); // all products are 0
        }
        let num_panels = (vectors.len() / dim).div_ceil(LANES);
        let mut data = vec![Strip::ZERO; num_panels * dim];
        let piece = dim * PANELS;
        let pieces = data.chunks_mut(piece).zip(vectors.chunks(piece * LANES));
        share(pieces, |_: &mut (), (panels, vectors)| {
            cancel.check()?;
            for (panel, vectors) in panels.chunks_mut(dim).zip(vectors.chunks(dim * LANES)) {
                for (lane, vector) in vectors.chunks_exact(dim).enumerate() {
                    for (strip, &value) in panel.iter_mut().zip(vector) {
                        strip.0[lane] = value;
                    }
                }
            }
            Ok(())
        })?;
        Ok(Self { data, dim })
    }

    /// The vectors of one panel `[dim]`.
    #[inline(always)]
    pub fn panel(&self, panel: usize) -> &[Strip] {
        &self.data[panel * self.dim..][..self.dim]
    }

    /// Products of the users of one group and the items of one panel.
    ///
    /// `WIDE`: with the instructions of [`Level::Avx512`](crate::cpu::Level), which the caller has made sure
    /// of, as of fused multiply-add where `FMA` is set.
    #[inline(always)]
    pub fn multiply<const USERS: usize, const FMA: bool, const WIDE: bool>(
        &self,
        panel: usize,
        group: &[[f32; USERS]],
        products: &mut [Strip; USERS],
    ) {
        let panel = self.panel(panel);
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: the caller has made sure that the processor has AVX-512 F.
            return unsafe { wide::multiply(panel, group, products) };
        }
        // Half a panel at a time: what 16 registers hold.
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

    /// The product of one user and one item, bit for bit as [`multiply`](Self::multiply) gives it.
    #[inline(always)]
    pub fn dot<const FMA: bool>(&self, item: usize, user: &[f32]) -> f32 {
        let panel = self.panel(item / LANES).iter();
        panel.zip(user).fold(0.0, |sum, (items, &user)| {
            multiply_add::<FMA>(user, items.0[item % LANES], sum)
        })
    }
}

/// A bit for each item of a panel unless text < (cut - (bias + item bias)) (mass + eps), where text and mass
/// are the products of the query with the two vectors of the item. Where a bit is set, both are written.
#[inline(always)]
pub fn quotients_to_beat<const FMA: bool, const WIDE: bool>(
    (items, item_masses): (&[Strip], &[Strip]),
    query: &[f32],
    eps: f32,
    (cut, bias, biases): (f32, f32, &Strip),
    (texts, masses): (&mut Strip, &mut Strip),
) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if WIDE {
        // SAFETY: the caller has made sure that the processor has AVX-512 F.
        return unsafe {
            wide::quotients_to_beat(
                (items, item_masses),
                query,
                eps,
                (cut, bias, biases),
                (texts, masses),
            )
        };
    }
    (*texts, *masses) = (Strip::ZERO, Strip::ZERO);
    for ((items, item_masses), &user) in items.iter().zip(item_masses).zip(query) {
        for lane in 0..LANES {
            texts.0[lane] = multiply_add::<FMA>(user, items.0[lane], texts.0[lane]);
            masses.0[lane] = multiply_add::<FMA>(user, item_masses.0[lane], masses.0[lane]);
        }
    }
    let mut beats = [0u32; LANES];
    for lane in 0..LANES {
        let needed = (cut - (bias + biases.0[lane])) * (masses.0[lane] + eps);
        beats[lane] = u32::from(!(texts.0[lane] < needed));
    }
    to_mask(beats)
}

/// Bit `lane` of the result is flag `lane`.
#[inline(always)]
fn to_mask(flags: [u32; LANES]) -> u32 {
    match flags.iter().fold(0, |any, flag| any | flag) {
        0 => 0,
        _ => (0..LANES).fold(0, |mask, lane| mask | flags[lane] << lane),
    }
}

/// With `FMA` one rounding; the caller has made sure that the processor has the instruction.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{LANES, Strip};
    use std::arch::x86_64::*;

    /// [`Panels::multiply`](super::Panels::multiply) in registers of 16 numbers. The compiler makes such
    /// loops of half registers at best, and runs out of them: a seventh of the speed.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn multiply<const USERS: usize>(
        panel: &[Strip],
        group: &[[f32; USERS]],
        products: &mut [Strip; USERS],
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

    /// [`Strip::finish`], whose flags the compiler makes lane by lane.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn finish(strip: &mut Strip, bias: f32, biases: &Strip, bar: f32) -> (bool, u32) {
        let (texts, biases) = (load(strip), load(biases));
        let (bias, bar, infinity) = (
            _mm512_set1_ps(bias),
            _mm512_set1_ps(bar),
            _mm512_set1_ps(f32::INFINITY),
        );
        let scores =
            [0, 1].map(|half| _mm512_add_ps(texts[half], _mm512_add_ps(bias, biases[half])));
        store(strip, scores);
        let bad = scores.map(|scores| _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(scores, infinity));
        let better = scores.map(|scores| _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(scores, bar));
        let better = u32::from(better[0]) | u32::from(better[1]) << (LANES / 2);
        (bad[0] | bad[1] != 0, better)
    }

    /// The function of the same name outside, whose flags the compiler makes lane by lane.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn quotients_to_beat(
        (items, item_masses): (&[Strip], &[Strip]),
        query: &[f32],
        eps: f32,
        (cut, bias, biases): (f32, f32, &Strip),
        (texts, masses): (&mut Strip, &mut Strip),
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
        let (cut, bias, eps) = (
            _mm512_set1_ps(cut),
            _mm512_set1_ps(bias),
            _mm512_set1_ps(eps),
        );
        let beats = [0, 1].map(|half| {
            let least = _mm512_sub_ps(cut, _mm512_add_ps(bias, biases[half]));
            let needed = _mm512_mul_ps(least, _mm512_add_ps(mass[half], eps));
            u32::from(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(text[half], needed))
        });
        let beats = beats[0] | beats[1] << (LANES / 2);
        if beats != 0 {
            store(texts, text);
            store(masses, mass);
        }
        beats
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store(strip: &mut Strip, halves: [__m512; 2]) {
        let start = strip.0.as_mut_ptr();
        // SAFETY: both halves lie inside the strip, which is aligned to 64 bytes.
        unsafe {
            _mm512_store_ps(start, halves[0]);
            _mm512_store_ps(start.add(LANES / 2), halves[1]);
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(strip: &Strip) -> [__m512; 2] {
        let start = strip.0.as_ptr();
        // SAFETY: both halves lie inside the strip, which is aligned to 64 bytes.
        unsafe { [_mm512_load_ps(start), _mm512_load_ps(start.add(LANES / 2))] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn products_are_those_of_plain_loops() {
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
                let mut products = [Strip([f32::NAN; LANES]); 2];
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
