//! A borrowed descriptor outlives its registration.

use epoll_acceptor::{Epoll, Interest, Token};

fn main() {
    let epoll = Epoll::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let registration = epoll.register(&listener, Token(0), Interest::IN).unwrap();
    drop(listener);
    drop(registration);
}
