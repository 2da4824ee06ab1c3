//! Drawing items by weight in constant time.

use crate::{Error, Result};

/// Walker's alias table (Vose, "A linear algorithm for generating random numbers with a given
/// distribution", 1991): an item is drawn with a chance in proportion to its weight, exact to 2^-32.
#[derive(Debug, Clone)]
pub struct AliasTable {
    /// For each item: the words below which it stays itself, and in the upper half the item that it is otherwise.
    /// One number, so that both are read at once: read when needed, the second costs a jump that is guessed
    /// wrong every other time.
    slots: Vec<u64>,
    weights: Vec<f32>,
}

impl AliasTable {
    /// The table of these weights, one an item.
    ///
    /// # Errors
    /// [`Error::Argument`] for a weight that is negative or not finite, naming the item, where none is above
    /// 0, and for more items than int32 counts.
    pub fn new(weights: &[f32]) -> Result<Self> {
        if let Some(item) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(Error::Argument(format!(
                "the weight of item {item} is {}; weights are finite and not negative",
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
        let mut share: Vec<f64> = weights.iter().map(|&w| f64::from(w) * scale).collect();
        let mut slots: Vec<(u32, i32)> = (0..weights.len() as i32)
            .map(|item| (u32::MAX, item))
            .collect();
        let is_small = |item: &usize| share[*item] < 1.0;
        let (mut small, mut large): (Vec<_>, Vec<_>) = (0..weights.len()).partition(is_small);
        while let (Some(&giver), Some(&taker)) = (large.last(), small.last()) {
            small.pop();
            slots[taker] = ((share[taker] * 2f64.powi(32)) as u32, giver as i32);
            share[giver] -= 1.0 - share[taker];
            if share[giver] < 1.0 {
                large.pop();
                small.push(giver);
            }
        }
        // What is left has a share of 1 but for rounding; a weight of 0 has given everything away by then,
        // unless rounding has emptied the givers first.
        let heaviest =
            (0..weights.len()).fold(0, |best, item| match weights[item] > weights[best] {
                true => item,
                false => best,
            });
        for item in small.into_iter().filter(|&item| weights[item] == 0.0) {
            slots[item] = (0, heaviest as i32);
        }
        let pack = |(stays_below, other): (u32, i32)| u64::from(stays_below) | (other as u64) << 32;
        Ok(Self {
            slots: slots.into_iter().map(pack).collect(),
            weights: weights.to_vec(),
        })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no items; never true, as one must have a weight.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The item of a random number: its high part chooses the slot, what is left over the side of the slot.
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

    /// As [`item`](Self::item), of a number of which only the upper half is known: -1 where the lower decides.
    #[inline(always)]
    pub(super) fn item_of_half(&self, word: u32) -> i32 {
        let product = u64::from(word) * self.slots.len() as u64;
        let slot = (product >> 32) as usize;
        let entry = self.slots[slot];
        let (stays_below, other) = (entry & u64::from(u32::MAX), (entry >> 32) as i32);
        // The side of the whole number lies in low..end.
        let low = product & u64::from(u32::MAX);
        let end = low + self.slots.len() as u64;
        let (stays, leaves) = (end <= stays_below, (low >= stays_below) & (end <= 1 << 32));
        let mask = |condition: bool| -i32::from(condition);
        slot as i32 & mask(stays) | other & mask(leaves) | mask(!(stays | leaves))
    }

    /// [`item_of_half`](Self::item_of_half) of each word; with the instructions of
    /// [`Level::Avx512`](crate::cpu::Level) where `WIDE`, which the caller has made sure of: half again as fast.
    #[inline(always)]
    pub(super) fn items_of_halves<const WIDE: bool>(&self, words: &[u32], items: &mut [i32]) {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            let (blocks, rest) = words.as_chunks::<8>();
            let (item_blocks, item_rest) = items.as_chunks_mut::<8>();
            for (words, items) in blocks.iter().zip(item_blocks) {
                // SAFETY: the caller has made sure that the processor has AVX-512 F and VL.
                unsafe { self.eight_items(words, items) };
            }
            for (&word, item) in rest.iter().zip(item_rest) {
                *item = self.item_of_half(word);
            }
            return;
        }
        for (&word, item) in words.iter().zip(items) {
            *item = self.item_of_half(word);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn eight_items(&self, words: &[u32; 8], items: &mut [i32; 8]) {
        use std::arch::x86_64::*;
        let lower = _mm512_set1_epi64(i64::from(u32::MAX));
        let count = _mm512_set1_epi64(self.slots.len() as i64);
        // SAFETY: eight words are 256 bits, of any alignment.
        let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
        let product = _mm512_mul_epu32(_mm512_cvtepu32_epi64(words), count);
        let slot = _mm512_srli_epi64::<32>(product);
        // SAFETY: the upper half of a 32-bit word times the number of slots, which fits 32 bits, is below it.
        let entry = unsafe { _mm512_i64gather_epi64::<8>(slot, self.slots.as_ptr().cast()) };
        let stays_below = _mm512_and_si512(entry, lower);
        let low = _mm512_and_si512(product, lower);
        let end = _mm512_add_epi64(low, count);
        let stays = _mm512_cmple_epu64_mask(end, stays_below);
        let leaves = _mm512_cmpge_epu64_mask(low, stays_below);
        let leaves = leaves & _mm512_cmple_epu64_mask(end, _mm512_set1_epi64(1 << 32));
        let other = _mm512_srli_epi64::<32>(entry);
        let undecided = _mm512_set1_epi64(-1);
        let item = _mm512_mask_blend_epi64(leaves, undecided, other);
        let item = _mm512_mask_blend_epi64(stays, item, slot);
        // SAFETY: as the words.
        unsafe { _mm256_storeu_si256(items.as_mut_ptr().cast(), _mm512_cvtepi64_epi32(item)) };
    }

    /// An item by weight among those outside `positives` (sorted): one pass over the items.
    #[cold]
    pub(super) fn item_outside(&self, positives: &[i32], number: u64) -> Option<i32> {
        let outside = |item: &i32| positives.binary_search(item).is_err();
        let weighed = |item: &i32| self.weights[*item as usize] > 0.0;
        let items = || (0..self.len() as i32).filter(outside).filter(weighed);
        let weight = |item: i32| f64::from(self.weights[item as usize]);
        let total: f64 = items().map(weight).sum();
        let mut left = total * (number >> 11) as f64 * 2f64.powi(-53);
        let drawn = items().find(|&item| {
            left -= weight(item);
            left < 0.0
        });
        drawn.or_else(|| items().next_back())
    }
}
