// SPDX-License-Identifier: MulanPSL-2.0
//! Tables, sizes and ages for people; JSON for programs.

use std::io::{self, Write};

use isula_storage::error::{During, Result};
use isula_storage::time::Timestamp;
use serde_json::Value;

/// Digits of an id that people see.
const SHORT: usize = 12;

/// An id as people see it.
pub(crate) fn short(id: &str, whole: bool) -> &str {
    if whole { id } else { id.get(..SHORT).unwrap_or(id) }
}

/// Writes lines to standard output; a reader that went away is not an error.
pub(crate) fn lines<I: IntoIterator<Item = String>>(lines: I) -> Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        if tolerate(writeln!(out, "{line}"))? {
            return Ok(());
        }
    }
    tolerate(out.flush()).map(|_| ())
}

/// Writes a JSON value and a newline.
pub(crate) fn json(value: &Value) -> Result<()> {
    lines([format!("{value:#}")])
}

/// Whether the reader went away.
fn tolerate(result: io::Result<()>) -> Result<bool> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        other => other.during(|| "write to standard output").map(|()| false),
    }
}

/// A text of others on one line: what would do something to a terminal is escaped.
pub(crate) fn plain(text: &str) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

/// Widest column: one that is wider is not worth the room in all the other rows.
const WIDEST: usize = 120;

/// Columns, each as wide as its widest cell, up to a limit; the last one is not padded.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count().min(WIDEST));
        }
    }
    let line = |cells: Vec<&str>| padded(&cells, &widths);
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    lines(std::iter::once(line(head.to_vec())).chain(rows))
}

/// One line. By hand: a width of 65,536 and more makes `format!` panic.
fn padded(cells: &[&str], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 3));
    }
    line.truncate(line.trim_end().len());
    line
}

/// How long ago, for people.
pub(crate) fn age(created: Option<&str>, now: Timestamp) -> String {
    let Some(created) = created.and_then(|text| Timestamp::parse(text).ok()) else {
        return "unknown".to_owned();
    };
    let seconds = now.seconds.saturating_sub(created.seconds).max(0);
    const UNITS: [(i64, &str); 6] = [
        (31_536_000, "year"),
        (2_592_000, "month"),
        (604_800, "week"),
        (86_400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    for (length, name) in UNITS {
        let count = seconds / length;
        if count > 0 {
            return format!("{count} {name}{} ago", if count == 1 { "" } else { "s" });
        }
    }
    "just now".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_padded_however_long_they_are() {
        assert_eq!(padded(&["a", "é", "c"], &[3, 2, 9]), "a     é    c");
        let long = "x".repeat(70_000);
        assert_eq!(padded(&[&long, "b"], &[70_000, 1]), format!("{long}   b"));
        assert_eq!(padded(&[&long, "b"], &[WIDEST, 1]), format!("{long}   b"));
        table(["A", "B"], &[[long, "b".to_owned()], ["a".to_owned(), "b".repeat(70_000)]]).unwrap();
    }

    #[test]
    fn ages() {
        let now = Timestamp { seconds: 1_600_000_000, nanos: 0 };
        let ago = |seconds: i64| {
            let then = Timestamp { seconds: now.seconds - seconds, nanos: 0 };
            age(then.to_utc_text().as_deref(), now)
        };
        let table = [
            (-5, "just now"),
            (0, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (7199, "1 hour ago"),
            (7200, "2 hours ago"),
            (86_400 * 8, "1 week ago"),
            (86_400 * 70, "2 months ago"),
            (86_400 * 800, "2 years ago"),
        ];
        for (seconds, text) in table {
            assert_eq!(ago(seconds), text, "{seconds}");
        }
        assert_eq!(age(None, now), "unknown");
        assert_eq!(age(Some("x"), now), "unknown");
    }

    #[test]
    fn ids_are_cut_to_twelve() {
        assert_eq!(short("0123456789abcdef", false), "0123456789ab");
        assert_eq!(short("0123456789abcdef", true), "0123456789abcdef");
        assert_eq!(short("012", false), "012");
    }
}
