//! Runs `acceptq` on servers in C with common accept-loop faults, and on acceptors of epoll-acceptor.

mod clients;
mod server;
mod tool;
mod doctor;
mod acceptors;
mod users;
mod list;
mod netns;
mod ordeal;
mod outage;
mod watch;
mod examples;
mod export;
