//! What only the real kernel shows: unknown bits, and what a child process inherits.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd};

use epoll_acceptor::{Acceptor as _, Epoll, Events, Interest, LevelTriggered, Token};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use crate::search::Mutant;

pub(crate) fn mutants() -> Vec<Mutant> {
    vec![
        Mutant::of_part::<UnwrapsBits>(
            &["M44"],
            "accepts unknown bits",
            || survives_any_bits(|bits| Interest::from_bits_retain(bits).bits() == bits),
            || survives_any_bits(UnwrapsBits::reads),
        ),
        Mutant::of_part::<PlainDup>(
            &["M46"],
            "close-on-exec",
            || closed_on_exec(&Epoll::new().unwrap().try_clone().unwrap()),
            || closed_on_exec(&nix::unistd::dup(Epoll::new().unwrap().as_fd()).unwrap()),
        ),
        Mutant::of_part::<PlainAccept>(
            &["M47"],
            "close-on-exec",
            || accepted_by_the_crate().iter().try_for_each(flagged),
            || flagged(&PlainAccept::accept()),
        ),
    ]
}

/// Unwraps the bits that the manual page names.
struct UnwrapsBits;

impl UnwrapsBits {
    fn reads(bits: u32) -> bool {
        const KNOWN: u32 = 0xf000_27df;
        (bits & !KNOWN == 0).then_some(bits).is_some()
    }
}

fn survives_any_bits(reads: impl Fn(u32) -> bool) -> Result<(), String> {
    match (0..32).map(|bit| 1 << bit).find(|bits| !reads(*bits)) {
        None => Ok(()),
        Some(bits) => Err(format!("event {bits:#x}")),
    }
}

/// Duplicates by dup(2), which clears the flag.
struct PlainDup;

fn closed_on_exec(fd: &impl AsFd) -> Result<(), String> {
    let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
    if flags.contains(FdFlag::FD_CLOEXEC) { Ok(()) } else { Err("duplicated, exec: still open".into()) }
}

/// Accepts by accept(2), which sets neither flag.
struct PlainAccept;

impl PlainAccept {
    #[allow(unsafe_code)]
    fn accept() -> OwnedFd {
        let (listener, _client) = connected();
        let fd = nix::sys::socket::accept(std::os::fd::AsRawFd::as_raw_fd(&listener)).unwrap();
        // SAFETY: accept(2), "RETURN VALUE": a new descriptor, which nothing else owns.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }
}

fn accepted_by_the_crate() -> Option<impl AsFd> {
    let epoll = Epoll::new().unwrap();
    let (listener, _client) = connected();
    let mut acceptor = LevelTriggered::on(listener).register(&epoll, Token(0)).unwrap();
    epoll.wait(&mut Events::with_capacity(8).unwrap(), None).unwrap();
    acceptor.ready().next().map(Result::unwrap)
}

fn connected() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, client)
}

fn flagged(fd: &impl AsFd) -> Result<(), String> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
    match flags.contains(OFlag::O_NONBLOCK) {
        true => closed_on_exec(fd),
        false => Err("accepted: blocking, and open after exec".into()),
    }
}
