//! Signals to the accepting thread, a thousand per second.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use epoll_acceptor::Gate;
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::harness::{End, Harness, Scenario, ScenarioResult, UnderTest};
use crate::request::Request;
use crate::server::{Server, Service, build, listen};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "signals",
    about: "1000 signals per second to the accepting thread",
    share: 1.0,
    least: 0.3,
    run,
};

extern "C" fn nothing(_: nix::libc::c_int) {}

fn run(harness: &mut Harness) -> ScenarioResult {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: sigaction(2): a handler may only call async-signal-safe functions, and this one calls none.
    let before = unsafe { sigaction(Signal::SIGUSR1, &action) }?;

    let gate = Gate::new(100);
    let server = Server::start(listen(4096, 0)?, Service::Answer, build(harness.trigger, &gate, ()))?;
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
    let clients = harness.send(Request::new(server.address, 50, harness.seconds()))?.stats();
    over.store(true, Ordering::Release);
    storm.join().map_err(|_| "the thread that sends signals panicked")?;
    let stats = clients?;
    let empty_waits = server.stats.empty_waits.load(Ordering::Relaxed);
    let mut outcome = harness.end(UnderTest::new(server, &gate), stats.clone())?;
    // SAFETY: as above; this is the previous action.
    unsafe { sigaction(Signal::SIGUSR1, &before) }?;
    outcome.check(stats.answered == stats.connected, "every client is answered");
    outcome.add("signals", sent.load(Ordering::Relaxed));
    outcome.add("waits_without_event", empty_waits);
    Ok(End::Done(Box::new(outcome)))
}
