//! Links between documents work in the repository and in rustdoc, where docs/overload.md is `guide::overload`.
//!
//! A document uses reference links (`[the guide][overload]`) and defines each name at its end as a file. `src/guide`
//! defines the names for rustdoc; its definitions come first and win.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{files, root};

/// The link definitions of a document: names and their targets.
type Definitions<'a> = BTreeMap<&'a str, &'a str>;

#[test]
fn document_links_hold() {
    let documents = documents();
    for (path, text) in &documents {
        let message = |what: &str| format!("{}: {what}", path.display());
        let defined = definitions(text);
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            let is_valid = match target.strip_prefix('#') {
                Some(anchor) => headings(text).contains(anchor),
                None => target.contains("://"),
            };
            assert!(
                is_valid,
                "{}",
                message(&format!("({target}) must be a name that is defined at the end of the document"))
            );
        }
        for link in text.split("][").skip(1) {
            let name = link.split(']').next().unwrap_or_default();
            assert!(
                defined.contains_key(name),
                "{}",
                message(&format!("[{name}] must be defined at the end of the document"))
            );
        }
        for (name, target) in defined {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = path.parent().expect("a folder").join(file);
            let file = file.canonicalize().unwrap_or_else(|_| panic!("{}", message(&format!("no {target}"))));
            assert_eq!(name, name_of(&file, anchor), "{}", message("wrong link name"));
            let there = documents.iter().find(|(path, _)| *path == file);
            let has = anchor.is_empty() || there.is_some_and(|(_, text)| headings(text).contains(anchor));
            assert!(has, "{}", message(&format!("no heading {anchor} in {}", file.display())));
        }
    }
}

#[test]
fn guide_defines_every_link() {
    let documents = documents();
    let defined: BTreeMap<_, _> = documents
        .iter()
        .flat_map(|(path, text)| {
            definitions(text).into_iter().map(|(name, target)| (name, path.with_file_name(target)))
        })
        .collect();
    let (mut links, mut pictures) = (String::new(), String::new());
    for (name, file) in &defined {
        let _ = if name.ends_with(".svg") {
            let picture = base64(&fs::read(file).expect("a picture"));
            writeln!(pictures, "[{name}]: data:image/svg+xml;base64,{picture}")
        } else if *name == "readme" {
            writeln!(links, "[readme]: crate")
        } else {
            let (page, anchor) = name.split_once('#').map_or((*name, None), |(page, at)| (page, Some(at)));
            let anchor = anchor.map_or(String::new(), |anchor| format!("#{anchor}"));
            writeln!(links, "[{name}]: crate::guide::{}{anchor}", page.replace('-', "_"))
        };
    }
    for (file, now) in [("src/guide/links.md", links), ("src/guide/pictures.md", pictures)] {
        let file = root().join(file);
        if env::var_os("UPDATE_GUIDE").is_some() {
            fs::write(&file, now).expect("the file can be written");
        } else {
            let is_current = fs::read_to_string(&file).is_ok_and(|before| before == now);
            assert!(
                is_current,
                "{} is out of date: run UPDATE_GUIDE=1 cargo test --test tidy guide::",
                file.display()
            );
        }
    }
    let guide = fs::read_to_string(root().join("src/guide.rs")).expect("the guide");
    for file in files("docs", "md") {
        let file = file.strip_prefix(root()).expect("a path below the root").display().to_string();
        assert!(guide.contains(&format!("\"../{file}\"")), "src/guide.rs has no page for {file}");
    }
}

/// Returns the documents without their code blocks.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = files("docs", "md");
    paths.extend(
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|file| root().join(file)),
    );
    let prose = |path: &Path| {
        let text = fs::read_to_string(path).expect("a document");
        text.split("```").step_by(2).collect::<Vec<_>>().join("\n")
    };
    paths.iter().map(|path| (path.canonicalize().expect("the document exists"), prose(path))).collect()
}

/// Parses the lines of the form `[name]: target`.
fn definitions(text: &str) -> Definitions<'_> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('['));
    lines.filter_map(|line| line.split_once("]: ")).filter(|(name, _)| !name.contains(']')).collect()
}

/// Returns the anchors of the headings.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || ['-', '_', ' '].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Returns the name of a link target: `overload`, `overload#wait-or-refuse`, `queue.svg`.
fn name_of(file: &Path, anchor: &str) -> String {
    let is_picture = file.extension().is_some_and(|extension| extension == "svg");
    let name = if is_picture { file.file_name() } else { file.file_stem() };
    let name = name.expect("a file has a name").to_string_lossy();
    let name = if is_picture { name.into_owned() } else { name.to_lowercase() };
    if anchor.is_empty() { name } else { format!("{name}#{anchor}") }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - three.len()));
        let digits = [digit(bits >> 18), digit(bits >> 12), digit(bits >> 6), digit(bits)];
        text.extend(&digits[..=three.len()]);
        text.extend(std::iter::repeat_n('=', 3 - three.len()));
    }
    text
}
