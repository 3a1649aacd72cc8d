//! What people see of a status and of what happens.
//!
//! Only makes text: nothing here asks a supervisor.

mod progress;
mod screen;
mod seats;
mod status;
mod story;
mod words;

#[cfg(test)]
mod tests;

pub(super) use progress::Progress;
pub(super) use screen::Screen;
pub(super) use status::{health_line, lines, list_text, status_text, without_times};
pub(super) use story::Story;
