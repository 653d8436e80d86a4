//! Threads that sleep in an epoll.

use super::epoll::Event;
use super::errno::EINTR;
use super::files::FileId;
use super::{Errno, Fd, Kernel, Rules};

/// A thread of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thread(pub u32);

/// What has become of a blocking wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Sleep {
    /// The call has returned with these events; none means that its time was over.
    Returned(Vec<Event>),
    /// The thread sleeps.
    Asleep,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sleeper {
    pub(super) epoll: FileId,
    max: usize,
    deadline: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// Invariant: the thread stands in its epoll's queue.
    Asleep,
    Woken,
    TimedOut,
}

impl<R: Rules> Kernel<R> {
    /// Begins a blocking wait in this thread: it returns at once or goes to sleep (epoll_wait(2)).
    ///
    /// `timeout` is in nanoseconds, `None` for ever. An asleep thread is woken by calls to the kernel, then
    /// shows in [`runnable`](Self::runnable), and goes on when [`run`](Self::run) says so.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL` as for [`wait`](Self::wait); `EINTR` if a signal was pending and no event (K18).
    ///
    /// # Panics
    ///
    /// If the thread is in a wait already.
    pub fn sleep(
        &mut self,
        epoll: Fd,
        thread: Thread,
        max: usize,
        timeout: Option<u64>,
    ) -> Result<Sleep, Errno> {
        assert!(!self.sleepers.contains_key(&thread), "{thread:?} waits already");
        let epoll = self.waitable(epoll, max)?;
        let deadline = timeout.map(|timeout| self.now.saturating_add(timeout));
        self.sleepers.insert(thread, Sleeper { epoll, max, deadline, state: State::Woken });
        self.run(thread)
    }

    /// Lets a woken thread go on: it scans, and returns or sleeps again until its first deadline (K18). One
    /// that was not woken stays asleep.
    ///
    /// # Errors
    ///
    /// `EINTR`
    ///
    /// # Panics
    ///
    /// If the thread is in no wait.
    pub fn run(&mut self, thread: Thread) -> Result<Sleep, Errno> {
        let Sleeper { epoll, max, deadline, state } = self.sleepers[&thread];
        let events = match state {
            State::Asleep => return Ok(Sleep::Asleep),
            State::TimedOut => Vec::new(),
            State::Woken => self.scan(epoll, max),
        };
        let overdue = deadline.is_some_and(|deadline| deadline <= self.now);
        let signalled = self.signalled.contains(&thread);
        if !events.is_empty() || overdue || signalled {
            self.sleepers.remove(&thread);
            self.release(epoll);
            let interrupted = signalled && !overdue && R::interrupts(events.len());
            return if interrupted && self.signalled.remove(&thread) {
                Err(EINTR)
            } else {
                Ok(Sleep::Returned(events))
            };
        }
        self.set_state(thread, State::Asleep);
        self.epoll_mut(epoll).sleepers.push_front(thread);
        Ok(Sleep::Asleep)
    }

    /// The threads that were woken and have not gone on yet.
    pub fn runnable(&self) -> impl Iterator<Item = Thread> + '_ {
        self.sleepers.iter().filter(|(_, sleeper)| sleeper.state != State::Asleep).map(|(thread, _)| *thread)
    }

    /// Whether the thread is in a wait.
    #[must_use]
    pub fn has_pending(&self, thread: Thread) -> bool {
        self.sleepers.contains_key(&thread)
    }

    /// A signal with a handler comes for this thread: the wait it is in, or the next one, ends with `EINTR`
    /// unless there is an event (K18).
    pub fn signal(&mut self, thread: Thread) {
        self.signalled.insert(thread);
        if self.sleepers.get(&thread).is_some_and(|sleeper| sleeper.state == State::Asleep) {
            self.leave_queue(thread, State::Woken);
        }
    }

    pub(super) fn wake(&mut self, epoll: FileId) {
        if let Some(thread) = R::wakes(&mut self.epoll_mut(epoll).sleepers) {
            self.set_state(thread, State::Woken);
        }
    }

    pub(super) fn end_overdue_sleeps(&mut self) {
        let overdue = |sleeper: &Sleeper| sleeper.deadline.is_some_and(|deadline| deadline <= self.now);
        let over = self.sleepers.iter().filter(|(_, s)| s.state == State::Asleep && overdue(s));
        for thread in over.map(|(thread, _)| *thread).collect::<Vec<_>>() {
            self.leave_queue(thread, State::TimedOut);
        }
    }

    fn leave_queue(&mut self, thread: Thread, state: State) {
        let epoll = self.sleepers[&thread].epoll;
        self.epoll_mut(epoll).sleepers.retain(|other| *other != thread);
        self.set_state(thread, state);
    }

    fn set_state(&mut self, thread: Thread, state: State) {
        self.sleepers.get_mut(&thread).expect("it waits").state = state;
    }
}
