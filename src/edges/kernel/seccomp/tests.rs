//! A filter on real programs.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

/// A program under the filter, and what is notified of it.
struct Captured {
    program: Child,
    notify: OwnedFd,
}

fn capture(command: &mut Command) -> Captured {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let told = theirs.as_raw_fd();
    let mut filter = Filter::new();
    // SAFETY: between fork and exec, as `enter` demands.
    unsafe {
        command.pre_exec(move || filter.enter(told).map_err(io::Error::from_raw_os_error));
    }
    let program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(theirs);
    Captured { program, notify: Filter::sent(ours.as_fd()).unwrap() }
}

fn python(text: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", text]);
    command
}

/// Waits for the next call.
fn next(notifier: &Notifier) -> Notification {
    loop {
        poll(&mut [PollFd::new(notifier.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        if let Some(notification) = notifier.receive().unwrap() {
            return notification;
        }
    }
}

impl Captured {
    fn says(mut self) -> String {
        let mut said = String::new();
        self.program.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.program.wait().unwrap();
        said
    }
}

#[test]
fn a_bind_waits_until_it_is_answered_and_goes_on_as_the_server_meant_it() {
    let captured = capture(&mut python(
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(7); print(s.getsockname()[0])",
    ));
    let notifier = Notifier::new(captured.notify.try_clone().unwrap()).unwrap();
    let bind = next(&notifier);
    let Call::Bind { address, length: 16, .. } = bind.call else { panic!("{bind:?}") };
    let mut bytes = [0; 16];
    assert_eq!(read_memory(bind.thread, address, &mut bytes).unwrap(), 16);
    assert_eq!(bytes[2..8], [0, 0, 127, 0, 0, 1]);
    assert!(notifier.is_valid(&bind));
    notifier.go_on(&bind).unwrap();
    let listen = next(&notifier);
    assert!(matches!(listen.call, Call::Listen { backlog: 7, .. }), "{listen:?}");
    notifier.go_on(&listen).unwrap();
    assert_eq!(captured.says(), "127.0.0.1\n");
}
