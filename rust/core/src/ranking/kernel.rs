//! Products of a few users with a panel of items, in registers.
//!
//! Every product is summed over the dimension in order, so it does not depend on how users and items were
//! grouped; [`Panels::dot`] gives the very same bits for one pair.

use rayon::prelude::*;

/// Items of a panel: two of the widest vectors.
pub const LANES: usize = 32;

/// Item vectors laid out as `[panels][dim][LANES]`, the last panel filled up with zeros.
#[derive(Debug)]
pub struct Panels {
    data: Vec<f32>,
    dim: usize,
}

impl Panels {
    /// Lays out row-major item vectors `[items, dim]`.
    pub fn new(vectors: &[f32], dim: usize) -> Self {
        if dim == 0 {
            return Self { data: vec![], dim };
        }
        let num_panels = (vectors.len() / dim).div_ceil(LANES);
        let mut data = vec![0.0; num_panels * dim * LANES];
        data.par_chunks_mut(dim * LANES)
            .zip(vectors.par_chunks(dim * LANES))
            .for_each(|(panel, vectors)| {
                for (lane, vector) in vectors.chunks_exact(dim).enumerate() {
                    for (place, &value) in panel[lane..].iter_mut().step_by(LANES).zip(vector) {
                        *place = value;
                    }
                }
            });
        Self { data, dim }
    }

    fn panel(&self, panel: usize) -> &[[f32; LANES]] {
        let size = self.dim * LANES;
        self.data[panel * size..][..size].as_chunks().0
    }

    /// `products[user * stride + lane]` for the `USERS` users of one group and the items of one panel.
    ///
    /// `WIDE`: with the instructions of [`Level::Avx512`](crate::cpu::Level), which the caller has made sure
    /// of, as of fused multiply-add where `FMA` is set.
    #[inline(always)]
    pub fn multiply<const USERS: usize, const FMA: bool, const WIDE: bool>(
        &self,
        panel: usize,
        group: &[[f32; USERS]],
        products: &mut [f32],
        stride: usize,
    ) {
        let panel = self.panel(panel);
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: the caller has made sure that the processor has AVX-512 F.
            return unsafe { wide::multiply(panel, group, products, stride) };
        }
        // Half a panel at a time: what 16 registers hold.
        for half in [0, LANES / 2] {
            let mut sums = [[0.0; LANES / 2]; USERS];
            for (items, users) in panel.iter().zip(group) {
                let items = &items[half..][..LANES / 2];
                for (sums, &user) in sums.iter_mut().zip(users) {
                    for (sum, &item) in sums.iter_mut().zip(items) {
                        *sum = multiply_add::<FMA>(user, item, *sum);
                    }
                }
            }
            for (user, sums) in sums.iter().enumerate() {
                products[user * stride + half..][..LANES / 2].copy_from_slice(sums);
            }
        }
    }

    /// The product of one user and one item, bit for bit as [`multiply`](Self::multiply) gives it.
    #[inline(always)]
    pub fn dot<const FMA: bool>(&self, item: usize, user: &[f32]) -> f32 {
        let panel = self.panel(item / LANES).iter();
        panel.zip(user).fold(0.0, |sum, (items, &user)| {
            multiply_add::<FMA>(user, items[item % LANES], sum)
        })
    }
}

/// With `FMA` one rounding; the caller has made sure that the processor has the instruction.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::LANES;
    use std::arch::x86_64::*;

    /// [`Panels::multiply`](super::Panels::multiply) in registers of 16 numbers. The compiler makes such
    /// loops of half registers at best, and runs out of them: a seventh of the speed.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn multiply<const USERS: usize>(
        panel: &[[f32; LANES]],
        group: &[[f32; USERS]],
        products: &mut [f32],
        stride: usize,
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
        for (user, sums) in sums.into_iter().enumerate() {
            let products = products[user * stride..].first_chunk_mut::<LANES>();
            let products = products.expect("room for a panel");
            // SAFETY: both halves lie inside the array; unaligned stores take any address.
            unsafe {
                _mm512_storeu_ps(products.as_mut_ptr(), sums[0]);
                _mm512_storeu_ps(products.as_mut_ptr().add(LANES / 2), sums[1]);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(lanes: &[f32; LANES]) -> [__m512; 2] {
        let start = lanes.as_ptr();
        // SAFETY: both halves lie inside the array; unaligned loads take any address.
        unsafe { [_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(LANES / 2))] }
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
            let panels = Panels::new(&items, dim);
            let group: Vec<[f32; 2]> = (0..dim)
                .map(|axis| [users[axis], users[dim + axis]])
                .collect();
            for item in 0..37 {
                let mut products = [f32::NAN; 2 * LANES];
                panels.multiply::<2, false, false>(item / LANES, &group, &mut products, LANES);
                for user in 0..2 {
                    let mut expected = 0.0;
                    for axis in 0..dim {
                        expected += users[user * dim + axis] * items[item * dim + axis];
                    }
                    assert_eq!(products[user * LANES + item % LANES], expected);
                    assert_eq!(
                        panels.dot::<false>(item, &users[user * dim..][..dim]),
                        expected
                    );
                }
            }
        }
    }
}
