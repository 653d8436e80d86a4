//! How a listener is registered with epoll: the `tfd:` lines of `/proc/PID/fdinfo/EPFD`.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;

use epoll_acceptor::Epoll;
use serde::Serialize;

/// `EPOLLIN | EPOLLRDNORM`: the events that an arriving connection sets.
const ARRIVAL_EVENTS: u32 = 0x0001 | 0x0040;
/// `EPOLLOUT | EPOLLPRI`.
const RUNTIME_EVENTS: u32 = 0x0004 | 0x0002;
const EXCLUSIVE: u32 = 1 << 28;
const ONESHOT: u32 = 1 << 30;
const EDGE: u32 = 1 << 31;

/// How a registration reports arriving connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Trigger {
    /// `EPOLLET`: reports an arrival once, even if connections remain in the queue.
    Edge,
    /// Reports an event while the queue is not empty.
    Level,
    /// `EPOLLONESHOT`, armed: reports one event, then disables the registration.
    Oneshot,
    /// `EPOLLONESHOT` after its event: disabled until it is rearmed.
    Fired,
    /// `EPOLLEXCLUSIVE`: level-triggered; an arrival wakes at least one of several epoll instances.
    Exclusive,
    /// A mask without `EPOLLIN`: arrivals are not reported.
    Disarmed,
}

/// A listener registered with an epoll instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Registration {
    pub(crate) pid: i32,
    /// The descriptor of the epoll instance in that process.
    pub(crate) epoll: i32,
    /// The descriptor number under which the listener was registered.
    pub(crate) fd: i32,
    #[serde(rename = "how")]
    pub(crate) trigger: Trigger,
    #[serde(serialize_with = "as_hex")]
    pub(crate) mask: u32,
    /// Epoll instances of the same process that watch this one, with their trigger.
    pub(crate) outer: Vec<(i32, Trigger)>,
}

impl Registration {
    /// Returns whether arrivals are reported.
    pub(crate) fn is_armed(&self) -> bool {
        self.trigger.is_armed()
    }

    /// Returns whether the event loop of a runtime registered it: Go and tokio add `EPOLLOUT`, asio
    /// `EPOLLPRI`, which is useless on a listener. A task, not the event loop, calls accept.
    pub(crate) fn is_of_runtime(&self) -> bool {
        self.mask & RUNTIME_EVENTS != 0
    }

    /// Returns every epoll instance of the process that reports its events.
    pub(crate) fn with_outer(&self) -> Vec<i32> {
        let outer = self.outer.iter().map(|(epoll, _)| *epoll);
        std::iter::once(self.epoll).chain(outer).collect()
    }
}

fn as_hex<S: serde::Serializer>(mask: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mask:#x}"))
}

impl Trigger {
    pub(crate) fn of(mask: u32) -> Self {
        match mask {
            mask if mask & ARRIVAL_EVENTS == 0 && mask & ONESHOT != 0 => Self::Fired,
            mask if mask & ARRIVAL_EVENTS == 0 => Self::Disarmed,
            mask if mask & ONESHOT != 0 => Self::Oneshot,
            mask if mask & EDGE != 0 => Self::Edge,
            mask if mask & EXCLUSIVE != 0 => Self::Exclusive,
            _ => Self::Level,
        }
    }

    pub(crate) fn is_armed(self) -> bool {
        !matches!(self, Self::Disarmed | Self::Fired)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Level => "level",
            Self::Oneshot => "oneshot",
            Self::Fired => "fired",
            Self::Exclusive => "exclusive",
            Self::Disarmed => "disarmed",
        }
    }
}

/// A parsed `tfd:` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    fd: i32,
    mask: u32,
    /// Inode and device of the registered file, on kernels that report them.
    file: Option<(u64, u64)>,
}

/// Finds the registrations of these sockets among the epoll instances of a process.
///
/// Reads each file once, because the kernel blocks the epoll instance while it prints the file.
pub(super) fn of(
    pid: i32,
    folder: &Path,
    epolls: &[i32],
    sockets_open: &[(i32, u64)],
    inodes: &HashSet<u64>,
) -> Vec<(u64, Registration)> {
    let (sockets, anonymous) = devices();
    let read = |epoll: &i32| Some((*epoll, fs::read_to_string(folder.join(format!("fdinfo/{epoll}"))).ok()?));
    let files: Vec<(i32, String)> = epolls.iter().filter_map(read).collect();
    let mut found = Vec::new();
    for (epoll, text) in &files {
        for item in items(text) {
            let inode = match item.file {
                Some((inode, device)) => Some(inode).filter(|_| device == sockets),
                // Before Linux 4.13 there is only the descriptor number, which may have been reused since.
                None => sockets_open.iter().find(|(fd, _)| *fd == item.fd).map(|(_, inode)| *inode),
            };
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                let outer = Vec::new();
                let trigger = Trigger::of(item.mask);
                let (pid, epoll, fd, mask) = (pid, *epoll, item.fd, item.mask);
                found.push((inode, Registration { pid, epoll, fd, trigger, mask, outer }));
            }
        }
    }
    if !found.is_empty() {
        // All epoll instances share one inode; only the descriptor number identifies the inner one.
        for (outer, text) in &files {
            for item in items(text).filter(|item| item.file.is_some_and(|(_, device)| device == anonymous)) {
                for (_, inner) in found.iter_mut().filter(|(_, inner)| inner.epoll == item.fd) {
                    inner.outer.push((*outer, Trigger::of(item.mask)));
                }
            }
        }
    }
    found
}

pub(crate) fn items(text: &str) -> impl Iterator<Item = Item> {
    text.lines().filter_map(item)
}

/// `tfd: 5 events: 80000019 data: 7  pos:0 ino:1a2b sdev:8`
fn item(line: &str) -> Option<Item> {
    let mut words = line.strip_prefix("tfd:")?.split_whitespace();
    let fd = words.next()?.parse().ok()?;
    let (mut mask, mut inode, mut device) = (None, None, None);
    while let Some(word) = words.next() {
        let (name, value) = word.split_once(':')?;
        let value = if value.is_empty() { words.next()? } else { value };
        match name {
            "events" => mask = u32::from_str_radix(value, 16).ok(),
            "ino" => inode = u64::from_str_radix(value, 16).ok(),
            "sdev" => device = u64::from_str_radix(value, 16).ok(),
            _ => {}
        }
    }
    Some(Item { fd, mask: mask?, file: inode.zip(device) })
}

/// Returns the devices of sockets and of anonymous inodes, as `sdev` shows them.
fn devices() -> (u64, u64) {
    static DEVICES: OnceLock<(u64, u64)> = OnceLock::new();
    *DEVICES.get_or_init(|| {
        let socket = UnixDatagram::unbound().ok().and_then(|socket| device(&socket));
        let anonymous = Epoll::new().ok().and_then(|epoll| device(&epoll));
        (socket.unwrap_or(u64::MAX), anonymous.unwrap_or(u64::MAX))
    })
}

fn device(fd: &impl AsFd) -> Option<u64> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let device = fs::metadata(path).ok()?.st_dev();
    Some((nix::sys::stat::major(device) << 20) | nix::sys::stat::minor(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tfd_line_is_parsed_with_padding() {
        let line = "tfd:        5 events: 80000019 data:                7  pos:0 ino:1f00 sdev:8";
        assert_eq!(item(line), Some(Item { fd: 5, mask: 0x8000_0019, file: Some((0x1f00, 8)) }));
        let old = "tfd:        5 events:       19 data:                7";
        assert_eq!(item(old), Some(Item { fd: 5, mask: 0x19, file: None }));
        assert_eq!(item("pos:\t0"), None);
        assert_eq!(item("tfd: x events: 19"), None);
    }

    #[test]
    fn trigger_follows_from_mask() {
        let masks = [
            (0x8000_0019, Trigger::Edge),
            (0x19, Trigger::Level),
            (0x2019, Trigger::Level),
            (0x58, Trigger::Level),
            (0x4000_0019, Trigger::Oneshot),
            (0xC000_0019, Trigger::Oneshot),
            (0x4000_0000, Trigger::Fired),
            (0x1000_0019, Trigger::Exclusive),
            (0x9000_0019, Trigger::Edge),
            (0x18, Trigger::Disarmed),
            (0x8000_0018, Trigger::Disarmed),
            (0x1c, Trigger::Disarmed),
        ];
        for (mask, trigger) in masks {
            assert_eq!(Trigger::of(mask), trigger, "{mask:#x}");
        }
    }
}
