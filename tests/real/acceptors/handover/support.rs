//! Test helpers: listeners of every kind, their clients, and tests that run in a process of their own.

use std::env;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A timeout that no passing test reaches, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Opens a listener of every kind that the kernel supports, with a name; prints the skipped ones.
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

/// Connects a client, with a read timeout, and leaves it in the accept queue.
pub(crate) fn client_of(listener: &Socket) -> Socket {
    let client = Socket::new(listener.domain().unwrap(), listener.r#type().unwrap(), None).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    client
}

/// Returns the text that a client receives, up to the end of the stream or in one packet.
pub(crate) fn received_text(client: &Socket) -> String {
    if client.r#type().unwrap() == Type::SEQPACKET {
        let mut buffer = [MaybeUninit::uninit(); 64];
        let length = client.recv(&mut buffer).unwrap();
        #[allow(unsafe_code, reason = "reads the bytes that recv(2) wrote")]
        // SAFETY: recv(2) returns the number of bytes that it wrote to the buffer.
        return buffer[..length].iter().map(|byte| char::from(unsafe { byte.assume_init() })).collect();
    }
    let mut text = String::new();
    (&*client).read_to_string(&mut text).unwrap();
    text
}

pub(crate) fn is_close_on_exec(fd: &impl AsFd) -> bool {
    FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap()).contains(FdFlag::FD_CLOEXEC)
}

/// Returns the number of open descriptors of this process.
pub(crate) fn open_descriptors() -> usize {
    // Excludes the descriptor of the directory.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Returns a name that no other test uses, in this or another process.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("epoll-acceptor-hand-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Returns a command that runs one test of this binary.
pub(crate) fn one_test(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Returns the role of a test that [`one_test`] started.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Runs the test in a process of its own. Returns `true` in the parent after it has passed, `false` in the child.
pub(crate) fn done_alone(test: &str) -> bool {
    if role().is_some() {
        return false;
    }
    let status = one_test(test, "alone").status().unwrap();
    assert!(status.success(), "{test}, alone in a process: {status}");
    true
}

pub(crate) const ROLE: &str = "EPOLL_ACCEPTOR_HANDOVER_ROLE";
