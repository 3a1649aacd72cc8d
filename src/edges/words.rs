//! What an instance says of itself, in the words of sd_notify(3) that zdr understands.
//!
//! Understands, and judges nothing: whose word counts, and for what, is decided elsewhere.

use std::time::Duration;

use super::plain_text::plain;

/// What one message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// READY=1, or READY=0.
    pub ready: Option<bool>,
    /// STOPPING=1: it is about to end.
    pub stopping: bool,
    /// STATUS=, for people.
    pub status: Option<String>,
    /// WATCHDOG=1, or WATCHDOG=trigger.
    pub watchdog: Option<Watchdog>,
    /// WATCHDOG_USEC=: how long the time between two of them may be from now on; zero is for ever.
    pub watchdog_time: Option<Duration>,
}

/// What is said to the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// It is alive.
    Alive,
    /// It is stuck, and knows it.
    Trigger,
}

impl Words {
    /// Reads a message: lines, of which those that mean nothing here are passed over, and the last counts of two alike.
    pub fn read(message: &[u8]) -> Self {
        let mut words = Self::default();
        for line in message.split(|byte| *byte == b'\n') {
            match line {
                b"READY=1" => words.ready = Some(true),
                b"READY=0" => words.ready = Some(false),
                b"STOPPING=1" => words.stopping = true,
                b"WATCHDOG=1" => words.watchdog = Some(Watchdog::Alive),
                b"WATCHDOG=trigger" => words.watchdog = Some(Watchdog::Trigger),
                _ => {
                    if let Some(text) = line.strip_prefix(b"STATUS=") {
                        words.status = Some(plain(text));
                    } else if let Some(time) = line.strip_prefix(b"WATCHDOG_USEC=").and_then(microseconds) {
                        words.watchdog_time = Some(time);
                    }
                }
            }
        }
        words
    }

    /// One that says nothing but that it is ready.
    pub fn of_ready(ready: bool) -> Self {
        Self { ready: ready.then_some(true), ..Self::default() }
    }
}

/// The highest number is for ever, as systemd means it (USEC_INFINITY).
fn microseconds(digits: &[u8]) -> Option<Duration> {
    let number: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Duration::from_micros(if number == u64::MAX { 0 } else { number }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_a_whole_line() {
        let ready = |message: &[u8]| Words::read(message).ready;
        assert_eq!(ready(b"READY=1"), Some(true));
        assert_eq!(ready(b"STATUS=up\nREADY=1\n"), Some(true));
        assert_eq!(ready(b"READY=1\nREADY=0"), Some(false));
        for message in [&b"READY=10"[..], b"READY=", b"xREADY=1", b"", b"\n\n", b"\xff\xfe"] {
            assert_eq!(ready(message), None);
        }
    }

    #[test]
    fn every_other_word_is_understood_and_what_means_nothing_is_passed_over() {
        let words =
            Words::read(b"STOPPING=1\nSTATUS=\x1b[1mwarming\x07 up\nMAINPID=1\nWATCHDOG=1\nWATCHDOG_USEC=2500000");
        assert!(words.stopping && words.ready.is_none());
        assert_eq!(words.status.as_deref(), Some("warming up"));
        assert_eq!((words.watchdog, words.watchdog_time), (Some(Watchdog::Alive), Some(Duration::from_millis(2500))));
        assert_eq!(Words::read(b"WATCHDOG=trigger").watchdog, Some(Watchdog::Trigger));
        assert_eq!(Words::read(b"WATCHDOG_USEC=18446744073709551615").watchdog_time, Some(Duration::ZERO));
        for nothing in [&b"WATCHDOG=2"[..], b"WATCHDOG_USEC=soon", b"WATCHDOG_USEC=-1", b"STOPPING=0", b"FDSTORE=1"] {
            assert_eq!(Words::read(nothing), Words::default());
        }
    }
}
