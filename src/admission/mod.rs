//! Admission: the gate and its permits, the filters, and how connections are refused.

// MUST be pure: no system call, and no clock in a decision. Filters that need the time take a `Clock`. Only `Monotonic`
// and `Gate::wait_idle`, for its deadline, read the system's. Imports nothing from the other folders.
#![forbid(unsafe_code)]

pub(crate) mod sync;
pub(crate) mod refusal;
pub(crate) mod notifier;
mod wait_queue;
pub(crate) mod semaphore;
mod capacity;
mod fast_path;
pub(crate) mod permit;
pub(crate) mod gate;
pub(crate) mod acquire;
pub(crate) mod connection_info;
pub(crate) mod filter;
mod combine;
pub(crate) mod clock;
pub(crate) mod gcra;
pub(crate) mod rate_limit;
mod count_table;
pub(crate) mod peer_limit;
pub(crate) mod queue_delay;
pub(crate) mod histogram;
pub(crate) mod allowed_users;
pub(crate) mod allowed_networks;
pub(crate) mod connection;
