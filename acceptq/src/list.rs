//! `acceptq list`: every listening socket.

use std::collections::HashSet;
use std::io::{self, ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::doctor::SCHEMA;
use crate::format::{plural, wrap};
use crate::probe::{Address, Diag, Holder, Kind, Listener, Namespace, Owners, Registration, Target};
use crate::{NO_LISTENER, eprint, print_error, print_ignoring_epipe, remedy, width};

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
    /// Include every network namespace: those of all processes, and those in /run/netns
    #[arg(long, conflicts_with = "netns")]
    all_netns: bool,
    /// Print JSON; fields that are not visible are null
    #[arg(long)]
    json: bool,
}

/// A listener, and its network namespace if all namespaces are listed.
struct Found {
    netns: Option<String>,
    listener: Listener,
}

#[derive(Serialize)]
struct Row<'a> {
    /// The argument of `--netns` that selects its network namespace; `None` for the one of this process.
    netns: Option<&'a str>,
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
        let (found, hidden) = self.listeners()?;
        let status = if found.is_empty() && !self.targets.is_empty() { NO_LISTENER } else { 0 };
        let inodes: HashSet<u64> = found.iter().map(|found| found.listener.inode).collect();
        let owners = Owners::of(&inodes);
        let rows: Vec<Row<'_>> = found.iter().map(|found| row(found, &owners)).collect();
        if self.json {
            let all = json!({ "schema": SCHEMA, "listeners": rows, "processes_hidden": owners.hidden });
            print_ignoring_epipe(&format!("{all}\n"))?;
        } else {
            print_ignoring_epipe(&format!("{}\n", table(&rows, self.all_netns).trim_fmt()))?;
            print_hidden_owners(&rows, &owners);
            if hidden > 0 {
                let processes = plural(hidden, "process");
                let text = format!("The network namespaces of {processes} are not visible. {}", remedy());
                eprint(&wrap(&text, "", "", width()));
            }
        }
        Ok(ExitCode::from(status))
    }

    /// Returns the listeners, and the number of processes in a network namespace that is not visible.
    fn listeners(&self) -> io::Result<(Vec<Found>, usize)> {
        let (mut found, mut hidden) = (Vec::new(), 0);
        if self.all_netns {
            let (namespaces, unseen) = Namespace::all()?;
            hidden = unseen;
            for namespace in namespaces {
                match namespace.diag() {
                    Ok(diag) => self.listeners_of(&diag, namespace.name.as_deref(), &mut found)?,
                    // The namespace has gone, and its name in /run/netns is left.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                    Err(_) => hidden += 1,
                }
            }
        } else {
            self.listeners_of(&Diag::new()?, None, &mut found)?;
        }
        for target in &self.targets {
            if !found.iter().any(|(number, _)| self.targets.get(*number) == Some(target)) {
                print_error(&format!("nothing listens at {target}"));
            }
        }
        let mut found: Vec<Found> = found.into_iter().map(|(_, found)| found).collect();
        found.sort_by_cached_key(|found| (found.netns.clone(), order(&found.listener)));
        found.dedup_by(|one, other| {
            (&one.netns, one.listener.cookie) == (&other.netns, other.listener.cookie)
        });
        Ok((found, hidden))
    }

    /// Adds the listeners of one network namespace, each with the number of the target that it matches.
    fn listeners_of(
        &self,
        diag: &Diag,
        netns: Option<&str>,
        found: &mut Vec<(usize, Found)>,
    ) -> io::Result<()> {
        let mut add = |number: usize, all: Vec<Listener>| {
            let netns = netns.map(String::from);
            found.extend(all.into_iter().map(|listener| (number, Found { netns: netns.clone(), listener })));
        };
        for (number, target) in self.targets.iter().enumerate() {
            add(number, target.listeners(diag)?.0);
        }
        if self.targets.is_empty() {
            add(0, Listener::inet(diag, None)?);
            add(0, Listener::unix(diag)?);
        }
        Ok(())
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
    let row = row_of(listener, None, owners);
    (owner(&row), watched(&row))
}

fn row<'a>(found: &'a Found, owners: &'a Owners) -> Row<'a> {
    row_of(&found.listener, found.netns.as_deref(), owners)
}

fn row_of<'a>(listener: &'a Listener, netns: Option<&'a str>, owners: &'a Owners) -> Row<'a> {
    let holders = owners.holders(listener.inode);
    let is_visible = !holders.is_empty();
    Row {
        netns,
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

fn table(rows: &[Row<'_>], has_netns: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Without a terminal every row is one line.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(crossterm::terminal::size().map_or(80, |(columns, _)| columns));
    }
    let headings = ["KIND", "ADDRESS", "QUEUED", "OF", "DROPS", "OWNER", "WATCHED"];
    table.set_header(has_netns.then_some("NETNS").into_iter().chain(headings));
    for row in rows {
        let drops = row.drops.map_or_else(|| "-".into(), |drops| drops.to_string());
        let netns = has_netns.then(|| row.netns.unwrap_or("-").to_string());
        let cells = [
            row.kind.name().to_string(),
            row.address.to_string(),
            row.queued.to_string(),
            row.capacity.to_string(),
            drops,
            owner(row),
            watched(row),
        ];
        table.add_row(netns.into_iter().chain(cells));
    }
    let numbers = if has_netns { 3..=5 } else { 2..=4 };
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&number) {
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
    let unit = holders[0].unit.as_ref().map(|unit| format!(" ({unit})")).unwrap_or_default();
    format!("{} {}{unit}{more}", holders[0].pid, holders[0].command)
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
            0 => format!("/proc hides the processes of other users (hidepid). {}", remedy()),
            hidden => format!("{} cannot be inspected. {}", plural(hidden, "process"), remedy()),
        };
        let text = format!("The owners of {} are not visible: {reason}", plural(unseen, "listener"));
        eprint(&wrap(&text, "", "", width()));
    }
}
