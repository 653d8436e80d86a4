//! Blocks of four: reference, engine, engine, reference.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{UsageWho, getrusage};

use crate::engines::abba::{Block, Side};
use crate::engines::{Engine, net};
use crate::plans::{Claim, Plan};
use crate::work::{Pair, Work};

/// The engines, each with a listener of its own, and whoever connects to them.
pub(crate) struct Bench {
    engines: BTreeMap<&'static str, Running>,
    clients: RefCell<Vec<TcpStream>>,
}

struct Running {
    engine: RefCell<Box<dyn Engine>>,
    claim: Claim,
    address: SocketAddr,
}

/// How often a quarter of a block is tried before an interrupted one counts.
const TRIES: usize = 8;

impl Bench {
    /// Makes every engine that the system allows; tells of those that it does not.
    pub(crate) fn start(plans: &[Plan], skipped: impl Fn(&str, &io::Error)) -> Self {
        let mut engines = BTreeMap::new();
        for plan in plans {
            let listener = net::listen();
            listener.set_nonblocking(true).expect("a listener that does not block");
            let address = listener.local_addr().expect("an address");
            match (plan.make)(listener) {
                Ok(engine) => {
                    let running = Running { engine: RefCell::new(engine), claim: plan.claim, address };
                    engines.insert(plan.name, running);
                }
                Err(error) => skipped(plan.name, &error),
            }
        }
        Self { engines, clients: RefCell::default() }
    }

    pub(crate) fn has(&self, engine: &str) -> bool {
        self.engines.contains_key(engine)
    }

    /// One block of a pair: nanoseconds for each connection.
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    pub(crate) fn block(&self, pair: &Pair) -> Block {
        let (engine, reference) = (&self.engines[pair.engine], &self.engines[pair.reference]);
        let Work { before, bursts, .. } = &pair.work;
        self.run(reference, before);
        self.run(engine, before);
        let connections = pair.work.connections() as f64;
        Block::of(|side| {
            let running = if side == Side::Base { reference } else { engine };
            self.quarter(running, bursts).as_secs_f64() * 1e9 / connections
        })
    }

    /// The time to take all these bursts, on a CPU that nobody else was given meanwhile. Where that does not happen,
    /// the last try counts, and the median over the blocks has to cope.
    fn quarter(&self, running: &Running, bursts: &[usize]) -> Duration {
        let mut last = Duration::ZERO;
        for _ in 0..TRIES {
            let (spent, interrupted) = self.run(running, bursts);
            if !interrupted {
                return spent;
            }
            last = spent;
        }
        last
    }

    /// The time to take all these bursts, and whether the thread lost its CPU in what was timed.
    fn run(&self, running: &Running, bursts: &[usize]) -> (Duration, bool) {
        let mut engine = running.engine.borrow_mut();
        let mut clients = self.clients.borrow_mut();
        let mut spent = Duration::ZERO;
        let mut interrupted = false;
        for (round, &burst) in bursts.iter().enumerate() {
            clients.extend((0..burst).map(|_| net::connect(&running.address)));
            let switches = switches();
            let start = Instant::now();
            engine.take(burst);
            spent += start.elapsed();
            interrupted |= switches != self::switches();
            let taken = engine.taken();
            assert_eq!(taken.len(), burst, "all were taken, and nothing else");
            if round == 0 {
                assert!(
                    taken.iter().all(|fd| holds(running.claim, *fd)),
                    "the flags of the accepted sockets"
                );
            }
            // The clients first: they reset their connections, and nothing is left in TIME_WAIT.
            clients.clear();
            engine.close();
        }
        (spent, interrupted)
    }
}

/// How often this thread lost its CPU.
fn switches() -> libc::c_long {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("the use of this thread");
    usage.voluntary_context_switches() + usage.involuntary_context_switches()
}

fn holds(claim: Claim, fd: BorrowedFd<'_>) -> bool {
    assert!(fd.as_raw_fd() > 2, "a socket is none of the standard streams");
    let descriptor = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).expect("flags"));
    let file = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("flags"));
    descriptor.contains(FdFlag::FD_CLOEXEC) && (claim == Claim::Cloexec || file.contains(OFlag::O_NONBLOCK))
}
