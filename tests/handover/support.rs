//! Words for the tests: listeners of every kind, their clients, and tests that run alone in a process of their own.

use std::env;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// More than any of these tests takes, even on a machine that is busy with others.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A listener of every kind that this kernel has, and what it is called; says which are skipped.
pub(crate) fn listeners() -> Vec<(&'static str, Socket)> {
    let ip = |text: &str| SockAddr::from(text.parse::<std::net::SocketAddr>().unwrap());
    let unix = || SockAddr::unix(format!("\0{}", unique_name())).unwrap();
    let kinds = [
        ("tcp4", Domain::IPV4, Type::STREAM, None, ip("127.0.0.1:0")),
        ("tcp6", Domain::IPV6, Type::STREAM, None, ip("[::1]:0")),
        ("mptcp", Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP), ip("127.0.0.1:0")),
        ("unix", Domain::UNIX, Type::STREAM, None, unix()),
        ("seqpacket", Domain::UNIX, Type::SEQPACKET, None, unix()),
    ];
    let listen = |(name, domain, kind, protocol, address): (_, _, _, _, SockAddr)| {
        let listener = Socket::new(domain, kind, protocol)?;
        listener.bind(&address)?;
        listener.listen(128)?;
        Ok::<_, io::Error>((name, listener))
    };
    kinds
        .into_iter()
        .filter_map(|kind| {
            listen(kind.clone()).inspect_err(|error| eprintln!("SKIPPED {}: {error}", kind.0)).ok()
        })
        .collect()
}

/// A client of this listener, connected and queued, with a bound on its waiting.
pub(crate) fn client_of(listener: &Socket) -> Socket {
    let client = Socket::new(listener.domain().unwrap(), listener.r#type().unwrap(), None).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    client
}

/// What a client hears, until the end or in one packet.
pub(crate) fn heard(client: &Socket) -> String {
    if client.r#type().unwrap() == Type::SEQPACKET {
        let mut buffer = [MaybeUninit::uninit(); 64];
        let length = client.recv(&mut buffer).unwrap();
        #[allow(unsafe_code, reason = "recv(2) has written so many bytes")]
        // SAFETY: as said.
        return buffer[..length].iter().map(|byte| char::from(unsafe { byte.assume_init() })).collect();
    }
    let mut text = String::new();
    (&*client).read_to_string(&mut text).unwrap();
    text
}

pub(crate) fn is_close_on_exec(fd: &impl AsFd) -> bool {
    FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap()).contains(FdFlag::FD_CLOEXEC)
}

/// How many descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    // The directory's own descriptor is among them.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// A name that no other test uses, in this or another process.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("epoll-acceptor-hand-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// This test binary, to run one of its tests alone.
pub(crate) fn one_test(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What a test that was started by [`one_test`] is to play.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Lets the same test run once more, alone in a process of its own. `true` in the parent, when that has passed.
pub(crate) fn done_alone(test: &str) -> bool {
    if role().is_some() {
        return false;
    }
    let status = one_test(test, "alone").status().unwrap();
    assert!(status.success(), "{test}, alone in a process: {status}");
    true
}

const ROLE: &str = "EPOLL_ACCEPTOR_HANDOVER_ROLE";
