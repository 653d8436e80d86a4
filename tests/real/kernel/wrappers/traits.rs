//! Auto traits and conversions of the public types.

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use epoll_acceptor::epoll::{
    AddError, EpollCtlError, ExclusiveInterest, Registration, SignalMask, WaitResult, Waker,
};
use epoll_acceptor::socket::{AcceptError, AcceptFlags, AcceptQueue, PeerAddr};
use epoll_acceptor::{Epoll, Event, Events, Interest, Token};

const fn is_send_sync<T: Send + Sync + 'static>() {}
const fn is_error<T: std::error::Error>() {}

const _: () = {
    is_send_sync::<AcceptError>();
    is_send_sync::<AcceptFlags>();
    is_send_sync::<AcceptQueue>();
    is_send_sync::<EpollCtlError>();
    is_send_sync::<Epoll>();
    is_send_sync::<Event>();
    is_send_sync::<Events>();
    is_send_sync::<ExclusiveInterest>();
    is_send_sync::<Interest>();
    is_send_sync::<PeerAddr>();
    is_send_sync::<Registration<TcpListener>>();
    is_send_sync::<AddError<TcpListener>>();
    is_send_sync::<SignalMask>();
    is_send_sync::<Token>();
    is_send_sync::<WaitResult>();
    is_send_sync::<Waker>();
    is_error::<AcceptError>();
    is_error::<EpollCtlError>();
    is_error::<AddError<OwnedFd>>();
};

#[test]
fn epoll_as_raw_fd_matches_as_fd() {
    let epoll = Epoll::new().unwrap();
    assert_eq!(epoll.as_raw_fd(), epoll.as_fd().as_raw_fd());
}

#[test]
fn token_round_trips_its_bits() {
    assert_eq!(u64::from(Token::from(u64::MAX)), u64::MAX);
    assert_eq!(format!("{:?}", Token(7)), "Token(7)");
}
