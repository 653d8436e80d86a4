//! The cases that are a table: who watches what, and how many events or threads that makes.

use crate::kernel::Linux;
use crate::model::Model;
use crate::say;

/// How a registration is triggered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trigger {
    Level,
    Edge,
}

use Trigger::{Edge, Level};

/// A world to set up a case in; listeners and epolls are named by the order in which they were made.
pub(crate) trait World {
    fn new(listeners: usize, epolls: usize) -> Self;
    fn watch(&mut self, epoll: usize, listener: usize, trigger: Trigger);
    fn nest(&mut self, outer: usize, inner: usize, trigger: Trigger);
    fn rearm(&mut self, epoll: usize, listener: usize, trigger: Trigger);
    /// A client connects; nobody accepts.
    fn connect(&mut self, listener: usize);
    fn queued(&mut self, listener: usize) -> usize;
    /// How many events a wait of no time takes.
    fn wait(&mut self, epoll: usize, max: usize) -> usize;
    /// Whether the epoll itself can be read.
    fn is_readable(&mut self, epoll: usize) -> bool;
    /// How many of so many threads that wait once get an event when these listeners are connected to.
    fn woken(&mut self, epoll: usize, threads: usize, max: usize, connect: &[usize]) -> usize;
}

/// One thread waits twice on epoll 0 for as many sources as there are.
const TWICE: &[(u32, usize, Trigger, [usize; 2])] =
    &[(1, 1, Level, [1, 1]), (2, 1, Edge, [1, 0]), (3, 2, Level, [2, 2]), (4, 2, Edge, [2, 0])];

/// What a poll of the epoll and a wait show.
type Seen = (bool, usize);

/// As before, and the epoll is polled before each wait: what the poll and the wait show.
const POLLED: &[(u32, usize, Trigger, [Seen; 2])] = &[
    (5, 1, Level, [(true, 1), (true, 1)]),
    (6, 1, Edge, [(true, 1), (false, 0)]),
    (7, 2, Level, [(true, 2), (true, 2)]),
    (8, 2, Edge, [(true, 2), (false, 0)]),
];

/// Two threads on one epoll, so many sources, so many events at most: how many threads get something.
const THREADS: &[(u32, usize, Trigger, usize, usize)] = &[
    (9, 1, Level, 1, 2),
    (10, 1, Edge, 1, 1),
    (11, 2, Level, 2, 2),
    (12, 2, Edge, 1, 2),
    (64, 1, Level, 1, 2),
];

/// Epoll 0 watches epoll 1, which watches the listener: two waits on epoll 0.
const NESTED: &[(u32, Trigger, Trigger, [usize; 2])] = &[
    (17, Level, Level, [1, 1]),
    (18, Level, Edge, [1, 1]),
    (19, Edge, Level, [1, 0]),
    (20, Edge, Edge, [1, 0]),
];

/// Epoll 0 watches epolls 1 and 2, each with a listener of its own.
const FAN_IN: &[(u32, Trigger, [usize; 2])] = &[(49, Level, [2, 2]), (50, Edge, [2, 0])];

#[test]
fn the_kernel_conforms_through_the_wrapper() {
    say(&format!("conformance: {} cases of the kernel's self-test on the kernel", all::<Linux>()));
}

#[test]
fn the_model_conforms() {
    say(&format!("conformance: {} cases of the kernel's self-test on the model", all::<Model>()));
}

fn all<W: World>() -> usize {
    for (number, sources, trigger, expected) in TWICE {
        let mut world = flat::<W>(*sources, *trigger);
        connect_all(&mut world, *sources);
        assert_eq!([world.wait(0, 2), world.wait(0, 2)], *expected, "case {number}");
    }
    for (number, sources, trigger, expected) in POLLED {
        let mut world = flat::<W>(*sources, *trigger);
        connect_all(&mut world, *sources);
        let seen = [(); 2].map(|()| (world.is_readable(0), world.wait(0, 2)));
        assert_eq!(seen, *expected, "case {number}");
    }
    for (number, sources, trigger, max, expected) in THREADS {
        let mut world = flat::<W>(*sources, *trigger);
        let connect: Vec<usize> = (0..*sources).collect();
        assert_eq!(world.woken(0, 2, *max, &connect), *expected, "case {number}");
    }
    for (number, outer, inner, expected) in NESTED {
        let mut world = W::new(1, 2);
        world.watch(1, 0, *inner);
        world.nest(0, 1, *outer);
        world.connect(0);
        assert_eq!([world.wait(0, 1), world.wait(0, 1)], *expected, "case {number}");
    }
    for (number, trigger, expected) in FAN_IN {
        let mut world = W::new(2, 3);
        for source in 0..2 {
            world.watch(source + 1, source, *trigger);
            world.nest(0, source + 1, *trigger);
        }
        connect_all(&mut world, 2);
        assert_eq!([world.wait(0, 2), world.wait(0, 2)], *expected, "case {number}");
    }
    burst::<W>();
    rearmed::<W>(1_000);
    TWICE.len() + POLLED.len() + THREADS.len() + NESTED.len() + FAN_IN.len() + 2
}

/// Case 10 with three connections, which nobody accepts: never more events than arrivals, and never more
/// threads than wait.
fn burst<W: World>() {
    let mut world = flat::<W>(1, Edge);
    let woken = world.woken(0, 2, 1, &[0, 0, 0]);
    assert!((1..=2).contains(&woken), "{woken} of 2 threads");
    assert_eq!(world.queued(0), 3);
    let due = world.wait(0, 1);
    assert!(woken + due <= 3, "{woken} threads, then {due} event");
    assert_eq!(world.wait(0, 1), 0, "three wait, and nobody is told any more");
}

/// Case 59: an edge that stays ready is reported once for each time it is armed anew.
fn rearmed<W: World>(rounds: usize) {
    let mut world = flat::<W>(1, Edge);
    world.connect(0);
    assert_eq!(world.wait(0, 1), 1);
    for round in 0..rounds {
        world.rearm(0, 0, Edge);
        assert_eq!([world.wait(0, 1), world.wait(0, 1)], [1, 0], "case 59, round {round}");
    }
}

/// One epoll that watches every listener.
fn flat<W: World>(sources: usize, trigger: Trigger) -> W {
    let mut world = W::new(sources, 1);
    (0..sources).for_each(|source| world.watch(0, source, trigger));
    world
}

fn connect_all(world: &mut impl World, sources: usize) {
    (0..sources).for_each(|source| world.connect(source));
}
