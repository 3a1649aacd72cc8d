//! What others have written, made fit for one line of a terminal, a log or a page.

/// How much of it is shown.
const LONGEST: usize = 200;

/// Without control characters and the sequences that set colours, as Unicode, and not too long.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut characters = text.trim().chars().peekable();
    let mut length = 0;
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // ESC [ parameters, and a letter that ends them (ECMA-48, 5.4).
            if characters.next_if_eq(&'[').is_some() {
                while characters.next_if(|next| !('@'..='~').contains(next)).is_some() {}
                characters.next();
            }
            continue;
        }
        if length == LONGEST {
            break;
        }
        if character == '\t' || !character.is_control() {
            plain.push(if character == '\t' { ' ' } else { character });
            length += 1;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_one_line_of_plain_characters() {
        assert_eq!(plain(b"  all is well\n"), "all is well");
        assert_eq!(plain(b"\x1b[1;31mred\x1b[0m and\tblue\x07\x1b"), "red and blue");
        assert_eq!(plain(b"\xff\xfe\0x"), "\u{fffd}\u{fffd}x");
        assert_eq!(plain("é".repeat(500).as_bytes()), "é".repeat(200));
        assert_eq!(plain(b"\x1b["), "");
    }
}
