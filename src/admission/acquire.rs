//! Waiting at a gate in async code.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::gate::Gate;
use super::permit::Permit;
use super::semaphore::{Semaphore, WaitFor};
use super::wait_queue::Wakes;

/// The future of [`Gate::acquire`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Acquire<'a> {
    gate: &'a Gate,
    /// Identifies the future in the wait queue, from its first poll until it is ready.
    task: Option<u64>,
}

/// The future of [`Gate::idle`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Idle<'a> {
    gate: &'a Gate,
    task: Option<u64>,
}

impl Gate {
    /// Waits for a permit, in the same FIFO queue as the acceptors that wait at this gate. Works in every runtime.
    ///
    /// It waits even if the gate [sheds](crate::WhenFull::Shed).
    ///
    /// ## Cancel safety
    ///
    /// Dropping the future takes it out of the queue; a permit that was handed to it goes to the next waiter. A new
    /// future queues at the end.
    ///
    /// ```
    /// use epoll_acceptor::Gate;
    ///
    /// # #[cfg(feature = "tokio")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let gate = Gate::new(1);
    /// let first = gate.acquire().await;
    /// let waiting = tokio::spawn({
    ///     let gate = gate.clone();
    ///     async move { drop(gate.acquire().await) }
    /// });
    /// drop(first);
    /// waiting.await.unwrap();
    /// gate.idle().await;
    /// # }
    /// # #[cfg(not(feature = "tokio"))]
    /// # fn main() {}
    /// ```
    pub const fn acquire(&self) -> Acquire<'_> {
        Acquire { gate: self, task: None }
    }

    /// Waits until no permit is in use; [`wait_idle`](Self::wait_idle) says what that means. Cancel safe.
    pub const fn idle(&self) -> Idle<'_> {
        Idle { gate: self, task: None }
    }
}

impl Future for Acquire<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let (gate, waker) = (self.gate, cx.waker().clone());
        let mut capacity = gate.shared().lock();
        let task = *self.task.get_or_insert_with(|| capacity.new_task());
        let wakes = Wakes::Task(task, waker);
        let (acquired, replaced) = capacity.acquire_or_enqueue(wakes, WaitFor::Permit, gate.is_privileged());
        drop(capacity);
        drop(replaced);
        if acquired {
            self.task = None;
            return Poll::Ready(gate.permit());
        }
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(task) = self.task else { return };
        let waiter = self.gate.shared().lock().queue.remove_task(task);
        if waiter.is_some_and(|waiter| waiter.has_permit()) {
            self.gate.cancel(self.gate.permit());
        }
    }
}

impl Future for Idle<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (gate, waker) = (self.gate, cx.waker().clone());
        gate.shared().revoke_declined();
        let mut capacity = gate.shared().lock();
        let task = *self.task.get_or_insert_with(|| capacity.new_task());
        let replaced = capacity.remove_idle_task(task);
        let idle = capacity.in_use == 0;
        if !idle {
            capacity.idle_tasks.push((task, waker));
        }
        drop(capacity);
        drop(replaced);
        if idle {
            self.task = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task {
            let waker = self.gate.shared().lock().remove_idle_task(task);
            drop(waker);
        }
    }
}

impl fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("gate", self.gate).finish_non_exhaustive()
    }
}

impl fmt::Debug for Idle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle").field("gate", self.gate).finish_non_exhaustive()
    }
}
