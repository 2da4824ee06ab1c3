//! Drawing items by weight in constant time.

use crate::{Error, Result};

/// Walker's alias table (Vose, "A linear algorithm for generating random numbers with a given
/// distribution", 1991): an item is drawn with a chance in proportion to its weight, exact to 2^-32.
#[derive(Debug, Clone)]
pub struct AliasTable {
    /// For each item: the words below which it stays itself, and the item that it is otherwise.
    slots: Vec<(u32, i32)>,
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
        Ok(Self {
            slots,
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
        let (stays_below, other) = self.slots[slot];
        let side = (product >> 32) as u32;
        if side < stays_below {
            slot as i32
        } else {
            other
        }
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
