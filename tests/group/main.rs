//! `SO_REUSEPORT` groups, tested on the real kernel.
#![cfg(feature = "group")]

mod leaving;
mod members;
mod support;
