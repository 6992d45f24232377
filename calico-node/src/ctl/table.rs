//! Tables as text: plain columns, and boxes.

use std::fmt::Write;

/// The width of a terminal that every box should fit into.
const TERMINAL: usize = 80;

/// Lays out rows under headings in columns three spaces apart, as `calicoctl get` does, and ends with an empty line.
#[must_use]
pub fn plain(headings: &[String], rows: &[Vec<String>]) -> String {
    let rows: Vec<&[String]> = std::iter::once(headings).chain(rows.iter().map(Vec::as_slice)).collect();
    aligned(&mut vec![0; headings.len()], &rows) + "\n"
}

/// Lays out rows that come below others, whose columns are so wide: `widths` grows with them.
#[must_use]
pub fn aligned(widths: &mut [usize], rows: &[&[String]]) -> String {
    widen(widths, rows.iter().copied());
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&*widths) {
            pad(&mut line, &printable(cell), (*width + 3).max(5));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The narrowest that a last column is made to fit a table into a terminal.
const LEAST_ROOM: usize = 16;

/// Draws rows under headings as a box. When it would be wider than a terminal, the last column is broken at spaces, and
/// when that is not enough, headings of several words are written one word below the other.
#[must_use]
pub fn boxed(headings: &[&str], rows: &[Vec<String>]) -> String {
    let one_line = vec![headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>()];
    let width_with = |heads: &[Vec<String>], rows: &[Vec<String>]| {
        widths(headings.len(), heads.iter().chain(rows).map(Vec::as_slice))
    };
    let total = |widths: &[usize]| widths.iter().map(|width| width + 3).sum::<usize>() + 1;
    let fit_last = |heads: &[Vec<String>]| {
        let widths = width_with(heads, rows);
        let others = total(&widths) - widths.last().unwrap_or(&0);
        let room = TERMINAL.saturating_sub(others).max(LEAST_ROOM);
        let rows: Vec<Vec<String>> = rows.iter().flat_map(|row| broken(row, room)).collect();
        let widths = width_with(heads, &rows);
        (rows, widths)
    };
    let mut heads = one_line;
    let (mut rows, mut widths) = fit_last(&heads);
    if total(&widths) > TERMINAL {
        heads = stacked(headings);
        (rows, widths) = fit_last(&heads);
    }
    let rule: String =
        widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
    let mut text = rule.clone();
    for head in &heads {
        let centred = head.iter().zip(&widths).map(|(cell, width)| {
            let missing = width.saturating_sub(cell.chars().count());
            format!("{:left$}{cell}", "", left = missing / 2)
        });
        line(&mut text, &centred.collect::<Vec<_>>(), &widths);
    }
    text.push_str(&rule);
    for row in &rows {
        line(&mut text, row, &widths);
    }
    if !rows.is_empty() {
        text.push_str(&rule);
    }
    text
}

/// A row as several, so that its last cell fits into `width`; the other cells are empty after the first.
fn broken(row: &[String], width: usize) -> Vec<Vec<String>> {
    let Some((last, others)) = row.split_last() else {
        return vec![Vec::new()];
    };
    let mut lines = vec![String::new()];
    for word in last.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let row = |(index, text): (usize, String)| {
        let first = others.iter().map(|cell| if index == 0 { cell.clone() } else { String::new() });
        first.chain([text]).collect()
    };
    lines.into_iter().enumerate().map(row).collect()
}

/// Headings with one word to a line, the last words on the last line.
fn stacked(headings: &[&str]) -> Vec<Vec<String>> {
    let words: Vec<Vec<&str>> = headings.iter().map(|heading| heading.split(' ').collect()).collect();
    let lines = words.iter().map(Vec::len).max().unwrap_or(0);
    let word = |words: &Vec<&str>, line: usize| {
        let above = lines - words.len();
        line.checked_sub(above).and_then(|i| words.get(i)).map_or_else(String::new, |word| (*word).to_owned())
    };
    (0..lines).map(|line| words.iter().map(|words| word(words, line)).collect()).collect()
}

fn line(text: &mut String, cells: &[String], widths: &[usize]) {
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str("| ");
        pad(text, &printable(cell), *width + 1);
    }
    text.push_str("|\n");
}

fn pad(line: &mut String, cell: &str, width: usize) {
    let missing = width.saturating_sub(cell.chars().count());
    // Writing to a string does not fail.
    let _ = write!(line, "{cell}{:missing$}", "");
}

fn widths<'r>(columns: usize, rows: impl Iterator<Item = &'r [String]>) -> Vec<usize> {
    let mut widths = vec![0; columns];
    widen(&mut widths, rows);
    widths
}

fn widen<'r>(widths: &mut [usize], rows: impl Iterator<Item = &'r [String]>) {
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(printable(cell).chars().count());
        }
    }
}

/// A cell without what would break the table or the terminal.
fn printable(cell: &str) -> std::borrow::Cow<'_, str> {
    if cell.chars().any(char::is_control) {
        cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>().into()
    } else {
        cell.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn columns_are_three_spaces_apart_and_at_least_five_wide() {
        let text =
            plain(&cells(&["A", "CIDR"]), &[cells(&["x", "10.0.0.0/16"]), cells(&["longer", "é\u{1b}[2J"])]);
        assert_eq!(text, "A        CIDR\nx        10.0.0.0/16\nlonger   é?[2J\n\n");
        assert_eq!(plain(&cells(&["A", "B"]), &[]), "A    B\n\n");
    }

    #[test]
    fn a_box_that_is_too_wide_stacks_its_headings() {
        let narrow = boxed(&["IPS FREE", "B"], &[cells(&["1", "2"])]);
        assert_eq!(
            narrow,
            "+----------+---+\n| IPS FREE | B |\n+----------+---+\n| 1        | 2 |\n+----------+---+\n"
        );
        let wide = boxed(&["IPS IN USE", "B"], &[cells(&["1", &"x".repeat(66)])]);
        assert!(wide.lines().nth(3).is_some_and(|line| line.starts_with("| USE |  ")), "{wide}");
        assert!(wide.lines().all(|line| line.len() <= TERMINAL), "{wide}");
    }
}
