//! Winding down, on the simulated kernel: every script of the environment up to a bound, and what it must not do.
//!
//! * Whoever was queued before the close is served or refused, once; the close resets nobody, except for want of
//!   descriptors, and then as many as were told.
//! * Whoever ended a handshake within the time to settle is among them, and no connection that is served is deaf.
//! * Nobody new is let in.
//! * It ends: by its deadline, and before it as soon as nobody is left; and it does not spin until then.
//! * `Pending::Serve` refuses nobody whom there was time and room to serve; `Pending::Refuse` serves nobody.
//! * The counters balance, and say what was seen.
//!
//! All that for an owner that waits on the acceptor's own epoll, and for a host that watches that one edge-triggered.

use std::convert::Infallible;
use std::time::Duration;

use epoll_acceptor::admission::Ring;
use epoll_acceptor::drain::{Backend, Bar, Drain, Peek, Plan, WindDown};
use epoll_acceptor::hosted::{Progress, Turns};
use epoll_acceptor::sim::kernel::{Fd, Mask};
use epoll_acceptor::sim::stage::{SimPort, SimStage, SimStream};
use epoll_acceptor::sim::{Setup, Stage};
use epoll_acceptor::{
    Acceptor, Connection, Errno, Gate, Intake, Pending, Permit, Refusal, ShutdownReport, Trigger,
};

/// What the environment does between two turns of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A client tries to connect.
    Connect,
    /// A handshake that had begun before ends.
    EndHandshake,
    /// The oldest client quits.
    Quit,
    /// The oldest connection in service ends.
    Free,
    /// A while passes.
    Pass,
    /// The owner waits, answers its events and looks.
    Turn,
}

const ACTS: [Action; 6] =
    [Action::Connect, Action::EndHandshake, Action::Quit, Action::Free, Action::Pass, Action::Turn];
const WITHIN: Duration = Duration::from_secs(2);
const WHILE: Duration = Duration::from_millis(100);

/// What is done wrongly, if anything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It closes without a bar: the window of all who drain and then close.
    NoBar,
    /// It takes the bar of TCP for a full one, and does not wait for handshakes.
    TakesTcpForUnix,
    /// What a connection has inherited of the bar it keeps.
    LeavesDeaf,
    /// The host sleeps when a pass is over, and not when a turn is quiet.
    SleepsAfterThePass,
}

/// A port with a fault.
struct Faulty {
    port: SimPort,
    fault: Fault,
}

impl Backend for Faulty {
    type Stream = SimStream;

    fn accept(&self) -> Result<SimStream, Errno> {
        self.port.accept()
    }
    fn refuse(&self, stream: SimStream, refusal: &Refusal) {
        self.port.refuse(stream, refusal);
    }
    fn depth(&self) -> Option<u32> {
        self.port.depth()
    }
    fn peek(&self) -> Peek {
        self.port.peek()
    }
    fn age(&self, stream: &SimStream) -> Option<Duration> {
        self.port.age(stream)
    }
    fn arm(&self) -> Result<(), Errno> {
        self.port.arm()
    }
    fn disarm(&self) -> Result<(), Errno> {
        self.port.disarm()
    }
    fn detach(&self) {
        self.port.detach();
    }
    fn announce(&self) {
        self.port.announce();
    }
    fn alarm(&self, after: Option<Duration>) {
        self.port.alarm(after);
    }
    fn now(&self) -> Duration {
        self.port.now()
    }
    fn ringer(&self) -> Box<dyn Ring> {
        self.port.ringer()
    }
}

impl Bar for Faulty {
    fn bar(&self) -> Intake {
        match self.fault {
            Fault::NoBar => Intake::Closed,
            Fault::TakesTcpForUnix => {
                self.port.bar();
                Intake::Closed
            }
            Fault::None | Fault::LeavesDeaf | Fault::SleepsAfterThePass => self.port.bar(),
        }
    }

    fn unbar(&self, stream: &SimStream) {
        if self.fault != Fault::LeavesDeaf {
            self.port.unbar(stream);
        }
    }
}

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

/// The owner, its acceptor and what has come of everyone.
struct Play {
    stage: SimStage,
    acceptor: Turns<WindDown<Faulty, Trigger, Gate>>,
    host: Option<Host>,
    gate: Gate,
    open: Vec<Connection<SimStream, Permit>>,
    /// Clients that were queued at some time.
    came: u64,
    served: u64,
    waits: u32,
    begun: Duration,
    now: Duration,
}

/// An outer epoll that watches the acceptor's edge-triggered, and whether it has been told so and has not forgotten it.
struct Host {
    outer: Fd,
    told: bool,
    sleeps_after_the_pass: bool,
}

impl Scene {
    fn rest(&self) -> Pending {
        if self.serve { Pending::Serve(Refusal::Reset) } else { Pending::Refuse(Refusal::Close) }
    }

    fn begin(&self) -> Play {
        let case = Setup { trigger: self.trigger, measurable: self.tcp, ..Setup::plain() };
        let mut stage = SimStage::new(&case);
        let port = Faulty { port: stage.port(0, 0, self.trigger), fault: self.fault };
        let gate = Gate::new(self.limit);
        let acceptor = Drain::new(port, self.trigger, gate.clone(), Plan::with_budget(2));
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
            Host { outer, told: true, sleeps_after_the_pass: self.fault == Fault::SleepsAfterThePass }
        });
        let acceptor = Turns::new(WindDown::begin(acceptor, self.rest(), WITHIN));
        let (begun, now) = (Duration::ZERO, Duration::ZERO);
        let (open, came) = (Vec::new(), u64::from(self.queued));
        Play { stage, acceptor, host, gate, open, came, served: 0, waits: 0, begun, now }
    }

    /// Plays the script, and then the calm until it is over.
    fn play(&self, script: &[Action]) -> Result<(), String> {
        let mut play = self.begin();
        for act in script {
            play.act(*act)?;
        }
        // Handshakes that had begun end within the time to settle, if they have not ended before.
        let ends_at = play.begun + 2 * WHILE;
        for turn in 0.. {
            if play.turn()? {
                break;
            }
            if turn > 64 {
                return Err("it does not end".into());
            }
            let mut sleep = play.acceptor.acceptor().wait();
            if play.now < ends_at && play.now + sleep >= ends_at {
                // What is under way arrives while the owner sleeps.
                play.pass(ends_at - play.now);
                sleep = play.acceptor.acceptor().wait();
                while play.stage.end_handshake(0) {
                    play.came += 1;
                }
            }
            play.pass(sleep);
        }
        let under_way = ends_at > play.now;
        self.close(play, under_way)
    }

    fn close(&self, play: Play, under_way: bool) -> Result<(), String> {
        let Play { mut stage, acceptor, gate, open, came, served, waits, begun, now, .. } = play;
        let acceptor = acceptor.into_acceptor();
        let counters = acceptor.counters();
        let room = open.len() < self.limit as usize;
        if now - begun > WITHIN {
            return Err(format!("not over by its deadline but after {:?}", now - begun));
        }
        let early = now - begun < WITHIN;
        let (drain, farewell) = acceptor.finish();
        let ShutdownReport { refused, left, .. } = farewell;
        if stage.connect(0) {
            return Err("somebody comes in between the last accept and the close".into());
        }
        while under_way && stage.end_handshake(0) {}
        if stage.queued(0) != left.unwrap_or(u32::MAX) {
            return Err(format!("the close resets {}, and tells of {left:?}", stage.queued(0)));
        }
        if left != Some(0) || farewell.served + refused + farewell.aborted != came {
            return Err(format!("{came} came: {farewell:?}"));
        }
        if farewell.served != served || (!self.serve && served > 0) {
            return Err(format!("{served} were served: {farewell:?}"));
        }
        if self.serve && refused > 0 && (early || room) {
            return Err(format!("refused with time and room to serve: {farewell:?}"));
        }
        let counters = (counters, drain.counters());
        if !counters.0.is_balanced() || !counters.1.is_balanced() {
            return Err(format!("{counters:?}"));
        }
        if waits > 80 {
            return Err(format!("{waits} wake-ups"));
        }
        drop((open, drain));
        if gate.in_use() > 0 { Err("a place is lost".into()) } else { Ok(()) }
    }
}

impl Play {
    fn act(&mut self, act: Action) -> Result<(), String> {
        match act {
            Action::Connect if self.stage.connect(0) => return Err("somebody new is let in".into()),
            Action::Connect => {}
            Action::EndHandshake => self.came += u64::from(self.stage.end_handshake(0)),
            Action::Quit => self.stage.quit(0),
            Action::Free if self.open.is_empty() => {}
            Action::Free => drop(self.open.remove(0)),
            Action::Pass => self.pass(WHILE),
            Action::Turn => drop(self.turn()?),
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.stage.advance(time);
        self.now += time;
    }

    /// Waits once, answers what there is, and looks.
    fn turn(&mut self) -> Result<bool, String> {
        match self.host.take() {
            Some(mut host) => {
                let outcome = self.turn_of(&mut host);
                self.host = Some(host);
                outcome?;
            }
            None => self.passes()?,
        }
        Ok(self.acceptor.acceptor_mut().is_over())
    }

    /// Each event is answered by a pass.
    fn passes(&mut self) -> Result<(), String> {
        let events = self.stage.wait(0);
        self.waits += u32::from(events > 0);
        for _ in 0..events {
            let taken: Vec<_> = self.acceptor.acceptor_mut().ready().collect();
            for connection in taken {
                self.serve(connection.map_err(|dead| dead.to_string())?)?;
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
        host.told |= edges > 0;
        while host.told {
            let Self { acceptor, stage, .. } = self;
            match acceptor.turn(|| Ok::<_, Infallible>(wait(stage, inner) > 0)).expect("infallible") {
                Progress::Connection(connection) => self.serve(connection)?,
                Progress::Yield => host.told = !host.sleeps_after_the_pass,
                Progress::Idle => host.told = false,
                Progress::ListenerClosed(dead) => return Err(dead.to_string()),
                Progress::Stopped => break,
            }
        }
        Ok(())
    }

    fn serve(&mut self, connection: Connection<SimStream, Permit>) -> Result<(), String> {
        if connection.is_deaf() {
            return Err("a connection is deaf".into());
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

/// Every script of so many acts.
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
fn nobody_is_reset_whatever_happens_meanwhile() {
    let (played, violation) = first_violation(Fault::None, if crate::thorough() { 6 } else { 4 });
    assert_eq!(violation, None, "{}", violation.clone().unwrap_or_default());
    crate::say(&format!("closing: {played} runs of winding down, every script up to the bound"));
}

#[test]
fn each_fault_of_a_close_is_found() {
    for (fault, says) in [
        (Fault::NoBar, "somebody"),
        (Fault::TakesTcpForUnix, "resets"),
        (Fault::LeavesDeaf, "a connection is deaf"),
        (Fault::SleepsAfterThePass, "refused with time and room to serve"),
    ] {
        let (_, violation) = first_violation(fault, 3);
        let violation = violation.unwrap_or_else(|| panic!("{fault:?} was not found"));
        assert!(violation.contains(says), "{fault:?}: {violation}");
    }
}
