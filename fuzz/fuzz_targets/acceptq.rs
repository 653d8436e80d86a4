//! What `acceptq` parses: answers of `sock_diag(7)` and files of `/proc`. Other processes choose parts of both.
#![no_main]

use probe::{connection, counters, diag, listener, registration, threads};

#[allow(dead_code, reason = "only the parsers are called")]
#[path = "."]
mod probe {
    #[path = "../../acceptq/src/probe/connection.rs"]
    pub(crate) mod connection;
    #[path = "../../acceptq/src/probe/counters.rs"]
    pub(crate) mod counters;
    #[path = "../../acceptq/src/probe/diag.rs"]
    pub(crate) mod diag;
    #[path = "../../acceptq/src/probe/listener.rs"]
    pub(crate) mod listener;
    #[path = "../../acceptq/src/probe/registration.rs"]
    pub(crate) mod registration;
    #[path = "../../acceptq/src/probe/threads.rs"]
    pub(crate) mod threads;
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = diag::read_datagram(bytes, entry);
    entry(bytes);
    let text = String::from_utf8_lossy(bytes);
    registration::items(&text).for_each(drop);
    for name in ["ListenOverflows", "PassiveOpens"] {
        let _ = counters::field(&text, "TcpExt:", name).or(counters::field(&text, "Tcp:", name));
    }
    let activity = || threads::by_syscall(&text).unwrap_or(threads::by_wchan(&text));
    let (stat, status) = text.split_once("\n\n").unwrap_or((&text, &text));
    if let Some(thread) = threads::Thread::parse(1, 1, stat, activity, || Some(status.into())) {
        let _ = thread.activity.name();
    }
});

fn entry(payload: &[u8]) {
    for listener in listener::read_inet(payload).into_iter().chain(listener::read_unix(payload)) {
        let shown = listener.address.to_string();
        assert!(!shown.contains(char::is_control), "{shown:?} reaches the terminal");
        let _ = (listener.capacity(), listener.closed_clients());
    }
    if let Some(connection) = connection::read(payload) {
        let _ = connection.is_accepted();
    }
}
