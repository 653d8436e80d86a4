//! Words for the tests: listeners of every kind, clients that know whether they were served, an owner that
//! begins a pass for an event and for nothing else, children that run one test.
#![allow(unsafe_code)]

use std::env;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use epoll_acceptor::{
    Acceptor, AnyListener, Connection, EmptyCheck, Epoll, Events, ListenerClosed, Token, Trigger,
};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// More than any of these tests takes, even on a machine that is busy with others.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// Long enough to see that nothing comes.
pub(crate) const SHORT: Duration = Duration::from_millis(30);
/// What every acceptor of these tests is registered under.
pub(crate) const LISTENER: Token = Token(7);
/// What a served client reads.
pub(crate) const HELLO: &[u8] = b"served";

pub(crate) const TRIGGERS: [Trigger; 3] = [Trigger::Level, Trigger::Edge, Trigger::Exclusive];
/// The default, and each by name.
pub(crate) const PROOFS: [Option<EmptyCheck>; 4] =
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

/// Where to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Door {
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

    fn try_listen(self) -> io::Result<(Socket, Door)> {
        let socket = self.socket()?;
        socket.bind(&self.any_address())?;
        socket.listen(4096)?;
        let address = socket.local_addr()?;
        Ok((socket, Door { kind: self, address }))
    }

    /// A listener of a kind that every Linux has.
    pub(crate) fn listen(self) -> (Socket, Door) {
        self.try_listen().unwrap()
    }

    pub(crate) fn is_unix(self) -> bool {
        matches!(self, Self::UnixStream | Self::UnixSeqpacket)
    }
}

/// A listener of every kind that this kernel has; says which are skipped.
pub(crate) fn listeners() -> impl Iterator<Item = (Socket, Door)> {
    KINDS
        .into_iter()
        .filter_map(|kind| kind.try_listen().inspect_err(|error| eprintln!("skipped {kind:?}: {error}")).ok())
}

impl Door {
    pub(crate) fn connect(&self) -> Client {
        let socket = self.kind.socket().unwrap();
        socket.connect(&self.address).unwrap();
        Client(socket)
    }

    pub(crate) fn connect_many(&self, count: usize) -> Vec<Client> {
        (0..count).map(|_| self.connect()).collect()
    }
}

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Client(pub(crate) Socket);

/// What a client finds when it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Served,
    End,
    Reset,
    /// Nothing yet.
    Nothing,
}

impl Client {
    /// Reads once, waiting no longer than this.
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
                _ => panic!("a client could not read: {error}"),
            },
        }
    }

    pub(crate) fn assert_served(&self) {
        assert_eq!(self.read_within(LONG), Read::Served);
    }

    pub(crate) fn assert_waits(&self) {
        assert_eq!(self.read_within(Duration::from_millis(1)), Read::Nothing);
    }

    /// Quits by a reset, which leaves no TIME_WAIT behind.
    pub(crate) fn reset(self) {
        self.0.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

pub(crate) fn assert_all_served(clients: &[Client]) {
    for client in clients {
        client.assert_served();
    }
}

/// Serves a connection whose client may have gone already.
pub(crate) fn serve(connection: &impl AsFd) {
    let _ = SockRef::from(connection).send_with_flags(HELLO, libc::MSG_NOSIGNAL);
}

/// An owner: waits on one epoll, and begins a pass for every event of the acceptor. Never for anything else.
pub(crate) struct Owner {
    pub(crate) epoll: Epoll,
    pub(crate) events: Events,
    /// Waits that returned an event.
    pub(crate) wakes: u64,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self { epoll: Epoll::new().unwrap(), events: Events::with_capacity(64).unwrap(), wakes: 0 }
    }

    /// Waits once; how many events of the acceptor there are to answer.
    pub(crate) fn wait(&mut self, bound: Duration) -> usize {
        self.epoll.wait(&mut self.events, Some(bound)).unwrap();
        let due = (&mut self.events).filter(|event| event.token() == LISTENER).count();
        self.wakes += u64::from(due > 0);
        due
    }

    /// Waits and begins passes until it is done. Fails if the kernel stays silent for too long, or says the
    /// same for ever.
    pub(crate) fn until(&mut self, what: &str, mut pass: impl FnMut(), mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < LONG, "{what}: not after {LONG:?}, in {} wakes", self.wakes);
            for _ in 0..self.wait(Duration::from_millis(5)) {
                pass();
            }
        }
    }

    /// Serves until this many have been, and drops them at once. No pass begins without an event.
    pub(crate) fn serve(&mut self, acceptor: &mut impl Acceptor<Stream: AsFd>, count: usize) {
        let begin = Instant::now();
        let mut served = 0;
        while served < count {
            assert!(begin.elapsed() < LONG, "{served} of {count} served: {}", acceptor.counters());
            for _ in 0..self.wait(Duration::from_millis(5)) {
                served += acceptor.drain(|connection| serve(&connection)).unwrap();
            }
        }
        assert_eq!(served, count);
    }

    /// Serves this many, and keeps them.
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

    /// Answers what is due until nothing is, and asserts that this ends: whoever sleeps is not woken.
    pub(crate) fn settle(&mut self, acceptor: &mut impl Acceptor) {
        for _ in 0..100 {
            // What is due is due at once: rings, levels and edges are there before this call.
            let due = self.wait(Duration::from_millis(1));
            if due == 0 {
                return;
            }
            for _ in 0..due {
                assert_eq!(acceptor.drain(drop).unwrap(), 0, "somebody was left");
            }
        }
        panic!("never at rest: {}", acceptor.counters());
    }

    /// Passes until the listener's death is told.
    pub(crate) fn told(&mut self, acceptor: &mut impl Acceptor<Stream: AsFd>) -> (usize, ListenerClosed) {
        let begin = Instant::now();
        let mut served = 0;
        loop {
            assert!(begin.elapsed() < LONG, "not told: {:?} {}", acceptor.state(), acceptor.counters());
            for _ in 0..self.wait(Duration::from_millis(5)) {
                for connection in acceptor.ready() {
                    match connection {
                        Ok(connection) => serve(&connection),
                        Err(dead) => return (served, dead),
                    }
                    served += 1;
                }
            }
        }
    }

    /// The kernel's list of what the epoll watches: descriptor and mask.
    pub(crate) fn registrations(&self) -> Vec<(i32, u32)> {
        registrations(&self.epoll)
    }
}

/// An acceptor on any listener, the trigger chosen at run time.
pub(crate) type Any = epoll_acceptor::EpollAcceptor<AnyListener<Socket>, Trigger>;

pub(crate) fn accept_on(owner: &Owner, socket: Socket, trigger: Trigger, proof: Option<EmptyCheck>) -> Any {
    let mut builder = trigger.on(AnyListener(socket));
    if let Some(proof) = proof {
        builder = builder.empty_check(proof);
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

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    // The directory's own descriptor is among them.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// A name that no other test uses, in this or another process.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("epoll-acceptor-acc-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Tries again until it is true.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "{what}: not after {LONG:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets the same test run once more, alone in a process of its own, and passes its failure on. `true` in the
/// parent, when all is done.
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

/// Leaves this process no descriptor to open, until the drop. For children only: the limit is the process's.
pub(crate) struct NoDescriptors {
    soft: u64,
    hard: u64,
}

impl NoDescriptors {
    pub(crate) fn now() -> Self {
        Self::all_but(0)
    }

    /// Leaves this many.
    pub(crate) fn all_but(left: u64) -> Self {
        Self::try_all_but(left).unwrap()
    }

    /// `None` if there are none already.
    pub(crate) fn try_now() -> Option<Self> {
        Self::try_all_but(0).ok()
    }

    fn try_all_but(left: u64) -> io::Result<Self> {
        let (soft, hard) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        // The lowest free numbers: those below the last of them are what is left.
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
