//! A permit is released once.

use epoll_acceptor::Gate;

fn main() {
    let permit = Gate::new(1).try_acquire().unwrap();
    let _second = permit.clone();
}
