//! Unix sockets that are quiet, and those that are not.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Count, Doors, Holder, Quiesce, count};
use crate::address::Listener;
use crate::edges::listeners::{Watched, waiting};
use crate::edges::notice::Notice;
use crate::supervisor::{Event, Generation, Instance};

/// Only a failure waits this long.
const DEADLINE: Duration = Duration::from_secs(10);

/// A listener of this process, on a path or on an abstract name.
struct Server {
    listener: UnixListener,
    address: SocketAddr,
    named: Listener,
    _folder: TempDir,
}

impl Server {
    fn at_a_path() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let named = Listener::parse(&format!("unix:{}", path.display()), "web").unwrap();
        Self::at(SocketAddr::from_pathname(path).unwrap(), named, folder)
    }

    fn at_an_abstract_name() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().display().to_string();
        let named = Listener::parse(&format!("unix:@{name}"), "web").unwrap();
        Self::at(SocketAddr::from_abstract_name(name).unwrap(), named, folder)
    }

    fn at(address: SocketAddr, named: Listener, folder: TempDir) -> Self {
        Self { listener: UnixListener::bind_addr(&address).unwrap(), address, named, _folder: folder }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect_addr(&self.address).unwrap()
    }

    fn watched(&self, shared: bool) -> Watched {
        let socket = self.listener.try_clone().unwrap().into();
        Watched { listener: self.named.clone(), socket, shared }
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn counted(server: &Server) -> Count {
    let doors = Doors::of([server.watched(false)].iter());
    count(&[vec![own_pid()]], &doors).unwrap()[0]
}

/// Watches these sockets; what comes back tells when they are quiet.
fn watch(sockets: Vec<Watched>) -> mpsc::UnboundedReceiver<Notice> {
    let (owner, notices) = mpsc::unbounded_channel();
    let idle = Duration::ZERO;
    let generation = Generation(1);
    let holder = Holder { instance: Instance { generation, number: 1 }, root: own_pid(), control_group: None };
    let quiesce = Quiesce { generation, holders: vec![holder], known: Vec::new(), sockets, idle, owner };
    tokio::spawn(quiesce.run());
    notices
}

async fn is_quiet(notices: &mut mpsc::UnboundedReceiver<Notice>, within: Duration) -> bool {
    let told = timeout(within, notices.recv()).await;
    matches!(told, Ok(Some(Notice::Happened(Event::Quiet { .. }))))
}

#[test]
fn an_open_unix_connection_may_be_busy_and_one_with_unread_words_surely_is() {
    for server in [Server::at_a_path(), Server::at_an_abstract_name()] {
        assert_eq!(counted(&server), Count::default());
        let mut client = server.connect();
        let mut accepted = server.listener.accept().unwrap().0;
        let doubtful = Count { open: 1, busy: 1, surely_busy: 0 };
        assert_eq!(counted(&server), doubtful);
        client.write_all(b"x").unwrap();
        assert_eq!(counted(&server), Count { surely_busy: 1, ..doubtful });
        accepted.read_exact(&mut [0]).unwrap();
        assert_eq!(counted(&server), doubtful);
        accepted.write_all(b"y").unwrap();
        assert_eq!(counted(&server), Count { surely_busy: 1, ..doubtful });
        drop(accepted);
        assert_eq!(counted(&server), Count::default());
    }
}

#[tokio::test]
async fn a_unix_path_is_quiet_when_nobody_waits_there_any_more() {
    let server = Server::at_a_path();
    let _client = server.connect();
    let socket = server.watched(false);
    assert_eq!(waiting(&socket.listener, std::os::fd::AsFd::as_fd(&socket.socket)), 1);
    let mut notices = watch(vec![socket]);
    assert!(!is_quiet(&mut notices, Duration::from_millis(150)).await);
    let _accepted = server.listener.accept().unwrap();
    assert!(is_quiet(&mut notices, DEADLINE).await);
}

#[tokio::test]
async fn what_waits_in_a_shared_socket_keeps_nobody_from_being_quiet() {
    let server = Server::at_an_abstract_name();
    let _client = server.connect();
    let mut notices = watch(vec![server.watched(true)]);
    assert!(is_quiet(&mut notices, DEADLINE).await);
}
