//! The receiver of a hand-over, fed with arbitrary bytes, descriptors and other control messages.
//!
//! The first byte has the options of the receiving socket. Then each message: how many descriptors of which kinds, how
//! many bytes, the bytes.
#![no_main]

use std::fs::{File, read_dir};
use std::io::IoSlice;
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;

use epoll_acceptor::handover::{self, Received};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

/// More than the kernel takes in one message.
const FDS_MAX: usize = 254;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let kinds = kinds();
    let before = open_descriptors();
    let (old, new) = UnixStream::pair().expect("a pair");
    let (options, mut rest) = bytes.split_first().map_or((0, bytes), |(options, rest)| (*options, rest));
    if options & 1 != 0 {
        setsockopt(&new, sockopt::PassCred, &true).expect("SO_PASSCRED");
    }
    if options & 2 != 0 {
        setsockopt(&new, sockopt::ReceiveTimestamp, &true).expect("SO_TIMESTAMP");
    }
    while let [fds, length, after @ ..] = rest {
        let (payload, after) = after.split_at(after.len().min(usize::from(*length)));
        send(&old, kinds, usize::from(*fds), payload);
        rest = after;
    }
    old.shutdown(Shutdown::Write).expect("a shutdown");
    // Ends: each message takes at least a byte, and after the last the stream is at its end.
    while let Ok(listeners) = handover::receive(&new) {
        let count = listeners.len();
        assert_eq!(listeners.names().count(), count);
        for (_, received) in listeners {
            assert!(is_close_on_exec(received));
        }
    }
    drop((old, new));
    assert_eq!(open_descriptors(), before, "a descriptor leaks");
});

fn send(stream: &UnixStream, kinds: &[OwnedFd], fds: usize, payload: &[u8]) {
    let count = if fds >= 250 { FDS_MAX - (fds - 250) } else { fds % 8 };
    let fds: Vec<RawFd> = (0..count).map(|n| kinds[(fds + n) % kinds.len()].as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let messages = if fds.is_empty() { &[][..] } else { &rights };
    // The kernel refuses some; that is no matter of the receiver.
    let _ = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(payload)], messages, MsgFlags::MSG_DONTWAIT, None);
}

/// What may be sent: three that listen, and three that do not.
fn kinds() -> &'static [OwnedFd] {
    static KINDS: OnceLock<Vec<OwnedFd>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("fuzz-handover-{}", std::process::id()));
        let unix = UnixListener::bind(&path).expect("a Unix listener");
        std::fs::remove_file(path).expect("it is there");
        vec![
            TcpListener::bind("127.0.0.1:0").expect("a listener").into(),
            unix.into(),
            TcpListener::bind("127.0.0.1:0").expect("a listener").into(),
            UdpSocket::bind("127.0.0.1:0").expect("a socket").into(),
            File::open("/dev/null").expect("a file").into(),
            UnixStream::pair().expect("a pair").0.into(),
        ]
    })
}

fn is_close_on_exec(received: Received) -> bool {
    let fd: OwnedFd = match received {
        Received::Tcp(listener) => listener.into(),
        Received::Unix(listener) => listener.into(),
        Received::Other(fd) | Received::NotListening(fd) => fd,
        other => panic!("a kind that this target does not know: {other}"),
    };
    let flags = fcntl(&fd, FcntlArg::F_GETFD).expect("an open descriptor");
    FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC)
}

fn open_descriptors() -> usize {
    read_dir("/proc/self/fd").expect("procfs").count()
}
