//! How spans, sizes and names of others are written for people.

use crate::ops::value;
use serde_json::Value;
use taskmesh_core::Unix;

/// A span in the unit that suits it.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 0.0 => "0 s".to_owned(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// How long ago a time of an answer was; a dash where there is none.
pub(super) fn ago(time: &Value, now: Unix) -> String {
    let at = time.as_str().and_then(|text| value::read_time("time", text).ok());
    at.map_or_else(|| "-".to_owned(), |at| span(value::seconds(now.since(at))))
}

/// Bytes in the unit that suits them.
pub(super) fn bytes(count: f64) -> String {
    let (mut count, mut unit) = (count, 0);
    while count >= 1_024.0 && unit + 1 < UNITS.len() {
        count /= 1_024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && count < 100.0);
    format!("{count:.decimals$} {}", UNITS[unit])
}

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// The end of a peer id: the beginning is the same for all.
pub(super) fn tail(peer: &str) -> &str {
    let from = peer.char_indices().rev().nth(TAIL - 1).map_or(0, |(at, _)| at);
    &peer[from..]
}

const TAIL: usize = 8;

/// What others wrote, on one line of at most `width` characters that steers no
/// terminal.
pub(super) fn line(text: &str, width: usize) -> String {
    let plain: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(width + 1).collect();
    if plain.len() <= width {
        return plain.into_iter().collect();
    }
    plain[..width.saturating_sub(1)].iter().chain(['…'].iter()).collect()
}

/// `3 tasks`, `1 task`, `2 copies`.
pub(super) fn count(n: u64, noun: &str) -> String {
    match (n, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        (_, None) if noun.ends_with('s') => format!("{n} {noun}es"),
        (_, None) => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spans_and_sizes_have_the_unit_that_suits_them() {
        let spans = [0.04, 9.94, 10.2, 119.0, 600.0, 7_200.0, 200_000.0, -1.0].map(span);
        assert_eq!(spans, ["0.0 s", "9.9 s", "10 s", "119 s", "10 min", "2 h", "2 d", "0 s"]);
        let sizes = [0.0, 1_023.0, 1_536.0, 3e9, 5e11].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "2.8 GiB", "466 GiB"]);
    }

    #[test]
    fn a_time_that_is_none_is_a_dash() {
        let now = value::read_time("now", "2026-01-01T00:00:10.000Z").expect("a time");
        assert_eq!(ago(&json!("2026-01-01T00:00:07.500Z"), now), "2.5 s");
        assert_eq!(ago(&json!("2026-01-01T00:00:11.000Z"), now), "0.0 s");
        assert_eq!([ago(&Value::Null, now), ago(&json!("soon"), now)], ["-", "-"]);
    }

    #[test]
    fn text_of_others_stays_on_its_line() {
        assert_eq!(line("a\nb\u{1b}[2J", 20), "a b [2J");
        assert_eq!(line("abcdef", 4), "abc…");
        assert_eq!((tail("12D3KooWDpJ7As7B"), tail("ab")), ("DpJ7As7B", "ab"));
        let counts = [count(1, "task"), count(0, "task"), count(2, "copy"), count(3, "address")];
        assert_eq!(counts, ["1 task", "0 tasks", "2 copies", "3 addresses"]);
    }
}
