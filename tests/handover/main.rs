//! Listeners from one process to another: each test is a fact on the real kernel.
#![cfg(feature = "handover")]

mod inherit;
mod rights;
mod support;
