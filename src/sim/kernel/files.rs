//! Open files and the descriptors that name them; rings and alarms.

use std::collections::VecDeque;

use super::connection::ConnId;
use super::epoll::{Epoll, Registered};
use super::errno::{EBADF, EINVAL, EMFILE};
use super::listener::Listener;
use super::{Errno, Kernel, Mask, Rules};

/// A descriptor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub u32);

/// An open file ("open file description" in the manual pages); its number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId(pub(super) u32);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct File {
    pub(super) kind: Kind,
    /// The registrations that watch this file, in the order in which they are called.
    pub(super) watchers: VecDeque<Registered>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Listener(Listener),
    Connection(ConnId),
    Epoll(Epoll),
    Ring { rung: u64 },
    Alarm { due: Option<u64>, expired: bool },
    Plain,
}

impl<R: Rules> Kernel<R> {
    /// Makes a ring: an eventfd(2).
    ///
    /// # Errors
    ///
    /// `EMFILE` if the descriptor table is full; so for everything that opens a descriptor.
    pub fn ring(&mut self) -> Result<Fd, Errno> {
        self.open(Kind::Ring { rung: 0 })
    }

    /// Makes an alarm: a timerfd_create(2), not set.
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn alarm(&mut self) -> Result<Fd, Errno> {
        self.open(Kind::Alarm { due: None, expired: false })
    }

    /// Opens a regular file, which cannot be polled.
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn plain(&mut self) -> Result<Fd, Errno> {
        self.open(Kind::Plain)
    }

    /// Rings: writes to an eventfd, and so calls whoever watches it. It is never read.
    ///
    /// # Errors
    ///
    /// `EBADF`, or `EINVAL` if it is no ring.
    pub fn write_ring(&mut self, fd: Fd) -> Result<(), Errno> {
        let file = self.file(fd)?;
        let Kind::Ring { rung } = &mut self.file_mut(file).kind else { return Err(EINVAL) };
        *rung += 1;
        self.call_watchers(file, R::bell_key(), 1);
        Ok(())
    }

    /// Sets an alarm to go off once after so many nanoseconds, 0 for never, and forgets an expiry
    /// (timerfd_settime(2)). It goes off in [`Kernel::advance`], not here.
    ///
    /// # Errors
    ///
    /// `EBADF`, or `EINVAL` if it is no alarm.
    pub fn set_alarm(&mut self, fd: Fd, after: u64) -> Result<(), Errno> {
        let at = self.now.saturating_add(after);
        let file = self.file(fd)?;
        let Kind::Alarm { due, expired } = &mut self.file_mut(file).kind else { return Err(EINVAL) };
        *due = (after > 0).then_some(at);
        *expired = false;
        Ok(())
    }

    /// When the next alarm goes off, in the kernel's time.
    #[must_use]
    pub fn next_alarm_at(&self) -> Option<u64> {
        self.next_alarm().map(|(due, _)| due)
    }

    /// A second descriptor of the same file (dup(2)): the lowest free number.
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

    /// Makes `onto` a descriptor of the same file as `fd`, closing what it was (dup2(2)).
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

    /// Closes a descriptor; with the last one of a file, the file (K13): its registrations end in silence, a
    /// listener's queue is reset, an epoll forgets what it watched.
    ///
    /// # Errors
    ///
    /// `EBADF`
    pub fn close(&mut self, fd: Fd) -> Result<(), Errno> {
        let file = self.table.remove(&fd).ok_or(EBADF)?;
        self.release(file);
        Ok(())
    }

    /// Which of these bits, and of `ERR` and `HUP`, the file shows now (poll(2)).
    ///
    /// Not without effect on an epoll: what is stale at the head of its ready list is dropped, and if
    /// something is left a sleeper is woken (K16).
    ///
    /// # Errors
    ///
    /// `EBADF`
    pub fn poll(&mut self, fd: Fd, mask: Mask) -> Result<Mask, Errno> {
        let file = self.file(fd)?;
        Ok(self.shown(file) & (mask | Mask::ERR | Mask::HUP))
    }

    pub(super) fn shown(&mut self, file: FileId) -> Mask {
        match &self.files[&file].kind {
            Kind::Listener(listener) => listener.shown(),
            Kind::Connection(id) => self.connections[id].shown(),
            Kind::Epoll(_) => Mask::READABLE.when(self.drop_stale(file)),
            Kind::Ring { rung } => Mask::OUT | Mask::IN.when(*rung > 0),
            Kind::Alarm { expired, .. } => Mask::IN.when(*expired),
            Kind::Plain => Mask::READABLE | Mask::WRITABLE,
        }
    }

    pub(super) fn open(&mut self, kind: Kind) -> Result<Fd, Errno> {
        let fd = self.free_descriptor()?;
        let file = FileId(self.files_made);
        self.files_made += 1;
        self.files.insert(file, File { kind, watchers: VecDeque::new() });
        self.table.insert(fd, file);
        Ok(fd)
    }

    pub(super) fn file(&self, fd: Fd) -> Result<FileId, Errno> {
        self.table.get(&fd).copied().ok_or(EBADF)
    }

    pub(super) fn file_mut(&mut self, file: FileId) -> &mut File {
        self.files.get_mut(&file).expect("a file lives as long as something names it")
    }

    pub(super) fn free_descriptor(&self) -> Result<Fd, Errno> {
        let lowest = (0..).zip(self.table.keys()).find(|(n, fd)| *n != fd.0).map(|(n, _)| n);
        let lowest = lowest.or_else(|| self.table.len().try_into().ok()).unwrap_or(u32::MAX);
        if lowest < self.table_max { Ok(Fd(lowest)) } else { Err(EMFILE) }
    }

    pub(super) fn release(&mut self, file: FileId) {
        let named = self.table.values().any(|other| *other == file);
        let last = !named && !self.sleepers.values().any(|sleeper| sleeper.epoll == file);
        if R::close_forgets(last) {
            self.forget_watchers(file);
        }
        if last {
            match self.files.remove(&file).map(|file| file.kind) {
                Some(Kind::Listener(_)) => self.reset_unaccepted(file),
                Some(Kind::Connection(id)) => self.server_end_closed(id),
                Some(Kind::Epoll(epoll)) => self.forget_registrations(file, &epoll),
                _ => {}
            }
        }
    }

    pub(super) fn next_alarm(&self) -> Option<(u64, FileId)> {
        let due = |(id, file): (&FileId, &File)| match file.kind {
            Kind::Alarm { due: Some(due), .. } => Some((due, *id)),
            _ => None,
        };
        self.files.iter().filter_map(due).min()
    }

    pub(super) fn go_off(&mut self, timer: FileId) {
        self.file_mut(timer).kind = Kind::Alarm { due: None, expired: true };
        self.call_watchers(timer, R::bell_key(), 1);
    }
}
