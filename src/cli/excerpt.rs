//! A mistake in the settings, shown with the line that it is on.
//!
//! Knows neither options nor TOML: only a text, a place in it and what is to be said.

use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// Something wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// What, why, and the way out.
    pub(super) sentence: String,
    /// Where in the file, in bytes; None where the file does not say it.
    pub(super) place: Option<Range<usize>>,
    /// What may have been meant.
    pub(super) hint: Option<String>,
}

impl Mistake {
    /// At a place.
    pub(super) fn at(place: Range<usize>, sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), place: Some(place), hint: None }
    }

    /// With a hint.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The sentence and, where it has a place, `path:line:column`, the line and the hint.
    pub(super) fn shown(&self, path: &Path, text: &str, coloured: bool) -> String {
        let Some(place) = self.place.clone() else { return self.sentence.clone() };
        let (number, line, place) = line_of(text, place);
        let path = path.display().to_string();
        let mark = AnnotationKind::Primary.span(place);
        let snippet = Snippet::source(line).line_start(number).path(path).annotation(mark);
        let title = Level::ERROR.no_name().primary_title(&self.sentence);
        let hint = self.hint.iter().map(|hint| Level::HELP.message(hint));
        let group = hint.fold(title.element(snippet), annotate_snippets::Group::element);
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// The number of the line that a place begins on, the line, and the place in it up to its end: the whole file for each of
/// its mistakes would be too much.
fn line_of(text: &str, place: Range<usize>) -> (usize, &str, Range<usize>) {
    let boundary = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (from, to) = (boundary(place.start.min(text.len())), boundary(place.end.min(text.len())));
    let begin = text[..from].rfind('\n').map_or(0, |at| at + 1);
    let end = text[from..].find('\n').map_or(text.len(), |at| from + at);
    let line = text[begin..end].trim_end_matches('\r');
    let (from, to) = ((from - begin).min(line.len()), (to.max(from) - begin).min(line.len()));
    (text[..begin].matches('\n').count() + 1, line, from..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, place: Range<usize>) -> String {
        Mistake::at(place, "it is wrong").hint("try this").shown(Path::new("a.toml"), text, false)
    }

    #[test]
    fn a_mistake_is_shown_with_its_place_and_its_line() {
        let told = shown("one = 1\ntwo = \"2\"\nthree = 3\n", 14..17);
        let wanted =
            ["it is wrong", " --> a.toml:2:7", "  |", "2 | two = \"2\"", "  |       ^^^", "  |", "  = help: try this"];
        assert_eq!(told.lines().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_column_is_counted_in_characters_and_a_place_may_be_the_end() {
        assert!(shown("ä = ö\n", 5..7).contains("a.toml:1:5"));
        assert!(shown("", 0..0).contains("a.toml:1:1"));
        assert!(shown("a = [", 5..5).contains("a.toml:1:6"));
        assert!(shown("a\r\nb = \"\"\"\nc", 3..12).contains("a.toml:2:1"));
        assert!(shown("a = ä", 5..9).contains("a.toml:1:5"));
    }
}
