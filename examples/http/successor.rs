//! A new process in this one's place, with the same listening socket.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use epoll_acceptor::handover;

const NAME: &str = "http";
/// A successor that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The listener that this process was started with, if it is a successor.
pub(crate) fn from_env() -> io::Result<Option<TcpListener>> {
    let mut listeners = handover::from_env()?;
    if listeners.is_empty() { Ok(None) } else { listeners.take_tcp(NAME).map(Some) }
}

/// Tells the process before this one, at the other end of the standard input, that this one serves.
pub(crate) fn confirm() -> io::Result<()> {
    handover::confirm(&UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Starts this program anew with this listener, and waits until it serves. Its process id.
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
            // Neither serves now what the other does.
            let _ = child.kill();
            let _ = child.wait();
        }
        confirmed.map(|()| child.id())
    };
    // Meanwhile this process goes on serving.
    tokio::task::spawn_blocking(start).await?
}
