//! A chart of a depth over time, in characters. Pure.
#![forbid(unsafe_code)]

/// What the chart may be drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Eighths of a line.
    Blocks,
    /// For terminals without Unicode.
    Ascii,
}

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 9] = [' ', '.', '.', '.', ':', ':', ':', '#', '#'];

impl Ink {
    /// By the locale, as the C library reads it.
    pub(crate) fn of_the_locale() -> Self {
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

/// Draws the newest values at the right, from zero to the highest.
///
/// Each line begins with the label of its height and is exactly `width` wide.
pub(crate) fn draw(values: &[u32], width: usize, height: usize, ink: Ink) -> Vec<String> {
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
        let bar = if ink == Ink::Blocks { '│' } else { '|' };
        let cells: String = heights.iter().map(|height| ink.eighths(height.saturating_sub(floor))).collect();
        let blank = " ".repeat(columns - shown.len());
        format!("{name:>label$} {bar}{blank}{cells}")
    };
    (0..height).map(line).collect()
}

/// Whatever is not zero shows at least a little.
fn scaled(value: u32, top: u32, steps: usize) -> usize {
    let steps = u64::try_from(steps).unwrap_or(u64::MAX);
    let scaled = (u64::from(value) * steps).div_ceil(u64::from(top));
    usize::try_from(scaled).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_fills_the_height_and_zero_shows_nothing() {
        let lines = draw(&[0, 1, 16], 10, 2, Ink::Blocks);
        assert_eq!(lines, [" 16 │    █", "  0 │   ▁█"]);
    }

    #[test]
    fn every_line_is_as_wide_as_asked() {
        for width in [20, 80, 200] {
            for values in [vec![], vec![0; 5], (0..500).collect()] {
                for line in draw(&values, width, 7, Ink::Ascii) {
                    assert_eq!(line.chars().count(), width, "{line:?}");
                }
            }
        }
    }
}
