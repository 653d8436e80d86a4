//! Graceful shutdown on the simulated kernel: every script of the environment up to a bound.
//!
//! * Connections that were queued before the end are served or refused, once; the close resets none, except when
//!   descriptors have run out, and then as many as the report says.
//! * Handshakes that end within the grace are among them, and no packets of a served connection are dropped.
//! * No new connection is queued.
//! * It ends: by its deadline, and before it as soon as nothing is pending; and it does not spin until then.
//! * `Pending::Serve` refuses nothing while there is time and a permit; `Pending::Refuse` serves nothing.
//! * The counters balance, and match what was seen.
//!
//! For an owner that waits on the acceptor's own epoll, and for an event loop that watches that one edge-triggered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use epoll_acceptor::acceptor::Intake;
use epoll_acceptor::filter::{Clock, Credentials};
use epoll_acceptor::sim::kernel::{Fd, Mask};
use epoll_acceptor::sim::{
    AcceptCore, Backend, Config, Peek, Poller, Setup, SimBackend, SimStage, SimStream, Stage, Wake,
};
use epoll_acceptor::socket::Errno;
use epoll_acceptor::{
    Acceptor, Connection, Gate, Pending, Permit, Progress, Refusal, ShutdownReport, Trigger,
};

/// What the environment does between two turns of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A client tries to connect.
    Connect,
    /// A handshake that was under way ends.
    EndHandshake,
    /// The oldest client closes its connection.
    Quit,
    /// The oldest connection in service is closed.
    Free,
    /// Time passes.
    Pass,
    /// The owner waits and answers its events.
    Turn,
}

const ACTS: [Action; 6] =
    [Action::Connect, Action::EndHandshake, Action::Quit, Action::Free, Action::Pass, Action::Turn];
const WITHIN: Duration = Duration::from_secs(2);
const A_WHILE: Duration = Duration::from_millis(100);

/// What is done wrong, if anything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It leaves the intake open: the window of every loop that drains and then closes.
    OpenIntake,
    /// It takes the intake of TCP for closed, and does not wait for handshakes.
    IgnoresHandshakes,
    /// Connections keep the minimum TTL that they inherited.
    KeepsMinTtl,
}

/// A backend with a fault.
struct Faulty {
    backend: SimBackend,
    fault: Fault,
}

impl Backend for Faulty {
    type Stream = SimStream;

    fn accept(&self, peer: Option<&mut Option<SocketAddr>>) -> Result<SimStream, Errno> {
        self.backend.accept(peer)
    }
    fn refuse(&self, stream: SimStream, refusal: &Refusal) {
        self.backend.refuse(stream, refusal);
    }
    fn queue_length(&self) -> Option<u32> {
        self.backend.queue_length()
    }
    fn peek(&self) -> Peek {
        self.backend.peek()
    }
    fn peer(&self, stream: &SimStream) -> Option<SocketAddr> {
        self.backend.peer(stream)
    }
    fn queue_time(&self, stream: &SimStream) -> Option<Duration> {
        self.backend.queue_time(stream)
    }
    fn credentials(&self, stream: &SimStream) -> Option<Credentials> {
        self.backend.credentials(stream)
    }
    fn is_in_group(&self, stream: &SimStream, gid: u32) -> Option<bool> {
        self.backend.is_in_group(stream, gid)
    }
    fn stream_fd<'a>(&self, stream: &'a SimStream) -> Option<BorrowedFd<'a>> {
        self.backend.stream_fd(stream)
    }
    fn arm(&self) -> Result<(), Errno> {
        self.backend.arm()
    }
    fn disarm(&self) -> Result<(), Errno> {
        self.backend.disarm()
    }
    fn remove(&self) {
        self.backend.remove();
    }
    fn rewake_other_epolls(&self) {
        self.backend.rewake_other_epolls();
    }
    fn is_owned_by_this_process(&self) -> bool {
        self.backend.is_owned_by_this_process()
    }
    fn set_alarm(&self, after: Option<Duration>) -> Result<(), Errno> {
        self.backend.set_alarm(after)
    }
    fn is_alarm_pending(&self) -> bool {
        self.backend.is_alarm_pending()
    }
    fn release_reserve(&self) -> bool {
        self.backend.release_reserve()
    }
    fn make_reserve(&self) -> bool {
        self.backend.make_reserve()
    }
    fn close_intake(&self) -> Intake {
        match self.fault {
            Fault::OpenIntake => Intake::Closed,
            Fault::IgnoresHandshakes => {
                self.backend.close_intake();
                Intake::Closed
            }
            Fault::None | Fault::KeepsMinTtl => self.backend.close_intake(),
        }
    }
    fn clock(&self) -> Arc<dyn Clock> {
        self.backend.clock()
    }
    fn waker(&self) -> Box<dyn Wake> {
        self.backend.waker()
    }
}

type Core = AcceptCore<Faulty, Gate, ()>;
type Served = Connection<SimStream, ((), Permit)>;

#[derive(Clone, Debug)]
struct Scene {
    tcp: bool,
    trigger: Trigger,
    serve: bool,
    /// The limit of the gate.
    limit: u32,
    queued: u32,
    half_open: u32,
    hosted: bool,
    fault: Fault,
}

/// The owner, its acceptor and what has become of the connections.
struct Play {
    stage: SimStage,
    acceptor: Poller<Core>,
    host: Option<Host>,
    gate: Gate,
    open: Vec<Served>,
    /// Connections that were queued at some time.
    queued: u64,
    served: u64,
    waits: u32,
    now: Duration,
}

/// An outer epoll that watches the acceptor's edge-triggered, and whether it has seen readiness and not forgotten it.
struct Host {
    outer: Fd,
    ready: bool,
}

impl Scene {
    fn pending(&self) -> Pending {
        if self.serve { Pending::Serve(Refusal::Reset) } else { Pending::Refuse(Refusal::Close) }
    }

    /// Begins the shutdown, and has the owner carry out the command.
    fn begin(&self) -> Result<Play, String> {
        let setup = Setup { trigger: self.trigger, reports_length: self.tcp, ..Setup::plain() };
        let mut stage = SimStage::new(&setup);
        let backend = stage.backend(0, 0, self.trigger);
        let backend = if self.fault == Fault::KeepsMinTtl { backend.keeping_min_ttl() } else { backend };
        let backend = Faulty { backend, fault: self.fault };
        let gate = Gate::new(self.limit);
        let acceptor = AcceptCore::new(backend, gate.clone(), (), Config::new(self.trigger, 2));
        for _ in 0..self.queued {
            assert!(stage.connect(0));
        }
        for _ in 0..self.half_open {
            assert!(stage.begin_handshake(0));
        }
        let host = self.hosted.then(|| {
            let inner = stage.epoll(0);
            let outer = stage.kernel(|kernel| {
                let outer = kernel.epoll().expect("a descriptor");
                kernel.add(outer, inner, Mask::IN | Mask::ET, 0).expect("an epoll can be watched");
                outer
            });
            Host { outer, ready: true }
        });
        acceptor.control().shutdown_gracefully(self.pending(), WITHIN);
        let acceptor = Poller::new(acceptor);
        let (open, queued) = (Vec::new(), u64::from(self.queued));
        let mut play =
            Play { stage, acceptor, host, gate, open, queued, served: 0, waits: 0, now: Duration::ZERO };
        play.turn()?;
        Ok(play)
    }

    /// Plays the script, and then lets the owner sleep and wake until it is over.
    fn play(&self, script: &[Action]) -> Result<(), String> {
        let mut play = self.begin()?;
        for act in script {
            play.act(*act)?;
        }
        // Handshakes under way end within the grace, if they have not ended before.
        let end_at = 2 * A_WHILE;
        for turn in 0.. {
            if play.turn()? {
                break;
            }
            if turn > 64 {
                return Err("it does not end".into());
            }
            let mut sleep = play.sleep();
            if play.now < end_at && play.now + sleep >= end_at {
                // What is under way arrives while the owner sleeps.
                play.pass(end_at - play.now);
                sleep = play.sleep();
                while play.stage.end_handshake(0) {
                    play.queued += 1;
                }
            }
            play.pass(sleep);
        }
        let under_way = end_at > play.now;
        self.check(play, under_way)
    }

    fn check(&self, play: Play, under_way: bool) -> Result<(), String> {
        let Play { mut stage, acceptor, gate, open, queued, served, waits, now, .. } = play;
        let acceptor = acceptor.into_acceptor();
        let permit_left = open.len() < self.limit as usize;
        if now > WITHIN {
            return Err(format!("not over by its deadline but after {now:?}"));
        }
        let early = now < WITHIN;
        let Some(report) = acceptor.shutdown_report() else { return Err("no report".into()) };
        let ShutdownReport { refused, abandoned, .. } = report;
        if stage.connect(0) {
            return Err("a new connection is queued between the last accept and the close".into());
        }
        while under_way && stage.end_handshake(0) {}
        if stage.queued(0) != abandoned.unwrap_or(u32::MAX) {
            return Err(format!("the close resets {}, and the report says {abandoned:?}", stage.queued(0)));
        }
        if abandoned != Some(0) || report.served + refused + report.aborted != queued {
            return Err(format!("{queued} were queued: {report:?}"));
        }
        if report.served != served || (!self.serve && served > 0) {
            return Err(format!("{served} were served: {report:?}"));
        }
        if self.serve && refused > 0 && (early || permit_left) {
            return Err(format!("refused with time and a permit left: {report:?}"));
        }
        if !acceptor.counters().is_balanced() {
            return Err(format!("{:?}", acceptor.counters()));
        }
        if waits > 80 {
            return Err(format!("{waits} wakeups"));
        }
        drop((open, acceptor));
        if gate.in_use() > 0 { Err("a permit is lost".into()) } else { Ok(()) }
    }
}

impl Play {
    fn act(&mut self, act: Action) -> Result<(), String> {
        match act {
            Action::Connect if self.stage.connect(0) => return Err("a new connection is queued".into()),
            Action::Connect => {}
            Action::EndHandshake => self.queued += u64::from(self.stage.end_handshake(0)),
            Action::Quit => self.stage.quit(0),
            Action::Free if self.open.is_empty() => {}
            Action::Free => drop(self.open.remove(0)),
            Action::Pass => self.pass(A_WHILE),
            Action::Turn => drop(self.turn()?),
        }
        Ok(())
    }

    /// How long the owner sleeps: until its timer expires.
    fn sleep(&self) -> Duration {
        let expires = self.stage.kernel(|kernel| kernel.next_expiration()).map(Duration::from_nanos);
        expires.map_or(A_WHILE, |at| at.saturating_sub(self.now))
    }

    fn pass(&mut self, time: Duration) {
        self.stage.advance(time);
        self.now += time;
    }

    /// Waits once and answers what there is; returns whether the acceptor is over.
    fn turn(&mut self) -> Result<bool, String> {
        match self.host.take() {
            Some(mut host) => {
                let outcome = self.turn_of(&mut host);
                self.host = Some(host);
                outcome?;
            }
            None => self.passes()?,
        }
        Ok(self.acceptor.acceptor().state().is_terminal())
    }

    /// Answers each event by a pass.
    fn passes(&mut self) -> Result<(), String> {
        let events = self.stage.wait(0);
        self.waits += u32::from(events > 0);
        for _ in 0..events {
            let taken: Vec<_> = self.acceptor.acceptor_mut().ready().collect();
            for connection in taken {
                self.serve(connection.map_err(|closed| closed.to_string())?)?;
            }
        }
        Ok(())
    }

    fn turn_of(&mut self, host: &mut Host) -> Result<(), String> {
        let inner = self.stage.epoll(0);
        let wait =
            |stage: &SimStage, epoll| stage.kernel(|kernel| kernel.wait(epoll, 4)).expect("an epoll").len();
        let edges = wait(&self.stage, host.outer);
        self.waits += u32::from(edges > 0);
        host.ready |= edges > 0;
        while host.ready {
            let Self { acceptor, stage, .. } = self;
            match acceptor.poll_accept(|| Ok::<_, Infallible>(wait(stage, inner) > 0)).expect("infallible") {
                Progress::Connection(connection) => self.serve(connection)?,
                Progress::Yield => {}
                Progress::Idle => host.ready = false,
                Progress::ListenerClosed(closed) => return Err(closed.to_string()),
                Progress::Stopped => break,
            }
        }
        Ok(())
    }

    fn serve(&mut self, connection: Served) -> Result<(), String> {
        if connection.is_deaf() {
            return Err("packets are dropped of a connection that is served".into());
        }
        self.served += 1;
        self.open.push(connection);
        Ok(())
    }
}

fn scenes(fault: Fault) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for tcp in [true, false] {
        for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
            for serve in [true, false] {
                for limit in [1, 8] {
                    for queued in 0..4 {
                        for half_open in 0..=if tcp { 2 } else { 0 } {
                            for hosted in [false, true] {
                                scenes.push(Scene {
                                    tcp,
                                    trigger,
                                    serve,
                                    limit,
                                    queued,
                                    half_open,
                                    hosted,
                                    fault,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    scenes
}

/// Every script of `acts` actions.
fn scripts(acts: u32) -> impl Iterator<Item = Vec<Action>> {
    (0..ACTS.len().pow(acts)).map(move |mut number| {
        let mut next = || {
            let act = ACTS[number % ACTS.len()];
            number /= ACTS.len();
            act
        };
        (0..acts).map(|_| next()).collect()
    })
}

fn first_violation(fault: Fault, acts: u32) -> (u64, Option<String>) {
    let mut played = 0;
    for scene in scenes(fault) {
        for script in (0..=acts).flat_map(scripts) {
            played += 1;
            if let Err(why) = scene.play(&script) {
                return (played, Some(format!("{why}\nin {scene:?}\nafter {script:?}")));
            }
        }
    }
    (played, None)
}

#[test]
fn shutdown_resets_no_connection() {
    let (played, violation) = first_violation(Fault::None, if crate::thorough() { 6 } else { 4 });
    assert_eq!(violation, None, "{}", violation.clone().unwrap_or_default());
    crate::say(&format!("shutdown: {played} runs, every script up to the bound"));
}

#[test]
fn each_shutdown_fault_is_found() {
    for (fault, says) in [
        (Fault::OpenIntake, "a new connection"),
        (Fault::IgnoresHandshakes, "resets"),
        (Fault::KeepsMinTtl, "packets are dropped"),
    ] {
        let (_, violation) = first_violation(fault, 3);
        let violation = violation.unwrap_or_else(|| panic!("{fault:?} was not found"));
        assert!(violation.contains(says), "{fault:?}: {violation}");
    }
}
