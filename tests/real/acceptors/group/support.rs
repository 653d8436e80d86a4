//! Test helpers: workers with a member each, and clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Once;
use std::time::{Duration, Instant};

use epoll_acceptor::group::{Group, Member, Steering};
use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{Acceptor, Epoll, EpollAcceptor, Events, LevelTriggered, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;

/// A timeout that no passing test reaches, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
const LISTENER: Token = Token(3);

/// The epoll and the acceptor of one member.
pub(crate) struct Worker {
    pub(crate) epoll: Epoll,
    pub(crate) events: Events,
    pub(crate) acceptor: EpollAcceptor<Member>,
}

impl Worker {
    pub(crate) fn on(member: Member) -> Self {
        let epoll = Epoll::new().unwrap();
        let acceptor = LevelTriggered::on(member)
            .handshake_grace(Duration::from_millis(10))
            .register(&epoll, LISTENER)
            .unwrap();
        Self { epoll, events: Events::with_capacity(4).unwrap(), acceptor }
    }

    pub(crate) fn depth(&self) -> u32 {
        accept_queue(self.acceptor.listener()).unwrap().depth
    }

    /// Waits and runs passes until the acceptor is stopped. Returns the number of connections served.
    pub(crate) fn serve_to_the_end(&mut self) -> usize {
        let (begun, mut served) = (Instant::now(), 0);
        while !self.acceptor.state().is_terminal() {
            assert!(begun.elapsed() < LONG, "{:?}", self.acceptor);
            served += self.run_pass();
        }
        served
    }

    /// Serves the connections that are ready now and returns their number.
    pub(crate) fn run_pass(&mut self) -> usize {
        let mut served = 0;
        for _ in 0..self.epoll.wait(&mut self.events, Some(Duration::from_millis(1))).unwrap().count() {
            served += self.acceptor.drain(|mut stream| stream.write_all(b"!").unwrap()).unwrap();
        }
        self.events.clear();
        served
    }
}

/// Opens a group on loopback with a worker for each member.
pub(crate) fn served_group(members: usize) -> (Group, Vec<Worker>) {
    served_group_by(Steering::ByHash, members)
}

pub(crate) fn served_group_by(steering: Steering, members: usize) -> (Group, Vec<Worker>) {
    let mut group = Group::builder(local("127.0.0.1:0")).steering(steering).bind(members).unwrap();
    let workers: Vec<_> = std::iter::from_fn(|| group.take()).map(Worker::on).collect();
    (group, workers)
}

pub(crate) fn local(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn connect_many(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    raise_descriptor_limit();
    let connect = || {
        let client = TcpStream::connect_timeout(&address, LONG).unwrap();
        // Closes with a reset, which leaves no TIME_WAIT.
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client
    };
    (0..count).map(|_| connect()).collect()
}

/// Raises the soft limit: concurrent tests exceed the default.
fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    });
}

/// Returns the number of retransmissions of a client: each dropped SYN causes one.
#[allow(unsafe_code)]
pub(crate) fn retransmissions(client: &TcpStream) -> u32 {
    /// `tcpi_total_retrans` of `struct tcp_info`.
    const TOTAL_RETRANS: usize = 100;
    let mut info = [0_u8; TOTAL_RETRANS + 4];
    let mut length = u32::try_from(info.len()).unwrap();
    // SAFETY: getsockopt(2) writes at most `length` bytes into `info`.
    let answer = unsafe {
        libc::getsockopt(
            client.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert_eq!((answer, length as usize), (0, info.len()));
    u32::from_ne_bytes(info[TOTAL_RETRANS..].try_into().unwrap())
}

/// Serves all clients, and asserts that each one received its reply.
pub(crate) fn serve_all(workers: &mut [Worker], clients: Vec<TcpStream>) {
    serve(workers, clients.len());
    for mut client in clients {
        client.read_exact(&mut [0]).unwrap();
    }
}

/// Runs passes until `count` connections were served.
pub(crate) fn serve(workers: &mut [Worker], count: usize) {
    let (begun, mut served) = (Instant::now(), 0);
    while served < count {
        assert!(begun.elapsed() < LONG, "{served} of {count} served");
        served += workers.iter_mut().map(Worker::run_pass).sum::<usize>();
    }
    assert_eq!(served, count);
}
