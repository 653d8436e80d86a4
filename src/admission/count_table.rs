//! A table of counts that never grows.

use std::hash::{BuildHasher, Hash, RandomState};

/// Counts by key, in one allocation that is made at the start. A key is in the table while its count is not 0.
///
/// Open addressing with linear probing and backward-shift deletion: neither its size nor the length of a search depends
/// on earlier keys. The hash is keyed, so that no client can choose keys that collide.
#[derive(Debug)]
pub(super) struct CountTable<K> {
    /// Their number is a power of two, at least twice `capacity`: a search always finds an empty slot.
    slots: Box<[Option<(K, u32)>]>,
    keys: usize,
    capacity: usize,
    hasher: RandomState,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableFull;

impl<K: Copy + Eq + Hash> CountTable<K> {
    pub(super) fn new(capacity: usize) -> Self {
        let slots = capacity.checked_mul(2).and_then(usize::checked_next_power_of_two);
        let slots = vec![None; slots.expect("a table that fits into memory")].into_boxed_slice();
        Self { slots, keys: 0, capacity, hasher: RandomState::new() }
    }

    pub(super) const fn keys(&self) -> usize {
        self.keys
    }

    /// Returns the count of a key; 0 if it is absent.
    pub(super) fn count(&self, key: K) -> u32 {
        self.slots[self.find(key)].map_or(0, |(_, count)| count)
    }

    pub(super) fn add(&mut self, key: K) -> Result<(), TableFull> {
        let slot = self.find(key);
        match &mut self.slots[slot] {
            Some((_, count)) => *count = count.saturating_add(1),
            None if self.keys == self.capacity => return Err(TableFull),
            empty @ None => {
                *empty = Some((key, 1));
                self.keys += 1;
            }
        }
        Ok(())
    }

    /// Subtracts one from the count of a key that is present.
    pub(super) fn take(&mut self, key: K) {
        let slot = self.find(key);
        match &mut self.slots[slot] {
            Some((_, count)) if *count > 1 => *count -= 1,
            Some(_) => self.delete(slot),
            None => debug_assert!(false, "a count was released twice"),
        }
    }

    fn delete(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.keys -= 1;
        let (mut hole, mut next) = (slot, self.after(slot));
        while let Some((key, _)) = self.slots[next] {
            // The hole would cut the key off from its home slot, unless the hole is before that slot.
            let home = self.home(key);
            if self.distance(home, next) >= self.distance(hole, next) {
                self.slots.swap(hole, next);
                hole = next;
            }
            next = self.after(next);
        }
    }

    /// The slot where a key is, or would be.
    fn find(&self, key: K) -> usize {
        let mut slot = self.home(key);
        while self.slots[slot].is_some_and(|(found, _)| found != key) {
            slot = self.after(slot);
        }
        slot
    }

    fn home(&self, key: K) -> usize {
        // The low bits are as random as the others.
        usize::try_from(self.hasher.hash_one(key) & self.mask() as u64).unwrap_or(0)
    }

    const fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    const fn after(&self, slot: usize) -> usize {
        (slot + 1) & self.mask()
    }

    const fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{CountTable, TableFull};

    /// Pseudo-random numbers (a linear congruence).
    fn numbers(mut seed: u64) -> impl Iterator<Item = u32> {
        std::iter::repeat_with(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(seed >> 33).unwrap_or(0)
        })
    }

    #[test]
    fn table_counts_like_a_map_and_never_grows() {
        for capacity in [1, 2, 3, 8, 50] {
            let (mut table, mut map) = (CountTable::new(capacity), BTreeMap::<u32, u32>::new());
            let slots = table.slots.len();
            let mut numbers = numbers(capacity as u64);
            for _ in 0..50_000 {
                let (key, add) = (numbers.next().unwrap_or(0) % 97, numbers.next().unwrap_or(0) % 2 == 0);
                let known = map.len();
                match (add, map.get_mut(&key)) {
                    (true, Some(count)) => {
                        *count += 1;
                        assert_eq!(table.add(key), Ok(()));
                    }
                    (true, None) if known == capacity => assert_eq!(table.add(key), Err(TableFull)),
                    (true, None) => {
                        map.insert(key, 1);
                        assert_eq!(table.add(key), Ok(()));
                    }
                    (false, Some(count)) => {
                        *count -= 1;
                        table.take(key);
                        map.retain(|_, count| *count > 0);
                    }
                    (false, None) => {}
                }
                assert_eq!(table.keys(), map.len());
                assert_eq!(table.count(key), map.get(&key).copied().unwrap_or(0));
            }
            assert!((0..97).all(|key| table.count(key) == map.get(&key).copied().unwrap_or(0)));
            assert_eq!(table.slots.len(), slots);
        }
    }
}
