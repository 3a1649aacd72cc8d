//! Telling the service manager above zdr how things are (sd_notify(3)): READY=1 when the first generation serves, STATUS=
//! from then on, STOPPING=1.
//!
//! Never waits and never fails: a manager that does not listen changes nothing.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::debug;

use crate::supervisor::News;

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct ServiceManager(Option<(UnixDatagram, SocketAddr)>);

impl ServiceManager {
    /// The one that `$NOTIFY_SOCKET` names: a path, or a name in the abstract namespace behind `@`.
    pub fn named(socket: Option<&OsStr>) -> Self {
        let address = socket.and_then(|socket| match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            [b'/', ..] => SocketAddr::from_pathname(socket).ok(),
            _ => None,
        });
        Self(address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address))))
    }

    /// Passes on what it should know.
    pub fn tell(&self, news: &News) {
        let message = match news {
            News::Serving { .. } => format!("READY=1\nSTATUS={news}"),
            News::Failed { .. }
            | News::Crashed { .. }
            | News::Retrying { .. }
            | News::Returned { .. }
            | News::InstanceLost { .. }
            | News::Refused { .. }
            | News::Paused { .. }
            | News::Resumed
            | News::Waiting
            | News::Worn { .. }
            | News::Stuck { .. }
            | News::Recovered { .. }
            | News::Unready { .. }
            | News::Leaving { .. } => {
                format!("STATUS={news}")
            }
            News::Stopping => "STOPPING=1\nSTATUS=draining".to_owned(),
            _ => return,
        };
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.set_nonblocking(true).and_then(|()| socket.send_to_addr(message.as_bytes(), address))
        {
            debug!(%error, "the service manager does not listen");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{Generation, Why};

    fn heard(socket: &UnixDatagram) -> String {
        let mut message = [0; 512];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    #[test]
    fn a_manager_is_told_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("zdr-test-{}", std::process::id());
        let listens = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (address, socket) in listens {
            let manager = ServiceManager::named(Some(&address));
            manager.tell(&News::Spawned { generation: Generation(1), instance: 1, of: 1, pid: 5, why: Why::Boot });
            manager.tell(&News::Serving { generation: Generation(1), after: std::time::Duration::from_millis(100) });
            manager.tell(&News::Stopping);
            assert_eq!(heard(&socket), "READY=1\nSTATUS=generation 1 serves after 100.0ms");
            assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining");
        }
    }

    #[test]
    fn a_manager_that_does_not_listen_changes_nothing() {
        for address in [None, Some(""), Some("/nowhere/at/all"), Some("@"), Some("vsock:1")] {
            ServiceManager::named(address.map(OsStr::new)).tell(&News::Stopping);
        }
    }
}
