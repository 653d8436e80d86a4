//! The rules of the running kernel: those of Linux 6.18, unless an older version differs.

use std::sync::LazyLock;

use epoll_acceptor::sim::kernel::{Linux, Mask, Rules};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Running;

impl Rules for Running {
    fn mptcp_shutdown_key() -> Option<Mask> {
        if *VERSION > (6, 1) { Linux::mptcp_shutdown_key() } else { None }
    }
}

static VERSION: LazyLock<(u32, u32)> = LazyLock::new(|| {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|char: char| !char.is_ascii_digit()).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
});
