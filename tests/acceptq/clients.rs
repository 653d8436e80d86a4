//! Clients that connect and wait, and a crowd that goes on coming.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Tcp(SocketAddr),
    Unix(String),
}

impl Door {
    /// What the tool is asked about.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Tcp(address) => address.port().to_string(),
            Self::Unix(path) => path.clone(),
        }
    }

    fn address(&self) -> SockAddr {
        match self {
            Self::Tcp(address) => (*address).into(),
            Self::Unix(path) => SockAddr::unix(path).expect("a path that is short enough"),
        }
    }

    fn socket(&self) -> Socket {
        let domain = match self {
            Self::Tcp(address) => Domain::for_address(*address),
            Self::Unix(_) => Domain::UNIX,
        };
        Socket::new(domain, Type::STREAM, None).expect("a socket")
    }

    pub(crate) fn connect(&self) -> Socket {
        let socket = self.socket();
        socket.connect(&self.address()).expect("there is room in the queue");
        socket
    }

    pub(crate) fn connect_many(&self, count: usize) -> Vec<Socket> {
        (0..count).map(|_| self.connect()).collect()
    }

    /// A client every so often, each gone again after a while, until this is dropped. A full queue is no
    /// obstacle.
    pub(crate) fn crowd(&self, pause: Duration, stays: usize) -> Crowd {
        let ended = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (door, ended) = (self.clone(), Arc::clone(&ended));
            move || {
                let mut crowd = std::collections::VecDeque::new();
                while !ended.load(Ordering::Relaxed) {
                    let socket = door.socket();
                    socket.set_nonblocking(true).expect("a flag");
                    let _ = socket.connect(&door.address());
                    crowd.push_back(socket);
                    if crowd.len() > stays {
                        crowd.pop_front();
                    }
                    thread::sleep(pause);
                }
            }
        });
        Crowd { ended, thread: Some(thread) }
    }
}

/// Clients without end.
pub(crate) struct Crowd {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
