//! Signals to the accepting thread, a thousand a second.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use epoll_acceptor::Gate;
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::order::Order;
use crate::server::{Server, Service, build, listen};
use crate::stage::{End, Played, Scenario, Scene, Stage};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "signals",
    about: "1000 signals a second to the accepting thread",
    share: 1.0,
    least: 0.3,
    play,
};

extern "C" fn nothing(_: nix::libc::c_int) {}

fn play(stage: &mut Stage) -> Played {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: sigaction(2): a handler must do nothing that is not async-signal-safe, and this one does nothing at all.
    let before = unsafe { sigaction(Signal::SIGUSR1, &action) }?;

    let gate = Gate::new(100);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(stage.trigger, gate.clone()))?;
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let storm = thread::spawn({
        let (over, sent, target) = (Arc::clone(&over), Arc::clone(&sent), server.thread());
        move || {
            while !over.load(Ordering::Acquire) && pthread_kill(target, Signal::SIGUSR1).is_ok() {
                sent.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let crowd = stage.send(Order::new(server.address, 50, stage.seconds()))?.tally();
    over.store(true, Ordering::Release);
    storm.join().map_err(|_| "the thread that sends signals panicked")?;
    let tally = crowd?;
    let empty_waits = server.books.empty_waits.load(Ordering::Relaxed);
    let mut outcome = stage.end(Scene::new(server, &gate), tally.clone())?;
    // SAFETY: as above; this is the action that was there before.
    unsafe { sigaction(Signal::SIGUSR1, &before) }?;
    outcome.check(tally.answered == tally.connected, "everybody was answered");
    outcome.tell("signals", sent.load(Ordering::Relaxed));
    outcome.tell("waits_without_event", empty_waits);
    Ok(End::Played(Box::new(outcome)))
}
