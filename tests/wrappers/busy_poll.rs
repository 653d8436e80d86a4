//! The busy-poll parameters: read back, refused, or not there.

use std::io;

use epoll_acceptor::{BusyPoll, Epoll};

/// `None`, and a word on stderr, where the kernel has no such parameters.
fn epoll() -> Option<Epoll> {
    let epoll = Epoll::new().unwrap();
    match epoll.busy_poll() {
        Ok(parameters) => {
            assert_eq!(parameters, BusyPoll::default());
            Some(epoll)
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

#[test]
fn parameters_are_read_back_as_they_were_set() {
    let Some(epoll) = epoll() else { return };
    for prefer in [true, false] {
        let parameters = BusyPoll { micros: 100, budget: 8, prefer };
        epoll.set_busy_poll(parameters).unwrap();
        assert_eq!(epoll.busy_poll().unwrap(), parameters);
    }
}

#[test]
fn too_long_a_time_is_invalid_input() {
    let Some(epoll) = epoll() else { return };
    let error = epoll.set_busy_poll(BusyPoll { micros: u32::MAX, ..BusyPoll::default() }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("i32::MAX microseconds"), "{error}");
}

#[test]
fn a_large_budget_takes_a_privilege() {
    let Some(epoll) = epoll() else { return };
    match epoll.set_busy_poll(BusyPoll { budget: 65, ..BusyPoll::default() }) {
        Ok(()) => assert_eq!(epoll.busy_poll().unwrap().budget, 65),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        }
    }
}
