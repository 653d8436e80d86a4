//! The one place that chooses between the real atomics and loom's.

#[cfg(all(loom, feature = "_loom"))]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
#[cfg(all(loom, feature = "_loom"))]
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};

#[cfg(not(all(loom, feature = "_loom")))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
#[cfg(not(all(loom, feature = "_loom")))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Locks, even after another thread panicked: nothing in this crate panics with one of its locks held.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
