//! `SO_REUSEPORT` groups, tested on the real kernel.

mod leaving;
mod members;
mod support;
