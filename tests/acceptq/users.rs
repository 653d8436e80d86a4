//! What an ordinary user is told: everything of an own server, of another's what everyone may see.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::server::{Server, folder, program};
use crate::tool::{await_verdict_of, diagnosis};

const NOBODY: u32 = 65534;

/// The tool, where that user may run it. `None`, and a line that says so, if we may not become someone else.
pub(crate) fn copy() -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        crate::tool::skip!("only root can run the tool as another user");
        return None;
    }
    let copy = folder().join(format!("acceptq-{:?}", std::thread::current().id()));
    fs::copy(env!("CARGO_BIN_EXE_acceptq"), &copy).expect("a copy of the tool");
    Some(copy)
}

pub(crate) fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    command
}

fn examine(tool: &Path, target: &str) -> (Value, i32) {
    let output = as_nobody(tool).args(["doctor", target, "--json", "--for", "0.5"]).output();
    diagnosis(&output.expect("the tool runs"))
}

#[test]
fn of_anothers_server_the_queue_is_seen_and_the_rest_is_not_guessed() {
    let (Some(tool), Some(server)) = (copy(), Server::start("edge", "127.0.0.1", 1)) else { return };
    let _held = server.hold_one();
    let mut crowd = server.surprise(8);
    crowd.truncate(4);
    let said = await_verdict_of("undetermined", || examine(&tool, &server.target()));
    assert_eq!(said["cause"], "owner_hidden");
    assert_eq!(said["queued"], 7);
    assert_eq!(said["close_wait_unowned"], 4);
    assert!(said["oldest_wait_ms"].as_u64() >= Some(490), "{said:#}");
    for unseen in ["pid", "trigger", "owner_asleep", "registrations", "holders", "descriptors", "cpu_percent"]
    {
        assert_eq!(said[unseen], Value::Null, "{unseen}");
    }
    assert!(
        said["advice"].as_str().is_some_and(|advice| advice.contains("root")),
        "what would let it be seen"
    );
}

#[test]
fn an_own_server_is_seen_whole() {
    let (Some(tool), Some(program)) = (copy(), program()) else { return };
    let server = Server::spawn(as_nobody(program).args(["edge", "127.0.0.1", "1"]), "127.0.0.1");
    let _held = server.hold_one();
    let _crowd = server.surprise(8);
    let said = await_verdict_of("stranded", || examine(&tool, &server.target()));
    assert_eq!(said["pid"], server.pid());
    assert_eq!(said["trigger"], "edge");
    assert_eq!(said["owner_asleep"], true);
}
