//! A child that waits for the end of its stdin: it continues stopped processes however acceptq ends.

use std::env;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Continues these processes at the end of stdin
#[derive(Args, Debug)]
pub(crate) struct Guard {
    pids: Vec<i32>,
}

impl Guard {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        crate::print("ready\n")?;
        // An error ends the wait as well.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        for pid in &self.pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The child. Dropping this makes it continue the processes and waits until it has.
#[derive(Debug)]
pub(super) struct Guardian(Child);

impl Guardian {
    /// Starts the child and waits until it is ready.
    pub(super) fn start(pids: &[i32]) -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg("guard")
            .args(pids.iter().map(ToString::to_string))
            // A signal for the group of acceptq, such as that of Ctrl-C, does not reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ready = match &mut child.stdout {
            Some(stdout) => stdout.read_exact(&mut [0]),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let guardian = Self(child);
        ready.map(|()| guardian)
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
