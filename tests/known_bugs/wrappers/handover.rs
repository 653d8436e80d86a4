//! A listener is handed over: connections that are queued before, and those that arrive after, are accepted (P10).

use epoll_acceptor::sim::kernel::{ConnState, Family, Fd, Kernel, Mask};

use super::controls;
use crate::search::Mutant;

pub(crate) fn mutants() -> Vec<Mutant> {
    fn mutant<H: HandOver>(rows: &'static [&'static str]) -> Mutant {
        let reference = || loses_no_client::<Handed>().and_then(|()| controls::new_owner_serves_all());
        Mutant::of_part::<H>(rows, "P10", reference, loses_no_client::<H>)
    }
    vec![
        mutant::<ClosesWithAQueue>(&["F22"]),
        // The crate's graceful shutdown keeps clients out otherwise.
        mutant::<StopsAndStays>(&["M51"]).explained(),
        mutant::<SharesTheNumber>(&["M52"]),
        mutant::<PicksTheWrongOne>(&["L22"]),
    ]
}

struct Old {
    epoll: Fd,
    listener: Fd,
    /// Something else that the process has open.
    other: Fd,
}

trait HandOver: 'static {
    /// The old owner leaves. Returns the descriptor that the new owner gets.
    fn leave(kernel: &mut Kernel, old: &Old) -> Fd;
}

/// The new owner gets a descriptor of its own; the old owner deregisters and closes its own.
struct Handed;

impl HandOver for Handed {
    fn leave(kernel: &mut Kernel, old: &Old) -> Fd {
        let handed = kernel.dup(old.listener).unwrap();
        kernel.delete(old.epoll, old.listener).unwrap();
        kernel.close(old.listener).unwrap();
        handed
    }
}

/// The old owner closes its listener with clients queued, and the new owner opens a new one.
struct ClosesWithAQueue;

impl HandOver for ClosesWithAQueue {
    fn leave(kernel: &mut Kernel, old: &Old) -> Fd {
        kernel.close(old.listener).unwrap();
        kernel.listener(Family::Tcp4, 16).unwrap()
    }
}

/// Stops accepting, and keeps the listener open until its last connection has ended.
struct StopsAndStays;

impl HandOver for StopsAndStays {
    fn leave(kernel: &mut Kernel, old: &Old) -> Fd {
        kernel.delete(old.epoll, old.listener).unwrap();
        kernel.listener(Family::Tcp4, 16).unwrap()
    }
}

/// Both wrap one descriptor, and the old owner closes it.
struct SharesTheNumber;

impl HandOver for SharesTheNumber {
    fn leave(kernel: &mut Kernel, old: &Old) -> Fd {
        kernel.close(old.listener).unwrap();
        old.listener
    }
}

/// Hands over the wrong one of several descriptors.
struct PicksTheWrongOne;

impl HandOver for PicksTheWrongOne {
    fn leave(kernel: &mut Kernel, old: &Old) -> Fd {
        let handed = kernel.dup(old.other).unwrap();
        kernel.close(old.listener).unwrap();
        handed
    }
}

fn loses_no_client<H: HandOver>() -> Result<(), String> {
    let mut kernel = Kernel::new();
    let listener = kernel.listener(Family::Tcp4, 16).unwrap();
    let old =
        Old { epoll: kernel.epoll().unwrap(), listener, other: kernel.listener(Family::Tcp4, 16).unwrap() };
    kernel.add(old.epoll, listener, Mask::IN, 0).unwrap();
    let address = kernel.address(listener).unwrap();
    let mut clients: Vec<_> = (0..2).map(|_| kernel.connect(address).unwrap()).collect();

    let handed = H::leave(&mut kernel, &old);
    let epoll = kernel.epoll().unwrap();
    // A client that can no longer connect gets an error: it is not lost.
    let _ = kernel.add(epoll, handed, Mask::IN, 0);
    clients.extend(kernel.connect(address));
    while kernel.wait(epoll, 1).is_ok_and(|events| !events.is_empty()) {
        kernel.accept(handed).unwrap();
    }
    let lost = clients.iter().filter(|client| kernel.conn_state(**client) != Some(ConnState::Accepted));
    let states: Vec<_> = lost.filter_map(|client| kernel.conn_state(*client)).collect();
    match states.is_empty() {
        true => Ok(()),
        false => Err(format!("2 queued, handed over, 1 more: {states:?}")),
    }
}
