//! Batches of events: each edge is returned once, after partial reads, interrupted waits and repeated waits, and never
//! for another source.

use std::time::Duration;

use epoll_acceptor::epoll::Waker;
use epoll_acceptor::sim::kernel::{Event, Fd, Kernel, Mask, Sleep, Thread};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Epoll, Events, Token};

use crate::search::Mutant;

pub(crate) fn mutants() -> Vec<Mutant> {
    let right = || {
        every_edge_once(&|| Box::new(Buffer::<Cursor>::new()))?;
        every_edge_once(&|| Box::new(Crate::new()))
    };
    vec![
        Mutant::of_part::<NeverCleared>(&["M19"], "each edge once", right, || {
            every_edge_once(&|| Box::new(Buffer::<NeverCleared>::new()))
        }),
        Mutant::of_part::<ClearedBySignal>(&["M20"], "each edge once", right, || {
            every_edge_once(&|| Box::new(Buffer::<ClearedBySignal>::new()))
        }),
        Mutant::of_part::<NoCapacityLeft>(&["M21"], "each edge once", right, || {
            every_edge_once(&|| Box::new(Buffer::<NoCapacityLeft>::new()))
        }),
        Mutant::of_part::<TokenIsAnIndex>(
            &["M41"],
            "no event for a successor",
            || no_event_for_a_successor(|generation| generation << 32),
            || no_event_for_a_successor(TokenIsAnIndex::bits),
        )
        // The user chooses the tokens.
        .explained(),
    ]
}

/// The batch of events of a loop: capacity two, over three sources.
trait Batches {
    fn fire(&mut self, source: usize);
    fn signal(&mut self);
    fn wait(&mut self) -> Result<(), String>;
    fn next(&mut self) -> Option<u64>;
}

fn every_edge_once(made: &dyn Fn() -> Box<dyn Batches>) -> Result<(), String> {
    // A signal ends a wait only if nothing is ready: so only two fire there.
    let scripts: [(usize, &[Step]); 4] = [
        (3, &[Step::Wait, Step::Wait]),
        (3, &[Step::Wait, Step::Take, Step::Wait]),
        (2, &[Step::Wait, Step::Take, Step::Signal, Step::Wait]),
        (3, &[Step::Wait, Step::Take, Step::Take, Step::Wait]),
    ];
    scripts.into_iter().try_for_each(|(fire, script)| {
        play(&mut *made(), fire, script)
            .map_err(|seen| format!("{fire} fire, {CAPACITY} fit, {script:?}: {seen}"))
    })
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait,
    Take,
    Signal,
}

fn play(batches: &mut dyn Batches, fire: usize, script: &[Step]) -> Result<(), String> {
    let mut reported = vec![0; fire];
    let mut take = |batches: &mut dyn Batches| match batches.next() {
        Some(source) => {
            reported[usize::try_from(source).unwrap()] += 1;
            true
        }
        None => false,
    };
    (0..fire).for_each(|source| batches.fire(source));
    for step in script {
        match step {
            Step::Wait => batches.wait()?,
            Step::Take => assert!(take(batches), "two were reported"),
            Step::Signal => batches.signal(),
        }
    }
    for _ in 0..4 {
        while take(batches) {}
        batches.wait()?;
    }
    if reported.iter().all(|times| *times == 1) {
        Ok(())
    } else {
        Err(format!("reported {reported:?} times"))
    }
}

/// What a wrapper does before and after the system call.
trait Buffering {
    /// Returns whether the wait needs no system call.
    fn skips(buffer: &[Event], next: usize) -> bool;
    /// Returns the capacity for the next events; may discard what is there.
    fn make_capacity(buffer: &mut Vec<Event>, next: &mut usize) -> usize;
    fn interrupted(_buffer: &mut Vec<Event>, _next: &mut usize) {}
}

const CAPACITY: usize = 2;

/// Returns unread events first.
struct Cursor;

impl Buffering for Cursor {
    fn skips(buffer: &[Event], next: usize) -> bool {
        next < buffer.len()
    }

    fn make_capacity(buffer: &mut Vec<Event>, next: &mut usize) -> usize {
        buffer.clear();
        *next = 0;
        CAPACITY
    }
}

/// Appends to the events that are there, and reads from the beginning.
struct NeverCleared;

impl Buffering for NeverCleared {
    fn skips(_: &[Event], _: usize) -> bool {
        false
    }

    fn make_capacity(_: &mut Vec<Event>, next: &mut usize) -> usize {
        *next = 0;
        CAPACITY
    }
}

/// Appends, and clears the buffer after a signal.
struct ClearedBySignal;

impl Buffering for ClearedBySignal {
    fn skips(_: &[Event], _: usize) -> bool {
        false
    }

    fn make_capacity(_: &mut Vec<Event>, _: &mut usize) -> usize {
        CAPACITY
    }

    fn interrupted(buffer: &mut Vec<Event>, next: &mut usize) {
        buffer.clear();
        *next = 0;
    }
}

/// Fills the rest of the buffer, even if there is none.
struct NoCapacityLeft;

impl Buffering for NoCapacityLeft {
    fn skips(_: &[Event], _: usize) -> bool {
        false
    }

    fn make_capacity(buffer: &mut Vec<Event>, next: &mut usize) -> usize {
        buffer.drain(..std::mem::take(next));
        CAPACITY - buffer.len()
    }
}

/// A batch on the simulated kernel.
struct Buffer<H> {
    kernel: Kernel,
    epoll: Fd,
    sources: Vec<Fd>,
    events: Vec<Event>,
    next: usize,
    signalled: bool,
    buffering: std::marker::PhantomData<H>,
}

const THREAD: Thread = Thread(0);

impl<H> Buffer<H> {
    fn new() -> Self {
        let mut kernel = Kernel::new();
        let epoll = kernel.epoll().unwrap();
        let sources: Vec<_> = (0..3).map(|_| kernel.eventfd().unwrap()).collect();
        for (data, source) in (0..).zip(&sources) {
            kernel.add(epoll, *source, Mask::IN | Mask::ET, data).unwrap();
        }
        let buffering = std::marker::PhantomData;
        Self { kernel, epoll, sources, events: Vec::new(), next: 0, signalled: false, buffering }
    }

    fn call(&mut self, max: usize) -> Result<Vec<Event>, Errno> {
        if !std::mem::take(&mut self.signalled) {
            return self.kernel.wait(self.epoll, max);
        }
        match self.kernel.sleep(self.epoll, THREAD, max, Some(1))? {
            Sleep::Returned(events) => Ok(events),
            Sleep::Asleep => unreachable!("a signal or an event is pending"),
        }
    }
}

impl<H: Buffering> Batches for Buffer<H> {
    fn fire(&mut self, source: usize) {
        self.kernel.write_eventfd(self.sources[source]).unwrap();
    }

    fn signal(&mut self) {
        self.kernel.signal(THREAD);
        self.signalled = true;
    }

    fn wait(&mut self) -> Result<(), String> {
        if H::skips(&self.events, self.next) {
            return Ok(());
        }
        let capacity = H::make_capacity(&mut self.events, &mut self.next);
        match self.call(capacity) {
            Ok(events) => self.events.extend(events),
            Err(errno) if errno.number() == libc::EINTR => H::interrupted(&mut self.events, &mut self.next),
            Err(errno) => return Err(format!("the wait fails with {errno:?}")),
        }
        Ok(())
    }

    fn next(&mut self) -> Option<u64> {
        let event = self.events.get(self.next)?;
        self.next += 1;
        Some(event.data)
    }
}

/// The crate's own batch, on the real kernel.
struct Crate {
    epoll: Epoll,
    wakers: Vec<Waker>,
    events: Events,
}

impl Crate {
    fn new() -> Self {
        let epoll = Epoll::new().unwrap();
        let wakers = (0..3).map(|token| Waker::new(&epoll, Token(token)).unwrap()).collect();
        Self { epoll, wakers, events: Events::with_capacity(CAPACITY).unwrap() }
    }
}

impl Batches for Crate {
    fn fire(&mut self, source: usize) {
        self.wakers[source].wake().unwrap();
    }

    fn signal(&mut self) {}

    fn wait(&mut self) -> Result<(), String> {
        self.epoll.wait(&mut self.events, Some(Duration::ZERO)).map(drop).map_err(|error| error.to_string())
    }

    fn next(&mut self) -> Option<u64> {
        self.events.next().map(|event| event.token().0)
    }
}

/// A token that is an index of a table and nothing else.
struct TokenIsAnIndex;

impl TokenIsAnIndex {
    fn bits(_generation: u64) -> u64 {
        0
    }
}

/// Two sources are ready in one batch; handling the first closes the second, and a third takes its index.
fn no_event_for_a_successor(bits: fn(u64) -> u64) -> Result<(), String> {
    let mut kernel = Kernel::new();
    let epoll = kernel.epoll().unwrap();
    let mut table = [(0, "the first"), (0, "the second")];
    let token = |index: usize, generation| index as u64 | bits(generation);
    for index in 0..2 {
        let eventfd = kernel.eventfd().unwrap();
        kernel.add(epoll, eventfd, Mask::IN | Mask::ET, token(index, 0)).unwrap();
        kernel.write_eventfd(eventfd).unwrap();
    }
    for event in kernel.wait(epoll, 8).unwrap() {
        let index = usize::try_from(event.data & 1).unwrap();
        let (generation, owner) = table[index];
        match owner {
            _ if token(index, generation) != event.data => {}
            "the first" => table[1] = (1, "the third"),
            owner => return Err(format!("2 ready, the first closes the second: {owner} gets its event")),
        }
    }
    Ok(())
}
