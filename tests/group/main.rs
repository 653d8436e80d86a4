//! Groups of listeners on one address: each test is a fact on the real kernel.
#![cfg(feature = "group")]

mod leaving;
mod members;
mod support;
