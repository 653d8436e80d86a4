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
use crate::plans::{Flags, Plan};
use crate::work::{Pair, Work};

/// The engines, each with a listener of its own, and their clients.
pub(crate) struct Bench {
    engines: BTreeMap<&'static str, Running>,
    clients: RefCell<Vec<TcpStream>>,
}

struct Running {
    engine: RefCell<Box<dyn Engine>>,
    flags: Flags,
    address: SocketAddr,
}

/// How often a quarter of a block is repeated before an interrupted one counts.
const TRIES: usize = 8;

impl Bench {
    /// Starts every engine; calls `skipped` for those that the system does not allow.
    pub(crate) fn start(plans: &[Plan], skipped: impl Fn(&str, &io::Error)) -> Self {
        let mut engines = BTreeMap::new();
        for plan in plans {
            let listener = net::listen();
            listener.set_nonblocking(true).expect("a listener that does not block");
            let address = listener.local_addr().expect("an address");
            match (plan.make)(listener) {
                Ok(engine) => {
                    let running = Running { engine: RefCell::new(engine), flags: plan.flags, address };
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

    /// Measures one block of a pair, in nanoseconds per connection.
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

    /// Returns the time to accept all these bursts without losing the CPU. If every try loses it, the last one counts, and
    /// the median over the blocks absorbs it.
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

    /// Returns the time to accept all these bursts, and whether the thread lost its CPU in the timed part.
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
            assert_eq!(taken.len(), burst, "all are accepted, and nothing else");
            if round == 0 {
                assert!(
                    taken.iter().all(|fd| has_flags(running.flags, *fd)),
                    "the flags of the accepted sockets"
                );
            }
            // The clients close first, by a reset: nothing is left in TIME_WAIT.
            clients.clear();
            engine.close();
        }
        (spent, interrupted)
    }
}

/// Returns how often this thread lost its CPU.
fn switches() -> libc::c_long {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("the use of this thread");
    usage.voluntary_context_switches() + usage.involuntary_context_switches()
}

fn has_flags(expected: Flags, fd: BorrowedFd<'_>) -> bool {
    assert!(fd.as_raw_fd() > 2, "a socket is not a standard stream");
    let descriptor = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).expect("flags"));
    let file = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).expect("flags"));
    descriptor.contains(FdFlag::FD_CLOEXEC)
        && (expected == Flags::Cloexec || file.contains(OFlag::O_NONBLOCK))
}
