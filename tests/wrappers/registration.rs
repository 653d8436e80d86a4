//! Registrations that delete themselves.
#![allow(unsafe_code)]

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use epoll_acceptor::{Epoll, EpollCtlError, Events, ExclusiveInterest, Interest, Registration, Token};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::support::*;

fn registered() -> (Epoll, Events, Registration<TcpListener>, TcpListener) {
    let listener = listener();
    let duplicate = listener.try_clone().unwrap();
    let epoll = Epoll::new().unwrap();
    let registration = epoll.register(listener, Token(1), Interest::IN).unwrap();
    (epoll, Events::with_capacity(4).unwrap(), registration, duplicate)
}

#[test]
fn dropping_deletes_although_a_duplicate_is_open() {
    let (epoll, mut events, registration, duplicate) = registered();
    let _client = connect(&duplicate);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    drop(registration);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn into_inner_deletes_and_gives_the_descriptor_back() {
    let (epoll, mut events, registration, _duplicate) = registered();
    let number = registration.get_ref().as_raw_fd();
    let listener = registration.into_inner();
    assert_eq!(listener.as_raw_fd(), number);
    let _client = connect(&listener);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    epoll.add(&listener, Token(2), Interest::IN).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [2]);
}

#[test]
fn modify_changes_token_and_interest() {
    let (epoll, mut events, registration, duplicate) = registered();
    let _client = connect(&duplicate);
    registration.modify(Token(2), Interest::empty()).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    registration.modify(Token(3), Interest::IN | Interest::ET).unwrap();
    assert_eq!(tokens_now(&epoll, &mut events), [3]);
    registration.modify(Token(3), Interest::EXCLUSIVE).unwrap_err();
}

#[test]
fn an_exclusive_registration_deletes_itself_too() {
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    let registration = epoll.register_exclusive(&listener, Token(1), ExclusiveInterest::IN).unwrap();
    assert_eq!(registration.modify(Token(1), Interest::IN).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(registrations(&epoll).len(), 1);
    drop(registration);
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn borrowed_and_shared_descriptors_stay_open() {
    let epoll = Epoll::new().unwrap();
    let listener = Arc::new(listener());
    drop(epoll.register(&*listener, Token(1), Interest::IN).unwrap());
    drop(epoll.register(Arc::clone(&listener), Token(1), Interest::IN).unwrap());
    connect(&listener);
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn a_refusal_gives_the_descriptor_back() {
    let listener = listener();
    let (epoll, _events) = watching(&listener, Interest::IN);
    let address = listener.local_addr().unwrap();
    let refused = epoll.register(listener, Token(2), Interest::IN).unwrap_err();
    assert_eq!(refused.error().raw_os_error(), Some(libc::EEXIST));
    assert_eq!(refused.to_string(), refused.error().to_string());
    assert_eq!(refused.into_inner().local_addr().unwrap(), address);
}

#[test]
fn a_refusal_converts_for_the_question_mark() {
    fn plain(epoll: &Epoll) -> std::io::Result<()> {
        let _registration = epoll.register(epoll, Token(1), Interest::IN)?;
        Ok(())
    }
    fn control(epoll: &Epoll) -> Result<(), EpollCtlError> {
        let _registration = epoll.register(epoll, Token(1), Interest::IN)?;
        Ok(())
    }
    let epoll = Epoll::new().unwrap();
    assert_eq!(plain(&epoll).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(control(&epoll).unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_registration_outlives_its_epoll_object() {
    let (epoll, _events, registration, duplicate) = registered();
    let clone = epoll.try_clone().unwrap();
    drop(epoll);
    registration.modify(Token(8), Interest::IN).unwrap();
    let _client = connect(&duplicate);
    let mut events = Events::with_capacity(1).unwrap();
    assert_eq!(tokens_now(&clone, &mut events), [8]);
    drop(registration);
    assert_eq!(registrations(&clone), []);
}

#[test]
fn a_panic_deletes_it() {
    let (epoll, _events, registration, _duplicate) = registered();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _registration = registration;
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(caught.is_err());
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn a_forked_child_does_not_deafen_its_parent() {
    if done_in_child("registration::a_forked_child_does_not_deafen_its_parent") {
        return;
    }
    let (epoll, mut events, registration, duplicate) = registered();
    // SAFETY: the child only drops what closes descriptors and frees memory, which glibc and musl keep usable
    // after a fork, and leaves by `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(registration);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))));
        }
    }
    let _client = connect(&duplicate);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    drop(registration);
    assert_eq!(registrations(&epoll), []);
}
