//! Sockets that zdr itself was started with: `LISTEN_FDS`, as systemd and others pass them (sd_listen_fds(3)).
//!
//! They stay open where they came from, so that connections wait there while zdr is restarted.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use listenfd::ListenFd;
use nix::sys::socket::{UnixAddr, getsockname, setsockopt, sockopt};

use super::group::Group;
use super::lane::{Lane, Way};
use super::make::{address_of, inode, listen_again};
use super::{ListenError, Listeners};
use crate::address::{Address, Listener, Options};

/// What was passed on to zdr.
#[derive(Debug)]
pub struct Inherited(Vec<(String, OwnedFd, Kind)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Unix,
}

impl Inherited {
    /// Takes them from the environment, once. Nobody may have started a thread yet: the variables are removed.
    pub fn take(names: Option<&str>) -> Result<Self, ListenError> {
        let mut passed = ListenFd::from_env();
        let names: Vec<&str> = names.map(|names| names.split(':').collect()).unwrap_or_default();
        let mut taken: Vec<(String, OwnedFd, Kind)> = Vec::new();
        for position in 0..passed.len() {
            let (socket, kind) = take(&mut passed, position)?;
            let name = names.get(position).copied().filter(|name| !name.is_empty());
            let mut name = name.map_or_else(|| unnamed(position), ToOwned::to_owned);
            if taken.iter().any(|(other, ..)| *other == name) {
                name = format!("{name}{}", position + 1);
            }
            taken.push((name, socket, kind));
        }
        Ok(Self(taken))
    }
}

fn unnamed(position: usize) -> String {
    if position == 0 { "main".to_owned() } else { format!("listener{}", position + 1) }
}

fn take(passed: &mut ListenFd, position: usize) -> Result<(OwnedFd, Kind), ListenError> {
    if let Ok(Some(tcp)) = passed.take_tcp_listener(position) {
        return Ok((tcp.into(), Kind::Tcp));
    }
    if let Ok(Some(udp)) = passed.take_udp_socket(position) {
        return Ok((udp.into(), Kind::Udp));
    }
    if let Ok(Some(unix)) = passed.take_unix_listener(position) {
        return Ok((unix.into(), Kind::Unix));
    }
    let why = "it is no TCP, UDP or Unix stream socket".to_owned();
    Err(ListenError::Inherited { number: 3 + position, why })
}

impl Listeners {
    /// Takes over what was passed on. Slots are made beside it where the kernel allows it: for sockets of this user.
    pub fn inherit(passed: Inherited) -> Result<Self, ListenError> {
        let mut listeners = Self { slots: vec![Vec::new(), Vec::new()], ..Self::default() };
        for (position, (name, socket, kind)) in passed.0.into_iter().enumerate() {
            let lane = inherit(listeners.next, name, socket, kind)
                .map_err(|why| ListenError::Inherited { number: 3 + position, why })?;
            listeners.add(lane);
        }
        Ok(listeners)
    }
}

fn inherit(number: usize, name: String, socket: OwnedFd, kind: Kind) -> Result<Lane, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut options = Options::default();
    let address = match kind {
        Kind::Unix => unix_address(&socket)?,
        Kind::Tcp => Address::Tcp(address_of(&socket).map_err(said)?),
        Kind::Udp => Address::Udp(address_of(&socket).map_err(said)?),
    };
    if let Some(SocketAddr::V6(_)) = address.socket() {
        options.v6only = nix::sys::socket::getsockopt(&socket, sockopt::Ipv6V6Only).unwrap_or_default();
    }
    if kind == Kind::Tcp {
        options.nodelay = nix::sys::socket::getsockopt(&socket, sockopt::TcpNoDelay).unwrap_or_default();
    }
    let listener = Listener { name, address, options };
    // One that was only bound is made to listen; for the others this changes the backlog alone.
    listen_again(&listener, &socket).map_err(said)?;
    let way = match kind {
        Kind::Unix => Way::Shared(socket),
        Kind::Tcp | Kind::Udp => slots_beside(&listener, socket).map_err(said)?,
    };
    Ok(Lane { number, listener, way, claims: None })
}

/// SO_REUSEPORT may be set on a socket that listens already (kernel: `sk_setsockopt`); whether another one may share the
/// address is decided when that is bound.
fn slots_beside(listener: &Listener, socket: OwnedFd) -> std::io::Result<Way> {
    let spare = socket.try_clone()?;
    if setsockopt(&socket, sockopt::ReusePort, &true).is_err() {
        return Ok(Way::Shared(spare));
    }
    let mut group = Group::of(0, socket)?;
    match group.socket(1, listener, &[inode(&spare)]) {
        Ok(_) => Ok(Way::Group(group)),
        Err(error) => {
            tracing::info!(
                address = %listener.address,
                "{error}; the socket that zdr was started with is shared between generations"
            );
            setsockopt(&spare, sockopt::ReusePort, &false)?;
            Ok(Way::Shared(spare))
        }
    }
}

/// What a Unix socket is bound to, as it was given to bind(2).
pub(super) fn unix_address(socket: &OwnedFd) -> Result<Address, String> {
    let address: UnixAddr = getsockname(socket.as_raw_fd()).map_err(|error| error.to_string())?;
    match (address.path(), address.as_abstract()) {
        (Some(path), _) if !path.as_os_str().is_empty() => Ok(Address::Unix(path.to_owned())),
        (_, Some(name)) => Ok(Address::Abstract(String::from_utf8_lossy(name).into_owned())),
        _ => Err("it has no address".to_owned()),
    }
}
