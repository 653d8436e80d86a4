//! Errors that ask for a retry and recur: an environment that answers every accept so must not keep an owner awake.

use epoll_acceptor::sim::{Action, Leave, Real, Script, Setup, run};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{Gate, Trigger};

#[test]
fn errors_that_change_nothing_end_in_back_off() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        for budget in [1, 7, 64] {
            for leave in [Leave::AtTheEnd, Leave::Break(1), Leave::Forget(1)] {
                let setup = Setup { trigger, budget, leave, queued: 2, ..Setup::plain() };
                let plague = (0..60_000).fold(Script::new(), |script, _| script.after(0, interrupted()));
                if let Err(violation) = run::<Gate>(&setup, &plague, &Real) {
                    panic!("{violation}\nin {setup:?}");
                }
            }
        }
    }
}

fn interrupted() -> Action {
    Action::Fail(Errno::new(libc::EINTR))
}
