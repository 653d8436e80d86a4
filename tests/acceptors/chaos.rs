//! Everything at once: clients of another process that come, quit and reset at random, while limits, pauses,
//! permits dropped elsewhere, signals and a lack of descriptors come and go. In the end every account
//! balances.
#![allow(unsafe_code)]

use std::env;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{
    Acceptor, AnyListener, Connection, Control, EpollAcceptor, Gate, Permit, State, Trigger,
};
use socket2::{SockAddr, Socket};

use crate::support::{
    Client, Door, Kind, LISTENER, NoDescriptors, Owner, Read, done_in_child, open_descriptors, serve,
};

/// A small generator of numbers, so that a run can be told again by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn seed() -> u64 {
    let given = env::var("EPOLL_ACCEPTOR_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + 1)
}

/// How long the weather lasts.
fn season() -> Duration {
    let thorough = env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some();
    Duration::from_secs(if thorough { 60 } else { 3 })
}

/// Longer than any client has to wait for a service that strands nobody.
const PATIENCE: Duration = Duration::from_secs(60);

// The clients.

const DOOR: &str = "EPOLL_ACCEPTOR_CHAOS_DOOR";

/// No test of its own: what the clients' process runs. A port of TCP, or the name of a Unix socket.
#[test]
fn clients_come_and_go_at_random() {
    let Ok(door) = env::var(DOOR) else { return };
    let door = match door.parse::<u16>() {
        Ok(port) => {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            Door { kind: Kind::Tcp4, address: address.into() }
        }
        Err(_) => Door { kind: Kind::UnixStream, address: SockAddr::unix(format!("\0{door}")).unwrap() },
    };
    let (begin, time) = (Instant::now(), season());
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let door = door.clone();
            thread::spawn(move || {
                let mut dice = Dice(seed() + number * 7919);
                let mut come = 0;
                while begin.elapsed() < time {
                    come += visit(&door, &mut dice);
                }
                come
            })
        })
        .collect();
    let come: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    println!("{come} clients have come");
    assert!(come > 200, "only {come} clients came in {time:?}");
}

/// Some clients at once, each with a way to leave of its own.
fn visit(door: &Door, dice: &mut Dice) -> usize {
    let most = 1 << dice.roll(6);
    let count = 1 + usize::try_from(dice.roll(most)).unwrap();
    let waiting: Vec<Client> =
        door.connect_many(count).into_iter().filter_map(|client| leave(client, dice)).collect();
    for client in waiting {
        assert_eq!(client.read_within(PATIENCE), Read::Served);
        client.reset();
    }
    thread::sleep(Duration::from_micros(dice.roll(2_000)));
    count
}

/// `None` if it did not wait to be served.
fn leave(client: Client, dice: &mut Dice) -> Option<Client> {
    match dice.roll(6) {
        0 => client.reset(),
        1 => drop(client),
        2 => {
            ask(&client);
            client.reset();
        }
        3 => {
            // Fails if it has been served and closed already, as the next one does.
            let _ = client.0.shutdown(std::net::Shutdown::Write);
            return Some(client);
        }
        4 => {
            ask(&client);
            return Some(client);
        }
        _ => return Some(client),
    }
    None
}

fn ask(client: &Client) {
    let _ = client.0.send_with_flags(b"GET /", libc::MSG_NOSIGNAL);
}

fn clients(door: &Door) -> Child {
    let name = match door.address.as_socket() {
        Some(address) => address.port().to_string(),
        None => String::from_utf8(door.address.as_abstract_namespace().unwrap().to_vec()).unwrap(),
    };
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "chaos::clients_come_and_go_at_random", "--nocapture", "--test-threads=1"])
        .env(DOOR, name)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

// The service.

type Served = Connection<std::os::fd::OwnedFd, Permit>;
type Gated = EpollAcceptor<AnyListener<Socket>, Trigger, Gate>;

struct Worker {
    owner: Owner,
    acceptor: Gated,
    dice: Dice,
    give: mpsc::Sender<Served>,
}

impl Worker {
    /// Serves until it is told to go home, and leaves its passes as it likes.
    fn work(mut self, over: &AtomicBool) -> (Owner, Gated) {
        while !over.load(Ordering::Relaxed) {
            for _ in 0..self.owner.wait(Duration::from_millis(20)) {
                self.pass();
            }
        }
        (self.owner, self.acceptor)
    }

    fn pass(&mut self) {
        let after = self.dice.roll(12);
        let mut ready = self.acceptor.ready();
        for _ in 0..after {
            let Some(connection) = ready.next() else { return };
            let connection = connection.unwrap();
            serve(&connection);
            self.give.send(connection).unwrap();
        }
        if after % 2 == 0 {
            std::mem::forget(ready);
        }
    }
}

/// Drops connections a little later, on a thread of its own.
fn close_later(take: mpsc::Receiver<Served>, mut dice: Dice) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok(connection) = take.recv() {
            open.push(connection);
            if dice.roll(4) == 0 {
                thread::sleep(Duration::from_micros(dice.roll(500)));
                open.clear();
            }
            // Whoever waits for a place waits for these: they go when nobody else comes.
            while let Ok(connection) = take.recv_timeout(Duration::from_millis(2)) {
                open.push(connection);
                if open.len() > 3 {
                    drop(open.remove(0));
                }
            }
            open.clear();
        }
    })
}

/// Limits, pauses and want of descriptors come and go for a season; then the sky is clear.
fn weather(gate: &Gate, controls: &[Control], mut dice: Dice, without_descriptors: bool) {
    let begin = Instant::now();
    let mut none = None;
    while begin.elapsed() < season() {
        let control = &controls[usize::try_from(dice.roll(controls.len() as u64)).unwrap()];
        match dice.roll(10) {
            0 => gate.set_limit(0),
            1..4 => gate.set_limit(u32::try_from(1 + dice.roll(8)).unwrap()),
            4 => control.pause(),
            5..8 => controls.iter().for_each(Control::resume),
            8 if without_descriptors && none.is_none() => none = NoDescriptors::try_now(),
            8 => drop(gate.try_acquire()),
            _ => none = None,
        }
        thread::sleep(Duration::from_micros(dice.roll(4_000)));
    }
    drop(none);
    gate.set_limit(8);
    controls.iter().for_each(Control::resume);
}

/// About a thousand signals a second for each of these threads, until it is over.
fn signals(threads: Vec<libc::pthread_t>, over: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    extern "C" fn nothing(_: libc::c_int) {}

    // SAFETY: a handler that does nothing is safe at any moment; without SA_RESTART calls are interrupted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            for thread in &threads {
                // SAFETY: the threads are joined after this one, so that each is alive.
                assert_eq!(unsafe { libc::pthread_kill(*thread, libc::SIGUSR1) }, 0);
            }
            thread::sleep(Duration::from_millis(1));
        }
    })
}

fn chaos(kind: Kind, triggers: [Trigger; 2], with_signals: bool, without_descriptors: bool) {
    let seed = seed();
    println!("seed {seed}");
    let (listener, door) = kind.listen();
    let before = open_descriptors();
    let mut clients = clients(&door);
    let gate = Gate::new(4);
    let over = Arc::new(AtomicBool::new(false));
    let (give, take) = mpsc::channel();
    let closer = close_later(take, Dice(seed + 1));
    let (tell, told) = mpsc::channel();
    let (workers, controls): (Vec<_>, Vec<_>) = triggers
        .into_iter()
        .zip(2..)
        .map(|(trigger, number)| {
            let owner = Owner::new();
            let acceptor = trigger
                .on(AnyListener(listener.try_clone().unwrap()))
                .budget(16)
                .gate(&gate)
                .register(&owner.epoll, LISTENER)
                .unwrap();
            let control = acceptor.control();
            let worker = Worker { owner, acceptor, dice: Dice(seed + number), give: give.clone() };
            let (over, tell) = (Arc::clone(&over), tell.clone());
            let thread = thread::spawn(move || {
                // SAFETY: takes nothing.
                tell.send(unsafe { libc::pthread_self() }).unwrap();
                worker.work(&over)
            });
            (thread, control)
        })
        .unzip();
    drop(give);
    let quiet = Arc::new(AtomicBool::new(false));
    let signaller = with_signals.then(|| signals(told.iter().take(2).collect(), Arc::clone(&quiet)));
    weather(&gate, &controls, Dice(seed + 9), without_descriptors);
    // Every client that waits is served, without any new one after the last.
    assert!(clients.wait().unwrap().success(), "somebody was not served: {controls:?} {gate:?}");
    crate::support::until("an empty queue", || !epoll_acceptor::has_pending(&listener).unwrap());
    quiet.store(true, Ordering::Relaxed);
    if let Some(signaller) = signaller {
        signaller.join().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let workers: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    closer.join().unwrap();
    assert!(gate.wait_idle(Some(Duration::ZERO)), "{gate:?}");
    for (mut owner, mut acceptor) in workers {
        owner.settle(&mut acceptor);
        assert_eq!(acceptor.state(), State::Listening);
        let counters = acceptor.counters();
        println!("{counters}");
        assert!(counters.is_balanced(), "{counters}");
        let newcomer = door.connect();
        owner.serve(&mut acceptor, 1);
        newcomer.assert_served();
    }
    // Each handle keeps the bell of its acceptor.
    drop(controls);
    assert_eq!(open_descriptors(), before);
}

#[test]
fn chaos_on_tcp_ends_in_order() {
    if !done_in_child("chaos::chaos_on_tcp_ends_in_order") {
        chaos(Kind::Tcp4, [Trigger::Level, Trigger::Edge], false, true);
    }
}

#[test]
fn chaos_on_unix_sockets_ends_in_order() {
    if !done_in_child("chaos::chaos_on_unix_sockets_ends_in_order") {
        chaos(Kind::UnixStream, [Trigger::Edge, Trigger::Edge], false, true);
    }
}

#[test]
fn chaos_under_a_thousand_signals_a_second_ends_in_order() {
    if !done_in_child("chaos::chaos_under_a_thousand_signals_a_second_ends_in_order") {
        chaos(Kind::Tcp4, [Trigger::Edge, Trigger::Level], true, false);
    }
}

#[test]
fn chaos_between_exclusive_acceptors_ends_in_order() {
    if !done_in_child("chaos::chaos_between_exclusive_acceptors_ends_in_order") {
        chaos(Kind::Tcp4, [Trigger::Exclusive, Trigger::Exclusive], false, true);
        chaos(Kind::UnixStream, [Trigger::Exclusive, Trigger::Exclusive], true, false);
    }
}

#[test]
fn chaos_between_an_exclusive_acceptor_and_others_ends_in_order() {
    if !done_in_child("chaos::chaos_between_an_exclusive_acceptor_and_others_ends_in_order") {
        chaos(Kind::Tcp4, [Trigger::Exclusive, Trigger::Level], false, true);
        chaos(Kind::Tcp4, [Trigger::Edge, Trigger::Exclusive], false, true);
    }
}
