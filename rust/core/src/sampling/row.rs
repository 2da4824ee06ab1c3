//! The positives of one user: membership, and the n-th negative.

use crate::csr::Csr;

/// The positives of one user.
#[derive(Clone, Copy)]
pub struct UserPositives<'a> {
    items: &'a [i32],
}

impl<'a> UserPositives<'a> {
    /// The row of `user` in `positives`.
    pub fn new(positives: &'a Csr, user: usize) -> Self {
        Self {
            items: positives.row(user),
        }
    }

    /// The positives, sorted.
    pub fn items(self) -> &'a [i32] {
        self.items
    }

    /// Whether `item` is a positive.
    pub fn contains(self, item: i32) -> bool {
        self.items.binary_search(&item).is_ok()
    }

    /// The negative with exactly `rank` negatives before it.
    ///
    /// There are `positives[j] - j` negatives before `positives[j]`, which never decreases with j. So the result
    /// is `rank` plus the number of positives with `positives[j] - j <= rank`.
    pub fn nth_negative(self, rank: i32) -> i32 {
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
