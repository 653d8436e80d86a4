use super::{Row, row};

#[rustfmt::skip]
pub(super) const COUNTED: &[Row] = &[
    row("L1", "h2o bd102e72f, 2982d5caa", "Reserved before the accept, and not given back when nobody was there."),
    row("L2", "h2o 3ed035cdc", "Counted up, found too many, returned without counting down."),
    row("L3", "x/net a479876f; HTTP.jl, issue 1143; Helidon, issue 7302", "An error of accept keeps the permit."),
    row("L4", "x/net ee2e27e1; Tomcat, bug 61918", "Closing a second time gives back a second time."),
    row("L5", "x/net b3c676e5, Go issue 24458", "Closing the listener does not wake who waits for a permit."),
    row("L6", "Envoy, issue 41867, pull 43032", "Counted in, then refused by a later check, and never counted out."),
    row("L7", "Envoy, issues 22390, 22127, 42005", "Counted out without having been counted in: below zero, so everybody is refused."),
    row("L8", "Envoy, issue 16113", "Counted up when a worker is chosen and down when it is given the connection: all look idle."),
    row("L9", "Envoy, ActiveTcpListener::post (from its source)", "The worker that was chosen has gone, the connection is dropped, the choice still counts."),
    row("L10", "HAProxy fe234281d", "A refused connection is counted down by who refused it and by who called."),
    row("L11", "HAProxy 82c9789ac; h2o bd102e72f", "Looks for room, accepts, counts: each thread can be one too many."),
    row("L12", "Squid 059faae39c", "Compares all the others with the limit, and lets itself in."),
    row("L13", "Unit 2b53c7bb, ee62736a", "Counted, and then memory runs out: the place is lost."),
    row("L14", "Jetty, issue 7515; Tomcat, bugs 58970, 56518, 53173", "An interrupted or refused hand-off leaves the count of those accepting as it was."),
    row("L15", "Seastar b07b4136f", "What a connection is counted by does not travel with it; its shard looks empty and gets more."),
    row("L16", "Seastar e9d984fed", "Queued for an acceptor that has gone."),
    row("L17", "netty d292fdafdd, 62446827df; HAProxy fail_conn; Squid 3556, 9205b24a40; barrier, CVE-2021-42075", "A connection whose set-up fails stays open, until descriptors run out."),
    row("L18", "Unit, nxt_conn_io_accept (from its source)", "Closed because it could not be set up, and passed on all the same.")
        .cannot_shown("a connection is moved: who closes it has it no more", "a_closed_connection_cannot_be_served"),
    row("L19", "libevent a695a720, 94eae336, 69db2610", "The listener is freed in its own callback, and the new descriptor belongs to both sides or to none."),
    row("L20", "memcached, issue 619", "Everybody accepted is counted as rejected."),
    row("L21", "HAProxy 741b4d6b7", "The connection that reaches the limit is missing from the rate."),
    row("L22", "HAProxy 4931d1ca5; Envoy, issue 8427", "Of the descriptors inherited one is lost, or the wrong one is taken."),
];

#[rustfmt::skip]
pub(super) const STATES: &[Row] = &[
    row("F1", "redis, issue 12178; Traffic Server, issue 10098; Node, pulls 1056 and 1057; Envoy, issue 27773; h2o 54dfc6583", "Accepts while there is anybody: those already connected starve."),
    row("F2", "Traffic Server, acceptFastEvent (from its source)", "Refused connections cost nothing of the budget."),
    row("F3", "redis, issue 904", "One accept a turn: when everybody comes back at once, it takes for ever."),
    row("F4", "HAProxy 8d2c98b76", "One long round of accepting, and the watchdog thinks the thread stuck."),
    row("F5", "HAProxy 62e8aaa1b, undone by 02757d02c", "Accepts only when nothing else is to be done, which under load is never."),
    row("F6", "nginx 96c342e56; libuv be2a2176c", "One of the workers gets nearly all.")
        .out("who is woken is the kernel's choice (the first that registered and sleeps); a limit bounds what one worker can take"),
    row("F7", "Seastar, PROXY header in accept (from its source)", "Reads the first bytes inside the accept loop: one silent client, and nobody else gets in."),
    row("F8", "libevent e03cd0b7", "Disabled from inside its callback, it accepts on."),
    row("F9", "libevent 12cedc8a, 2a71b332", "Disabling waits for a lock that the running callback holds, or that an error path kept.")
        .cannot("a handle sets a bit and writes an eventfd; no lock is held while user code runs, and there is none to keep"),
    row("F10", "HAProxy d1ebee177; httpd af22ceed1c", "A resume meets a stop, and the stopped listener is back."),
    row("F11", "HAProxy 13e86d947", "A timer is cleared by the one who has just been served, after another one has set it."),
    row("F12", "HAProxy fed93d367", "The listener is closed, its number reused, while another thread accepts from it.")
        .cannot_shown("the acceptor owns its listener, and a pass borrows the acceptor", "the_listener_stays_during_a_pass"),
    row("F13", "HAProxy 01abd0250, a889413f5", "Two locks, taken in both orders."),
    row("F14", "HAProxy f2cb16948, 50b659476", "A resume is carried out by a thread whose epoll it is not."),
    row("F15", "HAProxy a7da5e8dd", "While stopping, a connection is given to a thread that has stopped."),
    row("F16", "Squid f3b976f73b, bug 4885", "Paused and still polled: each wake-up queues it once more."),
    row("F17", "Tomcat, pause and resume (from its source)", "Pausing throws the limit away, and resuming does not bring it back."),
    row("F18", "memcached ac9397238", "A worker changes the event base of the listener's thread.")
        .cannot("only a pass changes the registration, a pass needs the acceptor mutably, and a handle can only ring"),
    row("F19", "libuv, uv__emfile_trick (from its source)", "The reserve descriptor cannot be had again, and from then on shortages have no answer."),
    row("F20", "nginx c94c24b17, c83922b18", "Believes that a deferred accept means that data is there.")
        .out("the crate does not read from connections"),
    row("F21", "h2o d8b0218d5; Seastar cc302c56c", "The address's length is not set before the call.")
        .cannot("the length is set where the buffer is made, inside the one function of that system call; by default no address is asked for"),
    row("F22", "Envoy, issues 8031, 14295; granian, issue 567; HAProxy's manual", "A process that leaves closes its listener with clients in the queue."),
];
