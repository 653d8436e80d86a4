//! An exclusive registration cannot be one-shot: the flag has no name there.

use epoll_acceptor::ExclusiveInterest;

fn main() {
    let _ = ExclusiveInterest::IN | ExclusiveInterest::ONESHOT;
}
