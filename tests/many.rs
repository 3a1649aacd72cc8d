//! Ten thousand connections at a time, and what a look at them costs.
//!
//! Never opens one beyond what it was asked for, and holds them until it is dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::{DEADLINE, wait_for};

/// Connections that have been answered once and are kept.
pub fn kept_connections(address: SocketAddr, many: usize) -> Vec<TcpStream> {
    allow_files(many);
    (0..many)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            let answered = stream.read(&mut [0; 512]).unwrap();
            assert!(answered > 0);
            stream
        })
        .collect()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = wait_for("a connection", || TcpStream::connect(address).ok());
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A test that needs so many files says so where it cannot have them.
pub fn allow_files(many: usize) {
    let wanted = u64::try_from(many).unwrap() + 1000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= wanted, "this needs {wanted} open files, and the hard limit is {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard).unwrap();
}
