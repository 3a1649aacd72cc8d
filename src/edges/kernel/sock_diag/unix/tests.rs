//! Real Unix sockets, and what the kernel says of them.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::stat::fstat;
use tempfile::TempDir;

use super::super::{Accepted, SockDiag};
use super::{Found, UnixConnection};

/// A connection to a listener of its own that has not accepted it yet.
struct Pair {
    diag: SockDiag,
    listener: UnixListener,
    client: UnixStream,
    name: Vec<u8>,
    _folder: TempDir,
}

impl Pair {
    fn at_a_path() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let name = path.as_os_str().as_bytes().to_vec();
        Self::at(&SocketAddr::from_pathname(path).unwrap(), name, folder)
    }

    fn at_an_abstract_name() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().as_os_str().as_bytes();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        Self::at(&address, [&[0], name].concat(), folder)
    }

    fn at(address: &SocketAddr, name: Vec<u8>, folder: TempDir) -> Self {
        let listener = UnixListener::bind_addr(address).unwrap();
        let client = UnixStream::connect_addr(address).unwrap();
        Self { diag: SockDiag::open().unwrap(), listener, client, name, _folder: folder }
    }

    fn accept(&self) -> UnixStream {
        self.listener.accept().unwrap().0
    }

    fn accepted(&mut self) -> Accepted {
        self.diag.unix_accepted(inode(&self.client)).unwrap()
    }

    fn queue(&mut self) -> usize {
        self.diag.unix_queue(inode(&self.listener)).unwrap().0
    }

    fn connections(&mut self) -> Vec<UnixConnection> {
        self.diag.unix_connections(&HashSet::from([self.name.clone()])).unwrap()
    }
}

fn inode(socket: impl AsFd) -> u32 {
    fstat(socket).unwrap().st_ino.try_into().unwrap()
}

#[test]
fn a_connection_waits_then_has_a_holder_then_is_gone() {
    for mut pair in [Pair::at_a_path(), Pair::at_an_abstract_name()] {
        assert_eq!((pair.accepted(), pair.queue()), (Accepted::Waiting, 1));
        let server = pair.accept();
        assert_eq!((pair.accepted(), pair.queue()), (Accepted::By { inode: inode(&server) }, 0));
        drop(server);
        assert_eq!(pair.accepted(), Accepted::NotConnected);
    }
}

#[test]
fn a_connection_whose_listener_goes_before_it_accepts_is_gone() {
    let mut pair = Pair::at_a_path();
    drop(std::mem::replace(&mut pair.listener, Pair::at_a_path().listener));
    assert_eq!(pair.accepted(), Accepted::NotConnected);
}

#[test]
fn a_server_that_closes_one_half_still_holds_the_connection() {
    let mut pair = Pair::at_a_path();
    let server = pair.accept();
    for half in [Shutdown::Write, Shutdown::Read] {
        server.shutdown(half).unwrap();
        assert_eq!(pair.accepted(), Accepted::By { inode: inode(&server) });
    }
}

#[test]
fn what_was_never_connected_and_what_is_no_socket_has_nobody() {
    let mut pair = Pair::at_a_path();
    let unconnected = std::os::unix::net::UnixDatagram::unbound().unwrap();
    assert_eq!(pair.diag.unix_accepted(inode(&unconnected)).unwrap(), Accepted::NotConnected);
    drop(std::mem::replace(&mut pair.client, Pair::at_a_path().client));
    assert_eq!(pair.diag.unix_accepted(u32::MAX).unwrap(), Accepted::NotConnected);
    assert!(pair.diag.unix_queue(u32::MAX).is_err());
}

#[test]
fn the_streams_of_a_name_are_seen_with_what_is_unread_at_either_end() {
    for mut pair in [Pair::at_a_path(), Pair::at_an_abstract_name()] {
        let _another = Pair::at_a_path();
        pair.client.write_all(b"request").unwrap();
        assert_eq!(pair.connections(), []);
        let mut server = pair.accept();
        let inode = inode(&server);
        assert_eq!(pair.connections(), [UnixConnection { inode, unread: true, untaken: false }]);
        server.read_exact(&mut [0; 7]).unwrap();
        assert_eq!(pair.connections(), [UnixConnection { inode, unread: false, untaken: false }]);
        server.write_all(b"response").unwrap();
        assert_eq!(pair.connections(), [UnixConnection { inode, unread: false, untaken: true }]);
        pair.client.read_exact(&mut [0; 8]).unwrap();
        assert_eq!(pair.connections(), [UnixConnection { inode, unread: false, untaken: false }]);
        drop(server);
        assert_eq!(pair.connections(), []);
    }
}

#[test]
fn a_stream_keeps_the_name_that_its_listener_was_bound_to() {
    let mut pair = Pair::at_a_path();
    let path = std::path::PathBuf::from(std::ffi::OsStr::from_bytes(&pair.name));
    fs::rename(&path, path.with_file_name("renamed")).unwrap();
    let _late = UnixStream::connect(path.with_file_name("renamed")).unwrap();
    let servers = [pair.accept(), pair.accept()];
    let mut inodes: Vec<u32> = pair.connections().iter().map(|connection| connection.inode).collect();
    inodes.sort_unstable();
    let mut expected = servers.map(inode);
    expected.sort_unstable();
    assert_eq!(inodes, expected);
}

#[test]
fn a_dump_of_many_datagrams_is_whole() {
    const MANY: usize = 500;
    let mut pair = Pair::at_an_abstract_name();
    let address = pair.listener.local_addr().unwrap();
    let mut servers = vec![pair.accept()];
    let clients: Vec<UnixStream> = (1..MANY)
        .map(|_| {
            let client = UnixStream::connect_addr(&address).unwrap();
            servers.push(pair.accept());
            client
        })
        .collect();
    let found: HashSet<u32> = pair.connections().iter().map(|connection| connection.inode).collect();
    assert_eq!(found, servers.iter().map(inode).collect());
    drop(clients);
}

#[test]
fn an_answer_cut_off_anywhere_is_an_error_and_never_a_panic() {
    let mut whole = vec![1, 1, 1, 0];
    whole.extend([7; 12]);
    whole.extend(8_u16.to_ne_bytes());
    whole.extend(super::UNIX_DIAG_PEER.to_ne_bytes());
    whole.extend(9_u32.to_ne_bytes());
    assert_eq!(Found::read(&whole).unwrap().peer, Some(9));
    for end in (0..whole.len()).filter(|end| *end != 16) {
        assert!(Found::read(&whole[..end]).is_err(), "{end} bytes");
    }
    whole[0] = 2;
    assert!(Found::read(&whole).is_err());
}
