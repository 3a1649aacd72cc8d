//! The connections of generations, as the kernel knows them: counted by the listeners that they came through and the
//! processes that hold them.
//!
//! Looks, never touches, and sees no byte of them.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, UnixAddr, getsockname};

use super::cgroup::ControlGroup;
use super::kernel::sock_diag::SockDiag;
use super::listeners::Watched;
use super::processes::{orphans, sockets, tree};
use crate::address::Address;
use crate::supervisor::Instance;

/// Connections of one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Open ones.
    pub open: usize,
    /// Those with a request in flight; what is doubtful counts as one.
    pub busy: usize,
    /// Those with a request in flight beyond doubt.
    pub surely_busy: usize,
}

impl Count {
    /// Those of another instance as well.
    pub fn join(&mut self, other: Self) {
        self.open += other.open;
        self.busy += other.busy;
        self.surely_busy += other.surely_busy;
    }

    fn add(&mut self, busy: bool, surely_busy: bool) {
        self.open += 1;
        self.busy += usize::from(busy);
        self.surely_busy += usize::from(surely_busy);
    }
}

/// By what the kernel knows the connections that were accepted on some sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// Of TCP sockets: the port, with any address of the family, as the kernel lists each family by itself.
    pub ports: HashSet<SocketAddr>,
    /// The same, with the addresses that clients reach.
    addresses: HashSet<SocketAddr>,
    /// What Unix sockets were bound to, which is not the path that clients know.
    pub names: HashSet<Vec<u8>>,
}

impl Doors {
    /// The doors that these sockets are.
    pub fn of<'a>(sockets: impl Iterator<Item = &'a Watched>) -> Self {
        let mut doors = Self::default();
        for at in sockets {
            match at.listener.address {
                Address::Tcp(address) => {
                    let any =
                        if is_ipv6(&at.socket) { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
                    doors.ports.insert(SocketAddr::new(any, address.port()));
                    doors.addresses.insert(address);
                }
                Address::Unix(_) | Address::Abstract(_) => doors.names.extend(name(&at.socket)),
                Address::Udp(_) => {}
            }
        }
        doors
    }
}

impl Doors {
    /// True where a connection to this address came through one of them.
    fn lead_to(&self, local: SocketAddr) -> bool {
        let is_it = |door: &SocketAddr| door.port() == local.port() && (door.ip().is_unspecified() || *door == local);
        self.addresses.iter().any(is_it)
    }
}

/// Java binds IPv6 sockets to IPv4 addresses, so the address does not tell.
fn is_ipv6(socket: &impl AsRawFd) -> bool {
    getsockname::<SockaddrStorage>(socket.as_raw_fd())
        .is_ok_and(|address| address.family() == Some(AddressFamily::Inet6))
}

/// A name as `sock_diag(7)` gives it: an abstract one begins with a zero byte.
fn name(socket: &impl AsRawFd) -> Option<Vec<u8>> {
    let address: UnixAddr = getsockname(socket.as_raw_fd()).ok()?;
    let path = address.path().map(|path| path.as_os_str().as_bytes().to_vec());
    path.or_else(|| address.as_abstract().map(|name| [&[0], name].concat()))
}

/// An instance by its processes.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Which.
    pub instance: Instance,
    /// Its main process.
    pub root: i32,
    /// Its control group, if it has one.
    pub control_group: Option<ControlGroup>,
}

impl Holder {
    /// All its processes; those that are `known` are nobody's orphans.
    pub fn processes(&self, known: &[i32]) -> Vec<i32> {
        let mut processes = tree(self.root);
        processes.extend(orphans(known, &marker(self.instance)));
        processes.extend(self.control_group.iter().flat_map(ControlGroup::processes));
        // Most are found in two ways, and each costs a look at its descriptors.
        processes.sort_unstable();
        processes.dedup();
        processes
    }
}

/// Counts the connections through these doors that somebody has accepted: where only one generation lives, that is it, and
/// half the cost is saved, which is to look at each of its descriptors.
pub fn count_all(doors: &Doors) -> io::Result<Count> {
    let mut count = Count::default();
    each(doors, |inode, local, busy, surely_busy| {
        if inode != 0 && local.is_none_or(|local| doors.lead_to(local)) {
            count.add(busy, surely_busy);
        }
    })?;
    Ok(count)
}

/// Counts the connections through these doors that each of these groups of processes holds.
///
/// The kernel lists all connections of a port at once, so asking about several costs hardly more than about one.
pub fn count(holders: &[Vec<i32>], doors: &Doors) -> io::Result<Vec<Count>> {
    let held = holders.iter().map(|processes| sockets(processes)).collect::<io::Result<Vec<_>>>()?;
    let mut counts = vec![Count::default(); holders.len()];
    each(doors, |inode, _, busy, surely_busy| {
        for (count, _) in counts.iter_mut().zip(&held).filter(|(_, held)| held.contains(&inode)) {
            count.add(busy, surely_busy);
        }
    })?;
    Ok(counts)
}

/// Shows every connection: its inode, the address that its client reached, and whether it is busy, doubtfully and surely.
fn each(doors: &Doors, mut show: impl FnMut(u32, Option<SocketAddr>, bool, bool)) -> io::Result<()> {
    let mut diag = SockDiag::open()?;
    for port in &doors.ports {
        for connection in diag.connections(*port)? {
            show(connection.inode, Some(connection.local), connection.busy, connection.surely_busy);
        }
    }
    if !doors.names.is_empty() {
        for connection in diag.unix_connections(&doors.names)? {
            // The kernel keeps no ages for them, so one without a word on its way may wait for its response.
            show(connection.inode, None, true, connection.unread || connection.untaken);
        }
    }
    Ok(())
}

/// The variable by which processes are known to belong to a generation when their parents are gone.
pub const MARKER: &str = "ZDR_GENERATION";

/// What stands in the environment of an instance.
pub fn marker(instance: Instance) -> String {
    let Instance { generation, number } = instance;
    format!("{MARKER}={generation}\0ZDR_INSTANCE={number}")
}
