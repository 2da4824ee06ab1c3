//! One user's positives: what is a negative, and which is the n-th.

use crate::csr::{Csr, Filtered};

/// The positives of one user.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    items: &'a [i32],
    filtered: Filtered<'a>,
}

impl<'a> Row<'a> {
    #[inline(always)]
    pub fn new(positives: &'a Csr, filter: &'a [u64], user: usize) -> Self {
        Self {
            items: positives.row(user),
            filtered: positives.filtered(filter, user),
        }
    }

    /// Sorted positives.
    #[inline(always)]
    pub fn items(self) -> &'a [i32] {
        self.items
    }

    /// False for most negatives, and for no positive.
    #[inline(always)]
    pub fn may_contain(self, item: u32) -> bool {
        self.filtered.may_contain(item)
    }

    /// The negative that has exactly `rank` negatives before it.
    ///
    /// positives[j] has positives[j] - j negatives before it, which never decreases with j. A rank that
    /// reaches that count lies behind positives[j], and is moved up by one for each such positive.
    pub fn negative(self, rank: i32) -> i32 {
        let (mut low, mut high) = (0, self.items.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.items[middle] - middle as i32 <= rank {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        rank + low as i32
    }
}
