//! What happens in one run: a setup (what is built) and a script (what the environment does, and when).

use std::fmt;
use std::time::Duration;

use crate::admission::refusal::Refusal;
use crate::drain::config::Config;
use crate::drain::errno::Errno;
use crate::drain::trigger::{EmptyCheck, Trigger};

/// What is built before a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setup {
    /// How the acceptors are registered.
    pub trigger: Trigger,
    /// How every second acceptor is registered, if differently.
    pub second: Option<Trigger>,
    /// How a pass knows that the queue is empty; `None` is the acceptor's default.
    pub empty_check: Option<EmptyCheck>,
    /// Whether the kernel reports the queue's length: for TCP it does, for Unix it does not.
    pub reports_length: bool,
    /// Whether the kernel fills in `TCP_INFO`: Linux does; on gVisor every length and age is 0.
    pub fills_tcp_info: bool,
    /// Attempts per pass.
    pub budget: u32,
    /// The gate.
    pub gate: GateMode,
    /// Whether each acceptor has a gate of its own, or all share one.
    pub own_gates: bool,
    /// The filter behind the gate.
    pub policy: Policy,
    /// The rate of refusals per second, and the burst.
    pub refusals: Option<(u32, u32)>,
    /// Whether clients are refused with a reserve descriptor when descriptors have run out.
    pub reserve: bool,
    /// How many acceptors there are, each on an epoll of its own.
    pub acceptors: usize,
    /// Whether they accept from one listener, or each from its own.
    pub one_listener: bool,
    /// How their owners leave the loop.
    pub leave: Leave,
    /// Connections queued at each listener before the first wait.
    pub queued: u32,
}

/// The connection limit of a setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateMode {
    /// None.
    Open,
    /// At most this many; the others wait.
    Wait(u32),
    /// At most `.0`; once the gate is full, the others wait until `.1` permits are free.
    Batch(u32, u32),
    /// At most this many; the others are refused.
    Shed(u32),
}

/// What the filter of a setup does; one filter for all its acceptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// None.
    Nothing,
    /// At most [`PER_SECOND`](Policy::PER_SECOND) connections per second with this burst; the others wait.
    Rate(u32),
    /// The same; the others are refused.
    ShedRate(u32),
    /// One peer in three is refused after the accept.
    Choosy,
    /// At most this many per peer.
    Peers(u32),
    /// The same, and behind it one peer in three is refused.
    PeersThenChoosy(u32),
    /// A target of [`TARGET`](Policy::TARGET) for the time in the queue.
    Delay,
    /// [`USER`](Policy::USER) and the members of [`GROUP`](Policy::GROUP) only.
    Allowed,
}

impl Policy {
    /// The rate of [`Rate`](Self::Rate) and [`ShedRate`](Self::ShedRate): a connection every 5 ms.
    pub const PER_SECOND: u32 = 200;
    /// The target of [`Delay`](Self::Delay).
    pub const TARGET: Duration = Duration::from_millis(2);
    /// The interval of [`Delay`](Self::Delay).
    pub const INTERVAL: Duration = Duration::from_millis(4);
    /// The maximum delay of [`Delay`](Self::Delay).
    pub const MAX_DELAY: Duration = Duration::from_millis(9);
    /// The user of [`Allowed`](Self::Allowed).
    pub const USER: u32 = 1000;
    /// The group of [`Allowed`](Self::Allowed).
    pub const GROUP: u32 = 27;
}

/// How the owner leaves the loop over the connections of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leave {
    /// At its end.
    AtTheEnd,
    /// `break` after this many connections.
    Break(u32),
    /// `mem::forget` of the iterator after this many.
    Forget(u32),
    /// A panic in the body after this many.
    Panic(u32),
    /// Every other pass is forgotten before its first step; the rest are left at their end.
    Skip,
}

/// A call of an acceptor, besides accept, that a script can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Arming the listener: `EPOLL_CTL_MOD` or `EPOLL_CTL_ADD`.
    Arm,
    /// Disarming it.
    Disarm,
    /// poll(2) on it.
    Poll,
    /// Setting the alarm.
    Alarm,
}

/// What the environment does at a point of a run. Numbers name listeners or acceptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client connects.
    Connect(usize),
    /// A client connects, first step: its connection is queued and can be accepted.
    Insert(usize),
    /// Second step: the listener wakes its watchers for the oldest inserted connection (K3).
    Tell(usize),
    /// The client that has waited longest closes its connection ...
    Quit(usize),
    /// ... or resets it.
    Reset(usize),
    /// Another process takes a connection.
    Steal(usize),
    /// The oldest connection in service is closed: its permit is released.
    Free,
    /// No descriptor is left but those that are open now.
    Exhaust,
    /// Descriptors are available again.
    Relieve,
    /// The next accept fails with this errno or, if the errno consumes a connection, the next accept that finds one.
    Fail(Errno),
    /// The next call of this kind fails, with ENOMEM.
    FailCall(Call),
    /// `Handle::pause`.
    Pause(usize),
    /// `Handle::resume`.
    Resume(usize),
    /// `Handle::stop`.
    Stop(usize),
    /// The limit of the gate changes.
    Limit(u32),
    /// Time passes until the next alarm, or for 5 ms.
    Tick,
    /// Another acceptor has its turn, if an event waits for it and it is not in the middle of a pass.
    Turn(usize),
    /// The listener is shut down.
    Shut(usize),
    /// The owner drops the acceptor: at once, or when its pass is over. The listener lives on elsewhere.
    Drop(usize),
}

/// What the environment does and when: `(n, act)` is done at the n-th point of the run.
///
/// Points are before and after every call of the backend and every operation of the gate, between a wait and its pass,
/// and wherever all owners are asleep. A run is determined by its setup and script alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Script {
    /// Invariant: in order of the points.
    acts: Vec<(u32, Action)>,
}

impl Script {
    /// A script without actions.
    #[must_use]
    pub const fn new() -> Self {
        Self { acts: Vec::new() }
    }

    /// The script with one more action. Actions at one point are done in the order in which they were added.
    #[must_use]
    pub fn at(mut self, point: u32, act: Action) -> Self {
        let place = self.acts.partition_point(|(earlier, _)| *earlier <= point);
        self.acts.insert(place, (point, act));
        self
    }

    /// The script with one more action, this many points after the last one.
    #[must_use]
    pub fn after(self, points: u32, act: Action) -> Self {
        let last = self.last_point().unwrap_or(0);
        self.at(last.saturating_add(points), act)
    }

    /// The actions in order.
    #[must_use]
    pub fn acts(&self) -> &[(u32, Action)] {
        &self.acts
    }

    /// The point of the last action.
    #[must_use]
    pub fn last_point(&self) -> Option<u32> {
        self.acts.last().map(|(point, _)| *point)
    }

    /// The script without its n-th action: for shrinking.
    #[must_use]
    pub fn without(&self, n: usize) -> Self {
        let mut acts = self.acts.clone();
        acts.remove(n);
        Self { acts }
    }

    /// A script from arbitrary bytes, two for each action: how many points later, and which action.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], setup: &Setup) -> Self {
        let acts = Action::all(setup);
        bytes.chunks_exact(2).fold(Self::new(), |script, pair| {
            script.after(u32::from(pair[0] % 32), acts[usize::from(pair[1]) % acts.len()])
        })
    }
}

impl Action {
    /// Every action that can matter in a setup.
    #[must_use]
    pub fn all(setup: &Setup) -> Vec<Self> {
        let listeners = if setup.one_listener { 1 } else { setup.acceptors };
        let mut acts = vec![Self::Free, Self::Exhaust, Self::Relieve, Self::Tick];
        acts.extend([libc::EINTR, libc::ECONNABORTED, libc::ENOBUFS].map(|n| Self::Fail(Errno::new(n))));
        for listener in 0..listeners {
            acts.extend([Self::Connect(listener), Self::Quit(listener), Self::Reset(listener)]);
            acts.extend([Self::Insert(listener), Self::Tell(listener)]);
            acts.extend([Self::Steal(listener), Self::Shut(listener)]);
        }
        for acceptor in 0..setup.acceptors {
            acts.extend([Self::Pause(acceptor), Self::Resume(acceptor), Self::Stop(acceptor)]);
            if setup.acceptors > 1 {
                acts.push(Self::Turn(acceptor));
            }
        }
        if setup.gate != GateMode::Open {
            acts.extend([Self::Limit(0), Self::Limit(1), Self::Limit(3)]);
        }
        // At the end, so that the bytes of older scripts keep their meaning.
        acts.extend((0..setup.acceptors).map(Self::Drop));
        acts.extend([Call::Arm, Call::Disarm, Call::Poll, Call::Alarm].map(Self::FailCall));
        acts
    }
}

/// The few lines of code that replay it.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script::new()")?;
        self.acts.iter().try_for_each(|(point, act)| write!(f, "\n    .at({point}, {act})"))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(errno) => write!(f, "Action::Fail(Errno::new(libc::{errno:?}))"),
            Self::FailCall(call) => write!(f, "Action::FailCall(Call::{call:?})"),
            other => write!(f, "Action::{other:?}"),
        }
    }
}

impl Setup {
    /// Returns the configuration of its acceptors.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            empty_check: self.empty_check,
            refusals: self.refusals,
            when_exhausted: self.reserve.then_some(Refusal::Close),
            ..Config::new(self.trigger, self.budget)
        }
    }

    /// Returns a setup to start from: one level-triggered acceptor without a limit and with an empty queue.
    #[must_use]
    pub const fn plain() -> Self {
        Self {
            trigger: Trigger::Level,
            second: None,
            empty_check: None,
            reports_length: true,
            fills_tcp_info: true,
            budget: 64,
            gate: GateMode::Open,
            own_gates: false,
            policy: Policy::Nothing,
            refusals: None,
            reserve: false,
            acceptors: 1,
            one_listener: false,
            leave: Leave::AtTheEnd,
            queued: 0,
        }
    }

    /// How this acceptor is registered.
    #[must_use]
    pub fn trigger_of(&self, acceptor: usize) -> Trigger {
        self.second.filter(|_| acceptor % 2 == 1).unwrap_or(self.trigger)
    }

    /// How many gates there are.
    pub(super) fn gates(&self) -> usize {
        if self.own_gates { self.acceptors.max(1) } else { 1 }
    }

    /// A setup from arbitrary bytes, one for each choice, and the bytes that are left: for
    /// [`Script::from_bytes`]. Missing bytes count as 0.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> (Self, &[u8]) {
        const CHOICES: usize = 8;
        const TRIGGERS: [Trigger; 3] = [Trigger::Level, Trigger::Edge, Trigger::Exclusive];
        let (choices, rest) = bytes.split_at(bytes.len().min(CHOICES));
        let choice = |n: usize, of: u8| choices.get(n).copied().unwrap_or(0) % of;
        let number = |n, of| u32::from(choice(n, of));
        let setup = Self {
            trigger: TRIGGERS[usize::from(choice(0, 3))],
            second: (choice(0, u8::MAX) >= 128).then_some(TRIGGERS[usize::from(choice(0, 9) / 3)]),
            empty_check: [
                None,
                Some(EmptyCheck::UntilEagain),
                Some(EmptyCheck::Poll),
                Some(EmptyCheck::QueueLength),
            ][usize::from(choice(1, 4))],
            reports_length: choice(1, 8) < 4,
            fills_tcp_info: choice(1, 16) != 8,
            budget: 1 + number(2, 65),
            gate: match choice(3, 17) {
                0 => GateMode::Open,
                gate @ 1..9 if choice(3, u8::MAX) >= 136 => GateMode::Batch(u32::from(gate) - 1, 2),
                gate @ 1..9 => GateMode::Wait(u32::from(gate) - 1),
                gate => GateMode::Shed(u32::from(gate) - 9),
            },
            own_gates: choice(5, u8::MAX) >= 128,
            policy: match choice(7, u8::MAX) / 32 {
                1 => Policy::Rate(1),
                2 => Policy::Rate(3),
                3 => Policy::ShedRate(1),
                4 => Policy::Choosy,
                5 => match choice(2, 4) {
                    0 => Policy::Peers(1),
                    1 => Policy::PeersThenChoosy(1),
                    2 => Policy::Delay,
                    _ => Policy::Allowed,
                },
                _ => Policy::Nothing,
            },
            refusals: (choice(6, u8::MAX) >= 192).then_some((Policy::PER_SECOND, 2)),
            reserve: choice(4, u8::MAX) >= 192,
            acceptors: 1 + usize::from(choice(4, 3)),
            one_listener: choice(5, 2) == 1,
            leave: match choice(6, 14) {
                0 => Leave::AtTheEnd,
                1 => Leave::Skip,
                leave @ 2..6 => Leave::Break(u32::from(leave) - 1),
                leave @ 6..10 => Leave::Forget(u32::from(leave) - 5),
                leave => Leave::Panic(u32::from(leave) - 9),
            },
            queued: number(7, 8),
        };
        (setup, rest)
    }
}
