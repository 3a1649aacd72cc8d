//! Text for people: a line of the story is its sentence, because its fields say the same again; other lines keep theirs.
//!
//! Never leaves anything out but what was said already.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::layer::{Context, Layer};

use crate::edges::diary::VERDICT;

/// How fields look in text.
pub(super) struct Prose;

impl<'writer> FormatFields<'writer> for Prose {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut kind = Kind::default();
        fields.record(&mut kind);
        let mut text = DefaultVisitor::new(writer, true);
        if kind.story {
            fields.record(&mut Sentence(&mut text));
        } else {
            fields.record(&mut text);
        }
        text.finish()
    }
}

/// Whether it is a line of the story, which has its `event`.
#[derive(Default)]
struct Kind {
    story: bool,
}

impl Visit for Kind {
    fn record_debug(&mut self, field: &Field, _: &dyn Debug) {
        self.story |= field.name() == "event";
    }
}

/// The message and nothing else.
struct Sentence<'text, 'writer>(&'text mut DefaultVisitor<'writer>);

impl Visit for Sentence<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.record_debug(field, value);
        }
    }
}

/// Leaves verdicts out: the line that led to one has the same sentence.
pub(super) struct NoVerdicts;

impl<S: Subscriber> Layer<S> for NoVerdicts {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        event.metadata().target() != VERDICT
    }
}
