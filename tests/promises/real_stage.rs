//! The same setups and scripts on the real kernel: what the model says of a script, real sockets say too. The fuzz target
//! `real` uses this file as well.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use epoll_acceptor::epoll::EpollBackend;
use epoll_acceptor::sim::run_on;
use epoll_acceptor::sim::{Action, BuiltIn, Policy, Real, Report, Script, Setup, Stage, Violation, run};
use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{Epoll, Events, Gate, Token, Trigger};
use socket2::SockRef;

/// Real listeners on loopback, and an epoll for each acceptor.
struct RealStage {
    listeners: Vec<TcpListener>,
    epolls: Vec<Epoll>,
    events: Events,
    /// Clients of each listener that are still there, the oldest first; those that were served go as well.
    clients: Vec<VecDeque<TcpStream>>,
}

impl RealStage {
    fn new(setup: &Setup) -> Self {
        let listeners = if setup.one_listener { 1 } else { setup.acceptors };
        Self {
            listeners: (0..listeners)
                .map(|_| TcpListener::bind("127.0.0.1:0").expect("a listener"))
                .collect(),
            epolls: (0..setup.acceptors).map(|_| Epoll::new().expect("an epoll")).collect(),
            events: Events::with_capacity(16).expect("a buffer"),
            clients: (0..listeners).map(|_| VecDeque::new()).collect(),
        }
    }

    fn backend(&self, listener: usize, acceptor: usize, trigger: Trigger) -> EpollBackend<TcpListener> {
        let listener = self.listeners[listener].try_clone().expect("a duplicate");
        listener.set_nonblocking(true).expect("non-blocking");
        EpollBackend::register(self.epolls[acceptor].as_fd(), listener, Token(1), trigger)
            .unwrap_or_else(|(error, _)| panic!("not registered: {error:?}"))
    }

    /// The oldest clients are those that were taken already; the others are queued.
    fn oldest_queued(&mut self, listener: usize) -> Option<TcpStream> {
        let queued = self.queued(listener) as usize;
        let clients = &mut self.clients[listener];
        while clients.len() > queued {
            clients.pop_front();
        }
        clients.pop_front()
    }

    fn address(&self, listener: usize) -> SocketAddr {
        self.listeners[listener].local_addr().expect("an address")
    }
}

impl Stage for RealStage {
    fn connect(&mut self, listener: usize) -> bool {
        match TcpStream::connect(self.address(listener)) {
            Ok(client) => {
                SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a linger");
                self.clients[listener].push_back(client);
                true
            }
            Err(_) => false,
        }
    }

    fn insert(&mut self, listener: usize) -> bool {
        // Loopback gives no time between the two steps.
        self.connect(listener)
    }

    fn tell(&mut self, _: usize) -> bool {
        false
    }

    fn quit(&mut self, listener: usize) {
        if let Some(client) = self.oldest_queued(listener) {
            SockRef::from(&client).set_linger(None).expect("no linger");
        }
    }

    fn reset(&mut self, listener: usize) {
        drop(self.oldest_queued(listener));
    }

    fn steal(&mut self, listener: usize) -> bool {
        self.listeners[listener].set_nonblocking(true).expect("non-blocking");
        self.listeners[listener].accept().is_ok()
    }

    fn shut(&mut self, listener: usize) {
        // A second shutdown is refused; it is shut all the same.
        let _ = SockRef::from(&self.listeners[listener]).shutdown(Shutdown::Read);
    }

    fn queued(&self, listener: usize) -> u32 {
        accept_queue(&self.listeners[listener]).map_or(0, |queue| queue.depth)
    }

    fn wait(&mut self, acceptor: usize) -> usize {
        self.events.clear();
        self.epolls[acceptor].wait(&mut self.events, Some(Duration::ZERO)).expect("a wait");
        self.events.by_ref().count()
    }

    fn advance(&mut self, by: Duration) {
        // Real time: not to wait for something, but because time is what the script says passes.
        std::thread::sleep(by + Duration::from_millis(2));
    }
}

fn run_real(setup: &Setup, script: &Script) -> Result<Report, Violation> {
    let stage = RealStage::new(setup);
    let backends = RealStage {
        listeners: stage
            .listeners
            .iter()
            .map(|listener| listener.try_clone().expect("a duplicate"))
            .collect(),
        epolls: stage.epolls.iter().map(|epoll| epoll.try_clone().expect("a duplicate")).collect(),
        ..RealStage::new(&Setup { acceptors: 0, ..setup.clone() })
    };
    run_on::<Gate, BuiltIn, _>(setup, script, &Real, Box::new(stage), |listener, acceptor, trigger| {
        backends.backend(listener, acceptor, trigger)
    })
}

/// Returns the setup as real sockets can play it, if they can.
pub(crate) fn playable(setup: &Setup) -> Option<Setup> {
    // Here all peers are this machine, and time is its own: policies decide by both.
    let policy = match setup.policy {
        rate @ (Policy::Rate(_) | Policy::ShedRate(_)) => rate,
        _ => Policy::Nothing,
    };
    (setup.reports_length && setup.fills_tcp_info).then(|| Setup { policy, ..setup.clone() })
}

/// Plays a script on the simulated kernel and on the real one.
///
/// # Panics
///
/// If either breaks a promise, or if they deliver different numbers of connections.
pub(crate) fn play_on_both(setup: &Setup, script: &Script) -> Report {
    let model = run::<Gate>(setup, script, &Real).expect("the model keeps its promises");
    let real = run_real(setup, script).unwrap_or_else(|violation| {
        panic!("{violation}\non the real kernel, in {setup:?}\nafter\n{script}");
    });
    // In two steps a connection can be taken before any acceptor is woken; loopback has no such moment.
    let in_steps = script.acts().iter().any(|(_, act)| matches!(act, Action::Insert(_) | Action::Tell(_)));
    // The kernel wakes sleeping exclusive owners, and here none sleeps.
    let exclusive = [Some(setup.trigger), setup.second].contains(&Some(Trigger::Exclusive));
    let woken_otherwise = setup.one_listener && setup.acceptors > 1 && exclusive;
    if !in_steps && !woken_otherwise {
        assert_eq!(real.delivered, model.delivered, "in {setup:?}\nafter\n{script}");
    }
    real
}
