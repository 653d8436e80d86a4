//! A pass borrows the acceptor, and the acceptor has the listener.

use std::net::TcpListener;

use epoll_acceptor::{Acceptor as _, EpollAcceptor};

fn serve(mut acceptor: EpollAcceptor<TcpListener>) {
    let mut pass = acceptor.ready();
    drop(acceptor.into_listener());
    let _ = pass.next();
}

fn main() {}
