//! One user's positives: what is a negative, and which is the n-th.

use crate::csr::Csr;

/// The positives of one user.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    items: &'a [i32],
}

impl<'a> Row<'a> {
    pub fn new(positives: &'a Csr, user: usize) -> Self {
        Self {
            items: positives.row(user),
        }
    }

    /// Sorted positives.
    pub fn items(self) -> &'a [i32] {
        self.items
    }

    pub fn contains(self, item: i32) -> bool {
        self.items.binary_search(&item).is_ok()
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
