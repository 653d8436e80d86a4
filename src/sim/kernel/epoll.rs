//! Registrations and the ready list.
//!
//! A registration enters the ready list of its epoll in four ways (K1): a wakeup by its file, `EPOLL_CTL_ADD`,
//! `EPOLL_CTL_MOD`, and requeueing after a level-triggered report.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::errno::{EEXIST, EINVAL, ELOOP, ENOENT, ENOSPC, EPERM};
use super::files::{FileId, Kind};
use super::rules::AfterReport;
use super::wait::Thread;
use super::{Errno, Fd, Kernel, Mask, Rules};

/// An event that a wait reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// The data given at registration.
    pub data: u64,
    /// The requested events that are ready.
    pub events: Mask,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Epoll {
    items: BTreeMap<Key, Item>,
    /// Invariant: contains each key at most once, and only keys of `items`.
    ready: VecDeque<Key>,
    pub(super) sleepers: VecDeque<Thread>,
}

/// The identity of a registration: the open file and the descriptor number (K13).
type Key = (FileId, Fd);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    mask: Mask,
    data: u64,
}

/// A registration in the wait queue of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct WaitEntry {
    epoll: FileId,
    key: Key,
    exclusive: bool,
}

impl<R: Rules> Kernel<R> {
    /// Creates an epoll (epoll_create1(2)).
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn epoll(&mut self) -> Result<Fd, Errno> {
        self.open(Kind::Epoll(Epoll::default()))
    }

    /// Registers a file under this descriptor number (`EPOLL_CTL_ADD`) and polls it at once (K10).
    ///
    /// # Errors
    ///
    /// In this order (K14): `EBADF`; `EPERM` for a regular file; `EINVAL` if `epoll` is not an epoll or is the
    /// same file, or if `mask` combines `EXCLUSIVE` with a flag that excludes it (K15); `ELOOP` if epolls would
    /// form a loop or too long a chain (K16); `EEXIST`; `ENOSPC`.
    pub fn add(&mut self, epoll: Fd, fd: Fd, mask: Mask, data: u64) -> Result<(), Errno> {
        let (epoll, target) = self.control(epoll, fd)?;
        let nested = self.is_epoll(target);
        let exclusive = mask.contains(Mask::EXCLUSIVE);
        if exclusive && (nested || !R::exclusive_allows().contains(mask)) {
            return Err(EINVAL);
        }
        if nested && self.nests_too_deep(epoll, target) {
            return Err(ELOOP);
        }
        let key = (target, R::identity(fd));
        if self.epoll_mut(epoll).items.contains_key(&key) {
            return Err(EEXIST);
        }
        if self.registrations() >= self.registrations_max {
            return Err(ENOSPC);
        }
        self.epoll_mut(epoll).items.insert(key, Item { mask: mask | R::implied(), data });
        let wait_queue = &mut self.file_mut(target).wait_queue;
        wait_queue
            .insert(R::queue_position(exclusive, wait_queue.len()), WaitEntry { epoll, key, exclusive });
        if R::add_polls() {
            self.enqueue_if_ready(epoll, key);
        }
        Ok(())
    }

    /// Changes a registration (`EPOLL_CTL_MOD`) and polls the file at once (K10). Re-arms a one-shot
    /// registration that has fired.
    ///
    /// # Errors
    ///
    /// `EBADF`; `EPERM`; `EINVAL` as for [`add`](Self::add), for an exclusive registration, and for a mask with
    /// `EXCLUSIVE`; `ENOENT`.
    pub fn modify(&mut self, epoll: Fd, fd: Fd, mask: Mask, data: u64) -> Result<(), Errno> {
        let (epoll, target) = self.control(epoll, fd)?;
        if mask.contains(Mask::EXCLUSIVE) {
            return Err(EINVAL);
        }
        let key = (target, R::identity(fd));
        let item = self.epoll_mut(epoll).items.get_mut(&key).ok_or(ENOENT)?;
        if !R::modifiable(item.mask) {
            return Err(EINVAL);
        }
        *item = Item { mask: mask | R::implied(), data };
        if R::modify_polls(mask) {
            self.enqueue_if_ready(epoll, key);
        }
        Ok(())
    }

    /// Removes a registration (`EPOLL_CTL_DEL`). Its pending event is lost and no other epoll is woken (K71).
    ///
    /// # Errors
    ///
    /// `EBADF`; `EPERM`; `EINVAL` if `epoll` is not an epoll or is the same file; `ENOENT`.
    pub fn delete(&mut self, epoll: Fd, fd: Fd) -> Result<(), Errno> {
        let (epoll, target) = self.control(epoll, fd)?;
        let key = (target, R::identity(fd));
        self.epoll_mut(epoll).items.remove(&key).ok_or(ENOENT)?;
        self.epoll_mut(epoll).ready.retain(|other| *other != key);
        self.file_mut(target).wait_queue.retain(|entry| (entry.epoll, entry.key) != (epoll, key));
        Ok(())
    }

    /// Returns up to `max` events without blocking (epoll_wait(2) with timeout 0).
    ///
    /// # Errors
    ///
    /// `EBADF`; `EINVAL` if `epoll` is not an epoll or `max` is 0.
    pub fn wait(&mut self, epoll: Fd, max: usize) -> Result<Vec<Event>, Errno> {
        let epoll = self.waitable(epoll, max)?;
        Ok(self.scan(epoll, max))
    }

    /// Returns the current mask of a registration, as in `/proc/self/fdinfo`.
    #[must_use]
    pub fn registered(&self, epoll: Fd, fd: Fd) -> Option<Mask> {
        let key = (self.file(fd).ok()?, fd);
        match &self.files[&self.file(epoll).ok()?].kind {
            Kind::Epoll(epoll) => epoll.items.get(&key).map(|item| item.mask),
            _ => None,
        }
    }

    pub(super) fn waitable(&self, epoll: Fd, max: usize) -> Result<FileId, Errno> {
        let epoll = self.file(epoll)?;
        if max > 0 && self.is_epoll(epoll) { Ok(epoll) } else { Err(EINVAL) }
    }

    /// Reports entries from the head of the ready list that are still ready (K4, K9).
    pub(super) fn scan(&mut self, epoll: FileId, max: usize) -> Vec<Event> {
        let mut batch = mem::take(&mut self.epoll_mut(epoll).ready);
        let mut requeued = VecDeque::new();
        let mut reported = Vec::new();
        while reported.len() < max {
            let Some(key) = batch.pop_front() else { break };
            let readiness = self.readiness(key.0);
            let item = self.item_mut(epoll, key);
            let events = R::reported(readiness, item.mask);
            if events.is_empty() {
                continue;
            }
            reported.push(Event { data: item.data, events });
            match R::after_report(item.mask) {
                AfterReport::Requeue => requeued.push_back(key),
                AfterReport::Leave => {}
                AfterReport::Disarm => item.mask &= Mask::PRIVATE,
            }
        }
        self.epoll_mut(epoll).ready = R::after_scan(batch, requeued);
        self.wake_next(epoll);
        reported
    }

    /// Polls an epoll: removes entries from the head of the ready list until one is ready, wakes a thread for it,
    /// and returns whether there is one (K16).
    pub(super) fn drop_stale(&mut self, epoll: FileId) -> bool {
        while let Some(&key) = self.epoll_mut(epoll).ready.front() {
            if !self.is_ready(epoll, key) {
                self.epoll_mut(epoll).ready.pop_front();
                continue;
            }
            self.wake_next(epoll);
            return true;
        }
        false
    }

    /// Wakes a file's registrations in order until `nr_exclusive` exclusive ones have consumed the wakeup; 0 is no
    /// limit (K21, K25).
    pub(super) fn wake_wait_queue(&mut self, file: FileId, key: Mask, mut nr_exclusive: usize) {
        for entry in self.file_mut(file).wait_queue.clone() {
            let consumed = self.wake_registration(entry, key);
            if entry.exclusive && consumed && nr_exclusive > 0 {
                nr_exclusive -= 1;
                if nr_exclusive == 0 {
                    break;
                }
            }
        }
    }

    /// Removes all registrations of a file, without an event.
    pub(super) fn remove_registrations_of(&mut self, file: FileId) {
        for entry in mem::take(&mut self.file_mut(file).wait_queue) {
            let epoll = self.epoll_mut(entry.epoll);
            epoll.items.remove(&entry.key);
            epoll.ready.retain(|key| *key != entry.key);
        }
    }

    /// Removes all registrations of a closed epoll from the wait queues of their files.
    pub(super) fn remove_registrations_in(&mut self, epoll: FileId, closed: &Epoll) {
        for (target, _) in closed.items.keys() {
            self.file_mut(*target).wait_queue.retain(|entry| entry.epoll != epoll);
        }
    }

    pub(super) fn epoll_mut(&mut self, file: FileId) -> &mut Epoll {
        match &mut self.file_mut(file).kind {
            Kind::Epoll(epoll) => epoll,
            other => unreachable!("{other:?} is not an epoll"),
        }
    }

    /// Appends a registration to its ready list and wakes a thread and the outer epolls, if the key matches
    /// (`ep_poll_callback`). Returns whether it would consume the wakeup as an exclusive one.
    fn wake_registration(&mut self, WaitEntry { epoll, key, .. }: WaitEntry, wake_key: Mask) -> bool {
        let mask = self.item_mut(epoll, key).mask;
        if !R::matches_key(mask, wake_key) {
            return false;
        }
        let sleeper = !self.epoll_mut(epoll).sleepers.is_empty();
        let ready = &mut self.epoll_mut(epoll).ready;
        let linked = ready.contains(&key);
        if R::links(linked) {
            ready.push_back(key);
        }
        self.wake_thread(epoll);
        if R::calls_outer(!linked) {
            self.wake_wait_queue(epoll, Mask::IN, 1);
        }
        R::exclusive_consumes_wakeup(mask, wake_key, sleeper)
    }

    /// Appends a registration to the ready list if its file is ready (K10).
    fn enqueue_if_ready(&mut self, epoll: FileId, key: Key) {
        if !self.is_ready(epoll, key) || self.epoll_mut(epoll).ready.contains(&key) {
            return;
        }
        self.epoll_mut(epoll).ready.push_back(key);
        self.wake_thread(epoll);
        self.wake_wait_queue(epoll, Mask::IN, 1);
    }

    fn is_ready(&mut self, epoll: FileId, key: Key) -> bool {
        let readiness = self.readiness(key.0);
        readiness.intersects(self.item_mut(epoll, key).mask)
    }

    fn wake_next(&mut self, epoll: FileId) {
        if R::scan_wakes_next() && !self.epoll_mut(epoll).ready.is_empty() {
            self.wake_thread(epoll);
        }
    }

    fn item_mut(&mut self, epoll: FileId, key: Key) -> &mut Item {
        self.epoll_mut(epoll).items.get_mut(&key).expect("a key in a ready list or wait queue is registered")
    }

    /// Looks up the two files of an epoll_ctl(2) call and makes its first checks in order (K14).
    fn control(&self, epoll: Fd, fd: Fd) -> Result<(FileId, FileId), Errno> {
        let (epoll, target) = (self.file(epoll)?, self.file(fd)?);
        match self.files[&target].kind {
            Kind::Regular => Err(EPERM),
            _ if epoll == target || !self.is_epoll(epoll) => Err(EINVAL),
            _ => Ok((epoll, target)),
        }
    }

    fn is_epoll(&self, file: FileId) -> bool {
        matches!(self.files[&file].kind, Kind::Epoll(_))
    }

    fn registrations(&self) -> usize {
        self.files.values().map(|file| file.wait_queue.len()).sum()
    }

    /// Returns whether adding `inner` to `outer` would form a loop or too long a chain, counted down from `inner`
    /// and up from `outer` (K16).
    fn nests_too_deep(&self, outer: FileId, inner: FileId) -> bool {
        let down = self.longest_chain(inner, &|kernel, file| kernel.inner_epolls(file));
        let up = self.longest_chain(outer, &|kernel, file| kernel.outer_epolls(file));
        self.reaches(inner, outer) || down + 1 + up > R::nesting_max()
    }

    fn longest_chain(&self, from: FileId, next: &dyn Fn(&Self, FileId) -> Vec<FileId>) -> usize {
        next(self, from).into_iter().map(|file| 1 + self.longest_chain(file, next)).max().unwrap_or(0)
    }

    fn reaches(&self, from: FileId, to: FileId) -> bool {
        from == to || self.inner_epolls(from).into_iter().any(|inner| self.reaches(inner, to))
    }

    fn inner_epolls(&self, file: FileId) -> Vec<FileId> {
        let Kind::Epoll(epoll) = &self.files[&file].kind else { return Vec::new() };
        epoll.items.keys().map(|(target, _)| *target).filter(|target| self.is_epoll(*target)).collect()
    }

    fn outer_epolls(&self, file: FileId) -> Vec<FileId> {
        self.files[&file].wait_queue.iter().map(|entry| entry.epoll).collect()
    }
}
