//! How a listener is registered with an epoll: the `tfd:` lines of `/proc/PID/fdinfo/EPOLL`.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;

use epoll_acceptor::Epoll;
use serde::Serialize;

/// `EPOLLIN | EPOLLRDNORM`: all that a listener's arrival ever shows.
const HEARS_ARRIVALS: u32 = 0x0001 | 0x0040;
const EXCLUSIVE: u32 = 1 << 28;
const ONESHOT: u32 = 1 << 30;
const EDGE: u32 = 1 << 31;

/// What a registration does when a connection arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum How {
    /// One event for each wake of the queue; what is left in it is not repeated.
    Edge,
    /// Events as long as the queue is not empty.
    Level,
    /// One event, then nothing until it is armed again.
    Oneshot,
    /// A one-shot registration that has had its event.
    Fired,
    /// Level-triggered, and an arrival tells one of several epolls.
    Exclusive,
    /// A mask without `EPOLLIN`: the listener is registered, and not listened to.
    Silenced,
}

/// A listener in an epoll.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Registration {
    pub(crate) pid: i32,
    /// The descriptor of the epoll in that process.
    pub(crate) epoll: i32,
    /// Under which number the listener was registered.
    pub(crate) fd: i32,
    pub(crate) how: How,
    /// As the kernel shows it.
    #[serde(serialize_with = "as_hex")]
    pub(crate) mask: u32,
    /// Epolls of the same process that watch this epoll, edge-triggered or not.
    pub(crate) outer: Vec<(i32, How)>,
}

impl Registration {
    /// Whether an arrival makes an event.
    pub(crate) fn is_armed(&self) -> bool {
        self.how.is_armed()
    }

    /// Every epoll of its process in which its events may be waited for.
    pub(crate) fn with_outer(&self) -> Vec<i32> {
        let outer = self.outer.iter().map(|(epoll, _)| *epoll);
        std::iter::once(self.epoll).chain(outer).collect()
    }
}

fn as_hex<S: serde::Serializer>(mask: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mask:#x}"))
}

impl How {
    pub(crate) fn of(mask: u32) -> Self {
        match mask {
            mask if mask & HEARS_ARRIVALS == 0 && mask & ONESHOT != 0 => Self::Fired,
            mask if mask & HEARS_ARRIVALS == 0 => Self::Silenced,
            mask if mask & ONESHOT != 0 => Self::Oneshot,
            mask if mask & EDGE != 0 => Self::Edge,
            mask if mask & EXCLUSIVE != 0 => Self::Exclusive,
            _ => Self::Level,
        }
    }

    pub(crate) fn is_armed(self) -> bool {
        !matches!(self, Self::Silenced | Self::Fired)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Level => "level",
            Self::Oneshot => "oneshot",
            Self::Fired => "fired",
            Self::Exclusive => "exclusive",
            Self::Silenced => "silenced",
        }
    }
}

/// A line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    fd: i32,
    mask: u32,
    /// What is registered, on kernels that tell.
    file: Option<(u64, u64)>,
}

/// Where these sockets are registered among a process's epolls.
///
/// Reading an epoll's file holds up its owner for as long as the kernel takes to print it, so it is not read
/// more often than needed.
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
                // Before Linux 4.13 only the number tells, and it may since name another socket.
                None => sockets_open.iter().find(|(fd, _)| *fd == item.fd).map(|(_, inode)| *inode),
            };
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                let outer = Vec::new();
                let how = How::of(item.mask);
                let (pid, epoll, fd, mask) = (pid, *epoll, item.fd, item.mask);
                found.push((inode, Registration { pid, epoll, fd, how, mask, outer }));
            }
        }
    }
    if !found.is_empty() {
        // All epolls share one inode; which of them is watched only the number tells.
        for (outer, text) in &files {
            for item in items(text).filter(|item| item.file.is_some_and(|(_, device)| device == anonymous)) {
                for (_, inner) in found.iter_mut().filter(|(_, inner)| inner.epoll == item.fd) {
                    inner.outer.push((*outer, How::of(item.mask)));
                }
            }
        }
    }
    found
}

fn items(text: &str) -> impl Iterator<Item = Item> {
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

/// The kernel's internal file systems of sockets and of anonymous files, as `sdev` shows them.
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
    fn a_line_is_read_with_its_blanks_as_the_kernel_sets_them() {
        let line = "tfd:        5 events: 80000019 data:                7  pos:0 ino:1f00 sdev:8";
        assert_eq!(item(line), Some(Item { fd: 5, mask: 0x8000_0019, file: Some((0x1f00, 8)) }));
        let old = "tfd:        5 events:       19 data:                7";
        assert_eq!(item(old), Some(Item { fd: 5, mask: 0x19, file: None }));
        assert_eq!(item("pos:\t0"), None);
        assert_eq!(item("tfd: x events: 19"), None);
    }

    #[test]
    fn the_mask_says_how() {
        let masks = [
            (0x8000_0019, How::Edge),
            (0x19, How::Level),
            (0x2019, How::Level),
            (0x58, How::Level),
            (0x4000_0019, How::Oneshot),
            (0xC000_0019, How::Oneshot),
            (0x4000_0000, How::Fired),
            (0x1000_0019, How::Exclusive),
            (0x9000_0019, How::Edge),
            (0x18, How::Silenced),
            (0x8000_0018, How::Silenced),
            (0x1c, How::Silenced),
        ];
        for (mask, how) in masks {
            assert_eq!(How::of(mask), how, "{mask:#x}");
        }
    }
}
