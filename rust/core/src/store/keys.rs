//! An index of passages by their 16-byte keys.

use crate::memory::filled;
use crate::threads::parallel_for_each;
use crate::{Cancel, Error, Result};

/// An empty slot.
const EMPTY: u32 = u32::MAX;
/// Keys looked up per task.
const KEYS_PER_TASK: usize = 1 << 14;

/// A hash table from keys to passages, with open addressing and linear probing.
///
/// Keys are hashes, so their first bytes select the slot. Of duplicate keys, the first passage is found.
#[derive(Debug)]
pub struct KeyIndex {
    slots: Vec<u32>,
}

impl KeyIndex {
    /// Builds the table of `keys`, 16 bytes each.
    ///
    /// # Errors
    /// [`Error::Argument`] for more than 2^32 - 2 keys, or if the table does not fit into memory.
    pub fn new(keys: &[u8]) -> Result<Self> {
        let (keys, _) = keys.as_chunks::<16>();
        if keys.len() >= EMPTY as usize {
            let message = format!("{} passages, expected fewer than 2^32 - 1", keys.len());
            return Err(Error::Argument(message));
        }
        let num_slots = (keys.len() * 2).next_power_of_two();
        let mut slots = filled(EMPTY, 1, num_slots, "passages")?;
        for (passage, key) in keys.iter().enumerate() {
            let mut slot = first_slot(key, slots.len());
            while slots[slot] != EMPTY && keys[slots[slot] as usize] != *key {
                slot = (slot + 1) & (slots.len() - 1);
            }
            if slots[slot] == EMPTY {
                slots[slot] = passage as u32;
            }
        }
        Ok(KeyIndex { slots })
    }

    /// Passage index of each key in `wanted`; -1 for a missing key. `keys` must be those of
    /// [`new`](Self::new).
    ///
    /// # Errors
    /// [`Error::Argument`] if the length of `wanted` is not a multiple of 16, [`Error::Interrupted`].
    pub fn find(&self, keys: &[u8], wanted: &[u8], cancel: &Cancel) -> Result<Vec<i64>> {
        let (keys, _) = keys.as_chunks::<16>();
        let (wanted, []) = wanted.as_chunks::<16>() else {
            return Err(Error::Argument("keys are not 16 bytes each".into()));
        };
        let mut found = vec![-1; wanted.len()];
        let blocks = found
            .chunks_mut(KEYS_PER_TASK)
            .zip(wanted.chunks(KEYS_PER_TASK));
        parallel_for_each(blocks, |_: &mut (), (found, wanted)| {
            cancel.check()?;
            for (found, key) in found.iter_mut().zip(wanted) {
                *found = self.find_one(keys, key);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The passage of one key; -1 if it is missing.
    fn find_one(&self, keys: &[[u8; 16]], key: &[u8; 16]) -> i64 {
        let mut slot = first_slot(key, self.slots.len());
        while self.slots[slot] != EMPTY {
            let passage = self.slots[slot];
            if keys[passage as usize] == *key {
                return i64::from(passage);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        -1
    }
}

/// The slot at which the search for a key starts.
fn first_slot(key: &[u8; 16], slots: usize) -> usize {
    let (head, _) = key.split_at(8);
    u64::from_le_bytes(head.try_into().expect("eight bytes")) as usize & (slots - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::passage_key;

    #[test]
    fn present_keys_are_found_and_others_are_not() {
        for count in [0, 1, 2, 3, 1000, 40_000] {
            let keys: Vec<u8> = (0..count)
                .flat_map(|n| passage_key(&format!("p{n}")))
                .collect();
            let index = KeyIndex::new(&keys).unwrap();
            let found = index.find(&keys, &keys, &Cancel::new()).unwrap();
            assert!(found.iter().copied().eq(0..i64::from(count)));
            let other = passage_key("other");
            assert_eq!(index.find(&keys, &other, &Cancel::new()).unwrap(), [-1]);
        }
    }

    #[test]
    fn colliding_and_duplicate_keys() {
        // The same first eight bytes: all keys have the same first slot.
        let key = |n: u8| [[7; 15].as_slice(), &[n]].concat();
        let keys: Vec<u8> = [1, 2, 1, 3].into_iter().flat_map(key).collect();
        let index = KeyIndex::new(&keys).unwrap();
        let wanted: Vec<u8> = [3, 1, 9, 2].into_iter().flat_map(key).collect();
        assert_eq!(
            index.find(&keys, &wanted, &Cancel::new()).unwrap(),
            [3, 0, -1, 1]
        );
        assert!(index.find(&keys, &wanted[1..], &Cancel::new()).is_err());
    }
}
