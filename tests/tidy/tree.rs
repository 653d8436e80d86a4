//! The allowed dependencies, from `cargo tree` and `cargo metadata`. `.ci/thorough deps` checks more.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::root;

/// The direct dependencies of the library without features.
const DIRECT: [&str; 5] = ["bitflags", "ipnet", "libc", "nix", "thiserror"];

/// The dependencies of `DIRECT`.
const TRANSITIVE: [&str; 7] =
    ["cfg-if", "memoffset", "proc-macro2", "quote", "syn", "thiserror-impl", "unicode-ident"];

/// The allowed licences, as in .ci/deny.toml.
const LICENCES: [&str; 8] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Unicode-3.0",
    "ISC",
    "Unlicense",
];

#[test]
fn library_depends_on_five_crates() {
    let direct = tree(&["--depth", "1"]);
    assert_eq!(names(&direct), DIRECT.into(), "the direct dependencies: see docs/releasing.md");
    let all = tree(&[]);
    assert_eq!(names(&all), DIRECT.into_iter().chain(TRANSITIVE).collect(), "the transitive dependencies");
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
fn licence_expressions_are_parsed() {
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
        // The package has no fuzz targets.
        let Ok(lock) = fs::read_to_string(root().join(file)) else { continue };
        for line in lock.lines().filter(|line| line.trim_start().starts_with("source =")) {
            let source = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
            assert_eq!(line, source, "{file} names another source");
        }
    }
}

/// Returns the names and versions of the library's dependencies without features, on this platform.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let library = ["tree", "--package", env!("CARGO_PKG_NAME"), "--no-default-features"];
    let plain = ["--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let listed = cargo(&[&library[..], &plain, arguments].concat());
    let package = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    // The first line is the crate itself.
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

/// Returns whether the allowed licences satisfy a licence expression. `/` is the old form of `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().collect::<Vec<_>>();
    words.reverse();
    parse_or(&mut words) && words.is_empty()
}

/// Parses an `OR` expression, which has the lowest precedence. Pops words from the end of the reversed list.
fn parse_or(words: &mut Vec<&str>) -> bool {
    let mut allowed = parse_and(words);
    while words.last() == Some(&"OR") {
        words.pop();
        allowed |= parse_and(words);
    }
    allowed
}

fn parse_and(words: &mut Vec<&str>) -> bool {
    let mut allowed = parse_term(words);
    while words.last() == Some(&"AND") {
        words.pop();
        allowed &= parse_term(words);
    }
    allowed
}

fn parse_term(words: &mut Vec<&str>) -> bool {
    let Some(mut licence) = words.pop().map(str::to_owned) else { return false };
    if licence == "(" {
        let allowed = parse_or(words);
        return words.pop() == Some(")") && allowed;
    }
    // `Apache-2.0 WITH LLVM-exception`
    while let Some(more) = words.last().filter(|word| !matches!(**word, "OR" | "AND" | "(" | ")")) {
        licence = format!("{licence} {more}");
        words.pop();
    }
    LICENCES.contains(&licence.as_str())
}
