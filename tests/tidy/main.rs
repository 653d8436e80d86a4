//! The conventions of the tree.

mod api;
mod guide;
mod prose;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn imports_run_downward() {
    // Each folder, and the folders that it may import from.
    let layers = [
        ("hosted", &["linux", "drain", "admission"][..]),
        ("linux", &["drain", "admission"]),
        ("sim", &["drain", "admission"]),
        ("drain", &["admission"]),
        ("admission", &[]),
    ];
    for (folder, below) in layers {
        for (path, text) in sources(&format!("src/{folder}")) {
            for import in code(&text).split("crate::").skip(1) {
                let target: String =
                    import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let allowed = target == folder || below.contains(&target.as_str());
                assert!(
                    allowed,
                    "{}: imports crate::{target}; {folder} may only use {below:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn libc_and_nix_are_used_only_in_linux() {
    for folder in ["drain", "admission", "sim"] {
        for (path, text) in sources(&format!("src/{folder}")) {
            let text = code(&text);
            assert!(!text.contains("nix::"), "{}: names nix", path.display());
            for name in text.split("libc::").skip(1) {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let is_errno = name.starts_with('E') && !name.starts_with("EPOLL");
                assert!(is_errno || name.is_empty(), "{}: names libc::{name}, not an errno", path.display());
            }
        }
    }
}

#[test]
fn unsafe_code_is_confined_to_sys() {
    for (path, text) in sources("src") {
        let is_sys = path.starts_with(root().join("src/linux/sys.rs"))
            || path.starts_with(root().join("src/linux/sys"));
        let has_unsafe =
            text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("unsafe {"));
        assert!(is_sys || !has_unsafe, "{}: has unsafe code", path.display());
    }
    for folder in ["drain", "admission", "sim"] {
        let text = fs::read_to_string(root().join(format!("src/{folder}/mod.rs"))).expect("a mod.rs");
        assert!(text.contains("#![forbid(unsafe_code)]"), "src/{folder}/mod.rs does not forbid unsafe code");
    }
}

#[test]
fn pure_layers_read_no_clock() {
    for folder in ["drain", "sim"] {
        for (path, text) in sources(&format!("src/{folder}")) {
            for clock in ["Instant::now", "SystemTime", "thread::sleep", ".elapsed()"] {
                assert!(!text.contains(clock), "{}: uses {clock}", path.display());
            }
        }
    }
}

#[test]
fn source_files_have_at_most_500_lines() {
    // The library's package does not contain the tool.
    for folder in ["src", "acceptq/src"].iter().filter(|folder| root().join(folder).exists()) {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 500, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn changelog_has_the_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).expect("a changelog");
    let version = env!("CARGO_PKG_VERSION");
    let known = changelog.contains(&format!("## [{version}]")) || changelog.contains("## [Unreleased]");
    assert!(known, "CHANGELOG.md has no heading for {version} and none for [Unreleased]");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let found = files(folder, "rs");
    assert!(!found.is_empty(), "{folder} has no sources");
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("a source file"))).collect()
}

/// Returns the source without comment lines: links and examples in documentation are not imports.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|found| found == extension) => found.push(path),
                _ => {}
            }
        }
    }
    found
}
