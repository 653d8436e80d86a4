//! The RAII guard of a registration.
#![allow(unsafe_code)]

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use epoll_acceptor::epoll::{EpollCtlError, ExclusiveInterest, Registration};
use epoll_acceptor::{Epoll, Events, Interest, Token};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::wrappers::support::*;

fn registered() -> (Epoll, Events, Registration<TcpListener>, TcpListener) {
    let listener = listener();
    let duplicate = listener.try_clone().unwrap();
    let epoll = Epoll::new().unwrap();
    let registration = epoll.register(listener, Token(1), Interest::IN).unwrap();
    (epoll, Events::with_capacity(4).unwrap(), registration, duplicate)
}

#[test]
fn drop_deletes_despite_an_open_duplicate() {
    let (epoll, mut events, registration, duplicate) = registered();
    let _client = connect(&duplicate);
    assert_eq!(tokens_now(&epoll, &mut events), [1]);
    drop(registration);
    assert_eq!(tokens_now(&epoll, &mut events), [0; 0]);
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn into_inner_deletes_and_returns_the_descriptor() {
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
fn drop_deletes_exclusive_registration() {
    let (listener, epoll) = (listener(), Epoll::new().unwrap());
    let registration = epoll.register_exclusive(&listener, Token(1), ExclusiveInterest::IN).unwrap();
    assert_eq!(registration.modify(Token(1), Interest::IN).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(registrations(&epoll).len(), 1);
    drop(registration);
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn register_takes_borrowed_and_shared_descriptors() {
    let epoll = Epoll::new().unwrap();
    let listener = Arc::new(listener());
    drop(epoll.register(&*listener, Token(1), Interest::IN).unwrap());
    drop(epoll.register(Arc::clone(&listener), Token(1), Interest::IN).unwrap());
    connect(&listener);
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn add_error_returns_the_descriptor() {
    let listener = listener();
    let (epoll, _events) = watching(&listener, Interest::IN);
    let address = listener.local_addr().unwrap();
    let error = epoll.register(listener, Token(2), Interest::IN).unwrap_err();
    assert_eq!(error.error().raw_os_error(), Some(libc::EEXIST));
    assert_eq!(error.to_string(), error.error().to_string());
    assert_eq!(error.into_inner().local_addr().unwrap(), address);
}

#[test]
fn add_error_converts_with_the_question_mark() {
    fn io_error(epoll: &Epoll) -> std::io::Result<()> {
        let _registration = epoll.register(epoll, Token(1), Interest::IN)?;
        Ok(())
    }
    fn epoll_ctl_error(epoll: &Epoll) -> Result<(), EpollCtlError> {
        let _registration = epoll.register(epoll, Token(1), Interest::IN)?;
        Ok(())
    }
    let epoll = Epoll::new().unwrap();
    assert_eq!(io_error(&epoll).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(epoll_ctl_error(&epoll).unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn registration_keeps_the_epoll_open() {
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
fn panic_deletes_the_registration() {
    let (epoll, _events, registration, _duplicate) = registered();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _registration = registration;
        std::panic::resume_unwind(Box::new("injected panic"));
    }));
    assert!(caught.is_err());
    assert_eq!(registrations(&epoll), []);
}

#[test]
fn forked_child_keeps_the_parents_registration() {
    if done_in_child("wrappers::registration::forked_child_keeps_the_parents_registration") {
        return;
    }
    let (epoll, mut events, registration, duplicate) = registered();
    // SAFETY: the child only closes descriptors and frees memory, which glibc and musl allow after a fork, then calls
    // `_exit`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(registration);
            // SAFETY: exits without running the parent's exit handlers.
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
