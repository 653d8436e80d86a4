//! Markdown.

use crate::rows::Row;

/// A table; the first column to the left, numbers to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let rule: Vec<&str> = (0..head.len()).map(|column| if column == 0 { "---" } else { "--:" }).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}|{}|\n{body}", line(&head), rule.join("|"))
}

/// What was measured on.
pub(crate) fn machine(rows: &[Row]) -> String {
    format!("{}.\n", rows.iter().find_map(|row| row.text("machine")).unwrap_or("An unknown machine"))
}

/// Replaces what stands between `<!-- marker -->` and `<!-- /marker -->`.
pub(crate) fn fill_in(document: &str, marker: &str, table: &str) -> Result<String, String> {
    let (open, close) = (format!("<!-- {marker} -->"), format!("<!-- /{marker} -->"));
    let missing = |what: &str| format!("the document has no {what}: add it where the table shall stand");
    let (before, rest) = document.split_once(&open).ok_or_else(|| missing(&open))?;
    let (_, after) = rest.split_once(&close).ok_or_else(|| missing(&close))?;
    Ok(format!("{before}{open}\n{table}{close}{after}"))
}
