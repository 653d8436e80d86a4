//! Test clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// The address of a server.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(String),
}

impl Endpoint {
    /// Returns the target argument for `acceptq`.
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
        socket.connect(&self.address()).expect("the queue has room");
        socket
    }

    pub(crate) fn connect_many(&self, count: usize) -> Vec<Socket> {
        (0..count).map(|_| self.connect()).collect()
    }

    /// Connects a client per interval and keeps the last `stays` of them, until the result is dropped.
    /// Ignores a full queue.
    pub(crate) fn connect_repeatedly(&self, pause: Duration, stays: usize) -> ClientLoop {
        let ended = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (endpoint, ended) = (self.clone(), Arc::clone(&ended));
            move || {
                let mut clients = std::collections::VecDeque::new();
                while !ended.load(Ordering::Relaxed) {
                    let socket = endpoint.socket();
                    socket.set_nonblocking(true).expect("a flag");
                    let _ = socket.connect(&endpoint.address());
                    clients.push_back(socket);
                    if clients.len() > stays {
                        clients.pop_front();
                    }
                    thread::sleep(pause);
                }
            }
        });
        ClientLoop { ended, thread: Some(thread) }
    }
}

/// A thread that keeps connecting clients.
pub(crate) struct ClientLoop {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ClientLoop {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
