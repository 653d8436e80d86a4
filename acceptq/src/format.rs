//! Text formatting: durations, plurals, and lines that fit a width.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Formats a duration: `340 ms`, `12.3 s`, `4 min 05 s`, `2 h 07 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Formats a count with its noun: `1 process`, `2 processes`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    let ending = match noun {
        _ if count == 1 => "",
        noun if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}

/// Quotes a name for a shell if it needs that: any process can choose the name of a socket.
pub(crate) fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_[]".contains(c);
    match name.chars().all(is_plain) {
        true => name.into(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}

/// Truncates or pads a text to `width` columns. Some characters occupy two.
pub(crate) fn fill(text: &str, width: usize) -> String {
    let mut out = fit(text, width);
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(out.width())));
    out
}

/// Truncates a text to `width` columns.
pub(crate) fn fit(text: &str, width: usize) -> String {
    take_columns(text.chars(), width).collect()
}

/// Truncates a text to `width` columns at its beginning, because paths differ at their end.
pub(crate) fn fit_end(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.into();
    }
    let kept: Vec<char> = take_columns(text.chars().rev(), width.saturating_sub(2)).collect();
    fit(&format!("..{}", kept.into_iter().rev().collect::<String>()), width)
}

fn take_columns(text: impl Iterator<Item = char>, width: usize) -> impl Iterator<Item = char> {
    let mut left = width;
    text.map_while(move |c| {
        left = left.checked_sub(c.width().unwrap_or(0))?;
        Some(c)
    })
}

/// Wraps a text into lines of at most `width` columns. The first line starts with `first`, the others with
/// `others`.
pub(crate) fn wrap(text: &str, first: &str, others: &str, width: usize) -> String {
    let (mut out, mut line) = (String::new(), String::from(first));
    let mut is_line_start = true;
    for word in text.split_whitespace() {
        if !is_line_start && line.width() + 1 + word.width() > width {
            out.push_str(line.trim_end());
            out.push('\n');
            line = String::from(others);
            is_line_start = true;
        }
        if !is_line_start {
            line.push(' ');
        }
        line.push_str(word);
        is_line_start = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_selects_its_unit() {
        let cases = [(340, "340 ms"), (12_345, "12.3 s"), (245_000, "4 min 05 s"), (7_620_000, "2 h 07 min")];
        for (ms, text) in cases {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn plural_depends_on_count() {
        assert_eq!(plural(1, "process"), "1 process");
        assert_eq!(plural(2, "process"), "2 processes");
        assert_eq!(plural(0, "listener"), "0 listeners");
    }

    #[test]
    fn names_are_quoted_for_a_shell() {
        assert_eq!(quoted("@plain-1.sock"), "@plain-1.sock");
        assert_eq!(quoted("[::1]:80"), "[::1]:80");
        assert_eq!(quoted("/run/$(x); y"), "'/run/$(x); y'");
        assert_eq!(quoted("@it's"), r"'@it'\''s'");
    }

    #[test]
    fn fit_end_keeps_the_end() {
        assert_eq!(fit_end("/run/a/very/long.sock", 10), "..ong.sock");
        assert_eq!(fit_end("short", 10), "short");
        assert_eq!(fit_end("/run/日本語.sock", 10), "..語.sock");
    }

    #[test]
    fn wide_characters_occupy_two_columns() {
        assert_eq!(fit("日本語", 5), "日本");
        assert_eq!(fill("日本語", 5), "日本 ");
        assert_eq!(fill("日本語", 8), "日本語  ");
        assert_eq!(wrap("日本 語", "", "", 6), "日本\n語\n");
    }

    #[test]
    fn wrap_respects_width_and_prefix() {
        assert_eq!(wrap("aa bb cc", "> ", "  ", 7), "> aa bb\n  cc\n");
        assert_eq!(wrap("unbreakable", "", "", 3), "unbreakable\n");
        assert_eq!(wrap("", "x ", "", 3), "x\n");
    }
}
