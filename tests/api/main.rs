//! What the crate offers is what docs/api.txt says: nothing of it changes unnoticed.
//!
//! `UPDATE_API=1 cargo test --test api` writes the file anew; its diff is what a reviewer reads, and what
//! docs/releasing.md decides the next version by.

use std::collections::HashSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const HEAD: &str = "\
# The public API, kept by tests/api: `UPDATE_API=1 cargo test --test api` writes this file anew.
# Methods of traits of other crates, and the feature `sim`, are left out: see docs/releasing.md.
";

/// What promises nothing, by docs/releasing.md.
const NOT_COVERED: [&str; 2] = ["sim", "default"];

#[test]
fn the_public_api_is_what_its_file_says() {
    let features = features();
    let (Some(core), Some(all)) = (listing(&[]), listing(&features)) else { return };
    let mut now = format!("{HEAD}\n== without features\n\n");
    let known: HashSet<&String> = core.iter().collect();
    for line in &core {
        let _ = writeln!(now, "{line}");
    }
    let _ = writeln!(now, "\n== further, with {}\n", features.join(", "));
    for line in all.iter().filter(|line| !known.contains(line)) {
        let _ = writeln!(now, "{line}");
    }
    let missing: Vec<&String> = core.iter().filter(|line| !all.contains(line)).collect();
    assert!(missing.is_empty(), "features must only add; these are gone with them: {missing:#?}");

    let path = root().join("docs/api.txt");
    if env::var_os("UPDATE_API").is_some() {
        return fs::write(&path, now).expect("docs/api.txt can be written");
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let difference = difference(&before, &now);
    assert!(
        difference.is_empty(),
        "the public API has changed:

{difference}
If that is meant: UPDATE_API=1 cargo test --test api, and an \
         entry in CHANGELOG.md (docs/releasing.md says of which form)"
    );
}

/// The features of the package that its versions speak for, in order.
fn features() -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
    let features = metadata["packages"][0]["features"].as_object().expect("a package has features");
    let mut names: Vec<String> =
        features.keys().filter(|name| !NOT_COVERED.contains(&name.as_str())).cloned().collect();
    names.sort();
    names
}

/// The public items with these features; `None`, said aloud, with a toolchain whose JSON cannot be read.
fn listing(features: &[String]) -> Option<Vec<String>> {
    let json = rustdoc_json(features);
    let api = match public_api::Builder::from_rustdoc_json(&json).omit_blanket_impls(true).build() {
        Ok(api) => api,
        Err(why) => {
            // Not println!, which the harness keeps to itself.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: the public API is not compared: rustdoc of this toolchain writes JSON of a form \
                 that the dev-dependency public-api cannot read ({why})"
            );
            return None;
        }
    };
    Some(readable(&api.to_string()))
}

fn rustdoc_json(features: &[String]) -> PathBuf {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Only rustdoc is asked for something unstable: cargo and the dependencies stay as other builds have them.
    let rustdoc = own.join("rustdoc-json");
    let real = env::var("RUSTDOC").unwrap_or_else(|_| "rustdoc".to_owned());
    let script = format!("#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec \"{real}\" \"$@\"\n");
    if fs::read_to_string(&rustdoc).ok().as_ref() != Some(&script) {
        fs::write(&rustdoc, script).expect("the target folder can be written");
        fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let target = own.parent().expect("the target folder");
    let status = Command::new(env!("CARGO"))
        .args(["rustdoc", "--quiet", "--lib", "--locked", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .args(["--features", &features.join(",")])
        .args(["--", "-Zunstable-options", "--output-format", "json"])
        .env("RUSTDOC", &rustdoc)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the library is not documented");
    target.join("doc/epoll_acceptor.json")
}

/// The list without what says nothing about this crate: repetitions (an item that is re-exported is listed
/// with all that belongs to it once a path), methods that another crate's trait prescribes, marker traits
/// that are not stable, and the private modules on the way to an item.
fn readable(list: &str) -> Vec<String> {
    let modules: HashSet<&str> = list.lines().filter_map(|line| line.strip_prefix("pub mod ")).collect();
    let (mut seen, mut lines) = (HashSet::new(), Vec::new());
    let mut implementor = None;
    // The guides are pages of rustdoc and no modules of the crate.
    let is_item = |line: &&str| !line.starts_with("pub mod epoll_acceptor::guide");
    for line in list.lines().filter(is_item) {
        if line.starts_with("impl") {
            implementor = line.split_once(" for ").map(|(_, name)| base(name));
        }
        let is_prescribed = implementor.is_some_and(|name| {
            line.starts_with("pub ") && line.contains(" fn ") && base(after_keywords(line)) == name
        });
        let is_unstable = [
            " core::marker::Freeze for ",
            " core::marker::UnsafeUnpin for ",
            " core::marker::StructuralPartialEq for ",
        ]
        .iter()
        .any(|name| line.contains(name));
        let line = shortened(line, &modules);
        if !is_prescribed && !is_unstable && seen.insert(line.clone()) {
            lines.push(line);
        }
    }
    lines
}

/// What follows `pub const unsafe fn`.
fn after_keywords(line: &str) -> &str {
    line.split_once(" fn ").map_or(line, |(_, rest)| rest)
}

/// The path of a type, without its generics and what belongs to it.
fn base(path: &str) -> &str {
    let path = path.split(['<', '(', ' ']).next().unwrap_or_default();
    match path.rsplit_once("::") {
        Some((front, last)) if last.starts_with(char::is_lowercase) => front,
        _ => path,
    }
}

/// The line with its paths cut short.
fn shortened(line: &str, modules: &HashSet<&str>) -> String {
    let is_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let (mut cut, mut rest) = (String::new(), line);
    while let Some(start) = rest.find(is_of_path) {
        let end = rest[start..].find(|c| !is_of_path(c)).map_or(rest.len(), |length| start + length);
        cut.push_str(&rest[..start]);
        cut.push_str(&short_path(&rest[start..end], modules));
        rest = &rest[end..];
    }
    cut + rest
}

/// `epoll_acceptor::drain::state::State` as `epoll_acceptor::drain::State`, `core::net::ip_addr::IpAddr` as
/// `std::net::IpAddr`: where the standard library keeps an item changes from one compiler to the next.
fn short_path(path: &str, modules: &HashSet<&str>) -> String {
    let segments: Vec<&str> = path.split("::").collect();
    let [first, middle @ .., last] = &segments[..] else { return path.to_owned() };
    let is_ours = *first == "epoll_acceptor";
    if !is_ours && !["core", "alloc", "std"].contains(first) {
        return path.to_owned();
    }
    let mut short = if is_ours { *first } else { "std" }.to_owned();
    for (index, segment) in middle.iter().enumerate() {
        let deeper = format!("{short}::{segment}");
        let is_type = segment.starts_with(char::is_uppercase);
        let is_public = if is_ours { modules.contains(deeper.as_str()) } else { index == 0 };
        if is_type || is_public {
            short = deeper;
        }
    }
    format!("{short}::{last}")
}

/// The lines that only one of the two has. Their order is by paths as the compiler knows them: not compared.
fn difference(before: &str, now: &str) -> String {
    let (old, new): (HashSet<&str>, HashSet<&str>) = (before.lines().collect(), now.lines().collect());
    let mut text = String::new();
    for line in before.lines().filter(|line| !new.contains(line)) {
        let _ = writeln!(text, "- {line}");
    }
    for line in now.lines().filter(|line| !old.contains(line)) {
        let _ = writeln!(text, "+ {line}");
    }
    text
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
