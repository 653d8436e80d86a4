//! `acceptq doctor --explain`: the decision table.

use std::fmt::Write as _;

use super::diagnose::{Cause, RULES, Rule, Verdict};
use super::signs::Sign;
use crate::format::wrap;

const INDENT: &str = "             ";

/// Formats the table, by verdict: the rules with the facts that each needs and excludes.
pub(crate) fn table(width: usize) -> String {
    let mut out = wrap(
        "The verdicts, by exit status. Each rule lists the facts that it needs and excludes; the numbers are \
         the order in which the rules are tried, and the first one that holds decides. --verbose prints the \
         facts behind a verdict.",
        "",
        "",
        width,
    );
    for verdict in Verdict::ALL {
        let (name, status) = (verdict.name().to_uppercase(), verdict.exit_status());
        out.push('\n');
        out.push_str(&wrap(&format!("{name} (exit {status}): {}.", verdict.meaning()), "", "  ", width));
        let mut explained: Vec<Cause> = Vec::new();
        for (number, rule) in (1..).zip(RULES).filter(|(_, rule)| rule.verdict() == verdict) {
            describe(&mut out, number, rule, width);
            if !explained.contains(&rule.cause) {
                explained.push(rule.cause);
                text(&mut out, rule.cause, width);
            }
        }
    }
    out
}

fn describe(out: &mut String, number: usize, rule: &Rule, width: usize) {
    let list = |signs: &[Sign]| signs.iter().map(|sign| sign.text()).collect::<Vec<_>>().join("; ");
    let needs = if rule.needs.is_empty() { "nothing".into() } else { list(rule.needs) };
    let confidence = rule.confidence.name();
    out.push_str(&wrap(&format!("needs: {needs}"), &format!("  rule {number:<6}"), INDENT, width));
    if !rule.excludes.is_empty() {
        out.push_str(&wrap(&format!("excludes: {}", list(rule.excludes)), INDENT, INDENT, width));
    }
    let _ = writeln!(out, "{INDENT}confidence: {confidence}");
}

fn text(out: &mut String, cause: Cause, width: usize) {
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            out.push_str(&wrap(text, &format!("  {name:<11}"), INDENT, width));
        }
    };
    line("why", cause.explanation());
    line("or", cause.otherwise());
    line("next", cause.next());
}
