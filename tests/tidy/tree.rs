//! What the crate may depend on, by what cargo says of Cargo.lock. `.ci/thorough deps` asks for more.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::root;

/// What the library asks for itself where no feature is on.
const CORE: [&str; 4] = ["bitflags", "libc", "nix", "thiserror"];

/// What these four draw in.
const THEIRS: [&str; 7] =
    ["cfg-if", "memoffset", "proc-macro2", "quote", "syn", "thiserror-impl", "unicode-ident"];

/// The same list stands in .ci/deny.toml.
const LICENCES: [&str; 7] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Unicode-3.0",
    "Unlicense",
];

#[test]
fn the_library_depends_on_four_crates() {
    let direct = tree(&["--depth", "1"]);
    assert_eq!(names(&direct), CORE.into(), "the core's dependencies: docs/releasing.md says why these");
    let all = tree(&[]);
    assert_eq!(names(&all), CORE.into_iter().chain(THEIRS).collect(), "what the core's dependencies draw in");
    assert_eq!(names(&all).len(), all.len(), "one crate in two versions: {all:?}");
}

#[test]
fn every_licence_is_allowed() {
    let metadata = cargo(&["metadata", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata writes JSON");
    for package in metadata["packages"].as_array().expect("a list of packages") {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        assert!(
            is_allowed(licence),
            "{name} is licensed under {licence:?}, and only {LICENCES:?} are allowed"
        );
    }
}

#[test]
fn licences_are_read_as_they_are_meant() {
    for allowed in
        ["MIT", "MIT OR GPL-3.0", "Unlicense/MIT", "(MIT OR X) AND Unicode-3.0", "X OR MIT AND MIT"]
    {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND X", "MIT AND (X OR Y)"] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

#[test]
fn every_crate_is_from_crates_io() {
    for file in ["Cargo.lock", "fuzz/Cargo.lock"] {
        // The package has none of the fuzz targets.
        let Ok(lock) = fs::read_to_string(root().join(file)) else { continue };
        for line in lock.lines().filter(|line| line.trim_start().starts_with("source =")) {
            let source = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
            assert_eq!(line, source, "{file} names another source");
        }
    }
}

/// The names and versions of what the library is built with, features off, on this platform.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let plain = ["tree", "--edges", "normal", "--no-default-features", "--prefix", "none", "--format", "{p}"];
    let listed = cargo(&[&plain[..], arguments].concat());
    let package = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    // The first is the crate itself.
    listed.lines().skip(1).map(package).collect()
}

fn names(packages: &BTreeSet<String>) -> BTreeSet<&str> {
    packages.iter().filter_map(|package| package.split(' ').next()).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// Whether a licence expression can be met with the allowed ones. `/` is how `OR` was written before SPDX.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().collect::<Vec<_>>();
    words.reverse();
    either(&mut words) && words.is_empty()
}

/// `OR` binds loosest. The words are taken from the end of the list.
fn either(words: &mut Vec<&str>) -> bool {
    let mut allowed = both(words);
    while words.last() == Some(&"OR") {
        words.pop();
        allowed |= both(words);
    }
    allowed
}

fn both(words: &mut Vec<&str>) -> bool {
    let mut allowed = one(words);
    while words.last() == Some(&"AND") {
        words.pop();
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut Vec<&str>) -> bool {
    let Some(mut licence) = words.pop().map(str::to_owned) else { return false };
    if licence == "(" {
        let allowed = either(words);
        return words.pop() == Some(")") && allowed;
    }
    // `Apache-2.0 WITH LLVM-exception`
    while let Some(more) = words.last().filter(|word| !matches!(**word, "OR" | "AND" | "(" | ")")) {
        licence = format!("{licence} {more}");
        words.pop();
    }
    LICENCES.contains(&licence.as_str())
}
