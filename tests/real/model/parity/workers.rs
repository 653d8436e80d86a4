//! Threads that block in epolls, and the detection that all of them are blocked.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use epoll_acceptor::sim::kernel::Mask;

use crate::parity::real::{real, retry_for};
use crate::parity::sleepers::{THREADS, WaitResult};
use crate::parity::sys;

/// The first descriptor number of the probes.
const WORKERS: i32 = 950;

pub(crate) struct Workers {
    threads: Vec<Worker>,
    results: Receiver<(u32, WaitResult)>,
    arrived: RefCell<Vec<(u32, WaitResult)>>,
}

struct Worker {
    commands: Sender<Command>,
    id: i32,
    probe: sys::ThreadProbe,
}

enum Command {
    Sleep { epoll: u32, max: usize },
    DiscardSignals,
}

impl Workers {
    /// Spawns threads that share the descriptor table of this thread.
    pub(crate) fn new() -> Self {
        let (result, results) = channel();
        let threads = (0..THREADS).map(|thread| Worker::new(thread, result.clone())).collect();
        Self { threads, results, arrived: RefCell::default() }
    }

    pub(crate) fn sleep(&self, thread: u32, epoll: u32, max: usize) {
        self.threads[thread as usize].commands.send(Command::Sleep { epoll, max }).unwrap();
    }

    pub(crate) fn signal(&self, thread: u32) {
        sys::signal(self.threads[thread as usize].id);
    }

    /// Blocks until every waiting thread is blocked in its epoll, and returns the results of the other waits.
    pub(crate) fn wait_until_blocked(&self, waiting: &mut [bool]) -> Vec<(u32, WaitResult)> {
        let mut confirmed = 0;
        let all_blocked = retry_for(Duration::from_secs(10), || {
            let mut arrived = self.arrived.borrow_mut();
            let before = arrived.len();
            arrived.extend(self.results.try_iter());
            arrived[before..].iter().for_each(|(thread, _)| waiting[*thread as usize] = false);
            let asleep = |(thread, _): (usize, &bool)| self.threads[thread].probe.is_blocked_in_epoll();
            let all = waiting.iter().enumerate().filter(|(_, waits)| **waits).all(asleep);
            // Checked twice: a thread seen blocked may have been woken by one that was running.
            confirmed = if all && arrived.len() == before { confirmed + 1 } else { 0 };
            (confirmed == 2).then_some(())
        });
        assert!(all_blocked.is_some(), "the threads are not blocked within 10 s");
        let mut returned = self.arrived.take();
        returned.sort_by_key(|(thread, _)| *thread);
        returned
    }

    /// Interrupts every wait, and discards every pending signal.
    pub(crate) fn end(&self, waiting: &mut [bool]) {
        for thread in (0..THREADS).filter(|thread| waiting[*thread as usize]) {
            self.signal(thread);
        }
        self.wait_until_blocked(waiting);
        assert!(!waiting.contains(&true), "a signal interrupts a wait");
        for (thread, worker) in (0..).zip(&self.threads) {
            worker.commands.send(Command::DiscardSignals).unwrap();
            assert_eq!(self.results.recv().unwrap(), (thread, Ok(Vec::new())));
        }
    }
}

impl Worker {
    fn new(thread: u32, results: Sender<(u32, WaitResult)>) -> Self {
        let (commands, received) = channel();
        let (id_sender, id) = channel();
        std::thread::spawn(move || {
            sys::block_signal();
            id_sender.send(sys::thread_id()).unwrap();
            for command in received {
                let result = match command {
                    Command::Sleep { epoll, max } => sys::epoll_sleep(real(epoll), max).map(|events| {
                        events.into_iter().map(|(d, e)| (d, Mask::from_bits_retain(e))).collect()
                    }),
                    Command::DiscardSignals => {
                        sys::discard_signal();
                        Ok(Vec::new())
                    }
                };
                if results.send((thread, result)).is_err() {
                    return;
                }
            }
        });
        let id = id.recv().unwrap();
        Self { commands, id, probe: sys::ThreadProbe::new(id, WORKERS) }
    }
}
