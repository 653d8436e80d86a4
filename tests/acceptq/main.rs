//! The tool `acceptq`, as it is run: on servers in C with the faults of the field, and on ours.

mod clients;
mod server;
mod tool;
mod doctor;
mod ours;
mod users;
mod list;
mod ordeal;
mod watch;
