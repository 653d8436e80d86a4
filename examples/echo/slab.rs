//! The connections of a worker: numbered slots, with a generation in each key.
//!
//! A slot is reused. The generation distinguishes an event of its former connection from one of its present one.

/// Values, each under a key that is not reused.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            u32::try_from(self.slots.len() - 1).expect("fewer connections than 2^32")
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        key(index, slot.generation)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.slot(key)?.value.as_mut()
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let slot = self.slot(key)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index_of(key));
        Some(value)
    }

    fn slot(&mut self, key: u64) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(index_of(key) as usize)?;
        (slot.generation == generation_of(key)).then_some(slot)
    }
}

fn key(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

#[expect(clippy::cast_possible_truncation, reason = "the index is the lower half")]
fn index_of(key: u64) -> u32 {
    key as u32
}

fn generation_of(key: u64) -> u32 {
    (key >> 32) as u32
}
