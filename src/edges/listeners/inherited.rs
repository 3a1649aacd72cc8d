//! Sockets that zdr itself was started with: `LISTEN_FDS`, as systemd and others pass them (sd_listen_fds(3)).
//!
//! They stay open where they came from, so that connections wait there while zdr is restarted. Never closes or unbinds
//! anything of whoever passed them on.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use listenfd::ListenFd;
use nix::sys::socket::{SockaddrStorage, UnixAddr, getpeername, getsockname, getsockopt, setsockopt, sockopt};
use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use tracing::info;

use super::group::Group;
use super::lane::{Lane, Way, port};
use super::make::{address_of, inode, listen_again, nobody_else};
use super::queue::{backlog, is_nonblocking};
use super::{ListenError, Listeners};
use crate::address::{Address, Listener, Options};

/// The first descriptor that is passed on (`SD_LISTEN_FDS_START`), unless systemfd says otherwise in `LISTEN_FDS_FIRST_FD`.
const FIRST: usize = 3;

/// What was passed on to zdr.
#[derive(Debug)]
pub struct Inherited {
    /// The number of the first.
    first: usize,
    sockets: Vec<(String, OwnedFd, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Unix,
}

impl Inherited {
    /// Takes them from the environment, once, and before zdr opens anything: a descriptor that was promised and is not
    /// there would be one of ours. Nobody may have started a thread yet: the variables are removed.
    pub fn take(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ListenError> {
        let number = variable("LISTEN_FDS").unwrap_or_default();
        // More than the kernel lets a process have would only cost memory.
        if !number.parse::<u16>().is_ok_and(|number| number > 0) {
            let why = format!("`{number}` is no number of sockets");
            return Err(ListenError::Inherited { number: None, why });
        }
        let first = variable("LISTEN_FDS_FIRST_FD").and_then(|first| first.parse().ok()).unwrap_or(FIRST);
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut passed = ListenFd::from_env();
        let mut taken: Vec<(String, OwnedFd, Kind)> = Vec::new();
        for position in 0..passed.len() {
            let (socket, kind) = take(&mut passed, position, first).map_err(at(first + position))?;
            let name = names.get(position).copied().filter(|name| !name.is_empty());
            // All sockets of one unit have the same name, and servers look for that (sd_listen_fds_with_names(3)).
            taken.push((name.map_or_else(|| unnamed(position), ToOwned::to_owned), socket, kind));
        }
        Ok(Self { first, sockets: taken })
    }
}

fn at(number: usize) -> impl Fn(String) -> ListenError {
    move |why| ListenError::Inherited { number: Some(number), why }
}

fn unnamed(position: usize) -> String {
    if position == 0 { "main".to_owned() } else { format!("listener{}", position + 1) }
}

fn take(passed: &mut ListenFd, position: usize, first: usize) -> Result<(OwnedFd, Kind), String> {
    match fs::read_link(format!("/proc/self/fd/{}", first + position)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::exists("/proc/self/fd").unwrap_or_default() => {
            return Err("it is not open".to_owned());
        }
        Ok(file) if !file.to_string_lossy().starts_with("socket:") => {
            return Err(format!("it is no socket but {}", file.display()));
        }
        _ => {}
    }
    let (socket, kind): (OwnedFd, Kind) = if let Ok(Some(tcp)) = passed.take_tcp_listener(position) {
        (tcp.into(), Kind::Tcp)
    } else if let Ok(Some(udp)) = passed.take_udp_socket(position) {
        (udp.into(), Kind::Udp)
    } else if let Ok(Some(unix)) = passed.take_unix_listener(position) {
        (unix.into(), Kind::Unix)
    } else {
        return Err("it is no TCP, UDP or Unix stream socket".to_owned());
    };
    match getpeername::<SockaddrStorage>(socket.as_raw_fd()) {
        Ok(_) => Err("it is connected to a client already, as `Accept=yes` of a socket unit makes it".to_owned()),
        Err(_) => Ok((socket, kind)),
    }
}

impl Listeners {
    /// Takes over what was passed on. Slots are made beside it where the kernel allows it: for sockets of this user. An
    /// address that somebody else listens on as well, such as a server that a killed zdr has left, is refused.
    pub fn inherit(passed: Inherited) -> Result<Self, ListenError> {
        let mut listeners = Self::default();
        let passed_on: Vec<u64> = passed.sockets.iter().map(|(_, socket, _)| inode(socket)).collect();
        for (position, (name, socket, kind)) in passed.sockets.into_iter().enumerate() {
            let listener = listener(name, &socket, kind).map_err(at(passed.first + position))?;
            if let Some(other) = listeners.all().position(|other| other.address == listener.address) {
                let why = format!("it listens on {}, as descriptor {} does", listener.address, passed.first + other);
                return Err(at(passed.first + position)(why));
            }
            nobody_else(&listener, &[passed_on.as_slice(), &listeners.inodes_on(port(&listener))].concat())?;
            let lane = inherit(listeners.next, listener, socket, &passed_on)
                .map_err(|error| at(passed.first + position)(error.to_string()))?;
            listeners.add(lane);
        }
        Ok(listeners)
    }
}

/// What it is like is what zdr makes its other slots like.
fn listener(name: String, socket: &OwnedFd, kind: Kind) -> Result<Listener, String> {
    let said = |error: io::Error| error.to_string();
    let mut options = Options { nonblocking: is_nonblocking(socket.as_fd()).map_err(said)?, ..Options::default() };
    let address = match kind {
        Kind::Unix => unix_address(socket)?,
        Kind::Tcp => Address::Tcp(address_of(socket).map_err(said)?),
        Kind::Udp => Address::Udp(address_of(socket).map_err(said)?),
    };
    if address.socket().is_some_and(|address| address.port() == 0) {
        return Err("it has no port yet".to_owned());
    }
    if let Some(SocketAddr::V6(_)) = address.socket() {
        options.v6only = getsockopt(socket, sockopt::Ipv6V6Only).unwrap_or_default();
    }
    if kind == Kind::Tcp {
        options.nodelay = getsockopt(socket, sockopt::TcpNoDelay).unwrap_or_default();
    }
    let mut listener = Listener { name, address, options };
    if getsockopt(socket, sockopt::AcceptConn).unwrap_or_default() {
        listener.options.backlog = backlog(&listener, socket.as_fd()).unwrap_or(listener.options.backlog);
    }
    Ok(listener)
}

fn inherit(number: usize, listener: Listener, socket: OwnedFd, ours: &[u64]) -> io::Result<Lane> {
    // For one that was only bound.
    listen_again(&listener, &socket)?;
    let way = match &listener.address {
        Address::Unix(_) | Address::Abstract(_) => Way::Shared(socket),
        Address::Tcp(_) | Address::Udp(_) => slots_beside(&listener, socket, ours)?,
    };
    Ok(Lane { kept: true, outlives: true, ..Lane::of(number, listener, way) })
}

/// SO_REUSEPORT may be set on a socket that listens already (kernel: `sk_setsockopt`); whether another one may share the
/// address is decided when that is bound.
fn slots_beside(listener: &Listener, socket: OwnedFd, ours: &[u64]) -> io::Result<Way> {
    let spare = socket.try_clone()?;
    let shared = getsockopt(&socket, sockopt::ReusePort).unwrap_or_default();
    if setsockopt(&socket, sockopt::ReusePort, &true).is_err() {
        return Ok(Way::Shared(spare));
    }
    let mut group = Group::of(0, socket)?;
    match group.socket(1, listener, ours) {
        Ok(_) => Ok(Way::Group(group)),
        Err(error) => {
            let owner = fstat(&spare)?.st_uid;
            let why = match owner == geteuid().as_raw() {
                true => error.to_string(),
                false => format!("it belongs to user {owner}, and only that one may make more"),
            };
            info!(address = %listener.address, "generations share the socket that zdr was started with: {why}");
            setsockopt(&spare, sockopt::ReusePort, &shared)?;
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::super::tests::{all_to, only};
    use super::*;
    use crate::supervisor::{Generation, Place, QueueMode};

    fn passed_on(socket: OwnedFd) -> Inherited {
        Inherited { first: FIRST, sockets: vec![("web".to_owned(), socket, Kind::Tcp)] }
    }

    #[test]
    fn what_comes_after_the_last_generation_waits_for_whoever_has_the_socket_next() {
        let kept = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = kept.local_addr().unwrap();
        let socket = OwnedFd::from(kept.try_clone().unwrap());
        let mut listeners = Listeners::inherit(passed_on(socket)).unwrap();
        listeners.lend(only(1), Place::Steered, QueueMode::Shared).unwrap();
        // While the first one lives it would take what comes there, so that it is held back as it is elsewhere.
        listeners.hold().unwrap();
        TcpStream::connect_timeout(&to, Duration::from_millis(50)).unwrap_err();
        listeners.steer(&all_to(1)).unwrap();
        for (old, new) in [(1, 2), (2, 3)] {
            listeners.lend(only(new), Place::Beside, QueueMode::Shared).unwrap();
            listeners.steer(&all_to(new)).unwrap();
            listeners.release(Generation(old));
        }
        listeners.hold().unwrap();
        let waits = TcpStream::connect(to).unwrap();
        listeners.release(Generation(3));
        drop(listeners);
        assert_eq!(kept.accept().unwrap().1, waits.local_addr().unwrap());
    }

    #[test]
    fn what_was_held_back_waits_there_as_soon_as_the_first_generation_is_gone() {
        let kept = TcpListener::bind("[::1]:0").unwrap();
        let to = kept.local_addr().unwrap();
        let socket = OwnedFd::from(kept.try_clone().unwrap());
        let mut listeners = Listeners::inherit(passed_on(socket)).unwrap();
        listeners.lend(only(1), Place::Steered, QueueMode::Shared).unwrap();
        listeners.hold().unwrap();
        listeners.release(Generation(1));
        let waits = TcpStream::connect(to).unwrap();
        drop(listeners);
        assert_eq!(kept.accept().unwrap().1, waits.local_addr().unwrap());
    }
}
