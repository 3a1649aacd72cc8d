//! A connected stream whose every read and write ends when the time given to the whole exchange is
//! over.
//!
//! It never connects, never speaks a protocol, and never waits past the limit however slowly the
//! peer drips.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::time::Instant;

/// The stream a question goes over; connected.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connection to a Unix socket.
    Unix(UnixStream),
}

/// A stream with its deadline; dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    since: Instant,
    limit: Duration,
}

impl Wire {
    /// Starts the clock.
    pub(super) fn new(stream: Stream, limit: Duration) -> io::Result<Self> {
        match &stream {
            // The request can leave in two pieces; with Nagle the second would wait for the peer's
            // delayed acknowledgement of the first, about 40 ms (tcp(7), TCP_NODELAY).
            Stream::Tcp(tcp) => {
                tcp.set_nonblocking(false)?;
                tcp.set_nodelay(true)?;
            }
            Stream::Unix(unix) => unix.set_nonblocking(false)?,
        }
        Ok(Self { stream, since: Instant::now(), limit })
    }

    /// The other end's address; none for a Unix socket.
    pub(super) fn peer(&self) -> io::Result<Option<IpAddr>> {
        match &self.stream {
            Stream::Tcp(tcp) => Ok(Some(tcp.peer_addr()?.ip().to_canonical())),
            Stream::Unix(_) => Ok(None),
        }
    }

    /// What is left of the limit, or `TimedOut`.
    fn left(&self) -> io::Result<Duration> {
        let left = self.limit.saturating_sub(self.since.elapsed());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// The kernel's own timeout says `WouldBlock`; whether the limit is over is for [`Wire::left`] to
/// say.
fn is_to_be_tried_again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = Some(self.left()?);
            let result = match &mut self.stream {
                Stream::Tcp(tcp) => tcp.set_read_timeout(left).and_then(|()| tcp.read(into)),
                Stream::Unix(unix) => unix.set_read_timeout(left).and_then(|()| unix.read(into)),
            };
            match result {
                Err(error) if is_to_be_tried_again(&error) => {}
                done => return done,
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        loop {
            let left = Some(self.left()?);
            let result = match &mut self.stream {
                Stream::Tcp(tcp) => tcp.set_write_timeout(left).and_then(|()| tcp.write(from)),
                Stream::Unix(unix) => unix.set_write_timeout(left).and_then(|()| unix.write(from)),
            };
            match result {
                Err(error) if is_to_be_tried_again(&error) => {}
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
