//! The bodies of the fuzz targets, which `main.rs` also runs on the committed corpora.

use std::os::fd::AsFd;
use std::time::Duration;

use epoll_acceptor::epoll::ExclusiveInterest;
use epoll_acceptor::sim::{Real, Script, Setup, run};
use epoll_acceptor::socket::PeerAddr;
use epoll_acceptor::{Epoll, Events, Gate, Interest, Token, Trigger};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The greatest length of a script; longer ones only take more time.
const ACTIONS_MAX: usize = 48;

/// Runs a setup and a script on the simulated kernel, with each trigger.
pub(crate) fn script(bytes: &[u8]) {
    let (case, rest) = Setup::from_bytes(bytes);
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        let case = Setup { trigger, ..case.clone() };
        let script = Script::from_bytes(&rest[..rest.len().min(2 * ACTIONS_MAX)], &case);
        if let Err(violation) = run::<Gate>(&case, &script, &Real) {
            panic!("{violation}\nin {case:?}\nafter\n{script}");
        }
    }
}

/// Registers masks and tokens with a real epoll, and checks that waits return them.
pub(crate) fn masks(bytes: &[u8]) {
    let fd = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC).expect("an eventfd");
    for chunk in bytes.chunks_exact(12).take(16) {
        let mask = u32::from_le_bytes(chunk[..4].try_into().expect("four bytes"));
        let token = Token(u64::from_le_bytes(chunk[4..].try_into().expect("eight bytes")));
        let interest = Interest::from_bits_retain(mask);
        assert_eq!(parse(&format!("{interest:?}")), mask, "{interest:?}");
        watch(&fd, token, interest);
    }
}

fn watch(fd: &impl AsFd, token: Token, interest: Interest) {
    let epoll = Epoll::new().expect("an epoll");
    // An eventfd with the value 1 is readable and writable.
    let due = interest & (Interest::IN | Interest::OUT);
    let once = interest.intersects(Interest::ET | Interest::ONESHOT);
    let added = epoll.add(fd, token, interest);
    assert_eq!(added.is_err(), interest.contains(Interest::EXCLUSIVE), "{interest:?}: {added:?}");
    if added.is_ok() {
        assert_eq!(wait(&epoll), event(token, due), "{interest:?}");
        assert_eq!(wait(&epoll), if once { None } else { event(token, due) }, "{interest:?}, second wait");
        epoll.modify(fd, Token(!token.0), interest).expect("it is registered");
        assert_eq!(wait(&epoll), event(Token(!token.0), due), "{interest:?}, modified");
        epoll.delete(fd).expect("it is registered");
    }
    if let Ok(exclusive) = ExclusiveInterest::try_from(interest) {
        epoll.add_exclusive(fd, token, exclusive).expect("a legal mask");
        assert_eq!(wait(&epoll), event(token, due), "{exclusive:?}");
    }
}

fn event(token: Token, due: Interest) -> Option<(Token, Interest)> {
    (!due.is_empty()).then_some((token, due))
}

fn wait(epoll: &Epoll) -> Option<(Token, Interest)> {
    let mut events = Events::with_capacity(4).expect("a buffer for four events");
    epoll.wait(&mut events, Some(Duration::ZERO)).expect("a wait");
    let event = events.next();
    assert!(events.next().is_none(), "one descriptor, one event");
    event.map(|event| (event.token(), event.interest()))
}

/// Parses the `Debug` output of a mask.
fn parse(printed: &str) -> u32 {
    printed.split(" | ").fold(0, |mask, word| {
        let bits = match word.strip_prefix("EPOLL") {
            Some(name) => Interest::from_name(name).expect("a known name").bits(),
            None => u32::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number"),
        };
        assert!(mask & bits == 0, "{printed}: duplicate bit");
        mask | bits
    })
}

/// Decodes a `struct sockaddr` of any family and length, and checks the address against the bytes.
pub(crate) fn peer(bytes: &[u8]) {
    let address = PeerAddr::from_bytes(bytes);
    match &address {
        PeerAddr::V4(v4) => {
            assert_eq!(
                (bytes[2..4].to_vec(), &bytes[4..8]),
                (v4.port().to_be_bytes().to_vec(), &v4.ip().octets()[..])
            );
        }
        PeerAddr::V6(v6) => {
            assert_eq!((&bytes[2..4], &bytes[8..24]), (&v6.port().to_be_bytes()[..], &v6.ip().octets()[..]));
        }
        PeerAddr::Other { bytes: kept, .. } => assert_eq!(kept, bytes),
        _ => {}
    }
    let once = address.clone().canonical();
    assert_eq!(format!("{:?}", once.clone().canonical()), format!("{once:?}"), "canonical is not idempotent");
    assert_eq!(once.ip(), address.ip().map(|ip| ip.to_canonical()));
}
