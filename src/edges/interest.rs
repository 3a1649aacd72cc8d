//! Which processes wait for a socket, as the kernel shows of their event queues (epoll(7)).
//!
//! Sees nothing of one that waits in accept(2) or poll(2). Never touches a process, and takes what it may not see for nothing.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::{fs, io};

use nix::sys::stat::{fstat, major, minor};

use super::kernel::owner::as_we_or_owner;

/// What an event queue is called among the descriptors of a process.
const EVENT_QUEUE: &str = "anon_inode:[eventpoll]";

/// The kernel keeps the minor number of a device in so many bits (`MINORBITS`, include/linux/kdev_t.h).
const MINOR_BITS: u32 = 20;

/// The files of which processes are to be told when something can be read from them, by inode and device.
#[derive(Debug)]
pub struct Interest(HashSet<(u64, u64)>);

impl Interest {
    /// What these processes wait for.
    pub fn of(processes: &[i32]) -> Self {
        let texts = processes.iter().flat_map(|pid| event_queues(*pid).unwrap_or_default());
        Self(texts.flat_map(|text| text.lines().filter_map(file).collect::<Vec<_>>()).collect())
    }

    /// True where this socket is among it.
    pub fn has(&self, socket: impl AsFd) -> bool {
        let device = |number| major(number) << MINOR_BITS | minor(number);
        fstat(socket).is_ok_and(|socket| self.0.contains(&(socket.st_ino, device(socket.st_dev))))
    }
}

/// What the kernel shows of each event queue of a process (proc_pid_fdinfo(5)).
fn event_queues(pid: i32) -> io::Result<Vec<String>> {
    let look = || -> io::Result<Vec<String>> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
        let queues = descriptors.filter(|at| fs::read_link(at.path()).is_ok_and(|to| to == Path::new(EVENT_QUEUE)));
        let told = |name| fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("fdinfo").join(name)).ok();
        Ok(queues.filter_map(|at| told(at.file_name())).collect())
    };
    as_we_or_owner(pid, |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied, look)
}

/// A line such as `tfd: 3 events: 19 data: 3 pos:0 ino:24e678f sdev:9`, all but the first in hexadecimal digits. Where the event
/// was told and not asked for again (EPOLLONESHOT), the bit is not set.
fn file(line: &str) -> Option<(u64, u64)> {
    let value = |name: &str| {
        let (_, rest) = line.strip_prefix("tfd:")?.split_once(name)?;
        u64::from_str_radix(rest.split_ascii_whitespace().next()?, 16).ok()
    };
    let asks = value("events:")? & u64::from(libc::EPOLLIN.cast_unsigned()) != 0;
    Some((value(" ino:")?, value(" sdev:")?)).filter(|_| asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_waited_for_while_an_event_queue_asks_for_what_can_be_read() {
        let (this, other) = (socket(), socket());
        let us = [-1, std::process::id().cast_signed()];
        assert!(!Interest::of(&us).has(&this));
        let waits = tokio::net::TcpListener::from_std(this.try_clone().unwrap()).unwrap();
        assert!(Interest::of(&us).has(&this));
        assert!(!Interest::of(&us).has(&other), "nobody asks for this one");
        assert!(!Interest::of(&[-1]).has(&this), "nobody asks");
        drop(waits);
        assert!(!Interest::of(&us).has(&this));
    }

    #[test]
    fn only_a_line_that_asks_for_what_can_be_read_counts() {
        let line = "tfd:        3 events:       19 data:                3  pos:0 ino:24e678f sdev:9";
        assert_eq!(file(line), Some((0x24e_678f, 9)));
        for line in
            ["tfd: 3 events: 4 data: 3  pos:0 ino:24e678f sdev:9", "tfd: 3 events: 19 data: 3", "ino:1038", "tfd:", ""]
        {
            assert_eq!(file(line), None, "{line}");
        }
    }

    fn socket() -> std::net::TcpListener {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }
}
