//! Setups and scripts on real sockets, which must keep the promises and deliver as many connections as the simulated
//! kernel. A run takes some dozen descriptors, and as long as its alarms.
#![no_main]

#[path = "../../tests/promises/real_stage.rs"]
mod real_stage;

use epoll_acceptor::sim::{Script, Setup};

/// The greatest length of a script: time is real here.
const ACTIONS_MAX: usize = 16;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (setup, rest) = Setup::from_bytes(bytes);
    if let Some(setup) = real_stage::playable(&setup) {
        let script = Script::from_bytes(&rest[..rest.len().min(2 * ACTIONS_MAX)], &setup);
        real_stage::play_on_both(&setup, &script);
    }
});
