//! What an unprivileged user sees of own servers and of others.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::server::{Server, folder, program};
use crate::tool::{await_verdict_of, diagnosis};

const NOBODY: u32 = 65534;

/// Copies the tool to where that user may run it. Reports a skip and returns `None` if this is not root.
pub(crate) fn copy() -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        crate::tool::skip!("only root can run the tool as another user");
        return None;
    }
    let copy = folder().join(format!("acceptq-{:?}", std::thread::current().id()));
    // By another process: were the copy open for writing here, a child of another test would inherit that for a moment,
    // and a file that is open for writing cannot be executed (ETXTBSY).
    let status = Command::new("cp").arg(env!("CARGO_BIN_EXE_acceptq")).arg(&copy).status();
    assert!(status.is_ok_and(|status| status.success()), "a copy of the tool");
    Some(copy)
}

/// Returns whether this user may count system calls: root, with `CAP_SYS_ADMIN`.
pub(crate) fn can_count_calls() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    nix::unistd::geteuid().is_root() && capabilities & CAP_SYS_ADMIN != 0
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
fn foreign_server_shows_only_its_queue() {
    let (Some(tool), Some(server)) = (copy(), Server::start("edge", "127.0.0.1", 1)) else { return };
    let _held = server.hold_one();
    let mut clients = server.connect_while_stopped(8);
    clients.truncate(4);
    let report = await_verdict_of("undetermined", || examine(&tool, &server.target()));
    assert_eq!(report["cause"], "owner_hidden");
    assert_eq!(report["queued"], 7);
    assert_eq!(report["close_wait_unowned"], 4);
    assert!(report["oldest_wait_ms"].as_u64() >= Some(490), "{report:#}");
    for unseen in ["pid", "trigger", "owner_asleep", "registrations", "holders", "descriptors", "cpu_percent"]
    {
        assert_eq!(report[unseen], Value::Null, "{unseen}");
    }
    assert!(
        report["next"].as_str().is_some_and(|next| next.starts_with("sudo ")),
        "the next command is the remedy"
    );
}

#[test]
fn two_capabilities_show_foreign_server() {
    let (Some(tool), Some(server)) = (copy(), Server::start("edge", "127.0.0.1", 1)) else { return };
    let _held = server.hold_one();
    let _clients = server.connect_while_stopped(8);
    let nobody = NOBODY.to_string();
    let with = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
        command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        command
    };
    if !with("+sys_ptrace,+dac_read_search").arg("true").status().is_ok_and(|status| status.success()) {
        crate::tool::skip!("setpriv(1) cannot grant capabilities");
        return;
    }
    let examine = |capabilities: &str| {
        let mut command = with(capabilities);
        command.arg(&tool).args(["doctor", &server.target(), "--json", "--for", "0.5"]);
        diagnosis(&command.output().expect("the tool runs"))
    };
    let report = await_verdict_of("stranded", || examine("+sys_ptrace,+dac_read_search"));
    assert_eq!((&report["pid"], &report["trigger"]), (&server.pid().into(), &"edge".into()), "{report:#}");
    // One of them alone does not.
    for capabilities in ["+sys_ptrace", "+dac_read_search"] {
        let report = await_verdict_of("undetermined", || examine(capabilities));
        assert_eq!(report["cause"], "owner_hidden", "{capabilities}: {report:#}");
    }
}

#[test]
fn own_spinning_server_is_busy_in_ordeal() {
    let (Some(tool), Some(program)) = (copy(), program()) else { return };
    let server = Server::spawn(as_nobody(program).args(["spin", "127.0.0.1", "1"]), "127.0.0.1");
    let run = || {
        let output = as_nobody(&tool)
            .args(["ordeal", &server.target(), "--yes", "--freeze", "--json", "--patience", "3"])
            .output();
        let (report, status) = diagnosis(&output.expect("the tool runs"));
        // This user may not count system calls.
        assert_ne!(report["verdict"], "spins", "{report:#}");
        (report, status)
    };
    // On a loaded machine the thread may not be seen running.
    let report = await_verdict_of("busy", run);
    assert_eq!(report["exit_status"], 16);
}

#[test]
fn own_server_shows_everything() {
    let (Some(tool), Some(program)) = (copy(), program()) else { return };
    let server = Server::spawn(as_nobody(program).args(["edge", "127.0.0.1", "1"]), "127.0.0.1");
    let _held = server.hold_one();
    let _clients = server.connect_while_stopped(8);
    let report = await_verdict_of("stranded", || examine(&tool, &server.target()));
    assert_eq!(report["pid"], server.pid());
    assert_eq!(report["trigger"], "edge");
    assert_eq!(report["owner_asleep"], true);
}
