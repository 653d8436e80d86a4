//! The deterministic cases, as tables of registrations and expected numbers of events or threads.

use crate::conformance::kernel::Linux;
use crate::conformance::model::Model;
use crate::parity::sys::share_limit;
use crate::report;

/// The trigger of a registration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trigger {
    Level,
    Edge,
}

use Trigger::{Edge, Level};

/// A system under test: the kernel or the model. Listeners and epolls are numbered in order of creation.
pub(crate) trait System {
    fn new(listeners: usize, epolls: usize) -> Self;
    fn watch(&mut self, epoll: usize, listener: usize, trigger: Trigger);
    fn nest(&mut self, outer: usize, inner: usize, trigger: Trigger);
    fn rearm(&mut self, epoll: usize, listener: usize, trigger: Trigger);
    /// Connects a client, without accepting it.
    fn connect(&mut self, listener: usize);
    fn queued(&mut self, listener: usize) -> usize;
    /// Returns the number of events of a wait with timeout 0.
    fn wait(&mut self, epoll: usize, max: usize) -> usize;
    /// Returns whether the epoll itself is readable.
    fn is_readable(&mut self, epoll: usize) -> bool;
    /// Blocks `threads` threads in a wait, connects to the given listeners, and returns how many threads get an event.
    fn woken(&mut self, epoll: usize, threads: usize, max: usize, connect: &[usize]) -> usize;
}

/// Case, sources, trigger, and the events of two waits of one thread.
const TWICE: &[(u32, usize, Trigger, [usize; 2])] =
    &[(1, 1, Level, [1, 1]), (2, 1, Edge, [1, 0]), (3, 2, Level, [2, 2]), (4, 2, Edge, [2, 0])];

/// Whether the epoll is readable, then the events of a wait.
type Seen = (bool, usize);

/// As `TWICE`, with a poll of the epoll before each wait.
const POLLED: &[(u32, usize, Trigger, [Seen; 2])] = &[
    (5, 1, Level, [(true, 1), (true, 1)]),
    (6, 1, Edge, [(true, 1), (false, 0)]),
    (7, 2, Level, [(true, 2), (true, 2)]),
    (8, 2, Edge, [(true, 2), (false, 0)]),
];

/// Case, sources, trigger, `max`, and how many of two threads on one epoll get an event.
const THREADS: &[(u32, usize, Trigger, usize, usize)] = &[
    (9, 1, Level, 1, 2),
    (10, 1, Edge, 1, 1),
    (11, 2, Level, 2, 2),
    (12, 2, Edge, 1, 2),
    (64, 1, Level, 1, 2),
];

/// Case, outer trigger, inner trigger, and the events of two waits on epoll 0, which watches epoll 1, which watches the
/// listener.
const NESTED: &[(u32, Trigger, Trigger, [usize; 2])] = &[
    (17, Level, Level, [1, 1]),
    (18, Level, Edge, [1, 1]),
    (19, Edge, Level, [1, 0]),
    (20, Edge, Edge, [1, 0]),
];

/// Case, trigger, and the events of two waits on epoll 0, which watches epolls 1 and 2, each with its own listener.
const FAN_IN: &[(u32, Trigger, [usize; 2])] = &[(49, Level, [2, 2]), (50, Edge, [2, 0])];

#[test]
fn kernel_conforms_through_the_wrapper() {
    let _limit = share_limit();
    report(&format!("conformance: {} cases of the kernel's self-test on the kernel", all::<Linux>()));
}

#[test]
fn model_conforms() {
    report(&format!("conformance: {} cases of the kernel's self-test on the model", all::<Model>()));
}

fn all<W: System>() -> usize {
    for (number, sources, trigger, expected) in TWICE {
        let mut system = flat::<W>(*sources, *trigger);
        connect_all(&mut system, *sources);
        assert_eq!([system.wait(0, 2), system.wait(0, 2)], *expected, "case {number}");
    }
    for (number, sources, trigger, expected) in POLLED {
        let mut system = flat::<W>(*sources, *trigger);
        connect_all(&mut system, *sources);
        let seen = [(); 2].map(|()| (system.is_readable(0), system.wait(0, 2)));
        assert_eq!(seen, *expected, "case {number}");
    }
    for (number, sources, trigger, max, expected) in THREADS {
        let mut system = flat::<W>(*sources, *trigger);
        let connect: Vec<usize> = (0..*sources).collect();
        assert_eq!(system.woken(0, 2, *max, &connect), *expected, "case {number}");
    }
    for (number, outer, inner, expected) in NESTED {
        let mut system = W::new(1, 2);
        system.watch(1, 0, *inner);
        system.nest(0, 1, *outer);
        system.connect(0);
        assert_eq!([system.wait(0, 1), system.wait(0, 1)], *expected, "case {number}");
    }
    for (number, trigger, expected) in FAN_IN {
        let mut system = W::new(2, 3);
        for source in 0..2 {
            system.watch(source + 1, source, *trigger);
            system.nest(0, source + 1, *trigger);
        }
        connect_all(&mut system, 2);
        assert_eq!([system.wait(0, 2), system.wait(0, 2)], *expected, "case {number}");
    }
    burst::<W>();
    rearmed::<W>(1_000);
    TWICE.len() + POLLED.len() + THREADS.len() + NESTED.len() + FAN_IN.len() + 2
}

/// Checks case 10 with three connections that stay queued: at most one event per arrival and per thread.
fn burst<W: System>() {
    let mut system = flat::<W>(1, Edge);
    let woken = system.woken(0, 2, 1, &[0, 0, 0]);
    assert!((1..=2).contains(&woken), "{woken} of 2 threads");
    assert_eq!(system.queued(0), 3);
    let due = system.wait(0, 1);
    assert!(woken + due <= 3, "{woken} threads, then {due} event");
    assert_eq!(system.wait(0, 1), 0, "three are queued, without a further event");
}

/// Checks case 59: each `EPOLL_CTL_MOD` of a ready edge-triggered registration reports it once.
fn rearmed<W: System>(rounds: usize) {
    let mut system = flat::<W>(1, Edge);
    system.connect(0);
    assert_eq!(system.wait(0, 1), 1);
    for round in 0..rounds {
        system.rearm(0, 0, Edge);
        assert_eq!([system.wait(0, 1), system.wait(0, 1)], [1, 0], "case 59, round {round}");
    }
}

/// Creates one epoll that watches every listener.
fn flat<W: System>(sources: usize, trigger: Trigger) -> W {
    let mut system = W::new(sources, 1);
    (0..sources).for_each(|source| system.watch(0, source, trigger));
    system
}

fn connect_all(system: &mut impl System, sources: usize) {
    (0..sources).for_each(|source| system.connect(source));
}
