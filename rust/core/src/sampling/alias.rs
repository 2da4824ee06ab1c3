//! Sampling items in proportion to weights, in constant time.

use crate::{Error, Result};

/// Walker's alias table, built as in Vose, "A linear algorithm for generating random numbers with a given
/// distribution", 1991: an item is drawn with a probability proportional to its weight, exact to 2^-32.
#[derive(Debug, Clone)]
pub struct AliasTable {
    /// For each item, the threshold in the lower half and the alias in the upper half. Packed into one
    /// number, so that both are loaded at once: loading the alias only when needed costs a branch that is
    /// mispredicted half of the time.
    slots: Vec<u64>,
    weights: Vec<f32>,
}

impl AliasTable {
    /// A table of weights, one per item.
    ///
    /// # Errors
    /// [`Error::Argument`] if a weight is negative or not finite (the message names the item), if no weight
    /// is above 0, or for more items than int32 can index.
    pub fn new(weights: &[f32]) -> Result<Self> {
        if let Some(item) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(Error::Argument(format!(
                "the weight of item {item} is {}; weights must be finite and not negative",
                weights[item]
            )));
        }
        if weights.len() > i32::MAX as usize {
            let count = weights.len();
            return Err(Error::Argument(format!(
                "{count} items do not fit into int32 indices"
            )));
        }
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        if total <= 0.0 {
            return Err(Error::Argument("no item has a weight above 0".into()));
        }
        let scale = weights.len() as f64 / total;
        let mut scaled: Vec<f64> = weights.iter().map(|&w| f64::from(w) * scale).collect();
        let mut slots: Vec<(u32, i32)> = (0..weights.len() as i32)
            .map(|item| (u32::MAX, item))
            .collect();
        let is_small = |item: &usize| scaled[*item] < 1.0;
        let (mut small, mut large): (Vec<_>, Vec<_>) = (0..weights.len()).partition(is_small);
        while let (Some(&larger), Some(&smaller)) = (large.last(), small.last()) {
            small.pop();
            slots[smaller] = ((scaled[smaller] * 2f64.powi(32)) as u32, larger as i32);
            scaled[larger] -= 1.0 - scaled[smaller];
            if scaled[larger] < 1.0 {
                large.pop();
                small.push(larger);
            }
        }
        // The remaining items have a probability of 1 up to rounding. An item of weight 0 is among them only
        // if rounding has exhausted the large ones first; then it must not be drawn.
        let heaviest =
            (0..weights.len()).fold(0, |best, item| match weights[item] > weights[best] {
                true => item,
                false => best,
            });
        for item in small.into_iter().filter(|&item| weights[item] == 0.0) {
            slots[item] = (0, heaviest as i32);
        }
        let pack = |(threshold, alias): (u32, i32)| u64::from(threshold) | (alias as u64) << 32;
        Ok(Self {
            slots: slots.into_iter().map(pack).collect(),
            weights: weights.to_vec(),
        })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no items: never, as one must have a weight above 0.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The item of a uniform 64-bit number: the integer part of number · len / 2^64 is the slot, the fraction
    /// is compared with the threshold.
    #[inline(always)]
    pub(super) fn item(&self, number: u64) -> i32 {
        let product = u128::from(number) * self.slots.len() as u128;
        let slot = (product >> 64) as usize;
        let entry = self.slots[slot];
        match ((product >> 32) as u32) < entry as u32 {
            true => slot as i32,
            false => (entry >> 32) as i32,
        }
    }

    /// As [`item`](Self::item), given only the upper half of the number; -1 where the lower half decides.
    #[inline(always)]
    pub(super) fn item_from_upper_half(&self, upper: u32) -> i32 {
        let product = u64::from(upper) * self.slots.len() as u64;
        let slot = (product >> 32) as usize;
        let entry = self.slots[slot];
        let (threshold, alias) = (entry & u64::from(u32::MAX), (entry >> 32) as i32);
        // The fraction of the whole number is in low..end.
        let low = product & u64::from(u32::MAX);
        let end = low + self.slots.len() as u64;
        let (keep, replace) = (end <= threshold, (low >= threshold) & (end <= 1 << 32));
        let mask = |condition: bool| -i32::from(condition);
        slot as i32 & mask(keep) | alias & mask(replace) | mask(!(keep | replace))
    }

    /// [`item_from_upper_half`](Self::item_from_upper_half) of each number.
    ///
    /// `AVX512`: with the instructions of [`Level::Avx512`](crate::cpu::Level), which the processor must
    /// support; 1.5 times as fast.
    #[inline(always)]
    pub(super) fn items_from_upper_halves<const AVX512: bool>(
        &self,
        numbers: &[u32],
        items: &mut [i32],
    ) {
        #[cfg(target_arch = "x86_64")]
        if AVX512 {
            let (blocks, rest) = numbers.as_chunks::<8>();
            let (item_blocks, item_rest) = items.as_chunks_mut::<8>();
            for (numbers, items) in blocks.iter().zip(item_blocks) {
                // SAFETY: the caller guarantees that the processor supports AVX-512 F and VL.
                unsafe { self.items_from_upper_halves_x8(numbers, items) };
            }
            for (&upper, item) in rest.iter().zip(item_rest) {
                *item = self.item_from_upper_half(upper);
            }
            return;
        }
        for (&upper, item) in numbers.iter().zip(items) {
            *item = self.item_from_upper_half(upper);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn items_from_upper_halves_x8(&self, numbers: &[u32; 8], items: &mut [i32; 8]) {
        use std::arch::x86_64::*;
        let lower = _mm512_set1_epi64(i64::from(u32::MAX));
        let count = _mm512_set1_epi64(self.slots.len() as i64);
        // SAFETY: eight words are 256 bits, of any alignment.
        let numbers = unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) };
        let product = _mm512_mul_epu32(_mm512_cvtepu32_epi64(numbers), count);
        let slot = _mm512_srli_epi64::<32>(product);
        // SAFETY: the upper half of a 32-bit word times the number of slots, which fits 32 bits, is below it.
        let entry = unsafe { _mm512_i64gather_epi64::<8>(slot, self.slots.as_ptr().cast()) };
        let threshold = _mm512_and_si512(entry, lower);
        let low = _mm512_and_si512(product, lower);
        let end = _mm512_add_epi64(low, count);
        let keep = _mm512_cmple_epu64_mask(end, threshold);
        let replace = _mm512_cmpge_epu64_mask(low, threshold);
        let replace = replace & _mm512_cmple_epu64_mask(end, _mm512_set1_epi64(1 << 32));
        let alias = _mm512_srli_epi64::<32>(entry);
        let undecided = _mm512_set1_epi64(-1);
        let item = _mm512_mask_blend_epi64(replace, undecided, alias);
        let item = _mm512_mask_blend_epi64(keep, item, slot);
        // SAFETY: as the words.
        unsafe { _mm256_storeu_si256(items.as_mut_ptr().cast(), _mm512_cvtepi64_epi32(item)) };
    }

    /// Draws an item outside `positives` (sorted) in proportion to the weights, in linear time; `None` if
    /// there is none.
    #[cold]
    pub(super) fn draw_excluding(&self, positives: &[i32], number: u64) -> Option<i32> {
        let outside = |item: &i32| positives.binary_search(item).is_err();
        let has_weight = |item: &i32| self.weights[*item as usize] > 0.0;
        let items = || (0..self.len() as i32).filter(outside).filter(has_weight);
        let weight = |item: i32| f64::from(self.weights[item as usize]);
        let total: f64 = items().map(weight).sum();
        let mut remaining = total * (number >> 11) as f64 * 2f64.powi(-53);
        let drawn = items().find(|&item| {
            remaining -= weight(item);
            remaining < 0.0
        });
        drawn.or_else(|| items().next_back())
    }
}
