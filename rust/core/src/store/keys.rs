//! Finding passages by their 16-byte content hash.

use crate::threads::parallel_for_each;
use crate::{Cancel, Error, Result};

const EMPTY: u32 = u32::MAX;
/// Keys looked up between two looks at the cancel flag.
const BLOCK: usize = 1 << 14;

/// An open-addressing table over the keys of a store. Keys are hashes already: their first bytes
/// choose the slot. Where a key stands twice, the first passage is found.
#[derive(Debug)]
pub struct KeyIndex {
    slots: Vec<u32>,
}

impl KeyIndex {
    /// Builds the table over `keys`, 16 bytes each.
    ///
    /// # Panics
    /// With more than 2^32 - 2 keys.
    pub fn new(keys: &[u8]) -> Self {
        let (keys, _) = keys.as_chunks::<16>();
        assert!(
            keys.len() < EMPTY as usize,
            "a store holds fewer than 2^32 - 1 passages"
        );
        let mut slots = vec![EMPTY; (keys.len() * 2).next_power_of_two()];
        for (passage, key) in keys.iter().enumerate() {
            let mut slot = first_slot(key, slots.len());
            while slots[slot] != EMPTY && keys[slots[slot] as usize] != *key {
                slot = (slot + 1) & (slots.len() - 1);
            }
            if slots[slot] == EMPTY {
                slots[slot] = passage as u32;
            }
        }
        KeyIndex { slots }
    }

    /// Passage of each wanted key, -1 where there is none. `keys` are those of [`new`](Self::new).
    ///
    /// # Errors
    /// [`Error::Argument`] where `wanted` are not 16 bytes each, [`Error::Interrupted`].
    pub fn find(&self, keys: &[u8], wanted: &[u8], cancel: &Cancel) -> Result<Vec<i64>> {
        let (keys, _) = keys.as_chunks::<16>();
        let (wanted, []) = wanted.as_chunks::<16>() else {
            return Err(Error::Argument("keys are not 16 bytes each".into()));
        };
        let mut found = vec![-1; wanted.len()];
        let blocks = found.chunks_mut(BLOCK).zip(wanted.chunks(BLOCK));
        parallel_for_each(blocks, |_: &mut (), (found, wanted)| {
            cancel.check()?;
            for (found, key) in found.iter_mut().zip(wanted) {
                *found = self.find_one(keys, key);
            }
            Ok(())
        })?;
        Ok(found)
    }

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

fn first_slot(key: &[u8; 16], slots: usize) -> usize {
    let (head, _) = key.split_at(8);
    u64::from_le_bytes(head.try_into().expect("eight bytes")) as usize & (slots - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::passage_key;

    #[test]
    fn every_key_is_found_and_no_other() {
        for count in [0, 1, 2, 3, 1000, 40_000] {
            let keys: Vec<u8> = (0..count)
                .flat_map(|n| passage_key(&format!("p{n}")))
                .collect();
            let index = KeyIndex::new(&keys);
            let found = index.find(&keys, &keys, &Cancel::new()).unwrap();
            assert!(found.iter().copied().eq(0..i64::from(count)));
            let other = passage_key("other");
            assert_eq!(index.find(&keys, &other, &Cancel::new()).unwrap(), [-1]);
        }
    }

    #[test]
    fn colliding_and_repeated_keys() {
        // The same first eight bytes: all fight for one slot.
        let key = |n: u8| [[7; 15].as_slice(), &[n]].concat();
        let keys: Vec<u8> = [1, 2, 1, 3].into_iter().flat_map(key).collect();
        let index = KeyIndex::new(&keys);
        let wanted: Vec<u8> = [3, 1, 9, 2].into_iter().flat_map(key).collect();
        assert_eq!(
            index.find(&keys, &wanted, &Cancel::new()).unwrap(),
            [3, 0, -1, 1]
        );
        assert!(index.find(&keys, &wanted[1..], &Cancel::new()).is_err());
    }
}
