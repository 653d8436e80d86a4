//! Accept throughput on real sockets, connections per second: `cargo bench -p benches --bench throughput`.
//!
//! A number: that many connections are queued; then one thread wakes, accepts them all, and is ready to wait again. Only
//! this is timed, not the connects and closes. `storm`: a second thread connects as fast as it can. `one-at-a-time`: a
//! second thread connects when its last connection was accepted and closed, so that the acceptor blocks in between.
//!
//! Each row asserts that all were accepted. Row names are paths: family, trigger, gate, burst. Plots are under
//! `target/criterion`. criterion's comparison with the last run is meaningless on a shared machine; compare rows of one
//! run, or use the bench `pairs`, which is made for that.

mod engines;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use epoll_acceptor::socket::Listener;
use epoll_acceptor::{Acceptor, Builder, Epoll, Events, Gate, Token};

use engines::{Engine, Ours, TRIGGERS, net};

const BURSTS: [usize; 5] = [1, 4, 32, 512, 4096];

/// A family of sockets.
trait Family: Listener + 'static {
    const NAME: &'static str;
    type Address: Send + 'static;
    type Client: AsFd + Read;

    fn listen() -> Self;
    fn address(&self) -> Self::Address;
    fn connect(address: &Self::Address) -> Self::Client;
}

impl Family for TcpListener {
    const NAME: &'static str = "tcp";
    type Address = SocketAddr;
    type Client = TcpStream;

    fn listen() -> Self {
        net::listen()
    }

    fn address(&self) -> SocketAddr {
        self.local_addr().expect("an address")
    }

    fn connect(address: &SocketAddr) -> TcpStream {
        net::connect(address)
    }
}

impl Family for UnixListener {
    const NAME: &'static str = "unix";
    type Address = std::os::unix::net::SocketAddr;
    type Client = UnixStream;

    fn listen() -> Self {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("epoll-acceptor-bench-{}-{:?}", std::process::id(), Instant::now());
        let address = Self::Address::from_abstract_name(name).expect("a name");
        let listener = Self::bind_addr(&address).expect("a listener");
        net::deepen(&listener);
        listener
    }

    fn address(&self) -> Self::Address {
        self.local_addr().expect("an address")
    }

    fn connect(address: &Self::Address) -> UnixStream {
        UnixStream::connect_addr(address).expect("a connection")
    }
}

/// Returns the time to accept `burst` queued connections, over `n` rounds.
fn rounds<L: Family, G: Into<Option<Gate>>>(builder: Builder<L, (), G>, burst: usize, n: u64) -> Duration {
    let mut ours = Ours::new(builder, burst);
    let address = ours.acceptor.listener().address();
    let mut clients = Vec::with_capacity(burst);
    let mut spent = Duration::ZERO;
    for _ in 0..n {
        clients.extend((0..burst).map(|_| L::connect(&address)));
        let start = Instant::now();
        ours.take(burst);
        spent += start.elapsed();
        assert_eq!(ours.served.len(), burst, "all were accepted");
        clients.clear();
        ours.close();
    }
    spent
}

/// Returns the time to accept `n` connections that a second thread makes, one after the other.
fn stream<L: Family, G: Into<Option<Gate>>>(
    builder: Builder<L, (), G>,
    client: fn(L::Client),
    n: u64,
) -> Duration {
    let epoll = Epoll::new().expect("an epoll");
    let mut acceptor = builder.register(&epoll, Token(0)).expect("a registration");
    let address = acceptor.listener().address();
    let clients = thread::spawn(move || (0..n).for_each(|_| client(L::connect(&address))));
    let mut events = Events::with_capacity(8).expect("a buffer");
    let mut taken = 0;
    let start = Instant::now();
    while taken < n {
        epoll.wait(&mut events, None).expect("a wait");
        for _ in &mut events {
            taken += acceptor.drain(drop).expect("a listener that listens") as u64;
        }
    }
    let spent = start.elapsed();
    clients.join().expect("the clients end");
    assert_eq!(taken, n, "all were accepted");
    spent
}

fn close_at_once<C>(client: C) {
    drop(client);
}

/// Waits until the server has closed the connection.
fn await_close<C: Read>(mut client: C) {
    let read = client.read(&mut [0; 1]);
    assert!(!matches!(read, Ok(1)), "the server sends nothing");
}

fn rows<L: Family, G: Into<Option<Gate>>>(
    criterion: &mut Criterion,
    name: &str,
    builder: impl Fn() -> Builder<L, (), G>,
) {
    let most = most_descriptors();
    let mut group = criterion.benchmark_group(name);
    for burst in BURSTS.into_iter().filter(|burst| 2 * burst < most) {
        group.throughput(Throughput::Elements(burst as u64));
        group.bench_function(BenchmarkId::from_parameter(burst), |bencher| {
            bencher.iter_custom(|n| rounds(builder(), burst, n));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("storm", |bencher| bencher.iter_custom(|n| stream(builder(), close_at_once, n)));
    group.bench_function("one-at-a-time", |bencher| {
        bencher.iter_custom(|n| stream(builder(), await_close, n));
    });
    group.finish();
}

/// Each connection of a burst takes two descriptors; some are needed for other things.
fn most_descriptors() -> usize {
    let (soft, _) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    usize::try_from(soft).unwrap_or(usize::MAX).saturating_sub(64)
}

/// Every row of a family of sockets: with each trigger, without a gate and with one.
fn family<L: Family>(criterion: &mut Criterion) {
    let gate = Gate::new(1_000_000);
    for trigger in TRIGGERS {
        rows(criterion, &format!("{}/{trigger}/ungated", L::NAME), || trigger.on(L::listen()));
        rows(criterion, &format!("{}/{trigger}/gated", L::NAME), || trigger.on(L::listen()).gate(&gate));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = family::<TcpListener>, family::<UnixListener>
}
criterion_main!(benches);
