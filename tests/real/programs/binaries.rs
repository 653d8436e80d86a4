//! The binaries of the examples.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use nix::unistd::{AccessFlags, access};

/// Returns the binary of an example. `cargo test` builds the examples, `cargo test --test NAME` does not: a binary that is
/// absent or older than its source is built here, once.
pub(crate) fn example(name: &'static str) -> PathBuf {
    static CHECKED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut checked = CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    let binary = profile_dir().join("examples").join(name);
    // Another user than the one that built them cannot rebuild them.
    let may_build = access(&profile_dir(), AccessFlags::W_OK).is_ok();
    if checked.insert(name) && may_build && is_stale(&binary, name) {
        build(name);
    }
    assert!(binary.exists(), "the example {name} was built, but not where the tests look for it");
    binary
}

/// `target/debug`, from `target/debug/deps/programs-0123456789abcdef`.
fn profile_dir() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    test.ancestors().nth(2).expect("two directories below the profile").to_owned()
}

fn build(name: &str) {
    let profile_dir = profile_dir();
    let (target_dir, profile) =
        (profile_dir.parent(), profile_dir.file_name().and_then(|name| name.to_str()));
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--example",
            name,
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/Cargo.toml"),
        ])
        .arg("--target-dir")
        .arg(target_dir.expect("the profile's directory is below the target directory"))
        .args(["--profile", if profile == Some("debug") { "dev" } else { profile.expect("it has a name") }])
        .status();
    assert!(status.expect("cargo runs").success(), "the example {name} does not build");
}

fn is_stale(binary: &Path, name: &str) -> bool {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let newest = newest(&sources.join("src")).max(newest(&sources.join("examples").join(name)));
    modified(binary) < newest || !binary.exists()
}

/// Returns when the newest file below a directory was changed; `None` if nothing can be read.
fn newest(directory: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(directory).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    entries.filter_map(|path| if path.is_dir() { newest(&path) } else { modified(&path) }).max()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}
