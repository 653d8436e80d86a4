//! What the clients are asked to do, and what became of them: lines of JSON between the two processes.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A crowd of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) to: SocketAddr,
    /// The first of the addresses they come from, and how many follow it.
    pub(crate) from: (Ipv4Addr, u32),
    /// So many at once at the most.
    pub(crate) at_once: usize,
    /// Of these, so many that have no answer yet.
    pub(crate) unanswered_at_once: usize,
    /// So many a second; as fast as they can if `None`.
    pub(crate) per_second: Option<f64>,
    /// No more of them than this.
    pub(crate) total: u64,
    /// New ones come for so long.
    pub(crate) seconds: f64,
    pub(crate) conduct: Conduct,
    pub(crate) leave: Leave,
    /// Seconds that a client waits for its answer, from its connect on.
    pub(crate) patience: f64,
    /// Who waits when the time is over goes, instead of waiting on.
    pub(crate) gives_up: bool,
    /// Whether each wait is told.
    pub(crate) waits: bool,
}

/// What a client does once it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Conduct {
    /// Asks, and goes when it has its answer.
    Ask,
    /// Asks, and stays for so many milliseconds after the answer.
    Stay(u64),
    /// Asks, and stays until all have their answer; then all go, and the next round begins.
    Rounds,
    /// Resets the connection at once.
    Reset,
    /// Asks, and goes after so many milliseconds, with or without an answer.
    Quit(u64),
}

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leave {
    /// By a close.
    Closing,
    /// By a reset, which leaves no TIME_WAIT behind.
    Resetting,
    /// Every other one.
    Either,
}

/// What became of a crowd. Whoever was connected is one of four: answered, refused, gone, unanswered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) connected: u64,
    pub(crate) answered: u64,
    /// The server ended the connection without an answer.
    pub(crate) refused: u64,
    /// Left of their own accord before they had an answer.
    pub(crate) gone: u64,
    /// Heard nothing for as long as their patience was.
    pub(crate) unanswered: u64,
    /// Never connected.
    pub(crate) failed: u64,
    /// Of those who were answered and stayed, those whose connection the server ended.
    pub(crate) cut: u64,
    pub(crate) rounds: u64,
    /// When the first round was over, in seconds.
    pub(crate) first_round: f64,
    /// Most clients that had their answer and were there at the same time.
    pub(crate) most_at_once: u64,
    /// For each who was answered: when, and how long after its connect, both in milliseconds.
    pub(crate) waits: Vec<(f64, f64)>,
    /// Why the first of those failed who did.
    pub(crate) error: Option<String>,
}

impl Order {
    /// Clients from 127.1.0.1 on that ask one after the other, as fast as they are answered.
    pub(crate) fn new(to: SocketAddr, at_once: usize, seconds: f64) -> Self {
        Self {
            to,
            from: (Ipv4Addr::new(127, 1, 0, 1), 200),
            at_once,
            unanswered_at_once: at_once,
            per_second: None,
            total: u64::MAX,
            seconds,
            conduct: Conduct::Ask,
            leave: Leave::Either,
            patience: 20.0,
            gives_up: false,
            waits: false,
        }
    }

    /// So many, once.
    pub(crate) fn once(to: SocketAddr, clients: usize) -> Self {
        Self { total: clients as u64, ..Self::new(to, clients, 20.0) }
    }

    pub(crate) fn conduct(self, conduct: Conduct) -> Self {
        Self { conduct, ..self }
    }
}

impl Tally {
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
