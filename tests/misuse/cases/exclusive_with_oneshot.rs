//! An exclusive registration cannot be one-shot.

use epoll_acceptor::epoll::ExclusiveInterest;

fn main() {
    let _ = ExclusiveInterest::IN | ExclusiveInterest::ONESHOT;
}
