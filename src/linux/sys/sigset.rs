//! Signal sets, and the signal mask of a thread.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use super::{Errno, ret};

pub(crate) fn empty() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigsetops(3): "sigemptyset() initializes the signal set given by set to empty"; it fails for no
    // valid pointer, and afterwards the whole set is initialised.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

pub(crate) fn full() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigsetops(3): "sigfillset() initializes set to full, including all signals"; as above.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// `sigaddset` or `sigdelset`; EINVAL if the number is not a signal.
pub(crate) fn put(set: &mut libc::sigset_t, signal: c_int, present: bool) -> Result<(), Errno> {
    let change = if present { libc::sigaddset } else { libc::sigdelset };
    // SAFETY: sigsetops(3): these "add and delete respectively signal signum from set"; the set is
    // initialised, and they return EINVAL for a number that is not a signal.
    ret(unsafe { change(ptr::from_mut(set), signal) })
}

/// `sigismember`; `false` if the number is not a signal.
pub(crate) fn has(set: &libc::sigset_t, signal: c_int) -> bool {
    // SAFETY: sigsetops(3): "sigismember() tests whether signum is a member of set", an initialised set that
    // is only read.
    unsafe { libc::sigismember(ptr::from_ref(set), signal) == 1 }
}

/// `pthread_sigmask(SIG_SETMASK)`: sets the thread's mask, unless `new` is `None`, and returns the previous one.
pub(crate) fn thread_sigmask(new: Option<&libc::sigset_t>) -> Result<libc::sigset_t, Errno> {
    let mut old = empty();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: pthread_sigmask(3) is sigprocmask(2) for a thread: "If set is NULL, then the signal mask is
    // unchanged", "If oldset is non-NULL, the previous value of the signal mask is stored in oldset". Both
    // are initialised sets. It "returns 0; on error, it returns an error number".
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, new, &raw mut old) } {
        0 => Ok(old),
        number => Err(Errno::new(number)),
    }
}
