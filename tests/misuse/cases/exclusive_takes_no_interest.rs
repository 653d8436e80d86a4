//! `add_exclusive` takes no `Interest`.

use epoll_acceptor::{Epoll, Interest, Token};

fn main() {
    let epoll = Epoll::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    epoll.add_exclusive(&listener, Token(0), Interest::IN | Interest::RDHUP).unwrap();
}
