//! epoll-acceptor

pub mod linux;
#[cfg(feature = "sim")]
pub mod sim;
pub mod drain;
pub mod admission;

pub use admission::{
    Admission, Connection, Gate, Line, Permit, Refusal, Reserve, Unlimited, Until, WhenFull,
};
pub use drain::{
    Acceptor, Class, Control, Counters, Dead, EdgeTriggered, Errno, Histogram, LevelTriggered, Proof, Ready,
    State, Strategy, Trigger,
};
pub use linux::{
    AcceptError, AcceptFlags, AcceptQueue, AnyListener, Builder, BusyPoll, ControlError, Epoll, EpollAcceptor,
    Event, Events, ExclusiveInterest, Interest, Listener, PeerAddr, RegisterError, RegisterErrorKind,
    Registration, RegistrationError, SignalMask, Token, Waited, Waker, accept, accept_queue,
    accept_with_peer, is_waiting, time_queued,
};
