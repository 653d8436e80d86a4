//! The bench `instructions`: the cost of a connection in user space.

use crate::Pages;
use crate::rows::Row;
use crate::tables::table;

pub(crate) fn pages(rows: &[Row]) -> Pages {
    let line = |row: &Row| {
        let number = |key: &str| row.object[key].as_u64().map_or(String::new(), |number| number.to_string());
        vec![
            row.text("strategy").unwrap_or_default().to_owned(),
            row.burst().to_string(),
            number("by_hand"),
            number("free"),
            number("gated"),
            number("more"),
        ]
    };
    let head = ["trigger", "queued", "by hand", "no gate", "gate", "difference"];
    let lines: Vec<_> = rows.iter().map(line).collect();
    Pages { charts: vec![], tables: vec![("instructions", table(&head, &lines))] }
}
