//! The messages between the two processes, a line of JSON each: what clients are to do, and their results.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A number of clients, and what they do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) to: SocketAddr,
    /// The first of their addresses, and how many addresses there are.
    pub(crate) from: (Ipv4Addr, u32),
    /// At most this many at once.
    pub(crate) at_once: usize,
    /// At most this many without a reply at once.
    pub(crate) unanswered_at_once: usize,
    /// Connects per second; `None`: as fast as possible.
    pub(crate) per_second: Option<f64>,
    /// At most this many in all.
    pub(crate) total: u64,
    /// How long clients connect.
    pub(crate) seconds: f64,
    pub(crate) behavior: Behavior,
    pub(crate) leave: Leave,
    /// How long a client waits for its reply, in seconds since its connect.
    pub(crate) patience: f64,
    /// Whether clients that wait when the time is over close, instead of waiting on.
    pub(crate) gives_up: bool,
    /// Whether every wait is reported.
    pub(crate) waits: bool,
}

/// What a client does once it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Behavior {
    /// Sends a request, and closes when the reply arrives.
    Ask,
    /// Sends a request, and closes this many milliseconds after the reply.
    Stay(u64),
    /// Sends a request, and stays until all have their reply; then all close, and the next round begins.
    Rounds,
    /// Resets the connection at once.
    Reset,
    /// Sends a request, and closes after this many milliseconds, with or without a reply.
    Quit(u64),
}

/// How a client closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leave {
    /// By a close.
    Closing,
    /// By a reset, which leaves no TIME_WAIT behind.
    Resetting,
    /// Every other one.
    Either,
}

/// The results of clients. Each connected one is one of four: answered, refused, gone, unanswered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(crate) connected: u64,
    pub(crate) answered: u64,
    /// The server ended the connection without an answer.
    pub(crate) refused: u64,
    /// The client closed before it had a reply.
    pub(crate) gone: u64,
    /// The client received nothing within its patience.
    pub(crate) unanswered: u64,
    /// The connect failed.
    pub(crate) failed: u64,
    /// Answered, and then closed by the server before the client did.
    pub(crate) cut: u64,
    pub(crate) rounds: u64,
    /// When the first round ended, in seconds.
    pub(crate) first_round: f64,
    /// The most answered clients that were connected at the same time.
    pub(crate) most_at_once: u64,
    /// For each reply: when it arrived, and how long after the connect, both in milliseconds.
    pub(crate) waits: Vec<(f64, f64)>,
    /// The error of the first connect that failed.
    pub(crate) error: Option<String>,
}

impl Request {
    /// Clients with addresses from 127.1.0.1 on, which connect as fast as they are answered.
    pub(crate) fn new(to: SocketAddr, at_once: usize, seconds: f64) -> Self {
        Self {
            to,
            from: (Ipv4Addr::new(127, 1, 0, 1), 200),
            at_once,
            unanswered_at_once: at_once,
            per_second: None,
            total: u64::MAX,
            seconds,
            behavior: Behavior::Ask,
            leave: Leave::Either,
            patience: 20.0,
            gives_up: false,
            waits: false,
        }
    }

    /// This many clients, once.
    pub(crate) fn once(to: SocketAddr, clients: usize) -> Self {
        Self { total: clients as u64, ..Self::new(to, clients, 20.0) }
    }

    pub(crate) fn behavior(self, behavior: Behavior) -> Self {
        Self { behavior, ..self }
    }
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.connected += other.connected;
        self.answered += other.answered;
        self.refused += other.refused;
        self.gone += other.gone;
        self.unanswered += other.unanswered;
        self.failed += other.failed;
        self.cut += other.cut;
        self.rounds += other.rounds;
        self.error = self.error.take().or_else(|| other.error.clone());
    }
}
