//! The errors that the model returns.

use super::Errno;

pub(super) const EAGAIN: Errno = Errno::new(libc::EAGAIN);
pub(super) const EBADF: Errno = Errno::new(libc::EBADF);
pub(super) const ECONNRESET: Errno = Errno::new(libc::ECONNRESET);
pub(super) const EEXIST: Errno = Errno::new(libc::EEXIST);
pub(super) const EINTR: Errno = Errno::new(libc::EINTR);
pub(super) const EINVAL: Errno = Errno::new(libc::EINVAL);
pub(super) const ELOOP: Errno = Errno::new(libc::ELOOP);
pub(super) const EMFILE: Errno = Errno::new(libc::EMFILE);
pub(super) const ENOENT: Errno = Errno::new(libc::ENOENT);
pub(super) const ENOSPC: Errno = Errno::new(libc::ENOSPC);
pub(super) const ENOTCONN: Errno = Errno::new(libc::ENOTCONN);
pub(super) const ENOTSOCK: Errno = Errno::new(libc::ENOTSOCK);
pub(super) const EOPNOTSUPP: Errno = Errno::new(libc::EOPNOTSUPP);
pub(super) const EPERM: Errno = Errno::new(libc::EPERM);
