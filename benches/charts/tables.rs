//! Tables in Markdown.

use crate::rows::Row;

/// Formats a table: the first column left-aligned, the others right-aligned.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let rule: Vec<&str> = (0..head.len()).map(|column| if column == 0 { "---" } else { "--:" }).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}|{}|\n{body}", line(&head), rule.join("|"))
}

/// Returns the machine of the measurement.
pub(crate) fn machine(rows: &[Row]) -> String {
    format!("{}.\n", rows.iter().find_map(|row| row.text("machine")).unwrap_or("An unknown machine"))
}

/// Returns whether the document has this marker.
pub(crate) fn has(document: &str, marker: &str) -> bool {
    document.contains(&format!("<!-- {marker} -->"))
}

/// Replaces the text between `<!-- marker -->` and `<!-- /marker -->`.
pub(crate) fn fill_in(document: &str, marker: &str, table: &str) -> Result<String, String> {
    let (open, close) = (format!("<!-- {marker} -->"), format!("<!-- /{marker} -->"));
    let (before, rest) = document.split_once(&open).ok_or_else(|| format!("the document has no {open}"))?;
    let (_, after) = rest.split_once(&close).ok_or_else(|| format!("the document has no {close}"))?;
    Ok(format!("{before}{open}\n{table}{close}{after}"))
}
