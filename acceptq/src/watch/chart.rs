//! A text chart of a queue length over time. Pure.
#![forbid(unsafe_code)]

/// The characters of the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charset {
    /// Unicode block elements, eighths of a line.
    Blocks,
    /// For terminals without Unicode.
    Ascii,
}

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 9] = [' ', '.', '.', '.', ':', ':', ':', '#', '#'];

impl Charset {
    /// Selects the charset by locale: LC_ALL, LC_CTYPE, LANG.
    pub(crate) fn from_locale() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let is_utf8 = locale.to_lowercase().replace('-', "").contains("utf8");
        if is_utf8 { Self::Blocks } else { Self::Ascii }
    }

    fn eighths(self, eighths: usize) -> char {
        match self {
            Self::Blocks => BLOCKS[eighths.min(8)],
            Self::Ascii => ASCII[eighths.min(8)],
        }
    }
}

/// Draws a chart with the newest value at the right, scaled to the maximum.
///
/// Each line starts with its label and is `width` columns wide.
pub(crate) fn draw(values: &[u32], width: usize, height: usize, charset: Charset) -> Vec<String> {
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    let label = top.to_string().len().max(3);
    let columns = width.saturating_sub(label + 2);
    let shown = &values[values.len().saturating_sub(columns)..];
    let steps = height * 8;
    let heights: Vec<usize> = shown.iter().map(|value| scaled(*value, top, steps)).collect();
    let line = |row: usize| {
        let floor = (height - 1 - row) * 8;
        let name = match row {
            0 => top.to_string(),
            row if row + 1 == height => "0".into(),
            _ => String::new(),
        };
        let bar = if charset == Charset::Blocks { '│' } else { '|' };
        let cells: String =
            heights.iter().map(|height| charset.eighths(height.saturating_sub(floor))).collect();
        let blank = " ".repeat(columns - shown.len());
        format!("{name:>label$} {bar}{blank}{cells}")
    };
    (0..height).map(line).collect()
}

/// Scales a value, rounding up so that a non-zero value is visible.
fn scaled(value: u32, top: u32, steps: usize) -> usize {
    let steps = u64::try_from(steps).unwrap_or(u64::MAX);
    let scaled = (u64::from(value) * steps).div_ceil(u64::from(top));
    usize::try_from(scaled).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chart_scales_to_maximum() {
        let lines = draw(&[0, 1, 16], 10, 2, Charset::Blocks);
        assert_eq!(lines, [" 16 │    █", "  0 │   ▁█"]);
    }

    #[test]
    fn chart_lines_have_requested_width() {
        for width in [20, 80, 200] {
            for values in [vec![], vec![0; 5], (0..500).collect()] {
                for line in draw(&values, width, 7, Charset::Ascii) {
                    assert_eq!(line.chars().count(), width, "{line:?}");
                }
            }
        }
    }
}
