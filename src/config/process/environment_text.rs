//! The text of a file with variables, `KEY=VALUE` line by line, as in `EnvironmentFile=` of systemd.exec(5).
//!
//! Never opens a file; a mistake is told with its line.

/// A line that is no variable.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// Reads all variables, in order.
///
/// Empty lines and those that begin with `#` or `;` are skipped, and so is `export ` before a name. A value stands as it
/// is, without the blanks around it; in single quotes all of it, line ends too; in double quotes the same, but that a
/// backslash takes the meaning of `"`, `\`, `$`, a backquote or a line end. Nothing is expanded.
pub fn parse(text: &[u8]) -> Result<Vec<(String, String)>, Mistake> {
    let mut variables = Vec::new();
    let mut lines = Lines { rest: text, line: 0 };
    while let Some(line) = lines.next()? {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        let at = lines.line;
        let mistake = |why: String| Mistake { line: at, why };
        let assignment = content.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
        let assignment = assignment.unwrap_or(content).trim_start();
        // A line may be long and may be a secret, so it is not repeated.
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(mistake("no `=`; write KEY=VALUE, or `#` before a comment".to_owned()));
        };
        if !is_name(key) {
            return Err(mistake(format!(
                "`{}` is no name of a variable; write letters, digits and `_`, and no blank before the `=`",
                key.escape_debug()
            )));
        }
        let value = match value.chars().next().filter(|first| matches!(first, '"' | '\'')) {
            Some(quote) => quoted(&value[1..], quote, &mut lines, at)?,
            None => value.trim().to_owned(),
        };
        if value.contains('\0') {
            return Err(mistake(format!("the value of `{key}` has a zero byte, which no variable can have")));
        }
        variables.push((key.to_owned(), value));
    }
    Ok(variables)
}

/// Dots and dashes as well, because some programs have them.
fn is_name(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    !key.is_empty() && !key.starts_with(|c: char| c.is_ascii_digit()) && key.chars().all(allowed)
}

/// What is left of the text, line by line.
struct Lines<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, Mistake> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let (line, rest) = end.map_or((self.rest, &[][..]), |end| (&self.rest[..end], &self.rest[end + 1..]));
        self.rest = rest;
        // Some editors begin a file with a mark of its order of bytes, and end lines with two characters.
        let line = if self.line == 1 { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line) } else { line };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        str::from_utf8(line).map(Some).map_err(|_| Mistake { line: self.line, why: "not UTF-8".to_owned() })
    }
}

/// The value up to the closing quote, which may be on a later line.
fn quoted(begin: &str, quote: char, lines: &mut Lines<'_>, opened: usize) -> Result<String, Mistake> {
    let mut value = String::new();
    let mut line = begin;
    loop {
        let mut characters = line.chars();
        let mut joined = false;
        while let Some(character) = characters.next() {
            if character == quote {
                let behind = characters.as_str().trim();
                return match behind.is_empty() || behind.starts_with('#') {
                    true => Ok(value),
                    false => Err(Mistake {
                        line: lines.line,
                        why: "there is text behind the closing quote; put quotes around the whole value".to_owned(),
                    }),
                };
            }
            if character != '\\' || quote == '\'' {
                value.push(character);
                continue;
            }
            match characters.clone().next() {
                None => joined = true,
                Some(meant @ ('"' | '\\' | '$' | '`')) => {
                    value.push(meant);
                    characters.next();
                }
                Some(_) => value.push('\\'),
            }
        }
        if !joined {
            value.push('\n');
        }
        line =
            lines.next()?.ok_or_else(|| Mistake { line: opened, why: format!("the quote {quote} is never closed") })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_understood() {
        let text = "\u{feff}# a comment\n\n  ; another\nA=1\r\nexport B=two words \n EMPTY=\nC=\"a \\\"b\\\" \\$c \\n\" # why\n\
            D='as \\ is \"$x\"'\nHASH=a#b #c\nEQUAL=a=b\nMANY=\"one\ntwo \\\nthree\"\nexported=yes\nspring.a-b=1\nA=2";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("EMPTY", ""),
            ("C", "a \"b\" $c \\n"),
            ("D", "as \\ is \"$x\""),
            ("HASH", "a#b #c"),
            ("EQUAL", "a=b"),
            ("MANY", "one\ntwo three"),
            ("exported", "yes"),
            ("spring.a-b", "1"),
            ("A", "2"),
        ];
        let variables = parse(text.as_bytes()).unwrap();
        assert_eq!(variables, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, line, words) in [
            (&b"A=1\n\nnonsense\n"[..], 3, "no `=`"),
            (b"export\n", 1, "no `=`"),
            (b"A B=1", 1, "`A B` is no name"),
            (b"A =1", 1, "no blank before the `=`"),
            (b"=1", 1, "`` is no name"),
            (b"1A=1", 1, "`1A` is no name"),
            (b"A=1\nB=\"x\nC=2\n", 2, "the quote \" is never closed"),
            (b"A='x\ny' z", 2, "behind the closing quote"),
            (b"A=1\nB=\xff\n", 2, "not UTF-8"),
            (b"A=1\0", 1, "zero byte"),
        ] {
            let mistake = parse(text).unwrap_err();
            assert_eq!(mistake.line, line, "{mistake:?}");
            assert!(mistake.why.contains(words), "{words}: {mistake:?}");
        }
    }
}
