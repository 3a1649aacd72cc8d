//! Little servers in Python, for what the sample server is too well-mannered to do. Each is one command line, with
//! nothing on disk.
//!
//! They take their sockets as any Python server would: `socket.socket(fileno=3)`.

use std::process::Command;
use std::sync::OnceLock;

/// What every server can use: `listener(i)`, `read_head(c)`, `answer(c, body, status)`, and `serve(s, say)`, which
/// answers each connection in a thread with what `say(path)` returns: a body, or a body and a status.
const PRELUDE: &str = r#"
import json, os, select, signal, socket, struct, sys, threading, time
GENERATION = os.environ.get("ZDR_GENERATION", "?")
def listener(position=0):
    return socket.socket(fileno=3 + position)
def read_head(c):
    head = b""
    while b"\r\n\r\n" not in head:
        more = c.recv(4096)
        if not more:
            return None
        head += more
    return head.decode().split(" ")[1]
def answer(c, body, status="200 OK", extra=""):
    text = body.encode()
    head = "HTTP/1.1 %s\r\nX-Generation: %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n"
    c.sendall((head % (status, GENERATION, len(text), extra)).encode() + text)
    c.shutdown(socket.SHUT_WR)
def visit(c, say):
    with c:
        try:
            path = read_head(c)
            if path is None:
                return
            said = say(path)
            said = said if isinstance(said, tuple) else (said,)
            answer(c, *said)
            c.settimeout(1)
            while c.recv(4096):
                pass
        except OSError:
            pass
def serve(s, say):
    while True:
        c, _ = s.accept()
        threading.Thread(target=visit, args=(c, say), daemon=True).start()
def bound(port, reuse=False):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    s.listen(64)
    return s
def until(path):
    while not os.path.exists(path):
        time.sleep(0.005)
def tell():
    def target(fd):
        try:
            return os.readlink("/proc/self/fd/%s" % fd)
        except OSError:
            return None
    fds = {int(fd): target(fd) for fd in os.listdir("/proc/self/fd")}
    return {
        "pid": os.getpid(), "group": os.getpgrp(), "directory": os.getcwd(), "arguments": sys.argv[1:],
        "environment": dict(os.environ), "fds": {fd: to for fd, to in fds.items() if to and not to.startswith("/proc/")},
    }
"#;

/// The interpreter itself: shims such as pyenv's take longer to start than most tests.
pub fn python() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let asked = asked.expect("these tests need python3");
        String::from_utf8(asked.stdout).expect("a path").trim().to_owned()
    })
}

/// The command line of a server with this body; it is called `python3` and may be given arguments.
pub fn server(body: &str) -> Vec<String> {
    [python(), "-I", "-S", "-c", &format!("{PRELUDE}{body}")].map(str::to_owned).to_vec()
}

/// A server that tells, as JSON, how it was started.
pub fn teller() -> Vec<String> {
    server("TOLD = json.dumps(tell())\nserve(listener(), lambda path: TOLD)")
}
