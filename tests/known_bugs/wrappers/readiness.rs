//! A runtime's record of readiness: an event that arrives after a look survives the clearing. This crate has none: it uses
//! tokio's.

use crate::search::Mutant;

pub(crate) fn mutants() -> Vec<Mutant> {
    fn mutant<R: Readiness>(row: &'static [&'static str]) -> Mutant {
        Mutant::of_part::<R>(row, "no lost event", no_event_forgotten::<Counted>, no_event_forgotten::<R>)
            .explained()
    }
    vec![mutant::<ClearsAll>(&["M24"]), mutant::<ClearsUnasked>(&["M25"]), mutant::<CountsToA256>(&["M26"])]
}

const IN: u8 = 1;
const OUT: u8 = 2;

trait Readiness: Default + 'static {
    /// An event arrived.
    fn event(&mut self, bits: u8);
    /// Returns what was seen before a call that fails with EAGAIN.
    fn seen(&self) -> u64;
    /// Clears these bits, which were not ready as of `seen`.
    fn clear(&mut self, bits: u8, seen: u64);
    fn ready(&self) -> u8;
}

#[derive(Default)]
struct Memory {
    ready: u8,
    events: u64,
}

impl Memory {
    fn event(&mut self, bits: u8) {
        self.ready |= bits;
        self.events += 1;
    }
}

macro_rules! readiness {
    ($($(#[$doc:meta])* $name:ident: |$memory:ident, $bits:ident, $seen:ident| $clear:block)*) => {$(
        $(#[$doc])*
        #[derive(Default)]
        struct $name(Memory);

        impl Readiness for $name {
            fn event(&mut self, bits: u8) {
                self.0.event(bits);
            }

            fn seen(&self) -> u64 {
                self.0.events
            }

            fn clear(&mut self, $bits: u8, $seen: u64) {
                let $memory = &mut self.0;
                $clear
            }

            fn ready(&self) -> u8 {
                self.0.ready
            }
        }
    )*};
}

readiness! {
    /// Clears the bits that were seen, unless an event has arrived since.
    Counted: |memory, bits, seen| {
        if memory.events == seen {
            memory.ready &= !bits;
        }
    }

    /// Clears all bits.
    ClearsAll: |memory, _bits, seen| {
        if memory.events == seen {
            memory.ready = 0;
        }
    }

    /// Clears what has arrived since.
    ClearsUnasked: |memory, bits, _seen| {
        memory.ready &= !bits;
    }

    /// Counts events in eight bits.
    CountsToA256: |memory, bits, seen| {
        if memory.events % 256 == seen % 256 {
            memory.ready &= !bits;
        }
    }
}

fn no_event_forgotten<R: Readiness>() -> Result<(), String> {
    let mut other = R::default();
    other.event(IN | OUT);
    other.clear(IN, other.seen());
    if other.ready() != OUT {
        return Err("IN and OUT, IN cleared: OUT lost".into());
    }
    for between in [1, 2, 255, 256] {
        let mut late = R::default();
        late.event(IN);
        let seen = late.seen();
        (0..between).for_each(|_| late.event(IN));
        late.clear(IN, seen);
        if late.ready() != IN {
            return Err(format!("{between} events before clearing: lost"));
        }
    }
    Ok(())
}
