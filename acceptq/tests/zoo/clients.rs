//! Clients of the servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// Where a server listens: an address, or the path of a Unix socket.
#[derive(Clone, Debug)]
pub(crate) struct Address(pub(crate) String);

impl Address {
    /// Connects and sends a payload, without waiting for either.
    pub(crate) fn connect(&self, payload: &[u8]) -> Socket {
        let (domain, address) = match self.0.parse::<SocketAddr>() {
            Ok(address) => (Domain::for_address(address), SockAddr::from(address)),
            Err(_) => (Domain::UNIX, SockAddr::unix(&self.0).expect("a short path")),
        };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a flag");
        let _ = socket.connect(&address);
        if !payload.is_empty() {
            thread::sleep(Duration::from_millis(10));
            let _ = socket.send_with_flags(payload, 0x4000);
        }
        socket
    }

    /// Connects clients one after another until the result is dropped: each sends the payload, waits for an
    /// answer for at most a second, and closes.
    pub(crate) fn load(&self, threads: usize, payload: &'static [u8], pause: Duration, keep: usize) -> Load {
        let ended = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let (address, ended) = (self.clone(), Arc::clone(&ended));
            thread::spawn(move || {
                let mut kept = std::collections::VecDeque::new();
                while !ended.load(Ordering::Relaxed) {
                    let socket = address.connect(payload);
                    if keep == 0 {
                        read_some(&socket);
                    } else {
                        kept.push_back(socket);
                        if kept.len() > keep {
                            kept.pop_front();
                        }
                    }
                    thread::sleep(pause);
                }
            })
        };
        Load { threads: (0..threads).map(one).collect(), ended }
    }
}

fn read_some(socket: &Socket) {
    let _ = socket.set_nonblocking(false);
    let _ = socket.set_read_timeout(Some(Duration::from_secs(1)));
    let mut buffer = [std::mem::MaybeUninit::new(0); 512];
    let _ = socket.recv(&mut buffer);
}

/// Threads that keep connecting.
pub(crate) struct Load {
    threads: Vec<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
