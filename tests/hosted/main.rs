//! Acceptors in a tokio runtime, on the real kernel: each test is a fact. Nothing here waits for time to
//! pass: what must not come is looked for after everything that could bring it has been done.

mod support;

mod dropped;
mod edges;
mod ends;
mod serving;
mod winding;
