//! The listeners that a command selects.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};

use super::connection::Connection;
use super::diag::Diag;
use super::listener::Listener;
use super::owners;
use super::target::Target;

#[derive(Clone, Debug)]
pub(crate) enum Targets {
    All,
    /// Those of all these targets.
    Each(Vec<Target>),
    /// Those that a process has open.
    Process {
        pid: i32,
        inodes: HashSet<u64>,
        ports: Vec<u16>,
    },
}

impl Targets {
    /// Selects the listeners of these targets, or all if there is no target.
    pub(crate) fn each(targets: &[Target]) -> Self {
        if targets.is_empty() { Self::All } else { Self::Each(targets.to_vec()) }
    }

    /// Selects the listeners that a process has open now.
    pub(crate) fn of_process(diag: &Diag, pid: i32) -> io::Result<Self> {
        let inodes = owners::sockets(pid).ok_or_else(|| {
            let text = format!("the descriptors of process {pid} are not visible. {}", crate::remedy());
            io::Error::new(ErrorKind::PermissionDenied, text)
        })?;
        let own = Listener::inet(diag, None)?.into_iter().filter(|one| inodes.contains(&one.inode));
        let ports: HashSet<u16> = own.filter_map(|one| Some(one.socket()?.port())).collect();
        Ok(Self::Process { pid, inodes, ports: ports.into_iter().collect() })
    }

    /// Lists the selected listeners, and the others on the same ports.
    pub(crate) fn listeners(&self, diag: &Diag) -> io::Result<(Vec<Listener>, Vec<Listener>)> {
        let (mut found, mut others) = (Vec::new(), Vec::new());
        match self {
            Self::All => found = all(diag)?,
            Self::Process { inodes, .. } => {
                (found, others) = all(diag)?.into_iter().partition(|one| inodes.contains(&one.inode));
            }
            Self::Each(targets) => {
                for target in targets {
                    let (chosen, rest) = target.listeners(diag)?;
                    found.extend(chosen);
                    others.extend(rest);
                }
            }
        }
        let mut known = HashSet::new();
        for list in [&mut found, &mut others] {
            list.retain(|listener| known.insert((listener.kind, listener.cookie)));
        }
        Ok((found, others))
    }

    /// Lists the TCP connections of the selected ports; `None` if there are only Unix sockets.
    pub(crate) fn connections(
        &self,
        diag: &Diag,
        in_every_state: bool,
    ) -> io::Result<Option<Vec<Connection>>> {
        // Port 0 is every port.
        let mut ports: Vec<u16> = match self {
            Self::All => vec![0],
            Self::Process { ports, .. } => ports.clone(),
            Self::Each(targets) => {
                let inet = targets.iter().filter(|target| !target.is_unix());
                inet.map(|target| target.port().unwrap_or(0)).collect()
            }
        };
        if ports.is_empty() {
            return Ok(None);
        }
        ports.sort_unstable();
        ports.dedup();
        if ports[0] == 0 {
            ports = vec![0];
        }
        let mut found = Vec::new();
        for port in ports {
            found.extend(match in_every_state {
                true => Connection::of_port_in_every_state(diag, port)?,
                false => Connection::of_port(diag, port)?,
            });
        }
        Ok(Some(found))
    }
}

fn all(diag: &Diag) -> io::Result<Vec<Listener>> {
    let mut found = Listener::inet(diag, None)?;
    found.extend(Listener::unix(diag)?);
    Ok(found)
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all listeners"),
            Self::Process { pid, .. } => write!(f, "process {pid}"),
            Self::Each(targets) => {
                let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}
