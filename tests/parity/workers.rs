//! Real threads that sleep in epolls, and the way to see that all of them do.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use epoll_acceptor::sim::kernel::Mask;

use crate::real::{real, within};
use crate::sleepers::{Returned, THREADS};
use crate::sys;

/// Where the descriptors stand that watch the threads.
const WORKERS: i32 = 950;

pub(crate) struct Workers {
    threads: Vec<Worker>,
    results: Receiver<(u32, Returned)>,
    arrived: RefCell<Vec<(u32, Returned)>>,
}

struct Worker {
    commands: Sender<Command>,
    id: i32,
    watched: sys::EpollBackend,
}

enum Command {
    Sleep { epoll: u32, max: usize },
    ForgetSignals,
}

impl Workers {
    /// Threads that share the descriptor table of this one.
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

    /// Waits until every thread that waits is asleep in its epoll, and returns the waits that returned.
    pub(crate) fn settle(&self, waiting: &mut [bool]) -> Vec<(u32, Returned)> {
        let mut still = 0;
        let settled = within(Duration::from_secs(10), || {
            let mut arrived = self.arrived.borrow_mut();
            let before = arrived.len();
            arrived.extend(self.results.try_iter());
            arrived[before..].iter().for_each(|(thread, _)| waiting[*thread as usize] = false);
            let asleep = |(thread, _): (usize, &bool)| self.threads[thread].watched.sleeps_in_epoll();
            let all = waiting.iter().enumerate().filter(|(_, waits)| **waits).all(asleep);
            // Twice: one that was seen asleep may have been woken by one that was not.
            still = if all && arrived.len() == before { still + 1 } else { 0 };
            (still == 2).then_some(())
        });
        assert!(settled.is_some(), "the threads do not come to rest");
        let mut returned = self.arrived.take();
        returned.sort_by_key(|(thread, _)| *thread);
        returned
    }

    /// Ends every wait, and forgets every signal.
    pub(crate) fn end(&self, waiting: &mut [bool]) {
        for thread in (0..THREADS).filter(|thread| waiting[*thread as usize]) {
            self.signal(thread);
        }
        self.settle(waiting);
        assert!(!waiting.contains(&true), "a signal ends a wait");
        for (thread, worker) in (0..).zip(&self.threads) {
            worker.commands.send(Command::ForgetSignals).unwrap();
            assert_eq!(self.results.recv().unwrap(), (thread, Ok(Vec::new())));
        }
    }
}

impl Worker {
    fn new(thread: u32, results: Sender<(u32, Returned)>) -> Self {
        let (commands, orders) = channel();
        let (tell_id, id) = channel();
        std::thread::spawn(move || {
            sys::hold_signal();
            tell_id.send(sys::thread_id()).unwrap();
            for command in orders {
                let result = match command {
                    Command::Sleep { epoll, max } => sys::epoll_sleep(real(epoll), max).map(|events| {
                        events.into_iter().map(|(d, e)| (d, Mask::from_bits_retain(e))).collect()
                    }),
                    Command::ForgetSignals => {
                        sys::forget_signal();
                        Ok(Vec::new())
                    }
                };
                if results.send((thread, result)).is_err() {
                    return;
                }
            }
        });
        let id = id.recv().unwrap();
        Self { commands, id, watched: sys::EpollBackend::new(id, WORKERS) }
    }
}
