//! Registrations and the ready list.
//!
//! A registration gets onto the ready list of its epoll in four ways (K1): a call by the file it watches,
//! being added, being modified, and being put back after a level-triggered report.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::errno::{EEXIST, EINVAL, ELOOP, ENOENT, ENOSPC, EPERM};
use super::files::{FileId, Kind};
use super::rules::AfterReport;
use super::wait::Thread;
use super::{Errno, Fd, Kernel, Mask, Rules};

/// What a wait reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// The number given at registration.
    pub data: u64,
    /// What is ready, of what was asked for.
    pub events: Mask,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Epoll {
    items: BTreeMap<Key, Item>,
    /// Invariant: no key twice, and only keys of `items`.
    ready: VecDeque<Key>,
    pub(super) sleepers: VecDeque<Thread>,
}

/// What a registration is known by: the open file, and the number it was registered under (K13).
type Key = (FileId, Fd);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    mask: Mask,
    data: u64,
}

/// A registration as the watched file knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Registered {
    epoll: FileId,
    key: Key,
    exclusive: bool,
}

impl<R: Rules> Kernel<R> {
    /// Makes an epoll (epoll_create1(2)).
    ///
    /// # Errors
    ///
    /// `EMFILE`
    pub fn epoll(&mut self) -> Result<Fd, Errno> {
        self.open(Kind::Epoll(Epoll::default()))
    }

    /// Registers a file under this descriptor number (`EPOLL_CTL_ADD`), and looks at it at once (K10).
    ///
    /// # Errors
    ///
    /// In this order (K14): `EBADF`; `EPERM` for a plain file; `EINVAL` if `epoll` is none or the same file,
    /// or if `EXCLUSIVE` is asked for with what it does not go with (K15); `ELOOP` if epolls would form a
    /// loop or too long a chain; `EEXIST`; `ENOSPC`.
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
        let watchers = &mut self.file_mut(target).watchers;
        watchers.insert(R::place(exclusive, watchers.len()), Registered { epoll, key, exclusive });
        if R::add_looks() {
            self.look(epoll, key);
        }
        Ok(())
    }

    /// Changes a registration (`EPOLL_CTL_MOD`), and looks at the file at once (K10). One that has fired
    /// hears again.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EPERM`; `EINVAL` as for [`add`](Self::add), and for any exclusive registration; `ENOENT`.
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
        if R::modify_looks(mask) {
            self.look(epoll, key);
        }
        Ok(())
    }

    /// Ends a registration (`EPOLL_CTL_DEL`); an event that was due is lost, and nobody else is told (K71).
    ///
    /// # Errors
    ///
    /// `EBADF`, `EPERM`, `EINVAL` if `epoll` is none or the same file, `ENOENT`.
    pub fn delete(&mut self, epoll: Fd, fd: Fd) -> Result<(), Errno> {
        let (epoll, target) = self.control(epoll, fd)?;
        let key = (target, R::identity(fd));
        self.epoll_mut(epoll).items.remove(&key).ok_or(ENOENT)?;
        self.epoll_mut(epoll).ready.retain(|other| *other != key);
        self.file_mut(target).watchers.retain(|watcher| (watcher.epoll, watcher.key) != (epoll, key));
        Ok(())
    }

    /// Takes up to `max` events, without waiting (epoll_wait(2) with timeout 0).
    ///
    /// # Errors
    ///
    /// `EBADF`, or `EINVAL` if it is no epoll or `max` is 0.
    pub fn wait(&mut self, epoll: Fd, max: usize) -> Result<Vec<Event>, Errno> {
        let epoll = self.waitable(epoll, max)?;
        Ok(self.scan(epoll, max))
    }

    /// The mask a registration has now, as `/proc/self/fdinfo` shows it; `None` if there is none.
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

    /// Reports from the head of the ready list what is still ready (K4, K9).
    pub(super) fn scan(&mut self, epoll: FileId, max: usize) -> Vec<Event> {
        let mut batch = mem::take(&mut self.epoll_mut(epoll).ready);
        let mut put_back = VecDeque::new();
        let mut reported = Vec::new();
        while reported.len() < max {
            let Some(key) = batch.pop_front() else { break };
            let shown = self.shown(key.0);
            let item = self.item_mut(epoll, key);
            let events = R::reported(shown, item.mask);
            if events.is_empty() {
                continue;
            }
            reported.push(Event { data: item.data, events });
            match R::after_report(item.mask) {
                AfterReport::Requeue => put_back.push_back(key),
                AfterReport::Leave => {}
                AfterReport::Disarm => item.mask &= Mask::PRIVATE,
            }
        }
        self.epoll_mut(epoll).ready = R::after_scan(batch, put_back);
        self.wake_next(epoll);
        reported
    }

    /// Polls an epoll: drops what is stale from the head of the ready list; whether anything is left (K16).
    pub(super) fn drop_stale(&mut self, epoll: FileId) -> bool {
        while let Some(&key) = self.epoll_mut(epoll).ready.front() {
            if !self.is_due(epoll, key) {
                self.epoll_mut(epoll).ready.pop_front();
                continue;
            }
            self.wake_next(epoll);
            return true;
        }
        false
    }

    /// A file calls those who watch it, until so many exclusive ones are satisfied; 0 for all (K21, K25).
    pub(super) fn call_watchers(&mut self, file: FileId, key: Mask, mut exclusive: usize) {
        for watcher in self.file_mut(file).watchers.clone() {
            let satisfied = self.call(watcher, key);
            if watcher.exclusive && satisfied && exclusive > 0 {
                exclusive -= 1;
                if exclusive == 0 {
                    break;
                }
            }
        }
    }

    /// Forgets every registration that watches a file.
    pub(super) fn forget_watchers(&mut self, file: FileId) {
        for watcher in mem::take(&mut self.file_mut(file).watchers) {
            let epoll = self.epoll_mut(watcher.epoll);
            epoll.items.remove(&watcher.key);
            epoll.ready.retain(|key| *key != watcher.key);
        }
    }

    /// Forgets every registration that an epoll had.
    pub(super) fn forget_registrations(&mut self, epoll: FileId, had: &Epoll) {
        for (target, _) in had.items.keys() {
            self.file_mut(*target).watchers.retain(|watcher| watcher.epoll != epoll);
        }
    }

    pub(super) fn epoll_mut(&mut self, file: FileId) -> &mut Epoll {
        match &mut self.file_mut(file).kind {
            Kind::Epoll(epoll) => epoll,
            other => unreachable!("{other:?} was found to be an epoll"),
        }
    }

    /// One registration is called. The return value counts for exclusive ones alone.
    fn call(&mut self, Registered { epoll, key, .. }: Registered, call: Mask) -> bool {
        let mask = self.item_mut(epoll, key).mask;
        if !R::hears(mask, call) {
            return false;
        }
        let sleeper = !self.epoll_mut(epoll).sleepers.is_empty();
        let ready = &mut self.epoll_mut(epoll).ready;
        let linked = ready.contains(&key);
        if R::links(linked) {
            ready.push_back(key);
        }
        self.wake(epoll);
        if R::outer_called(!linked) {
            self.call_watchers(epoll, Mask::IN, 1);
        }
        R::exclusive_takes(mask, call, sleeper)
    }

    /// Puts a registration on the ready list if its file is ready (K10).
    fn look(&mut self, epoll: FileId, key: Key) {
        if !self.is_due(epoll, key) || self.epoll_mut(epoll).ready.contains(&key) {
            return;
        }
        self.epoll_mut(epoll).ready.push_back(key);
        self.wake(epoll);
        self.call_watchers(epoll, Mask::IN, 1);
    }

    fn is_due(&mut self, epoll: FileId, key: Key) -> bool {
        let shown = self.shown(key.0);
        shown.intersects(self.item_mut(epoll, key).mask)
    }

    fn wake_next(&mut self, epoll: FileId) {
        if R::scan_wakes_next() && !self.epoll_mut(epoll).ready.is_empty() {
            self.wake(epoll);
        }
    }

    fn item_mut(&mut self, epoll: FileId, key: Key) -> &mut Item {
        self.epoll_mut(epoll).items.get_mut(&key).expect("a linked or watching key is registered")
    }

    /// The two files of an epoll_ctl(2), and its first errors in their order (K14).
    fn control(&self, epoll: Fd, fd: Fd) -> Result<(FileId, FileId), Errno> {
        let (epoll, target) = (self.file(epoll)?, self.file(fd)?);
        match self.files[&target].kind {
            Kind::Plain => Err(EPERM),
            _ if epoll == target || !self.is_epoll(epoll) => Err(EINVAL),
            _ => Ok((epoll, target)),
        }
    }

    fn is_epoll(&self, file: FileId) -> bool {
        matches!(self.files[&file].kind, Kind::Epoll(_))
    }

    fn registrations(&self) -> usize {
        self.files.values().map(|file| file.watchers.len()).sum()
    }

    /// Whether `inner` in `outer` makes a loop or too long a chain, counted down from `inner` and up from
    /// `outer` (K16).
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
        self.files[&file].watchers.iter().map(|watcher| watcher.epoll).collect()
    }
}
