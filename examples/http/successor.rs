//! The process that replaces this one, with the same listening socket.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use epoll_acceptor::handover;

const NAME: &str = "http";
/// A successor that does not confirm within this time has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes the listener that this process inherited, if it is a successor.
#[allow(unsafe_code, reason = "takes ownership of descriptors by their number")]
pub(crate) fn from_env() -> io::Result<Option<TcpListener>> {
    // SAFETY: `handover::spawn` or a service manager set the variables, and only this function takes the descriptors.
    let mut listeners = unsafe { handover::from_env() }?;
    if listeners.is_empty() { Ok(None) } else { listeners.take_tcp(NAME).map(Some) }
}

/// Tells the predecessor, at the other end of the standard input, that this process serves.
pub(crate) fn confirm() -> io::Result<()> {
    handover::confirm(&UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Starts this program again with this listener, and waits until it serves. Returns its process id.
pub(crate) async fn start(listener: &TcpListener) -> io::Result<u32> {
    let listener = listener.try_clone()?;
    let start = move || {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut command = Command::new(env::current_exe()?);
        command.args(env::args_os().skip(1)).stdin(Stdio::from(OwnedFd::from(theirs)));
        let mut child = handover::spawn(command, &[(NAME, &listener)])?;
        let confirmed = handover::await_confirmation(&ours);
        if confirmed.is_err() {
            // Only one of the two processes may serve.
            let _ = child.kill();
            let _ = child.wait();
        }
        confirmed.map(|()| child.id())
    };
    // This process goes on serving meanwhile.
    tokio::task::spawn_blocking(start).await?
}
