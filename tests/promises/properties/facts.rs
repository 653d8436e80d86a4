//! The tables and the printed forms of the pure layers, which no promise covers: facts, one by one.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use epoll_acceptor::filter::TestConnection;
use epoll_acceptor::sim::{Notifier, Wake};
use epoll_acceptor::socket::{Errno, ErrnoClass};
use epoll_acceptor::{
    Acceptor, Builder, Connection, Counters, EdgeTriggered, Epoll, Events, Exclusive, Gate, LevelTriggered,
    ListenerClosed, PeerLimit, QueueDelay, RateLimit, Refusal, State, Token, Trigger, filter_fn,
};

#[test]
fn errnos_of_accept_have_their_class() {
    let table: &[(ErrnoClass, &[i32])] = &[
        (
            ErrnoClass::Consumed,
            &[
                libc::ECONNABORTED,
                libc::EPROTO,
                libc::ENETDOWN,
                libc::ENOPROTOOPT,
                libc::EHOSTDOWN,
                libc::ENONET,
                libc::EHOSTUNREACH,
                libc::ENETUNREACH,
                libc::ETIMEDOUT,
            ],
        ),
        (ErrnoClass::Empty, &[libc::EAGAIN]),
        (ErrnoClass::Interrupted, &[libc::EINTR]),
        (ErrnoClass::Resource, &[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EPERM, 4095]),
        (ErrnoClass::Fatal, &[libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP]),
    ];
    for (class, numbers) in table {
        for number in *numbers {
            assert_eq!(Errno::new(*number).class(), *class, "{:?}", Errno::new(*number));
        }
    }
}

#[test]
fn errno_prints_its_kernel_name() {
    assert_eq!(format!("{:?}", Errno::new(libc::EMFILE)), "EMFILE");
    assert_eq!(format!("{:?}", Errno::new(libc::EPERM)), "EPERM");
    assert_eq!(format!("{:?}", Errno::new(4095)), "Errno(4095)");
    let io_error = std::io::Error::from(Errno::new(libc::EMFILE));
    assert_eq!(io_error.raw_os_error(), Some(libc::EMFILE));
    assert_eq!(Errno::new(libc::EMFILE).to_string(), format!("EMFILE: {io_error}"));
    assert_eq!(Errno::new(libc::EMFILE).number(), libc::EMFILE);
}

#[test]
fn counters_balance_by_outcome_and_by_cause() {
    let mut counters = Counters::default();
    assert!(counters.is_balanced());
    counters.attempts = 28;
    (counters.delivered, counters.refused, counters.aborted, counters.interrupted) = (1, 2, 3, 4);
    (counters.empty, counters.exhausted, counters.fatal) = (5, 6, 7);
    counters.exhausted_other = 6;
    assert!(!counters.is_balanced(), "two refusals without a cause");
    (counters.refused_rate, counters.refused_filter) = (1, 1);
    assert!(counters.is_balanced());
    counters.attempts = 29;
    assert!(!counters.is_balanced());
    counters = Counters::default();
    counters.attempts = 45;
    counters.refused = 45;
    (counters.refused_full, counters.refused_peer, counters.refused_rate) = (1, 2, 3);
    (counters.refused_delay, counters.refused_credentials, counters.refused_out_of_descriptors) = (4, 5, 6);
    (counters.refused_filter, counters.refused_shutdown, counters.refused_network) = (7, 8, 9);
    assert!(counters.is_balanced());
    counters.refused_delay = 5;
    assert!(!counters.is_balanced());
    counters = Counters::default();
    (counters.attempts, counters.exhausted) = (10, 10);
    assert!(!counters.is_balanced(), "ten without an errno");
    (counters.exhausted_process_descriptors, counters.exhausted_system_descriptors) = (1, 2);
    (counters.exhausted_memory, counters.exhausted_other) = (3, 4);
    assert!(counters.is_balanced());
    counters.exhausted_memory = 4;
    assert!(!counters.is_balanced());
}

#[test]
fn counters_print_those_that_are_not_zero() {
    let mut counters = Counters::default();
    assert_eq!(counters.to_string(), "delivered 0, per pass []");
    (counters.attempts, counters.delivered, counters.empty) = (3, 2, 1);
    assert_eq!(counters.to_string(), "attempts 3, delivered 2, empty 1, per pass []");
}

#[test]
fn triggers_register_with_their_flags() {
    const EDGE_AND_EXCLUSIVE: u32 = (libc::EPOLLET | libc::EPOLLEXCLUSIVE).cast_unsigned();
    let named = [
        (mask(LevelTriggered::on(listener())), Trigger::Level, 0),
        (mask(EdgeTriggered::on(listener())), Trigger::Edge, libc::EPOLLET),
        (mask(Exclusive::on(listener())), Trigger::Exclusive, libc::EPOLLEXCLUSIVE),
    ];
    for (mask_of_type, trigger, flag) in named {
        assert_eq!(mask_of_type & EDGE_AND_EXCLUSIVE, flag.cast_unsigned(), "{trigger}");
        assert_eq!(mask(trigger.on(listener())), mask_of_type, "{trigger}");
        assert_eq!(trigger.to_string().parse(), Ok(trigger));
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// The event mask of the registration.
fn mask(builder: Builder<TcpListener>) -> u32 {
    let epoll = Epoll::new().unwrap();
    let acceptor = builder.register(&epoll, Token(1)).unwrap();
    let registrations =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", epoll.as_fd().as_raw_fd())).unwrap();
    let listener = acceptor.listener().as_raw_fd().to_string();
    let of_listener = registrations.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "tfd:" && words.next()? == listener).then(|| words.nth(1))?
    });
    u32::from_str_radix(of_listener.expect("it is registered"), 16).unwrap()
}

#[test]
fn states_print_their_names() {
    let named = [
        (State::Listening, "listening", false),
        (State::Throttled, "throttled", false),
        (State::Exhausted, "exhausted", false),
        (State::Full, "full", false),
        (State::Paused, "paused", false),
        (State::Stopped, "stopped", true),
        (State::Closed, "closed", true),
    ];
    for (state, name, terminal) in named {
        assert_eq!((state.to_string().as_str(), state.is_terminal()), (name, terminal));
    }
}

#[test]
fn handles_print_their_contents() {
    let epoll = Epoll::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = Gate::new(2);
    let acceptor = LevelTriggered::on(listener).gate(&gate).register(&epoll, Token(1)).unwrap();
    assert_eq!(format!("{:?}", acceptor.control()), "Control { state: Listening, .. }");
    assert_eq!(format!("{:?}", acceptor.control().pause()), "PauseGuard");
    let permit = gate.try_acquire().unwrap();
    assert_eq!(format!("{permit:?}"), "Permit { .. }");
    assert_eq!(format!("{gate:?}"), "Gate { in_use: 1, limit: 2, when_full: Wait, .. }");
    assert_eq!(format!("{:?}", Connection::new("stream", permit)), "Connection { stream: \"stream\", .. }");
    let notifier = Notifier::new(Box::new(Silent));
    notifier.pause();
    let requests = "Requests { notified: true, woken: true, paused: true, stop: false, shutdown: false }";
    assert_eq!(format!("{notifier:?}"), format!("Notifier {{ requests: {requests}, .. }}"));
}

#[test]
fn filters_print_their_rules() {
    let gate = Gate::new(2);
    let peers = PeerLimit::new(3);
    let connection = TestConnection::default();
    let texts = [
        (format!("{:?}", gate.acquire()), "Acquire { gate: Gate { in_use: 0, limit: 2,"),
        (format!("{:?}", gate.idle()), "Idle { gate: Gate { in_use: 0, limit: 2,"),
        (format!("{:?}", RateLimit::per_second(4)), "RateLimit { per_second: 4, when_exceeded: Wait, .. }"),
        (
            format!("{:?}", QueueDelay::new(Duration::from_millis(50))),
            "QueueDelay { rules: Rules { target: 50ms,",
        ),
        (format!("{peers:?}"), "PeerLimit { limit: 3, rules: Rules { v4_prefix: 32, v6_prefix: 64,"),
        (format!("{:?}", peers.try_acquire([127, 0, 0, 1].into())), "Some(PeerPermit(Some(V4("),
        (format!("{:?}", filter_fn(|_| Ok(()))), "FilterFn"),
        (format!("{:?}", connection.info()), "ConnectionInfo { fd: None, .. }"),
        (format!("{:?}", Refusal::message("busy")), "Message(\"busy\")"),
    ];
    for (text, begin) in texts {
        assert!(text.starts_with(begin), "{text}");
    }
}

#[test]
fn connection_passes_on_reads_and_writes() {
    let mut connection = Connection::new(Numbered, ());
    assert_eq!(connection.read(&mut [0]).ok(), Some(11));
    assert_eq!(connection.read_vectored(&mut []).ok(), Some(12));
    assert_eq!(connection.write(&[0]).ok(), Some(13));
    assert_eq!(connection.write_vectored(&[]).ok(), Some(14));
    assert_eq!(connection.flush().map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
}

/// Answers each call with a number of its own.
struct Numbered;

impl Read for Numbered {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(11)
    }

    fn read_vectored(&mut self, _: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(12)
    }
}

impl Write for Numbered {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Ok(13)
    }

    fn write_vectored(&mut self, _: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Ok(14)
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

#[test]
fn histogram_counts_passes_by_powers_of_two() {
    let epoll = Epoll::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Gate::new(100);
    let mut acceptor = LevelTriggered::on(listener).gate(&gate).register(&epoll, Token(1)).unwrap();
    let mut events = Events::with_capacity(4).unwrap();
    for burst in [3, 2, 8, 7, 1, 1] {
        let _clients: Vec<_> = (0..burst).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut taken = 0;
        while taken < burst {
            assert_eq!(epoll.wait(&mut events, Some(Duration::from_secs(5))).unwrap().count(), 1);
            events.clear();
            taken += acceptor.drain(drop).unwrap();
        }
    }
    assert_eq!(acceptor.drain(drop), Ok(0), "a pass without an event");
    assert_eq!(acceptor.counters().per_pass.to_string(), "0: 1, 1: 2, 2+: 2, 4+: 1, 8+: 1");
    let buckets: Vec<_> = acceptor.counters().per_pass.iter().collect();
    assert_eq!(&buckets[..6], &[(0, 1), (1, 2), (2, 2), (4, 1), (8, 1), (16, 0)]);
    assert_eq!((buckets.len(), buckets[32].0), (33, 1 << 31));
    acceptor.control().stop();
    assert_eq!(acceptor.ready().count(), 0);
    assert_eq!(acceptor.state(), State::Stopped);
}

#[test]
fn closed_listener_says_why_and_the_remedy() {
    let epoll = Epoll::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener.try_clone().unwrap();
    let mut acceptor = LevelTriggered::on(listener).register(&epoll, Token(1)).unwrap();
    socket2::SockRef::from(&other).shutdown(std::net::Shutdown::Both).unwrap();
    let closed: ListenerClosed = acceptor.drain(drop).unwrap_err();
    assert_eq!(closed.errno(), None, "seen by poll(2), not by an accept");
    let error = io::Error::from(closed);
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert_eq!(error.to_string(), "the listener was shut down or closed: open a new one");
}
