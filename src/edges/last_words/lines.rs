//! The last lines of what an instance wrote, as they can be shown to anybody.
//!
//! Nothing that a server wrote reaches a terminal or a page as more than text: whatever would colour, move or turn it is left out.

/// A longer line is cut.
const LONGEST: usize = 500;

/// At most `most` lines, the oldest first; `is_cut` where the bytes begin in the middle of what was written. Empty lines say nothing.
pub(super) fn last(bytes: &[u8], is_cut: bool, most: usize) -> Vec<String> {
    let whole = match bytes.iter().position(|&byte| byte == b'\n') {
        Some(first_end) if is_cut => &bytes[first_end + 1..],
        // Its beginning is gone, and its end is what was written last.
        None if is_cut => return vec![end_of(&plain(bytes))],
        _ => bytes,
    };
    let lines = whole.rsplit(|&byte| byte == b'\n').map(plain).filter(|line| !line.is_empty());
    let mut lines: Vec<String> = lines.map(|line| line.chars().take(LONGEST).collect()).take(most).collect();
    lines.reverse();
    lines
}

fn end_of(line: &str) -> String {
    let beyond = line.chars().count().saturating_sub(LONGEST);
    line.chars().skip(beyond).collect()
}

/// What a terminal would show of this line in the end.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let shown = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    let mut plain = String::with_capacity(shown.len());
    let mut rest = shown.chars();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => skip_sequence(&mut rest),
            '\u{9b}' => skip_parameters(&mut rest),
            '\t' => plain.push_str("    "),
            _ if character.is_control() || turns_text(character) => {}
            _ => plain.push(character),
        }
    }
    plain.truncate(plain.trim_end().len());
    plain
}

/// What follows an escape (ECMA-48): `[` and parameters up to a letter, `]` and a string up to its end, or a letter.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => skip_parameters(rest),
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let mut escaped = false;
            let _ = rest.find(|&character| {
                let ends = character == '\x07' || character == '\u{9c}' || (escaped && character == '\\');
                escaped = character == '\x1b';
                ends
            });
        }
        // Of those that choose a character set or the like, one more belongs to it.
        Some(' '..='/') => drop(rest.next()),
        _ => {}
    }
}

fn skip_parameters(rest: &mut std::str::Chars<'_>) {
    let _ = rest.find(|character| ('@'..='~').contains(character));
}

/// Characters that show the text behind them in another order.
fn turns_text(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        last(text.as_bytes(), false, 20)
    }

    #[test]
    fn the_last_lines_are_told_the_oldest_first_whether_the_last_is_ended_or_not() {
        assert_eq!(last(b"1\n2\n3\n4\n", false, 3), ["2", "3", "4"]);
        assert_eq!(of("1\n\n  \n2"), ["1", "2"]);
        assert!(of("").is_empty() && of("\n\n").is_empty());
    }

    #[test]
    fn a_line_whose_beginning_is_gone_is_left_out_unless_there_is_no_other() {
        assert_eq!(last(b"nd of it\nwhole\n", true, 20), ["whole"]);
        let endless = last(&[b"x".repeat(600), b"the end".to_vec()].concat(), true, 20);
        assert_eq!(endless.len(), 1);
        assert!(endless[0].len() == 500 && endless[0].ends_with("xthe end"), "{endless:?}");
    }

    #[test]
    fn a_long_line_is_cut_by_characters() {
        assert_eq!(of(&"ä".repeat(700)), ["ä".repeat(500)]);
    }

    #[test]
    fn colours_and_whatever_else_a_terminal_would_obey_are_left_out() {
        assert_eq!(
            of("\x1b[1;31mred\x1b[0m \x1b]0;title\x07and \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"),
            ["red and link"]
        );
        assert_eq!(of("\x1b(Bset\x1b=\x07\x08 \u{9b}31mC1 \u{202e}turned\u{7f}"), ["set C1 turned"]);
        assert_eq!(of("cut \x1b[31"), ["cut"]);
        assert_eq!(of("cut \x1b]0;ti"), ["cut"]);
    }

    #[test]
    fn a_line_that_was_written_over_is_told_as_it_is_in_the_end() {
        assert_eq!(of("10 %\r50 %\r100 %\r\nok\r\n"), ["100 %", "ok"]);
    }

    #[test]
    fn a_tab_is_told_as_spaces_and_what_is_no_text_as_a_mark() {
        assert_eq!(of("\tat main.go:3"), ["    at main.go:3"]);
        assert_eq!(last(b"\xff\xfe\0ok", false, 20), ["\u{fffd}\u{fffd}ok"]);
    }
}
