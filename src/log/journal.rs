//! Entries of the systemd journal by its native protocol, so that fields stay fields.
//!
//! Never waits for journald: an entry that it has no room for is left out.

use std::io;
use std::os::unix::net::UnixDatagram;

use nix::sys::stat::fstat;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_journald::{Layer as Journald, Priority, PriorityMappings};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::is_writable;

/// Where journald takes entries (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const SOCKET: &str = "/run/systemd/journal/socket";

/// True where `$JOURNAL_STREAM` names the very file that stderr is (systemd.exec(5)): whoever started zdr from such a service may
/// have led stderr elsewhere since.
pub(super) fn is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Starts it. Fails where there is no journald, or none that listens.
pub(super) fn begin(level: LevelFilter, name: &str) -> io::Result<()> {
    // The layer greets journald when it is made, and would wait as well.
    if !has_room()? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    // As journald takes lines from stderr: syslog's word for what is usual is `info`, not `notice`.
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let journald = Journald::new()?
        .with_priority_mappings(priorities)
        .with_syslog_identifier(env!("CARGO_PKG_NAME").to_owned())
        .with_field_prefix(Some("ZDR".to_owned()))
        .with_custom_fields([("ZDR_SUPERVISOR", name)]);
    tracing_subscriber::registry().with(level).with(journald).with(Unhurried).init();
    Ok(())
}

/// Lets an entry through as long as journald has room for it. The layer's own socket waits, and cannot be had.
struct Unhurried;

impl<S: Subscriber> Layer<S> for Unhurried {
    fn event_enabled(&self, _: &Event<'_>, _: Context<'_, S>) -> bool {
        has_room().unwrap_or(false)
    }
}

/// A socket for each question, because journald may be another one by now. Only a connected one tells whether there is room.
fn has_room() -> io::Result<bool> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SOCKET)?;
    Ok(is_writable(&socket))
}
