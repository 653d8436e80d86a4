//! Where a worker keeps its connections: numbered places, and a generation in each number.
//!
//! A place is used again. The generation tells an event of whoever had it before from one of whoever has it
//! now.

/// Values, each under a key that is never used for another.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, value: None });
            u32::try_from(self.places.len() - 1).expect("fewer connections than 2^32")
        });
        let place = &mut self.places[index as usize];
        place.value = Some(value);
        key(index, place.generation)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.place(key)?.value.as_mut()
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let place = self.place(key)?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index_of(key));
        Some(value)
    }

    fn place(&mut self, key: u64) -> Option<&mut Place<T>> {
        let place = self.places.get_mut(index_of(key) as usize)?;
        (place.generation == generation_of(key)).then_some(place)
    }
}

fn key(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
fn index_of(key: u64) -> u32 {
    key as u32
}

fn generation_of(key: u64) -> u32 {
    (key >> 32) as u32
}
