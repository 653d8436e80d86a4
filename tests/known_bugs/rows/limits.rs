use super::{Row, row};

#[rustfmt::skip]
pub(super) const COUNTED: &[Row] = &[
    row("L1", "h2o bd102e72f, 2982d5caa", "Keeps the reservation if the queue is empty."),
    row("L2", "h2o 3ed035cdc", "Increments, exceeds the limit, returns without decrementing."),
    row("L3", "x/net a479876f; HTTP.jl #1143; Helidon #7302", "Keeps the permit after an accept error."),
    row("L4", "x/net ee2e27e1; Tomcat bug 61918", "A second close releases a second time."),
    row("L5", "x/net b3c676e5, Go #24458", "Closing the listener does not wake waiters for a permit."),
    row("L6", "Envoy #41867, #43032", "Counts a connection that a later check refuses, and never uncounts it."),
    row("L7", "Envoy #22390, #22127, #42005", "Decrements without an increment; the underflow refuses everything."),
    row("L8", "Envoy #16113", "Decrements when the worker gets the connection: all workers look idle."),
    row("L9", "Envoy ActiveTcpListener::post (source)", "The chosen worker is gone; the connection is dropped, its count stays."),
    row("L10", "HAProxy fe234281d", "Both callee and caller decrement for a refused connection."),
    row("L11", "HAProxy 82c9789ac; h2o bd102e72f", "Checks the limit, accepts, then counts: each thread can exceed it by one."),
    row("L12", "Squid 059faae39c", "Compares the other connections with the limit and forgets its own."),
    row("L13", "Unit 2b53c7bb, ee62736a", "Leaks the count on ENOMEM."),
    row("L14", "Jetty #7515; Tomcat bugs 58970, 56518, 53173", "An interrupted or rejected hand-off leaves the count unchanged."),
    row("L15", "Seastar b07b4136f", "The count does not travel with the connection; its shard looks empty and gets more."),
    row("L16", "Seastar e9d984fed", "Queues for an acceptor that is gone."),
    row("L17", "netty d292fdafdd, 62446827df; HAProxy fail_conn; Squid 3556, 9205b24a40; barrier CVE-2021-42075", "Leaks the descriptor of a connection whose set-up fails."),
    row("L18", "Unit nxt_conn_io_accept (source)", "Closes a connection and passes it on.")
        .cannot_shown("closing moves the connection", "a_closed_connection_cannot_be_served"),
    row("L19", "libevent a695a720, 94eae336, 69db2610", "Frees the listener in its own callback: the descriptor has two owners or none."),
    row("L20", "memcached #619", "Counts every accepted connection as rejected."),
    row("L21", "HAProxy 741b4d6b7", "Omits the connection that reaches the limit from the rate."),
    row("L22", "HAProxy 4931d1ca5; Envoy #8427", "Loses an inherited descriptor or takes the wrong one."),
];

#[rustfmt::skip]
pub(super) const STATES: &[Row] = &[
    row("F1", "redis #12178; Traffic Server #10098; Node #1056, #1057; Envoy #27773; h2o 54dfc6583", "Accepts without a bound: open connections starve."),
    row("F2", "Traffic Server acceptFastEvent (source)", "Refusals are free of the budget."),
    row("F3", "redis #904", "One accept per turn: a reconnect storm takes forever."),
    row("F4", "HAProxy 8d2c98b76", "A long accept round triggers the watchdog."),
    row("F5", "HAProxy 62e8aaa1b, reverted 02757d02c", "Accepts only when idle, so never under load."),
    row("F6", "nginx 96c342e56; libuv be2a2176c", "One worker gets nearly all connections.")
        .out("the kernel wakes the first registered and blocked worker; a limit bounds its share"),
    row("F7", "Seastar, PROXY header in accept (source)", "Reads the first bytes in the accept loop: head-of-line blocking by one silent client."),
    row("F8", "libevent e03cd0b7", "Continues accepting when disabled from its callback."),
    row("F9", "libevent 12cedc8a, 2a71b332", "Disabling waits for a lock held by the running callback or leaked by an error path.")
        .cannot("a handle sets a bit and writes an eventfd; user code runs without a lock"),
    row("F10", "HAProxy d1ebee177; httpd af22ceed1c", "A resume revives a stopped listener."),
    row("F11", "HAProxy 13e86d947", "Clears a timer that another waiter has set."),
    row("F12", "HAProxy fed93d367", "Closes the listener and reuses its number while another thread accepts.")
        .cannot_shown("the acceptor owns its listener; a pass borrows the acceptor", "the_listener_stays_during_a_pass"),
    row("F13", "HAProxy 01abd0250, a889413f5", "Two locks taken in both orders."),
    row("F14", "HAProxy f2cb16948, 50b659476", "A resume runs on a thread with another epoll."),
    row("F15", "HAProxy a7da5e8dd", "Passes a connection to a stopped thread during shutdown."),
    row("F16", "Squid f3b976f73b, bug 4885", "Paused but still polled: each wakeup queues it again."),
    row("F17", "Tomcat pause and resume (source)", "Pausing discards the limit; resuming does not restore it."),
    row("F18", "memcached ac9397238", "A worker changes the listener thread's event base.")
        .cannot("only a pass changes the registration, and it needs `&mut` of the acceptor"),
    row("F19", "libuv uv__emfile_trick (source)", "Cannot reopen the reserve descriptor, so later EMFILEs are unhandled."),
    row("F20", "nginx c94c24b17, c83922b18", "Assumes that a deferred accept implies data.")
        .out("the crate does not read from connections"),
    row("F21", "h2o d8b0218d5; Seastar cc302c56c", "Does not set the address length before accept.")
        .cannot("the one function of that system call sets it with the buffer"),
    row("F22", "Envoy #8031, #14295; granian #567; HAProxy's manual", "A leaving process closes its listener with clients queued."),
];
