//! Test helpers: listeners of every kind, clients that know whether they were served, an owner that begins a pass for
//! an event and for nothing else, child processes that run one test.
#![allow(unsafe_code)]

use std::env;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use epoll_acceptor::acceptor::EmptyCheck;
use epoll_acceptor::socket::Listener;
use epoll_acceptor::{Acceptor, Connection, Epoll, EpollAcceptor, Events, ListenerClosed, Token, Trigger};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// A timeout that no passing test reaches, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// Long enough to see that no event comes.
pub(crate) const SHORT: Duration = Duration::from_millis(30);
/// The token of every acceptor.
pub(crate) const LISTENER: Token = Token(7);
/// The text that a served client reads.
pub(crate) const HELLO: &[u8] = b"served";

pub(crate) const TRIGGERS: [Trigger; 3] = [Trigger::Level, Trigger::Edge, Trigger::Exclusive];
/// The default, and each one by name.
pub(crate) const EMPTY_CHECKS: [Option<EmptyCheck>; 4] =
    [None, Some(EmptyCheck::UntilEagain), Some(EmptyCheck::Poll), Some(EmptyCheck::QueueLength)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp4,
    Tcp6,
    Mptcp,
    UnixStream,
    UnixSeqpacket,
}

pub(crate) const KINDS: [Kind; 5] =
    [Kind::Tcp4, Kind::Tcp6, Kind::Mptcp, Kind::UnixStream, Kind::UnixSeqpacket];

/// The address of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) kind: Kind,
    pub(crate) address: SockAddr,
}

impl Kind {
    fn socket(self) -> io::Result<Socket> {
        match self {
            Self::Tcp4 => Socket::new(Domain::IPV4, Type::STREAM, None),
            Self::Tcp6 => Socket::new(Domain::IPV6, Type::STREAM, None),
            Self::Mptcp => Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)),
            Self::UnixStream => Socket::new(Domain::UNIX, Type::STREAM, None),
            Self::UnixSeqpacket => Socket::new(Domain::UNIX, Type::SEQPACKET, None),
        }
    }

    fn any_address(self) -> SockAddr {
        let ip = |address: &str| SockAddr::from(address.parse::<std::net::SocketAddr>().unwrap());
        match self {
            Self::Tcp4 | Self::Mptcp => ip("127.0.0.1:0"),
            Self::Tcp6 => ip("[::1]:0"),
            Self::UnixStream | Self::UnixSeqpacket => SockAddr::unix(format!("\0{}", unique_name())).unwrap(),
        }
    }

    fn try_listen(self) -> io::Result<(Socket, Endpoint)> {
        let socket = self.socket()?;
        socket.bind(&self.any_address())?;
        socket.listen(4096)?;
        let address = socket.local_addr()?;
        Ok((socket, Endpoint { kind: self, address }))
    }

    /// Opens a listener, or prints why the kernel cannot.
    fn listen_or_skip(self) -> Option<(Socket, Endpoint)> {
        self.try_listen().inspect_err(|error| eprintln!("SKIPPED {self:?}: {error}")).ok()
    }

    /// Opens a listener of a kind that every Linux has, or that is [`supported`].
    pub(crate) fn listen(self) -> (Socket, Endpoint) {
        self.try_listen().unwrap()
    }

    pub(crate) fn is_unix(self) -> bool {
        matches!(self, Self::UnixStream | Self::UnixSeqpacket)
    }
}

/// Opens a listener of every kind that the kernel supports; prints the skipped ones.
pub(crate) fn listeners() -> impl Iterator<Item = (Socket, Endpoint)> {
    KINDS.iter().filter_map(|kind| kind.listen_or_skip())
}

/// Returns those of the kinds that the kernel supports; prints the others.
pub(crate) fn supported(kinds: &[Kind]) -> impl Iterator<Item = Kind> {
    kinds.iter().copied().filter(|kind| kind.listen_or_skip().is_some())
}

/// Opens a listener for each kind of socket and each trigger.
pub(crate) fn matrix() -> impl Iterator<Item = (Socket, Endpoint, Trigger)> {
    TRIGGERS
        .into_iter()
        .flat_map(|trigger| listeners().map(move |(listener, endpoint)| (listener, endpoint, trigger)))
}

impl Endpoint {
    pub(crate) fn connect(&self) -> Client {
        let socket = self.kind.socket().unwrap();
        socket.connect(&self.address).unwrap();
        Client(socket)
    }

    pub(crate) fn connect_many(&self, count: usize) -> Vec<Client> {
        (0..count).map(|_| self.connect()).collect()
    }
}

/// The client of a connection.
#[derive(Debug)]
pub(crate) struct Client(pub(crate) Socket);

/// The result of a client's read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Served,
    End,
    Reset,
    /// Nothing yet.
    Nothing,
}

impl Client {
    /// Reads once, and waits at most for `bound`.
    pub(crate) fn read_within(&self, bound: Duration) -> Read {
        self.0.set_read_timeout(Some(bound)).unwrap();
        let mut buffer = [MaybeUninit::uninit(); HELLO.len()];
        match self.0.recv(&mut buffer) {
            Ok(0) => Read::End,
            Ok(length) => {
                assert_eq!(length, HELLO.len());
                Read::Served
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Read::Nothing,
                io::ErrorKind::ConnectionReset => Read::Reset,
                _ => panic!("the client cannot read: {error}"),
            },
        }
    }

    pub(crate) fn assert_served(&self) {
        assert_eq!(self.read_within(LONG), Read::Served);
    }

    pub(crate) fn assert_pending(&self) {
        assert_eq!(self.read_within(Duration::from_millis(1)), Read::Nothing);
    }

    /// Closes with a reset, which leaves no TIME_WAIT.
    pub(crate) fn reset(self) {
        self.0.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

pub(crate) fn assert_all_served(clients: &[Client]) {
    for client in clients {
        client.assert_served();
    }
}

/// Serves a connection; its client may be gone.
pub(crate) fn serve(connection: &impl AsFd) {
    let _ = SockRef::from(connection).send_with_flags(HELLO, libc::MSG_NOSIGNAL);
}

/// An owner that waits on one epoll and begins a pass for each event of the acceptor, and for nothing else.
pub(crate) struct Owner {
    pub(crate) epoll: Epoll,
    pub(crate) events: Events,
    /// The number of waits that returned an event.
    pub(crate) wakes: u64,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self { epoll: Epoll::new().unwrap(), events: Events::with_capacity(64).unwrap(), wakes: 0 }
    }

    /// Waits once and returns the number of events of the acceptor.
    pub(crate) fn wait(&mut self, bound: Duration) -> usize {
        self.epoll.wait(&mut self.events, Some(bound)).unwrap();
        let due = (&mut self.events).filter(|event| event.token() == LISTENER).count();
        self.wakes += u64::from(due > 0);
        due
    }

    /// Waits and runs passes until `done` returns `true`. Fails after [`LONG`], with or without events.
    pub(crate) fn until(&mut self, what: &str, mut pass: impl FnMut(), mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < LONG, "{what}: not after {LONG:?}, in {} wakes", self.wakes);
            for _ in 0..self.wait(Duration::from_millis(5)) {
                pass();
            }
        }
    }

    /// Serves this number of connections and drops each at once. No pass begins without an event.
    pub(crate) fn serve(&mut self, acceptor: &mut impl Acceptor<Stream: AsFd>, count: usize) {
        // On an emulated processor thousands of connections take long: the bound holds for each.
        let (mut last, mut served) = (Instant::now(), 0);
        while served < count {
            assert!(last.elapsed() < LONG, "{served} of {count} served: {}", acceptor.counters());
            for _ in 0..self.wait(Duration::from_millis(5)) {
                let more = acceptor.drain(|connection| serve(&connection)).unwrap();
                if more > 0 {
                    (last, served) = (Instant::now(), served + more);
                }
            }
        }
        assert_eq!(served, count);
    }

    /// Serves this number of connections and returns them.
    pub(crate) fn take<A: Acceptor<Stream: AsFd>>(
        &mut self,
        acceptor: &mut A,
        count: usize,
    ) -> Vec<Connection<A::Stream, A::Permit>> {
        let mut kept = Vec::new();
        let begin = Instant::now();
        while kept.len() < count {
            assert!(begin.elapsed() < LONG, "{} of {count} served: {}", kept.len(), acceptor.counters());
            for _ in 0..self.wait(Duration::from_millis(5)) {
                for connection in acceptor.ready() {
                    let connection = connection.unwrap();
                    serve(&connection);
                    kept.push(connection);
                }
            }
        }
        kept
    }

    /// Runs a pass for each event until no event is due, and asserts that this ends: a blocked acceptor is not woken.
    pub(crate) fn settle(&mut self, acceptor: &mut impl Acceptor) {
        for _ in 0..100 {
            // Whatever is due is due at once: wakeups, levels and edges precede this call.
            let due = self.wait(Duration::from_millis(1));
            if due == 0 {
                return;
            }
            for _ in 0..due {
                assert_eq!(acceptor.drain(drop).unwrap(), 0, "a connection was left");
            }
        }
        panic!("the events do not end: {}", acceptor.counters());
    }

    /// Runs passes until the acceptor reports that its listener is closed.
    pub(crate) fn until_closed(
        &mut self,
        acceptor: &mut impl Acceptor<Stream: AsFd>,
    ) -> (usize, ListenerClosed) {
        let begin = Instant::now();
        let mut served = 0;
        loop {
            assert!(begin.elapsed() < LONG, "not reported: {:?} {}", acceptor.state(), acceptor.counters());
            for _ in 0..self.wait(Duration::from_millis(5)) {
                for connection in acceptor.ready() {
                    match connection {
                        Ok(connection) => serve(&connection),
                        Err(closed) => return (served, closed),
                    }
                    served += 1;
                }
            }
        }
    }

    /// Returns the registrations of the epoll: descriptor and mask.
    pub(crate) fn registrations(&self) -> Vec<(i32, u32)> {
        registrations(&self.epoll)
    }
}

/// A listener of any kind; its streams are descriptors.
#[derive(Debug)]
pub(crate) struct AnySocket<T>(pub(crate) T);

impl<T: AsFd> AsFd for AnySocket<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd + Send + Sync> Listener for AnySocket<T> {
    type Stream = OwnedFd;
}

/// An acceptor on a listener of any kind.
pub(crate) type Any<F = ()> = EpollAcceptor<AnySocket<Socket>, F>;

pub(crate) fn accept_on(owner: &Owner, socket: Socket, trigger: Trigger, check: Option<EmptyCheck>) -> Any {
    let mut builder = trigger.on(AnySocket(socket));
    if let Some(check) = check {
        builder = builder.empty_check(check);
    }
    builder.register(&owner.epoll, LISTENER).unwrap()
}

pub(crate) fn assert_balanced(acceptor: &impl Acceptor) {
    let counters = acceptor.counters();
    assert!(counters.is_balanced(), "{counters:?}");
}

pub(crate) fn registrations(epoll: &impl AsFd) -> Vec<(i32, u32)> {
    let path = format!("/proc/self/fdinfo/{}", epoll.as_fd().as_raw_fd());
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("tfd:")).then(|| {
            let fd = words.next().unwrap().parse().unwrap();
            assert_eq!(words.next(), Some("events:"));
            (fd, u32::from_str_radix(words.next().unwrap(), 16).unwrap())
        })
    };
    std::fs::read_to_string(path).unwrap().lines().filter_map(parse).collect()
}

/// Returns the number of open descriptors of this process.
pub(crate) fn open_descriptors() -> usize {
    // Excludes the descriptor of the directory.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Returns a name that no other test uses, in this or another process.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("epoll-acceptor-acc-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Returns whether the processor is emulated, as in the guests of .ci/kernels: slow, and its threads far apart.
pub(crate) fn is_emulated() -> bool {
    env::var_os("EPOLL_ACCEPTOR_QUICK").is_some()
}

/// Polls a condition until it is true.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "{what}: not after {LONG:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs the test in a child process and propagates its failure. Returns `true` in the parent, `false` in the child.
pub(crate) fn done_in_child(test: &str) -> bool {
    if env::var_os(CHILD).is_some_and(|name| name == test) {
        return false;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, test);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the child failed: {}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "no such test: {test}\n{out}");
    true
}

const CHILD: &str = "EPOLL_ACCEPTOR_TEST_CHILD";

/// Leaves the process no free descriptor until it is dropped. For child processes: the limit belongs to the process.
pub(crate) struct NoDescriptors {
    soft: u64,
    hard: u64,
}

impl NoDescriptors {
    pub(crate) fn now() -> Self {
        Self::all_but(0)
    }

    /// Allows the process no descriptor at all, so that poll(2) of one fails as well (EINVAL).
    pub(crate) fn not_even_poll() -> Self {
        let (soft, hard) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        set_limit(0, hard);
        Self { soft, hard }
    }

    /// Leaves this number of free descriptors.
    pub(crate) fn all_but(left: u64) -> Self {
        Self::try_all_but(left).unwrap()
    }

    /// Returns `None` if no descriptor is free already.
    pub(crate) fn try_now() -> Option<Self> {
        Self::try_all_but(0).ok()
    }

    fn try_all_but(left: u64) -> io::Result<Self> {
        let (soft, hard) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        // Takes the lowest free numbers; those below the highest of them stay free.
        let spare: io::Result<Vec<OwnedFd>> =
            (0..=left).map(|_| io::stdin().as_fd().try_clone_to_owned()).collect();
        let limit = u64::try_from(spare?.iter().map(AsRawFd::as_raw_fd).max().unwrap()).unwrap();
        set_limit(limit, hard);
        Ok(Self { soft, hard })
    }
}

impl Drop for NoDescriptors {
    fn drop(&mut self) {
        set_limit(self.soft, self.hard);
    }
}

fn set_limit(soft: u64, hard: u64) {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}
