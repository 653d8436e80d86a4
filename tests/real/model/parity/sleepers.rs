//! Random sequences with three threads blocked in two epolls: which threads wake, and with which events.

use std::fmt::Write as _;

use epoll_acceptor::sim::kernel::{Family, Fd, Mask, Rules, Shut, Sleep, Thread};

use crate::parity::model::Model;
use crate::parity::op::{EPOLL, EVENTFD, LISTENER, OTHER_EPOLL, Op, Outcome, Setup, System};
use crate::parity::play::Coverage;
use crate::parity::random::Random;
use crate::parity::real::{Fixture, Real, is_supported};
use crate::parity::running::Running;
use crate::parity::workers::Workers;
use crate::{bound, report};

pub(crate) const THREADS: u32 = 3;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Call(Op),
    Sleep { thread: u32, epoll: u32, max: usize },
    Signal { thread: u32 },
}

/// The result of a blocking wait.
pub(crate) type WaitResult = Result<Vec<(u64, Mask)>, i32>;

/// The outcome of a step: the result of the call, and the waits that returned because of it.
pub(crate) type StepOutcome = (Outcome, Vec<(u32, WaitResult)>);

pub(crate) struct SleepersRecord {
    pub(crate) setup: Setup,
    pub(crate) steps: Vec<Step>,
    pub(crate) outcomes: Vec<StepOutcome>,
}

#[test]
fn blocked_threads_agree() {
    let mut coverage = Coverage::default();
    let mut woken = 0;
    compare_sleepers(bound(4_000, 20_000, 300_000), 1, &mut coverage, |record| {
        woken += record.outcomes.iter().map(|(_, returned)| returned.len()).sum::<usize>();
    });
    report(&format!(
        "parity: {} sequences, {} operations: {THREADS} threads blocked in 2 epolls, {woken} waits returned, \
         0 mismatches ({} not repeated)",
        coverage.sequences, coverage.operations, coverage.once
    ));
}

pub(crate) fn compare_sleepers(
    operations: u64,
    seed: u64,
    coverage: &mut Coverage,
    mut keep: impl FnMut(SleepersRecord),
) {
    let fixture = Fixture::new();
    let workers = Workers::new();
    let families = [Family::Tcp4, Family::Tcp6, Family::Unix, Family::Mptcp];
    let families = families.into_iter().filter(|family| is_supported(*family)).collect::<Vec<_>>();
    let mut random = Random(seed);
    while coverage.operations < operations {
        for family in families.iter().copied() {
            let setup = Setup { mptcp_clients: true, ..Setup::new([family, family], 3) };
            let steps = steps(&mut random);
            let outcomes = compare(&fixture, &workers, setup, &steps, coverage);
            keep(SleepersRecord { setup, steps, outcomes });
        }
    }
}

/// Runs the steps on the model, until two threads blocked in one epoll are woken: the kernel may run either first.
pub(crate) fn on_model<R: Rules>(rules: R, setup: Setup, steps: &[Step]) -> Vec<StepOutcome> {
    let mut model = Model::new(rules, setup);
    let mut blocked_in = [None; THREADS as usize];
    let mut outcomes = Vec::new();
    for (number, step) in (0..).zip(steps) {
        let mut returned = Vec::new();
        let outcome = match *step {
            Step::Call(op) => model.apply(number, op),
            Step::Sleep { thread, .. } if model.kernel.is_waiting(Thread(thread)) => Outcome::Absent,
            Step::Sleep { thread, epoll, max } => {
                blocked_in[thread as usize] = Some(epoll);
                let slept = model.kernel.sleep(Fd(epoll), Thread(thread), max, None);
                returned.extend(wait_result(thread, slept));
                Outcome::Done
            }
            Step::Signal { thread } => {
                model.kernel.signal(Thread(thread));
                Outcome::Done
            }
        };
        loop {
            let woken: Vec<Thread> = model.kernel.runnable().collect();
            let same_epoll =
                |a: &Thread, b: &Thread| a != b && blocked_in[a.0 as usize] == blocked_in[b.0 as usize];
            if woken.iter().any(|a| woken.iter().any(|b| same_epoll(a, b))) {
                return outcomes;
            }
            let Some(thread) = woken.first() else { break };
            returned.extend(wait_result(thread.0, model.kernel.run(*thread)));
        }
        returned.sort_by_key(|(thread, _)| *thread);
        outcomes.push((outcome, returned));
    }
    outcomes
}

fn wait_result(
    thread: u32,
    slept: Result<Sleep, epoll_acceptor::socket::Errno>,
) -> Option<(u32, WaitResult)> {
    match slept {
        Ok(Sleep::Asleep) => None,
        Ok(Sleep::Returned(events)) => {
            Some((thread, Ok(events.iter().map(|e| (e.data, e.events)).collect())))
        }
        Err(errno) => Some((thread, Err(errno.number()))),
    }
}

fn on_kernel(fixture: &Fixture, workers: &Workers, setup: Setup, steps: &[Step]) -> Vec<StepOutcome> {
    let mut real = Real::new(fixture, setup);
    let mut waiting = [false; THREADS as usize];
    let mut outcomes = Vec::new();
    for (number, step) in (0..).zip(steps) {
        let outcome = match *step {
            Step::Call(op) => real.apply(number, op),
            Step::Sleep { thread, .. } if waiting[thread as usize] => Outcome::Absent,
            Step::Sleep { thread, epoll, max } => {
                waiting[thread as usize] = true;
                workers.sleep(thread, epoll, max);
                Outcome::Done
            }
            Step::Signal { thread } => {
                workers.signal(thread);
                Outcome::Done
            }
        };
        outcomes.push((outcome, workers.wait_until_blocked(&mut waiting)));
    }
    workers.end(&mut waiting);
    outcomes
}

fn compare(
    fixture: &Fixture,
    workers: &Workers,
    setup: Setup,
    steps: &[Step],
    coverage: &mut Coverage,
) -> Vec<StepOutcome> {
    let model = on_model(Running, setup, steps);
    coverage.sequences += 1;
    coverage.operations += model.len() as u64;
    let kernel = on_kernel(fixture, workers, setup, steps);
    if kernel.starts_with(&model) {
        return kernel;
    }
    if (0..3).any(|_| on_kernel(fixture, workers, setup, steps).starts_with(&model)) {
        coverage.once += 1;
        report(&format!(
            "parity: differed once, agreed when repeated:\n{}",
            trace(setup, steps, &kernel, &model)
        ));
        return model;
    }
    panic!("the model differs from the kernel:\n{}", trace(setup, steps, &kernel, &model));
}

fn trace(setup: Setup, steps: &[Step], kernel: &[StepOutcome], model: &[StepOutcome]) -> String {
    let mut trace =
        format!("backlog {}; 0, 1: {:?}, 2 and 3: epoll, 4: eventfd\n", setup.backlog, setup.families[0]);
    for (number, ((step, kernel), model)) in steps.iter().zip(kernel).zip(model).enumerate() {
        if kernel == model {
            writeln!(trace, "{number:3}  {step:?} -> {kernel:?}").unwrap();
        } else {
            writeln!(trace, "{number:3}  {step:?} -> kernel {kernel:?}, model {model:?}   <-- differs")
                .unwrap();
            break;
        }
    }
    trace
}

fn steps(random: &mut Random) -> Vec<Step> {
    let masks = [
        Mask::IN,
        Mask::IN | Mask::ET,
        Mask::IN | Mask::ONESHOT,
        Mask::IN | Mask::EXCLUSIVE,
        Mask::IN | Mask::ET | Mask::EXCLUSIVE,
        Mask::EXCLUSIVE | Mask::OUT,
        Mask::empty(),
    ];
    let add = |random: &mut Random, epoll, fd| Step::Call(Op::Add { epoll, fd, mask: random.one_of(&masks) });
    let mut steps = vec![add(random, EPOLL, LISTENER), add(random, OTHER_EPOLL, LISTENER)];
    for _ in 0..6 + random.below(24) {
        let epoll = random.one_of(&[EPOLL, EPOLL, OTHER_EPOLL]);
        let fd = random.one_of(&[LISTENER, LISTENER, LISTENER, 1, EVENTFD]);
        let mask = random.one_of(&masks);
        steps.push(match random.below(40) {
            0..12 => {
                let thread = u32::try_from(random.below(THREADS as usize)).unwrap();
                Step::Sleep { thread, epoll, max: random.one_of(&[1, 4]) }
            }
            12..14 => Step::Signal { thread: u32::try_from(random.below(THREADS as usize)).unwrap() },
            14..21 => Step::Call(Op::Connect { listener: random.one_of(&[0, 0, 1]) }),
            21..25 => Step::Call(Op::Accept { fd: LISTENER }),
            25..28 => Step::Call(Op::Add { epoll, fd, mask }),
            28..30 => Step::Call(Op::Modify { epoll, fd, mask }),
            30..32 => Step::Call(Op::Delete { epoll, fd }),
            32..34 => Step::Call(Op::WriteEventfd { fd: EVENTFD }),
            34..36 => {
                let how = random.one_of(&[Shut::RD, Shut::WR, Shut::WR, Shut::WR]);
                Step::Call(Op::Shutdown { fd: LISTENER, how })
            }
            36 => Step::Call(Op::Close { fd: random.one_of(&[EPOLL, LISTENER]) }),
            37 => Step::Call(Op::Poll { fd: epoll }),
            _ => Step::Call(Op::Wait { epoll, max: 4 }),
        });
    }
    steps
}
