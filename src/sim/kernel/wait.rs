//! Threads that block in an epoll.

use super::epoll::Event;
use super::errno::EINTR;
use super::files::FileId;
use super::{Errno, Fd, Kernel, Rules};

/// A thread of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thread(pub u32);

/// The state of a blocking wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Sleep {
    /// The wait has returned these events; none means that it timed out.
    Returned(Vec<Event>),
    /// The thread is blocked.
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
    /// Invariant: the thread is in its epoll's wait queue.
    Asleep,
    Woken,
    TimedOut,
}

impl<R: Rules> Kernel<R> {
    /// Starts a blocking wait in this thread, which returns at once or blocks (epoll_wait(2)).
    ///
    /// `timeout` is in nanoseconds; `None` waits forever. Once a later call wakes the thread, it is listed in
    /// [`runnable`](Self::runnable); [`run`](Self::run) resumes it.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL` as for [`wait`](Self::wait); `EINTR` if a signal is pending and no event (K18).
    ///
    /// # Panics
    ///
    /// If the thread is waiting already.
    pub fn sleep(
        &mut self,
        epoll: Fd,
        thread: Thread,
        max: usize,
        timeout: Option<u64>,
    ) -> Result<Sleep, Errno> {
        assert!(!self.sleepers.contains_key(&thread), "{thread:?} is waiting already");
        let epoll = self.waitable(epoll, max)?;
        let deadline = timeout.map(|timeout| self.now.saturating_add(timeout));
        self.sleepers.insert(thread, Sleeper { epoll, max, deadline, state: State::Woken });
        self.run(thread)
    }

    /// Resumes a woken thread: it scans, then returns or blocks again until the original deadline (K18). A
    /// thread that was not woken stays blocked.
    ///
    /// # Errors
    ///
    /// `EINTR`
    ///
    /// # Panics
    ///
    /// If the thread is not waiting.
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

    /// Returns the threads that were woken and have not been resumed.
    pub fn runnable(&self) -> impl Iterator<Item = Thread> + '_ {
        self.sleepers.iter().filter(|(_, sleeper)| sleeper.state != State::Asleep).map(|(thread, _)| *thread)
    }

    /// Returns whether the thread is in a wait, blocked or woken.
    #[must_use]
    pub fn is_waiting(&self, thread: Thread) -> bool {
        self.sleepers.contains_key(&thread)
    }

    /// Sends this thread a signal that has a handler: its current or next wait fails with `EINTR` unless there is
    /// an event (K18).
    pub fn signal(&mut self, thread: Thread) {
        self.signalled.insert(thread);
        if self.sleepers.get(&thread).is_some_and(|sleeper| sleeper.state == State::Asleep) {
            self.leave_wait_queue(thread, State::Woken);
        }
    }

    pub(super) fn wake_thread(&mut self, epoll: FileId) {
        if let Some(thread) = R::wake_one(&mut self.epoll_mut(epoll).sleepers) {
            self.set_state(thread, State::Woken);
        }
    }

    pub(super) fn time_out_waits(&mut self) {
        let overdue = |sleeper: &Sleeper| sleeper.deadline.is_some_and(|deadline| deadline <= self.now);
        let timed_out = self.sleepers.iter().filter(|(_, s)| s.state == State::Asleep && overdue(s));
        for thread in timed_out.map(|(thread, _)| *thread).collect::<Vec<_>>() {
            self.leave_wait_queue(thread, State::TimedOut);
        }
    }

    fn leave_wait_queue(&mut self, thread: Thread, state: State) {
        let epoll = self.sleepers[&thread].epoll;
        self.epoll_mut(epoll).sleepers.retain(|other| *other != thread);
        self.set_state(thread, state);
    }

    fn set_state(&mut self, thread: Thread, state: State) {
        self.sleepers.get_mut(&thread).expect("the thread is waiting").state = state;
    }
}
