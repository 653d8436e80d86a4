//! The descriptor table and the open files; eventfds and timerfds.

use std::collections::VecDeque;

use super::connection::ConnId;
use super::epoll::{Epoll, WaitEntry};
use super::errno::{EBADF, EINVAL, EMFILE};
use super::listener::Listener;
use super::{Errno, Kernel, Mask, Rules};

/// A descriptor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub u32);

/// An open file ("open file description" in the man pages). Ids are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId(pub(super) u32);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct File {
    pub(super) kind: Kind,
    /// The registrations of this file, in wakeup order.
    pub(super) wait_queue: VecDeque<WaitEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Listener(Listener),
    Connection(ConnId),
    Epoll(Epoll),
    Eventfd { count: u64 },
    Timerfd { due: Option<u64>, expired: bool },
    Regular,
}

impl<R: Rules> Kernel<R> {
    /// Creates an eventfd(2).
    ///
    /// # Errors
    ///
    /// `EMFILE` if the descriptor table is full.
    pub fn eventfd(&mut self) -> Result<Fd, Errno> {
        self.open(Kind::Eventfd { count: 0 })
    }

    /// Creates a disarmed timer (timerfd_create(2)).
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn timerfd(&mut self) -> Result<Fd, Errno> {
        self.open(Kind::Timerfd { due: None, expired: false })
    }

    /// Opens a regular file, which epoll does not support.
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn regular_file(&mut self) -> Result<Fd, Errno> {
        self.open(Kind::Regular)
    }

    /// Writes 1 to an eventfd, which wakes its registrations.
    ///
    /// # Errors
    ///
    /// `EBADF`; `EINVAL` if `fd` is not an eventfd.
    pub fn write_eventfd(&mut self, fd: Fd) -> Result<(), Errno> {
        let file = self.file(fd)?;
        let Kind::Eventfd { count } = &mut self.file_mut(file).kind else { return Err(EINVAL) };
        *count += 1;
        self.wake_wait_queue(file, R::notification_key(), 1);
        Ok(())
    }

    /// Arms a timer to expire once after `after` nanoseconds, or disarms it with 0, and clears an earlier expiration
    /// (timerfd_settime(2)). Timers expire in [`Kernel::advance`].
    ///
    /// # Errors
    ///
    /// `EBADF`; `EINVAL` if `fd` is not a timerfd.
    pub fn set_timerfd(&mut self, fd: Fd, after: u64) -> Result<(), Errno> {
        let at = self.now.saturating_add(after);
        let file = self.file(fd)?;
        let Kind::Timerfd { due, expired } = &mut self.file_mut(file).kind else { return Err(EINVAL) };
        *due = (after > 0).then_some(at);
        *expired = false;
        Ok(())
    }

    /// Returns whether a timer is set and has not expired (timerfd_gettime(2)).
    #[must_use]
    pub fn is_timerfd_pending(&self, fd: Fd) -> bool {
        let Some(file) = self.file(fd).ok().and_then(|file| self.files.get(&file)) else { return false };
        matches!(file.kind, Kind::Timerfd { due: Some(due), .. } if due > self.now)
    }

    /// Returns the virtual time at which the next timer expires.
    #[must_use]
    pub fn next_expiration(&self) -> Option<u64> {
        self.next_timer().map(|(due, _)| due)
    }

    /// Duplicates a descriptor to the lowest free number (dup(2)).
    ///
    /// # Errors
    ///
    /// `EBADF`, `EMFILE`
    pub fn dup(&mut self, fd: Fd) -> Result<Fd, Errno> {
        let file = self.file(fd)?;
        let new = self.free_descriptor()?;
        self.table.insert(new, file);
        Ok(new)
    }

    /// Duplicates `fd` to the number `onto`, closing it first if it is open (dup2(2)).
    ///
    /// # Errors
    ///
    /// `EBADF`
    pub fn dup2(&mut self, fd: Fd, onto: Fd) -> Result<(), Errno> {
        let file = self.file(fd)?;
        if fd != onto {
            let old = self.table.insert(onto, file);
            old.into_iter().for_each(|old| self.release(old));
        }
        Ok(())
    }

    /// Closes a descriptor, and the file with its last descriptor (K13): registrations of the file are removed
    /// without an event, the queue of a listener is reset, and the registrations in an epoll are removed.
    ///
    /// # Errors
    ///
    /// `EBADF`
    pub fn close(&mut self, fd: Fd) -> Result<(), Errno> {
        let file = self.table.remove(&fd).ok_or(EBADF)?;
        self.release(file);
        Ok(())
    }

    /// Returns which events of `mask`, `ERR` and `HUP` are ready (poll(2)).
    ///
    /// Polling an epoll removes stale entries from the head of its ready list, and wakes a thread if an entry is
    /// left (K16).
    ///
    /// # Errors
    ///
    /// `EBADF`
    pub fn poll(&mut self, fd: Fd, mask: Mask) -> Result<Mask, Errno> {
        let file = self.file(fd)?;
        Ok(self.readiness(file) & (mask | Mask::ERR | Mask::HUP))
    }

    pub(super) fn readiness(&mut self, file: FileId) -> Mask {
        match &self.files[&file].kind {
            Kind::Listener(listener) => listener.readiness(),
            Kind::Connection(id) => self.connections[id].readiness(),
            Kind::Epoll(_) => Mask::READABLE.when(self.drop_stale(file)),
            Kind::Eventfd { count } => Mask::OUT | Mask::IN.when(*count > 0),
            Kind::Timerfd { expired, .. } => Mask::IN.when(*expired),
            Kind::Regular => Mask::READABLE | Mask::WRITABLE,
        }
    }

    pub(super) fn open(&mut self, kind: Kind) -> Result<Fd, Errno> {
        let fd = self.free_descriptor()?;
        let file = FileId(self.next_file);
        self.next_file += 1;
        self.files.insert(file, File { kind, wait_queue: VecDeque::new() });
        self.table.insert(fd, file);
        Ok(fd)
    }

    pub(super) fn file(&self, fd: Fd) -> Result<FileId, Errno> {
        self.table.get(&fd).copied().ok_or(EBADF)
    }

    pub(super) fn file_mut(&mut self, file: FileId) -> &mut File {
        self.files.get_mut(&file).expect("a file exists while something refers to it")
    }

    pub(super) fn free_descriptor(&self) -> Result<Fd, Errno> {
        let lowest = (0..).zip(self.table.keys()).find(|(n, fd)| *n != fd.0).map(|(n, _)| n);
        let lowest = lowest.or_else(|| self.table.len().try_into().ok()).unwrap_or(u32::MAX);
        if lowest < self.table_max { Ok(Fd(lowest)) } else { Err(EMFILE) }
    }

    /// Drops a reference to a file, and the file with the last reference.
    pub(super) fn release(&mut self, file: FileId) {
        let has_descriptor = self.table.values().any(|other| *other == file);
        let last = !has_descriptor && !self.sleepers.values().any(|sleeper| sleeper.epoll == file);
        if R::close_deregisters(last) {
            self.remove_registrations_of(file);
        }
        if last {
            match self.files.remove(&file).map(|file| file.kind) {
                Some(Kind::Listener(_)) => self.reset_unaccepted(file),
                Some(Kind::Connection(id)) => self.server_end_closed(id),
                Some(Kind::Epoll(epoll)) => self.remove_registrations_in(file, &epoll),
                _ => {}
            }
        }
    }

    pub(super) fn next_timer(&self) -> Option<(u64, FileId)> {
        let due = |(id, file): (&FileId, &File)| match file.kind {
            Kind::Timerfd { due: Some(due), .. } => Some((due, *id)),
            _ => None,
        };
        self.files.iter().filter_map(due).min()
    }

    pub(super) fn expire(&mut self, timer: FileId) {
        self.file_mut(timer).kind = Kind::Timerfd { due: None, expired: true };
        self.wake_wait_queue(timer, R::notification_key(), 1);
    }
}
