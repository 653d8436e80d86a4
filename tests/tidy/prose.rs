//! Comments and documents use plain words, and `who` only for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::{files, root};

/// Words and phrases that comments and documents do not use, in lower case.
const FORBIDDEN: [&str; 21] = [
    "who",
    "whoever",
    "whom",
    "nobody",
    "everybody",
    "anybody",
    "somebody",
    "everyone",
    "anew",
    "for ever",
    "for want of",
    "in earnest",
    "in vain",
    "to and fro",
    "to be had",
    "reckon",
    "reckons",
    "reckoned",
    "reckoning",
    "oftener",
    "dearest",
];

/// Phrases about people that are allowed, each with the file that has it. Write the phrase in lower case and without
/// punctuation, as it stands on one line: `("docs/overload.md", "an operator who")`.
const ALLOWED: &[(&str, &str)] = &[("acceptq/src/demo/mod.rs", "readers who")];

#[test]
fn prose_uses_plain_words() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut unused: BTreeSet<_> = ALLOWED.iter().copied().collect();
    for (path, lines) in prose() {
        for (number, line) in lines {
            let mut line = normalized(&line);
            for (file, phrase) in ALLOWED.iter().filter(|(file, _)| *file == path) {
                if line.contains(&format!(" {phrase} ")) {
                    line = line.replace(&format!(" {phrase} "), " ");
                    unused.remove(&(*file, *phrase));
                }
            }
            for word in forbidden(&line) {
                let folder = Path::new(&path).parent().expect("a folder").display().to_string();
                found.entry(folder).or_default().push(format!("{path}:{number}: {word}"));
            }
        }
    }
    let mut report = String::new();
    for line in found.values().flatten() {
        let _ = writeln!(report, "{line}");
    }
    for (folder, lines) in &found {
        let _ = writeln!(report, "{:5}  {folder}/", lines.len());
    }
    assert!(found.is_empty(), "use plain words, or add a phrase about people to ALLOWED:\n{report}");
    assert!(unused.is_empty(), "remove from ALLOWED: {unused:?}");
}

#[test]
fn forbidden_words_are_found_in_prose_only() {
    // Not one literal, which the check would find in this file.
    let trailing = ["let who = 1;", "//", "for ever"].join(" ");
    let rust = format!("//! Nobody waits.\n{trailing}\n/// The file `who.rs`\nlet url = \"http://who\";\n");
    let found = |lines: Vec<(usize, String)>| -> Vec<_> {
        lines
            .iter()
            .flat_map(|(number, line)| forbidden(&normalized(line)).into_iter().map(|word| (*number, word)))
            .collect()
    };
    assert_eq!(found(comments(&rust)), [(1, "nobody"), (2, "for ever")]);
    let markdown = "Whoever\n```\nwho\n```\nwhole, forever, `who`\n[a][who]\nin\u{20}\u{20}vain\n";
    assert_eq!(found(text(markdown)), [(1, "whoever"), (6, "who"), (7, "in vain")]);
}

/// Returns the numbered lines of prose of every file, by its path relative to the root.
fn prose() -> BTreeMap<String, Vec<(usize, String)>> {
    let present = |folder: &&str| root().join(folder).is_dir();
    let sources = ["src", "tests", "benches", "examples", "fuzz", "acceptq"].into_iter().filter(present);
    let mut paths: Vec<_> = sources.flat_map(|folder| files(folder, "rs")).collect();
    paths.extend(files("docs", "md"));
    paths.extend(
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|file| root().join(file)),
    );
    let mut prose = BTreeMap::new();
    for path in paths {
        let name = path.strip_prefix(root()).expect("a path below the root").display().to_string();
        // The build directory of the fuzz targets changes while they build.
        let Ok(content) = fs::read_to_string(&path) else { continue };
        if !name.starts_with("fuzz/target/") {
            prose.insert(
                name,
                if path.extension().is_some_and(|e| e == "rs") { comments(&content) } else { text(&content) },
            );
        }
    }
    prose
}

/// Returns the comments of a Rust source: whole lines, and ends of lines after ` // `.
fn comments(source: &str) -> Vec<(usize, String)> {
    let comment = |line: &str| {
        let line = line.trim_start();
        if line.starts_with("//") {
            Some(line.to_owned())
        } else {
            line.split_once(" // ").map(|(_, end)| end.to_owned())
        }
    };
    (1..).zip(source.lines()).filter_map(|(number, line)| Some((number, comment(line)?))).collect()
}

/// Returns the lines of a Markdown document outside code blocks.
fn text(document: &str) -> Vec<(usize, String)> {
    let mut in_code = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(document.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            lines.push((number, line.to_owned()));
        }
    }
    lines
}

/// Returns the words of a line in lower case, without code spans and punctuation, with one space around each.
fn normalized(line: &str) -> String {
    let prose = line.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase();
    let words = prose.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    format!(" {} ", words.collect::<Vec<_>>().join(" "))
}

fn forbidden(normalized: &str) -> Vec<&'static str> {
    FORBIDDEN.into_iter().filter(|word| normalized.contains(&format!(" {word} "))).collect()
}
