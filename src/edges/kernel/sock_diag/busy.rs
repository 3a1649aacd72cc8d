//! Whether a request seems to be in flight on a connection, judged from what TCP remembers of it.
//!
//! It never looks at the data, so it is a guess that suits requests and responses in turn (HTTP/1). Of a response that trickles, or of
//! several requests on one connection (HTTP/2), it may see nothing: whoever waits for quiet sets a deadline as well.

use std::io;
use std::time::Duration;

use super::wire::{Cursor, Found, state};

/// The kernel's clock ticks every 4 ms or 10 ms, so ages closer than this to now say nothing about order.
const JUST_NOW: Duration = Duration::from_millis(12);

/// How long a request is believed to be worked on when it came in the same tick as the last response.
const DOUBT: Duration = Duration::from_secs(10);

/// The same where only what is beyond doubt counts: most requests are answered by then.
const LITTLE_DOUBT: Duration = Duration::from_millis(100);

/// The traffic on one connection, seen from the server's side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    state: u8,
    /// Bytes that the server has not read yet.
    unread: u32,
    /// Bytes that the server has written and the kernel has not sent yet.
    unsent: u32,
    received: Segments,
    sent: Segments,
    /// The acknowledgements without data that came in, the last of the handshake not counted.
    bare_acknowledgements: u32,
    /// How long ago the client acknowledged anything.
    acknowledged: Duration,
}

/// The segments with data in one direction.
#[derive(Clone, Copy, Debug)]
struct Segments {
    count: u32,
    /// The age of the last one, or of the connection if there was none.
    age: Duration,
}

impl Exchange {
    /// Reads `struct tcp_info` (`include/uapi/linux/tcp.h`), which a connection that waits for its burial does not have any more.
    pub(super) fn read(found: &Found<'_>) -> io::Result<Option<Self>> {
        let Some(tcp_info) = found.tcp_info else {
            return Ok(None);
        };
        let word = |offset: usize| Cursor(tcp_info.get(offset..).unwrap_or_default()).u32();
        let age = |offset| word(offset).map(|age| Duration::from_millis(age.into()));
        let received = Segments { count: word(152)?, age: age(52)? };
        Ok(Some(Self {
            state: found.state,
            unread: found.receive_queue,
            unsent: word(144)?,
            received,
            sent: Segments { count: word(156)?, age: age(44)? },
            bare_acknowledgements: word(140)?.saturating_sub(received.count).saturating_sub(1),
            acknowledged: age(56)?,
        }))
    }

    /// Whether a request seems to be in flight; what is doubtful counts as one.
    pub(super) fn is_busy(self) -> bool {
        self.judge(DOUBT, JUST_NOW)
    }

    /// Whether a request is in flight beyond doubt. A client that asks in quick succession is never idle for long enough to
    /// be out of all doubt, and yet it is idle between its requests.
    pub(super) fn is_surely_busy(self) -> bool {
        self.judge(LITTLE_DOUBT, Duration::ZERO)
    }

    fn judge(self, doubt: Duration, just_now: Duration) -> bool {
        if self.unsent > 0 {
            return true;
        }
        let owes_a_response = self.owes_a_response(doubt, just_now);
        match self.state {
            state::ESTABLISHED => self.unread > 0 || owes_a_response,
            // The client's FIN waits in the queue like a byte, and says nothing about a request (tcp_fin in net/ipv4/tcp_input.c).
            state::CLOSE_WAIT => self.unread > 1 || owes_a_response,
            // The server has closed: it has said all that it will say.
            _ => false,
        }
    }

    fn owes_a_response(self, doubt: Duration, just_now: Duration) -> bool {
        if self.received.count == 0 {
            return false;
        }
        // The age of the last response is meaningless before the first one: it is the age of the connection.
        self.sent.count == 0
            || self.received.age < self.sent.age
            || self.sent.age < just_now
            || (self.received.age == self.sent.age && self.received.age < doubt && self.seems_asked())
    }

    /// Which came last, if the last request and the last response came in the same tick?
    ///
    /// A client acknowledges a response on its own, at once or later, unless its next request carries the acknowledgement. So it has asked
    /// again if the last acknowledgement is not younger than the request, and it has sent fewer on its own than segments with data. Of a
    /// connection that was once in great haste this stays true, therefore the doubt ends.
    fn seems_asked(self) -> bool {
        self.acknowledged >= self.received.age && self.bare_acknowledgements < self.received.count
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Exchange, Segments, state};

    /// A keep-alive connection that was answered a minute ago.
    fn idle() -> Exchange {
        Exchange {
            state: state::ESTABLISHED,
            unread: 0,
            unsent: 0,
            received: segments(3, 60_008),
            sent: segments(3, 60_004),
            bare_acknowledgements: 3,
            acknowledged: ms(60_004),
        }
    }

    /// A connection on which nothing happened yet.
    fn fresh() -> Exchange {
        let none = segments(0, 60_000);
        Exchange { received: none, sent: none, bare_acknowledgements: 0, ..idle() }
    }

    fn segments(count: u32, age: u64) -> Segments {
        Segments { count, age: ms(age) }
    }

    fn ms(age: u64) -> Duration {
        Duration::from_millis(age)
    }

    #[test]
    fn a_request_without_its_response_is_in_flight_and_nothing_else_is() {
        let asked = Exchange { received: segments(4, 10_000), acknowledged: ms(10_000), ..idle() };
        let first = Exchange { received: segments(1, 10_000), ..fresh() };
        let same_tick = |age| Exchange {
            received: segments(3, age),
            sent: segments(3, age),
            acknowledged: ms(age),
            bare_acknowledgements: 1,
            ..idle()
        };
        let state = |state, exchange| Exchange { state, ..exchange };
        let table = [
            ("nothing happened", fresh(), false),
            ("nothing happened, and just now", Exchange { sent: segments(0, 0), ..fresh() }, false),
            ("the first request is not read", Exchange { unread: 9, ..fresh() }, true),
            ("the first request is worked on for 10 s", first, true),
            ("the first came as the connection did", Exchange { received: segments(1, 60_000), ..fresh() }, true),
            ("answered a minute ago", idle(), false),
            ("the next request is not read", Exchange { unread: 9, ..idle() }, true),
            ("the next request is worked on for 10 s", asked, true),
            ("a response is being written", Exchange { sent: segments(70, 4), ..idle() }, true),
            ("a response cannot leave", Exchange { unsent: 9, ..idle() }, true),
            ("same tick, just now", same_tick(8), true),
            ("same tick, the next request has come", same_tick(5_000), true),
            ("same tick, but that is too long ago", same_tick(30_000), false),
            ("same tick, acknowledged later", Exchange { acknowledged: ms(4_960), ..same_tick(5_000) }, false),
            ("same tick, acknowledged at once", Exchange { bare_acknowledgements: 3, ..same_tick(5_000) }, false),
            ("the client left without a word", state(state::CLOSE_WAIT, Exchange { unread: 1, ..fresh() }), false),
            ("the client left after its response", state(state::CLOSE_WAIT, Exchange { unread: 1, ..idle() }), false),
            (
                "the client closed its half, unread request",
                state(state::CLOSE_WAIT, Exchange { unread: 9, ..fresh() }),
                true,
            ),
            ("the client closed its half, request worked on", state(state::CLOSE_WAIT, asked), true),
            ("the server has closed", state(state::FIN_WAIT2, asked), false),
            (
                "the server has closed, the client talks on",
                state(state::FIN_WAIT2, Exchange { unread: 9, ..asked }),
                false,
            ),
            ("both have closed", state(state::LAST_ACK, asked), false),
            (
                "the server has closed, its response cannot leave",
                state(state::FIN_WAIT1, Exchange { unsent: 9, ..idle() }),
                true,
            ),
        ];
        for (case, exchange, busy) in table {
            assert_eq!(exchange.is_busy(), busy, "{case}: {exchange:?}");
            assert!(busy || !exchange.is_surely_busy(), "{case}: {exchange:?}");
        }
        let doubtful = [Exchange { sent: segments(70, 4), ..idle() }, same_tick(5_000)];
        assert!(doubtful.into_iter().all(|exchange| exchange.is_busy() && !exchange.is_surely_busy()));
        let certain = [first, asked, same_tick(8), Exchange { unsent: 9, ..idle() }];
        assert!(certain.into_iter().all(Exchange::is_surely_busy));
    }
}
