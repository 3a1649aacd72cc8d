//! Why an address could not be listened on, and the way out.

use std::fmt;
use std::io;

use crate::address::Listener;
use crate::config::Fault;

/// Why an address could not be listened on.
#[derive(Debug)]
pub enum ListenError {
    /// Somebody else listens there.
    InUse {
        /// The address as it was asked for.
        address: String,
        /// Their process and its program, where /proc tells.
        holder: Option<(i32, String)>,
    },
    /// A system call failed.
    Socket {
        /// The address as it was asked for.
        address: String,
        /// How.
        source: io::Error,
    },
    /// The kernel does not take the steering.
    Steer {
        /// The address as it was asked for.
        address: String,
        /// How.
        source: io::Error,
    },
    /// The path has a file that is no socket.
    NoSocket {
        /// The address as it was asked for.
        address: String,
    },
    /// The server has no right to a port that zdr could have.
    Privileged {
        /// The address that it binds.
        address: String,
        /// The first port that needs no right.
        free_from: u16,
    },
    /// A descriptor that zdr was started with is not what it should be.
    Inherited {
        /// Its number; None where it is the variable that is wrong.
        number: Option<usize>,
        /// What is wrong with it.
        why: String,
    },
}

impl ListenError {
    pub(super) fn socket(listener: &Listener, source: io::Error) -> Self {
        Self::Socket { address: listener.address.to_string(), source }
    }

    pub(super) fn steer(listener: &Listener, source: io::Error) -> Self {
        Self::Steer { address: listener.address.to_string(), source }
    }
}

impl ListenError {
    /// Which of the listeners that were asked for cannot be had.
    pub fn fault(&self, asked: &[Listener]) -> Fault {
        let nth = match self {
            Self::InUse { address, .. }
            | Self::Socket { address, .. }
            | Self::Steer { address, .. }
            | Self::NoSocket { address }
            | Self::Privileged { address, .. } => {
                asked.iter().position(|listener| listener.address.to_string() == *address)
            }
            Self::Inherited { .. } => None,
        };
        Fault { nth, ..Fault::of("listen", self.to_string()) }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { address, holder: Some((pid, program)) } => write!(
                f,
                "cannot listen on {address}: process {pid} ({program}) listens there; end it or choose another address"
            ),
            Self::InUse { address, holder: None } => write!(
                f,
                "cannot listen on {address}: somebody else listens there (as root, `ss -tulpn` names the process); \
                 end it or choose another address"
            ),
            Self::Socket { address, source } => match source.kind() {
                io::ErrorKind::PermissionDenied if address.starts_with("unix:") => {
                    write!(f, "cannot listen on {address}: permission denied in its directory")
                }
                io::ErrorKind::NotFound => write!(f, "cannot listen on {address}: its directory does not exist"),
                io::ErrorKind::PermissionDenied => write!(
                    f,
                    "cannot listen on {address}: permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE"
                ),
                io::ErrorKind::AddrNotAvailable => write!(
                    f,
                    "cannot listen on {address}: this machine has no such address; \
                     choose one that it has, or add `,freebind` if it comes later"
                ),
                _ => write!(f, "cannot listen on {address}: {source}"),
            },
            Self::Steer { address, source } => write!(
                f,
                "cannot steer connections to {address}: {source}; zdr needs SO_ATTACH_REUSEPORT_CBPF, and Linux 5.11 or newer"
            ),
            Self::NoSocket { address } => write!(
                f,
                "cannot listen on {address}: there is a file that is no socket; remove it or choose another path"
            ),
            Self::Privileged { address, free_from } => write!(
                f,
                "its user may not bind {address}, because ports below {free_from} need CAP_NET_BIND_SERVICE; \
                 say `--capture always`, and zdr binds it"
            ),
            Self::Inherited { number: Some(number), why } => {
                write!(
                    f,
                    "cannot use descriptor {number} of LISTEN_FDS: {why}; pass another one, or none and use --listen"
                )
            }
            Self::Inherited { number: None, why } => {
                write!(f, "cannot use LISTEN_FDS: {why}; unset it, or use --listen")
            }
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket { source, .. } | Self::Steer { source, .. } => Some(source),
            Self::InUse { .. } | Self::NoSocket { .. } | Self::Privileged { .. } | Self::Inherited { .. } => None,
        }
    }
}
