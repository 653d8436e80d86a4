//! `acceptq list`: every listening socket.

use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::format::{plural, wrap};
use crate::probe::{Address, Diag, Holder, Kind, Listener, Owners, Registration, Target};
use crate::{NO_LISTENER, eprint, print_error, print_ignoring_epipe, width};

/// Lists every listening socket with its queue, its owner and its epoll registration
///
/// The WATCHED column shows how the owner's epoll instances watch the socket: level, edge, exclusive,
/// oneshot, fired (EPOLLONESHOT, not rearmed) or disarmed (no EPOLLIN in the mask). A dash means that no
/// epoll watches it: the owner may use a blocking accept, poll or io_uring, or not accept at all. A question
/// mark means that the registration is not visible to this user.
///
/// Exits with 3 if nothing listens at any target.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Show only these: ports, addresses, paths of Unix sockets, @names of abstract ones
    #[arg(value_name = "PORT|PATH")]
    targets: Vec<Target>,
    /// Print JSON; fields that are not visible are null
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    kind: Kind,
    address: &'a Address,
    inode: u64,
    uid: Option<u32>,
    queued: u32,
    backlog: u32,
    capacity: u32,
    drops: Option<u32>,
    holders: Option<&'a [Holder]>,
    registrations: Option<&'a [Registration]>,
}

impl List {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let diag = Diag::new()?;
        let listeners = self.listeners(&diag)?;
        let status = if listeners.is_empty() && !self.targets.is_empty() { NO_LISTENER } else { 0 };
        let inodes: HashSet<u64> = listeners.iter().map(|listener| listener.inode).collect();
        let owners = Owners::of(&inodes);
        let rows: Vec<Row<'_>> = listeners.iter().map(|listener| row(listener, &owners)).collect();
        if self.json {
            let all = json!({ "schema": 1, "listeners": rows, "processes_hidden": owners.hidden });
            print_ignoring_epipe(&format!("{all}\n"))?;
        } else {
            print_ignoring_epipe(&format!("{}\n", table(&rows).trim_fmt()))?;
            print_hidden_owners(&rows, &owners);
        }
        Ok(ExitCode::from(status))
    }

    fn listeners(&self, diag: &Diag) -> io::Result<Vec<Listener>> {
        let mut found = Vec::new();
        for target in &self.targets {
            let (chosen, _) = target.listeners(diag)?;
            if chosen.is_empty() {
                print_error(&format!("nothing listens at {target}"));
            }
            found.extend(chosen);
        }
        if self.targets.is_empty() {
            found.extend(Listener::inet(diag, None)?);
            found.extend(Listener::unix(diag)?);
        }
        found.sort_by_cached_key(order);
        found.dedup_by_key(|listener| listener.cookie);
        Ok(found)
    }
}

/// Returns the sort key: TCP by port, then Unix by name.
pub(crate) fn order(listener: &Listener) -> (bool, u16, String, u64) {
    match &listener.address {
        Address::Inet(address) => (false, address.port(), address.to_string(), listener.inode),
        name => (true, 0, name.to_string(), listener.inode),
    }
}

/// Returns the columns OWNER and WATCHED.
pub(crate) fn owner_and_watched(listener: &Listener, owners: &Owners) -> (String, String) {
    let row = row(listener, owners);
    (owner(&row), watched(&row))
}

fn row<'a>(listener: &'a Listener, owners: &'a Owners) -> Row<'a> {
    let holders = owners.holders(listener.inode);
    let is_visible = !holders.is_empty();
    Row {
        kind: listener.kind,
        address: &listener.address,
        inode: listener.inode,
        uid: listener.uid,
        queued: listener.queued,
        backlog: listener.backlog,
        capacity: listener.capacity(),
        drops: listener.drops,
        holders: is_visible.then_some(holders),
        registrations: is_visible.then(|| owners.registrations(listener.inode)),
    }
}

fn table(rows: &[Row<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Without a terminal every row is one line.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(crossterm::terminal::size().map_or(80, |(columns, _)| columns));
    }
    table.set_header(["KIND", "ADDRESS", "QUEUED", "OF", "DROPS", "OWNER", "WATCHED"]);
    for row in rows {
        let drops = row.drops.map_or_else(|| "-".into(), |drops| drops.to_string());
        table.add_row([
            row.kind.name().to_string(),
            row.address.to_string(),
            row.queued.to_string(),
            row.capacity.to_string(),
            drops,
            owner(row),
            watched(row),
        ]);
    }
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (2..=4).contains(&number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Formats the owning process, or the uid of the socket if the process is not visible.
fn owner(row: &Row<'_>) -> String {
    let Some(holders) = row.holders else {
        return row.uid.map_or_else(|| "?".into(), |uid| format!("? (uid {uid})"));
    };
    let mut pids: Vec<i32> = holders.iter().map(|holder| holder.pid).collect();
    pids.dedup();
    let more = if pids.len() > 1 { format!(" +{}", pids.len() - 1) } else { String::new() };
    format!("{} {}{more}", holders[0].pid, holders[0].command)
}

/// Formats the distinct triggers, each with its count.
fn watched(row: &Row<'_>) -> String {
    let Some(registrations) = row.registrations else { return "?".into() };
    let mut triggers: Vec<(&str, usize)> = Vec::new();
    for registration in registrations {
        let name = registration.trigger.name();
        match triggers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => triggers.push((name, 1)),
        }
    }
    let one = |(name, count): &(&str, usize)| match count {
        1 => (*name).to_string(),
        count => format!("{name} x{count}"),
    };
    match triggers.is_empty() {
        true => "-".into(),
        false => triggers.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

/// Reports on stderr how many owners are not visible, so that a pipe receives only the table.
fn print_hidden_owners(rows: &[Row<'_>], owners: &Owners) {
    let unseen = rows.iter().filter(|row| row.holders.is_none()).count();
    if unseen > 0 {
        let reason = match owners.hidden {
            _ if owners.is_complete() => "they run in another PID namespace or in the kernel.".into(),
            0 => "/proc hides the processes of other users (hidepid). Run this as root.".into(),
            hidden => format!("{} cannot be inspected. Run this as root.", plural(hidden, "process")),
        };
        let text = format!("The owners of {} are not visible: {reason}", plural(unseen, "listener"));
        eprint(&wrap(&text, "", "", width()));
    }
}
