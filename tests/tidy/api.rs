//! The public API equals docs/api.txt, so that no change of it goes unnoticed.
//!
//! `UPDATE_API=1 cargo test --all-features --test tidy api:: -- --ignored` rewrites the file. A reviewer reads its diff, and
//! docs/releasing.md derives the next version from it.

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
# The public API, checked by tests/tidy/api.rs: `UPDATE_API=1 cargo test --all-features --test tidy api:: -- --ignored` rewrites this file.
# Without methods of other crates' traits, and without the feature `sim`: see docs/releasing.md.
";

/// The features without a promise: see docs/releasing.md.
const NOT_COVERED: [&str; 2] = ["sim", "default"];

#[test]
#[ignore = "documents the crate, for which all dependencies are checked: .ci/run documentation"]
fn public_api_equals_its_file() {
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
    assert!(
        missing.is_empty(),
        "a feature must only add items; these are missing with all features: {missing:#?}"
    );

    let path = root().join("docs/api.txt");
    if env::var_os("UPDATE_API").is_some() {
        return fs::write(&path, now).expect("docs/api.txt must be writable");
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let difference = difference(&before, &now);
    assert!(
        difference.is_empty(),
        "the public API differs from docs/api.txt:

{difference}
If the change is intended, run UPDATE_API=1 cargo test --all-features --test tidy api:: -- --ignored, \
         and add an entry to CHANGELOG.md in the form of docs/releasing.md"
    );
}

/// Returns the features of the package that semantic versioning covers, sorted.
fn features() -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let library = packages.iter().find(|package| package["name"] == env!("CARGO_PKG_NAME"));
    let features = &library.expect("this package")["features"];
    let features = features.as_object().expect("a package has features");
    let mut names: Vec<String> =
        features.keys().filter(|name| !NOT_COVERED.contains(&name.as_str())).cloned().collect();
    names.sort();
    names
}

/// Returns the public items with these features; `None`, with a message, if the toolchain's JSON cannot be read.
fn listing(features: &[String]) -> Option<Vec<String>> {
    let json = rustdoc_json(features);
    let api = match public_api::Builder::from_rustdoc_json(&json).omit_blanket_impls(true).build() {
        Ok(api) => api,
        Err(error) => {
            // The harness captures `eprintln!`.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: the public API is not compared: the dev-dependency public-api cannot read the JSON of \
                 this toolchain's rustdoc ({error})"
            );
            return None;
        }
    };
    Some(readable(&api.to_string()))
}

fn rustdoc_json(features: &[String]) -> PathBuf {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // RUSTC_BOOTSTRAP applies to rustdoc alone, so that cargo does not build the dependencies again.
    let rustdoc = own.join("rustdoc-json");
    let real = env::var("RUSTDOC").unwrap_or_else(|_| "rustdoc".to_owned());
    let script = format!("#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec \"{real}\" \"$@\"\n");
    if fs::read_to_string(&rustdoc).ok().as_ref() != Some(&script) {
        fs::write(&rustdoc, script).expect("the target folder must be writable");
        fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755)).expect("the script is ours");
    }
    let target = own.parent().expect("the target folder");
    let status = Command::new(env!("CARGO"))
        .args([
            "rustdoc",
            "--quiet",
            "--package",
            env!("CARGO_PKG_NAME"),
            "--lib",
            "--locked",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .args(["--features", &features.join(",")])
        .args(["--", "-Zunstable-options", "--output-format", "json"])
        .env("RUSTDOC", &rustdoc)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "rustdoc failed");
    target.join("doc/epoll_acceptor.json")
}

/// Returns the list without repetitions (a re-exported item is listed with its methods once per path), methods of other
/// crates' traits, unstable marker traits, and the private modules in a path.
fn readable(list: &str) -> Vec<String> {
    let modules: HashSet<&str> = list.lines().filter_map(|line| line.strip_prefix("pub mod ")).collect();
    let (mut seen, mut lines) = (HashSet::new(), Vec::new());
    let mut implementor = None;
    // The guides are pages of rustdoc, not modules of the crate.
    let is_item = |line: &&str| !line.starts_with("pub mod epoll_acceptor::guide");
    for line in list.lines().filter(is_item) {
        if line.starts_with("impl") {
            implementor = line.split_once(" for ").map(|(_, name)| base(name));
        }
        let is_of_another_trait = implementor.is_some_and(|name| {
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
        if !is_of_another_trait && !is_unstable && seen.insert(line.clone()) {
            lines.push(line);
        }
    }
    lines
}

/// Returns what follows `pub const unsafe fn`.
fn after_keywords(line: &str) -> &str {
    line.split_once(" fn ").map_or(line, |(_, rest)| rest)
}

/// Returns the path of a type, without generics and associated items.
fn base(path: &str) -> &str {
    let path = path.split(['<', '(', ' ']).next().unwrap_or_default();
    match path.rsplit_once("::") {
        Some((front, last)) if last.starts_with(char::is_lowercase) => front,
        _ => path,
    }
}

/// Returns the line with shortened paths.
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

/// Shortens `epoll_acceptor::drain::state::State` to `epoll_acceptor::State`, and `core::net::ip_addr::IpAddr` to
/// `std::net::IpAddr`: the module of a standard item changes between compilers.
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

/// Returns the lines that only one of the two has. Their order depends on the compiler and is not compared.
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
