//! The promises P1 to P14 of `docs/promises.md`, checked for the acceptors of this crate on the simulated kernel, and the
//! facts that no promise covers.
//!
//! `EPOLL_ACCEPTOR_THOROUGH=1` widens every bound.

mod setups;
mod composing;
mod exclusive;
mod exhaustive;
mod facts;
mod faulty;
mod found;
mod gate;
mod hosted;
mod liars;
mod overload;
mod panics;
mod peers;
mod persistent;
mod policies;
mod random;
mod rate;
mod replay;
mod shutdown;
mod wakers;
