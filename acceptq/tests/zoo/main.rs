//! `acceptq doctor` on servers of other projects, from Debian's packages, in states that an operator meets.
//!
//! Runs only with `ACCEPTQ_ZOO=1`, because it takes minutes. `ACCEPTQ_ZOO=redis` runs the servers with that name.
//! `UPDATE_ZOO=1` writes the table to docs/acceptq/acceptq-zoo.md. What is not installed is skipped aloud. Packages:
//! nginx haproxy redis-server memcached apache2 lighttpd nodejs golang-go gunicorn uvicorn uwsgi-core
//! uwsgi-plugin-python3 php-fpm socat postgresql openssh-server default-jdk-headless erlang-base

mod cell;
mod clients;
mod place;
mod python;
mod servers;
mod table;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cell::{Outcome, Result};

/// Cells that run at the same time.
const PARALLEL: usize = 2;

macro_rules! aloud {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}
pub(crate) use aloud;

#[test]
fn verdicts_hold_on_real_servers() {
    let Ok(wanted) = std::env::var("ACCEPTQ_ZOO") else {
        aloud!("SKIPPED: the zoo of real servers; set ACCEPTQ_ZOO=1");
        return;
    };
    let place = place::Place::new();
    let mut cells = servers::all(&place);
    cells.retain(|cell| wanted == "1" || cell.server.contains(&wanted));
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = cell.run();
                    aloud!("{}", table::line(cell, &result));
                    results.lock().expect("no panic").push((cell, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no panic");
    results.sort_by_key(|(cell, _)| cells.iter().position(|other| std::ptr::eq(other, *cell)));
    let count = |outcome: Outcome| results.iter().filter(|(_, result)| result.outcome == outcome).count();
    let judged = results.len() - count(Outcome::Skipped);
    aloud!(
        "{judged} judged: {} right, {} misleading, {} wrong; {} skipped",
        count(Outcome::Right),
        count(Outcome::Misleading),
        count(Outcome::Wrong),
        count(Outcome::Skipped)
    );
    if std::env::var_os("UPDATE_ZOO").is_some() {
        table::write(&results);
    }
    for never in ["stranded", "healthy", "spinning"] {
        let is_false = |result: &Result| result.verdict == never && result.outcome != Outcome::Right;
        let wrong: Vec<_> =
            results.iter().filter(|(_, result)| is_false(result)).map(|(cell, _)| cell.name()).collect();
        assert!(wrong.is_empty(), "false {never}: {wrong:?}");
    }
    assert!(judged == 0 || count(Outcome::Right) * 100 >= judged * 95, "fewer than 95 % are right");
}
