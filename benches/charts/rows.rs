//! The output of the benches, a JSON object per line.

use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) bench: String,
    /// For `pairs`; empty for other benches.
    pub(crate) engine: String,
    pub(crate) object: Value,
}

impl Row {
    /// Returns a number; NaN if there is none.
    pub(crate) fn number(&self, key: &str) -> f64 {
        self.object[key].as_f64().unwrap_or(f64::NAN)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.object[key].as_str()
    }

    pub(crate) fn burst(&self) -> u64 {
        self.object["burst"].as_u64().unwrap_or(0)
    }
}

/// Reads all rows of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.enumerate().map(|(number, line)| row(line).map_err(|e| at(path, number, &*e).into())).collect()
}

fn row(line: &str) -> Result<Row, Box<dyn Error>> {
    let object: Value = serde_json::from_str(line)?;
    let field = |key: &str| object[key].as_str().map(str::to_owned);
    let bench = field("bench").ok_or("the key \"bench\" is missing")?;
    Ok(Row { bench, engine: field("engine").unwrap_or_default(), object })
}

fn at(path: &Path, number: usize, error: &dyn Error) -> String {
    format!("{}, line {}: {error}", path.display(), number + 1)
}
