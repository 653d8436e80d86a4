//! Random sequences with three threads that sleep in two epolls: who is woken, and with what.

use std::fmt::Write as _;

use epoll_acceptor::sim::kernel::{Family, Fd, Linux, Mask, Rules, Shut, Sleep, Thread};

use crate::model::Model;
use crate::op::{EPOLL, LISTENER, OTHER_EPOLL, Op, Outcome, RING, Setup, World};
use crate::play::Tally;
use crate::random::Random;
use crate::real::{Bench, Real, is_here};
use crate::workers::Workers;
use crate::{say, thorough};

pub(crate) const THREADS: u32 = 3;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Scene {
    Call(Op),
    Sleep { thread: u32, epoll: u32, max: usize },
    Signal { thread: u32 },
}

/// What a blocking wait returned.
pub(crate) type Returned = Result<Vec<(u64, Mask)>, i32>;

/// What a scene came to: the result of the call, and the waits that returned because of it.
pub(crate) type Scened = (Outcome, Vec<(u32, Returned)>);

pub(crate) struct SleepersRecord {
    pub(crate) setup: Setup,
    pub(crate) scenes: Vec<Scene>,
    pub(crate) outcomes: Vec<Scened>,
}

#[test]
fn sleeping_threads_agree() {
    let mut tally = Tally::default();
    let mut woken = 0;
    compare_sleepers(if thorough() { 300_000 } else { 20_000 }, 1, &mut tally, |record| {
        woken += record.outcomes.iter().map(|(_, returned)| returned.len()).sum::<usize>();
    });
    say(&format!(
        "parity: {} sequences, {} operations: {THREADS} threads asleep in 2 epolls, {woken} waits returned, \
         0 mismatches ({} not repeated)",
        tally.sequences, tally.operations, tally.once
    ));
}

pub(crate) fn compare_sleepers(
    operations: u64,
    seed: u64,
    tally: &mut Tally,
    mut keep: impl FnMut(SleepersRecord),
) {
    let bench = Bench::new();
    let workers = Workers::new();
    let families = [Family::Tcp4, Family::Tcp6, Family::Unix, Family::Mptcp];
    let families = families.into_iter().filter(|family| is_here(*family)).collect::<Vec<_>>();
    let mut random = Random(seed);
    while tally.operations < operations {
        for family in families.iter().copied() {
            let setup = Setup { mptcp_clients: true, ..Setup::new([family, family], 3) };
            let scenes = scenes(&mut random);
            let outcomes = compare(&bench, &workers, setup, &scenes, tally);
            keep(SleepersRecord { setup, scenes, outcomes });
        }
    }
}

/// Plays on the model, as far as it is certain what the kernel will do: where two threads of one epoll were
/// woken, either may come first.
pub(crate) fn on_model<R: Rules>(rules: R, setup: Setup, scenes: &[Scene]) -> Vec<Scened> {
    let mut model = Model::new(rules, setup);
    let mut sleeps_in = [None; THREADS as usize];
    let mut outcomes = Vec::new();
    for (step, scene) in (0..).zip(scenes) {
        let mut returned = Vec::new();
        let outcome = match *scene {
            Scene::Call(op) => model.apply(step, op),
            Scene::Sleep { thread, .. } if model.kernel.has_pending(Thread(thread)) => Outcome::Absent,
            Scene::Sleep { thread, epoll, max } => {
                sleeps_in[thread as usize] = Some(epoll);
                let slept = model.kernel.sleep(Fd(epoll), Thread(thread), max, None);
                returned.extend(ended(thread, slept));
                Outcome::Done
            }
            Scene::Signal { thread } => {
                model.kernel.signal(Thread(thread));
                Outcome::Done
            }
        };
        loop {
            let woken: Vec<Thread> = model.kernel.runnable().collect();
            let together =
                |a: &Thread, b: &Thread| a != b && sleeps_in[a.0 as usize] == sleeps_in[b.0 as usize];
            if woken.iter().any(|a| woken.iter().any(|b| together(a, b))) {
                return outcomes;
            }
            let Some(thread) = woken.first() else { break };
            returned.extend(ended(thread.0, model.kernel.run(*thread)));
        }
        returned.sort_by_key(|(thread, _)| *thread);
        outcomes.push((outcome, returned));
    }
    outcomes
}

fn ended(thread: u32, slept: Result<Sleep, epoll_acceptor::Errno>) -> Option<(u32, Returned)> {
    match slept {
        Ok(Sleep::Asleep) => None,
        Ok(Sleep::Returned(events)) => {
            Some((thread, Ok(events.iter().map(|e| (e.data, e.events)).collect())))
        }
        Err(errno) => Some((thread, Err(errno.number()))),
    }
}

fn on_kernel(bench: &Bench, workers: &Workers, setup: Setup, scenes: &[Scene]) -> Vec<Scened> {
    let mut real = Real::new(bench, setup);
    let mut waiting = [false; THREADS as usize];
    let mut outcomes = Vec::new();
    for (step, scene) in (0..).zip(scenes) {
        let outcome = match *scene {
            Scene::Call(op) => real.apply(step, op),
            Scene::Sleep { thread, .. } if waiting[thread as usize] => Outcome::Absent,
            Scene::Sleep { thread, epoll, max } => {
                waiting[thread as usize] = true;
                workers.sleep(thread, epoll, max);
                Outcome::Done
            }
            Scene::Signal { thread } => {
                workers.signal(thread);
                Outcome::Done
            }
        };
        outcomes.push((outcome, workers.settle(&mut waiting)));
    }
    workers.end(&mut waiting);
    outcomes
}

fn compare(
    bench: &Bench,
    workers: &Workers,
    setup: Setup,
    scenes: &[Scene],
    tally: &mut Tally,
) -> Vec<Scened> {
    let model = on_model(Linux, setup, scenes);
    tally.sequences += 1;
    tally.operations += model.len() as u64;
    let kernel = on_kernel(bench, workers, setup, scenes);
    if kernel.starts_with(&model) {
        return kernel;
    }
    if (0..3).any(|_| on_kernel(bench, workers, setup, scenes).starts_with(&model)) {
        tally.once += 1;
        say(&format!("parity: differed once and not again:\n{}", story(setup, scenes, &kernel, &model)));
        return model;
    }
    panic!("the model differs from the kernel:\n{}", story(setup, scenes, &kernel, &model));
}

fn story(setup: Setup, scenes: &[Scene], kernel: &[Scened], model: &[Scened]) -> String {
    let mut story =
        format!("backlog {}; 0, 1: {:?}, 2 and 3: epoll, 4: ring\n", setup.backlog, setup.families[0]);
    for (step, ((scene, kernel), model)) in scenes.iter().zip(kernel).zip(model).enumerate() {
        if kernel == model {
            writeln!(story, "{step:3}  {scene:?} -> {kernel:?}").unwrap();
        } else {
            writeln!(story, "{step:3}  {scene:?} -> kernel {kernel:?}, model {model:?}   <-- differs")
                .unwrap();
            break;
        }
    }
    story
}

fn scenes(random: &mut Random) -> Vec<Scene> {
    let masks = [
        Mask::IN,
        Mask::IN | Mask::ET,
        Mask::IN | Mask::ONESHOT,
        Mask::IN | Mask::EXCLUSIVE,
        Mask::IN | Mask::ET | Mask::EXCLUSIVE,
        Mask::EXCLUSIVE | Mask::OUT,
        Mask::empty(),
    ];
    let add =
        |random: &mut Random, epoll, fd| Scene::Call(Op::Add { epoll, fd, mask: random.one_of(&masks) });
    let mut scenes = vec![add(random, EPOLL, LISTENER), add(random, OTHER_EPOLL, LISTENER)];
    for _ in 0..6 + random.below(24) {
        let epoll = random.one_of(&[EPOLL, EPOLL, OTHER_EPOLL]);
        let fd = random.one_of(&[LISTENER, LISTENER, LISTENER, 1, RING]);
        let mask = random.one_of(&masks);
        scenes.push(match random.below(40) {
            0..12 => {
                let thread = u32::try_from(random.below(THREADS as usize)).unwrap();
                Scene::Sleep { thread, epoll, max: random.one_of(&[1, 4]) }
            }
            12..14 => Scene::Signal { thread: u32::try_from(random.below(THREADS as usize)).unwrap() },
            14..21 => Scene::Call(Op::Connect { listener: random.one_of(&[0, 0, 1]) }),
            21..25 => Scene::Call(Op::Accept { fd: LISTENER }),
            25..28 => Scene::Call(Op::Add { epoll, fd, mask }),
            28..30 => Scene::Call(Op::Modify { epoll, fd, mask }),
            30..32 => Scene::Call(Op::Delete { epoll, fd }),
            32..34 => Scene::Call(Op::Ring { fd: RING }),
            34..36 => {
                let how = random.one_of(&[Shut::RD, Shut::WR, Shut::WR, Shut::WR]);
                Scene::Call(Op::Shutdown { fd: LISTENER, how })
            }
            36 => Scene::Call(Op::Close { fd: random.one_of(&[EPOLL, LISTENER]) }),
            37 => Scene::Call(Op::Poll { fd: epoll }),
            _ => Scene::Call(Op::Wait { epoll, max: 4 }),
        });
    }
    scenes
}
