//! An epoll owns its descriptor.

use epoll_acceptor::Epoll;

fn main() {
    let _ = Epoll::from(5);
}
