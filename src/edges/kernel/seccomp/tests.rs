//! A filter on real programs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::pidfd::PidFd;
use super::*;

/// The user who owns nothing, as whom a program has no CAP_SYS_ADMIN.
pub(in crate::edges::kernel) const NOBODY: u32 = 65534;

/// A program under the filter.
struct Captured {
    program: Child,
    notifier: Notifier,
}

/// Starts the program under this filter, and gives what `enter` sent.
pub(in crate::edges::kernel) fn start(command: &mut Command, mut filter: Filter) -> (Child, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let told = theirs.as_raw_fd();
    // SAFETY: between fork and exec, as `enter` demands.
    unsafe {
        command.pre_exec(move || filter.enter(told).map_err(io::Error::from_raw_os_error));
    }
    let program = command.spawn().unwrap();
    drop(theirs);
    (program, Filter::sent(&ours).unwrap())
}

fn capture(command: &mut Command) -> Captured {
    let (program, notify) = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()), Filter::new(None));
    Captured { program, notifier: Notifier::new(notify, Ledger::new().unwrap(), None) }
}

/// A program of Debian's, which every user may execute.
pub(in crate::edges::kernel) fn python(text: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", text]);
    command
}

/// Waits for the next call, or for the end of the last process.
pub(in crate::edges::kernel) fn next(notifier: &Notifier) -> Option<Notification> {
    loop {
        poll(&mut [PollFd::new(notifier.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        match notifier.receive() {
            Ok(Some(notification)) => return Some(notification),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The numbers in an IPv4 address in the caller's memory.
fn address(notification: &Notification) -> ([u8; 4], u16) {
    let Call::Bind { address, length: 16, .. } = notification.call else { panic!("{notification:?}") };
    let mut bytes = [0; 16];
    assert_eq!(read_memory(notification.thread, address, &mut bytes).unwrap(), 16);
    ([bytes[4], bytes[5], bytes[6], bytes[7]], u16::from_be_bytes([bytes[2], bytes[3]]))
}

impl Captured {
    fn next(&self) -> Notification {
        next(&self.notifier).expect("a call")
    }

    /// Lets everything go on and gives how many calls there were, and what the program said.
    fn let_go_on(mut self) -> (usize, String) {
        let mut calls = 0;
        drop(self.program.stdin.take());
        while let Some(notification) = next(&self.notifier) {
            self.notifier.go_on(&notification).unwrap();
            calls += 1;
        }
        let mut said = String::new();
        self.program.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.program.wait().unwrap().success(), "{said}");
        (calls, said)
    }
}

const BIND_AND_LISTEN: &str =
    "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(7); print(s.getsockname()[0])";

#[test]
fn a_bind_waits_until_it_may_go_on_and_its_address_can_be_read() {
    let captured = capture(&mut python(BIND_AND_LISTEN));
    let bind = captured.next();
    assert_eq!(address(&bind), ([127, 0, 0, 1], 0));
    assert!(captured.notifier.is_valid(&bind));
    captured.notifier.go_on(&bind).unwrap();
    assert!(!captured.notifier.is_valid(&bind));
    let listen = captured.next();
    assert!(matches!(listen.call, Call::Listen { backlog: 7, .. }), "{listen:?}");
    captured.notifier.go_on(&listen).unwrap();
    assert_eq!(captured.let_go_on(), (0, "127.0.0.1\n".to_owned()));
}

#[test]
fn a_user_without_rights_is_captured_at_the_price_of_set_uid_programs() {
    let mut command = python(&format!("{BIND_AND_LISTEN}; print(open('/proc/self/status').read())"));
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let (calls, said) = capture(&mut command).let_go_on();
    assert_eq!(calls, 2);
    assert!(said.contains("NoNewPrivs:\t1"), "{said}");
}

#[test]
fn root_keeps_its_privileges() {
    if !nix::unistd::geteuid().is_root() {
        return writeln!(io::stderr(), "not shown: this takes root").unwrap();
    }
    let (_, said) = capture(&mut python("print(open('/proc/self/status').read())")).let_go_on();
    assert!(said.contains("NoNewPrivs:\t0"), "{said}");
}

#[test]
fn a_refused_bind_gives_its_error_to_the_server() {
    let captured = capture(&mut python(
        "import socket
try: socket.socket().bind(('127.0.0.1', 0))
except OSError as error: print(error.errno)",
    ));
    captured.notifier.answer(&captured.next(), Err(libc::EADDRINUSE)).unwrap();
    assert_eq!(captured.let_go_on(), (0, format!("{}\n", libc::EADDRINUSE)));
}

#[test]
fn a_call_that_is_dropped_without_an_answer_goes_on() {
    let captured = capture(&mut python(BIND_AND_LISTEN));
    for _ in 0..2 {
        drop(captured.next());
    }
    assert_eq!(captured.let_go_on(), (0, "127.0.0.1\n".to_owned()));
}

#[test]
fn a_placed_socket_serves_in_the_place_of_the_servers_own() {
    for (nonblocking, close_on_exec) in [(false, true), (true, false)] {
        let captured = capture(&mut python(
            "import socket, fcntl, sys, select
s = socket.socket(); s.bind(('127.0.0.1', 1)); s.listen()
print(s.getsockname()[1], fcntl.fcntl(s, fcntl.F_GETFD), fcntl.fcntl(s, fcntl.F_GETFL) & 2048)
sys.stdin.read()
select.select([s], [], [])
s.accept()[0].sendall(b'hello')",
        ));
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        ours.set_nonblocking(nonblocking).unwrap();
        let bind = captured.next();
        let Call::Bind { fd, .. } = bind.call else { panic!("{bind:?}") };
        captured.notifier.place(&bind, ours.as_fd(), fd, close_on_exec).unwrap();
        captured.notifier.answer(&bind, Ok(())).unwrap();
        let to = ours.local_addr().unwrap();
        let mut client = TcpStream::connect(to).unwrap();
        let (_, said) = captured.let_go_on();
        let flags = if nonblocking { libc::O_NONBLOCK } else { 0 };
        assert_eq!(said, format!("{} {} {flags}\n", to.port(), i32::from(close_on_exec)));
        let mut hello = String::new();
        client.read_to_string(&mut hello).unwrap();
        assert_eq!(hello, "hello");
    }
}

#[test]
fn a_copy_of_the_callers_socket_can_be_bound_in_its_place_also_for_a_thread() {
    let captured = capture(&mut python(
        "import socket, threading
s = socket.socket()
t = threading.Thread(target=lambda: s.bind(('127.0.0.1', 0))); t.start(); t.join()
print(s.getsockname()[1])",
    ));
    let bind = captured.next();
    assert_ne!(bind.thread.cast_unsigned(), captured.program.id(), "another thread than the first");
    let Call::Bind { fd, .. } = bind.call else { panic!("{bind:?}") };
    let copy = PidFd::of_thread(bind.thread).unwrap().copy_of(fd).unwrap();
    nix::sys::socket::bind(copy.as_raw_fd(), &nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    captured.notifier.answer(&bind, Ok(())).unwrap();
    let port = nix::sys::socket::getsockname::<nix::sys::socket::SockaddrIn>(copy.as_raw_fd()).unwrap().port();
    assert_eq!(captured.let_go_on(), (0, format!("{port}\n")));
}

#[test]
fn unlinks_are_notified_with_their_path_and_removed_directories_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let captured = capture(
        python(
            "import os
os.mkdir('d'); d = os.open('.', os.O_RDONLY); open('a', 'w'); open('b', 'w')
os.rmdir('d'); os.mkdir('d'); os.rmdir('d', dir_fd=d)
os.unlink('a'); os.unlink('b', dir_fd=d)",
        )
        .current_dir(folder.path()),
    );
    for (name, relative) in [(c"a", false), (c"b", true)] {
        let unlink = captured.next();
        let Call::Unlink { directory, path } = unlink.call else { panic!("{unlink:?}") };
        assert_eq!(directory != libc::AT_FDCWD, relative);
        assert_eq!(read_string(unlink.thread, path, 4096).unwrap().as_c_str(), name);
        assert_eq!(read_string(unlink.thread, path, 0).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
        assert!(folder.path().join(name.to_str().unwrap()).exists(), "it waits");
    }
    assert_eq!(captured.let_go_on().0, 0);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "both are gone, since the calls went on");
}

#[test]
fn a_path_that_crosses_pages_is_read_whole_and_one_that_ends_nowhere_is_an_error() {
    let long = "x".repeat(9000);
    let text = std::ffi::CString::new(long.clone()).unwrap();
    let thread = nix::unistd::gettid().as_raw();
    let at = text.as_ptr().addr() as u64;
    assert_eq!(read_string(thread, at, 9000).unwrap(), text);
    assert_eq!(read_string(thread, at, 8999).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    assert!(read_string(thread, 0, 10).is_err());
    assert!(read_memory(thread, 0, &mut [0]).is_err());
}

#[test]
fn netlink_sockets_are_not_notified() {
    let captured = capture(&mut python(
        "import socket
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 0)); print('bound')",
    ));
    assert_eq!(captured.let_go_on(), (0, "bound\n".to_owned()));
}

/// A program that signals itself all the time has each call carried out once, even if the answer takes its time.
#[test]
fn signals_do_not_begin_a_call_again() {
    let captured = capture(&mut python(
        "import signal, socket, threading, os
hits = 0
def hit(*_):
    global hits; hits += 1
signal.signal(signal.SIGURG, hit)
signal.siginterrupt(signal.SIGURG, False)
over = threading.Event()
main = threading.get_ident()
def storm():
    while not over.is_set(): signal.pthread_kill(main, signal.SIGURG)
t = threading.Thread(target=storm, daemon=True); t.start()
for _ in range(200): socket.socket().bind(('127.0.0.1', 0))
over.set(); t.join(); print(hits > 0)",
    ));
    let mut calls = 0;
    while let Some(bind) = next(&captured.notifier) {
        let Call::Bind { fd, .. } = bind.call else { panic!("{bind:?}") };
        let copy = PidFd::of_thread(bind.thread).unwrap().copy_of(fd).unwrap();
        let bound = nix::sys::socket::bind(copy.as_raw_fd(), &nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0));
        // A call that had been begun again would be EINVAL here: its socket is bound already.
        assert_eq!(bound, Ok(()), "call {calls}");
        captured.notifier.answer(&bind, Ok(())).unwrap();
        calls += 1;
    }
    assert_eq!(calls, 200);
    assert_eq!(captured.let_go_on().1, "True\n");
}

#[test]
fn calls_of_many_threads_may_wait_at_once_and_are_answered_in_any_order() {
    let captured = capture(&mut python(
        "import socket, threading
def bind(): socket.socket().bind(('127.0.0.1', 0))
ts = [threading.Thread(target=bind) for _ in range(70)]
[t.start() for t in ts]; [t.join() for t in ts]",
    ));
    let mut waiting: Vec<_> = (0..ENTRIES).map(|_| captured.next()).collect();
    assert!(captured.notifier.receive().unwrap().is_none(), "the rest waits in the kernel");
    while let Some(notification) = waiting.pop() {
        captured.notifier.go_on(&notification).unwrap();
    }
    assert_eq!(captured.let_go_on().0, 70 - ENTRIES);
}

#[test]
fn a_caller_that_was_killed_is_no_error_but_its_call_is_not_valid() {
    let mut captured = capture(&mut python(BIND_AND_LISTEN));
    let bind = captured.next();
    captured.program.kill().unwrap();
    captured.program.wait().unwrap();
    assert!(!captured.notifier.is_valid(&bind));
    assert_eq!(captured.notifier.go_on(&bind).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert!(next(&captured.notifier).is_none());
}

#[test]
fn a_second_notifying_filter_is_refused() {
    let inner = "import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
f = (ctypes.c_uint64 * 1)(0x7fff000000000006)
p = (ctypes.c_uint64 * 2)(1, ctypes.addressof(f))
print(libc.syscall(317, 1, 8, p), ctypes.get_errno())";
    if cfg!(target_arch = "x86_64") {
        let (_, said) = capture(&mut python(inner)).let_go_on();
        assert_eq!(said, format!("-1 {}\n", libc::EBUSY));
    }
}
