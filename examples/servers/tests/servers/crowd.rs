//! Clients that wait for their answer.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::LONG;
use crate::client::{Answer, Client};

/// Clients that ask, each on a thread, and stay connected when they are answered until they are dismissed.
pub(crate) struct Crowd {
    /// The most that can be served at once.
    capacity: usize,
    served: Vec<Client>,
    /// How many have not been answered, as far as is known.
    waiting: usize,
    sender: Sender<Client>,
    answered: Receiver<Client>,
}

impl Crowd {
    /// Begins with clients that are served.
    pub(crate) fn new(capacity: usize, served: Vec<Client>) -> Self {
        let (sender, answered) = channel();
        Self { capacity, served, waiting: 0, sender, answered }
    }

    /// Adds clients that ask.
    pub(crate) fn ask(&mut self, clients: Vec<Client>) {
        self.waiting += clients.len();
        for mut client in clients {
            let sender = self.sender.clone();
            thread::spawn(move || {
                assert_eq!(client.ask(), Answer::Served);
                // Fails if the test has ended.
                let _ = sender.send(client);
            });
        }
    }

    /// Waits until as many are served as can be.
    #[track_caller]
    pub(crate) fn await_full(&mut self) {
        while self.served.len() < self.capacity && self.waiting > 0 {
            let answered = self.answered.recv_timeout(LONG);
            self.served.push(answered.unwrap_or_else(|_| panic!("{} are not answered", self.waiting)));
            self.waiting -= 1;
        }
        self.assert_limit();
    }

    /// Asserts that no more are served.
    #[track_caller]
    pub(crate) fn assert_limit(&self) {
        let further = self.answered.try_iter().count();
        assert_eq!(further, 0, "the limit is exceeded: {} and {further} are served", self.served.len());
    }

    /// Closes a client that is served.
    pub(crate) fn dismiss_one(&mut self) {
        self.assert_limit();
        self.served.pop().expect("one is served");
    }

    /// Closes those that are served, until all were answered and are closed.
    #[track_caller]
    pub(crate) fn serve_in_turns(mut self) {
        while self.waiting > 0 {
            self.assert_limit();
            self.served.clear();
            self.await_full();
        }
    }
}
