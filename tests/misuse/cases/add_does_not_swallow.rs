//! `add` borrows its descriptor: a moved one would be closed at once, which deletes the registration.

use epoll_acceptor::{Epoll, Interest, Token};

fn main() {
    let epoll = Epoll::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    epoll.add(listener, Token(0), Interest::IN).unwrap();
}
