//! Unix sockets: files that come and go as they should, and names that are shared.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{DEADLINE, Setup, Told, Zdr, in_seat, sample, wait_for};
use crate::python::server;
use crate::servers::{End, rust};

/// A strict client of one Unix socket: a path, or `@` and an abstract name.
#[derive(Clone, Debug)]
pub struct Client(SocketAddr);

/// Such clients at work.
pub struct UnixLoad {
    answered: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Client {
    pub fn of(address: &str) -> Self {
        Self(match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).unwrap(),
            None => SocketAddr::from_pathname(address).unwrap(),
        })
    }

    /// The body of the answer to a GET of this path.
    pub fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect_addr(&self.0)?;
        stream.set_read_timeout(Some(DEADLINE / 2))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("cut head"))?;
        let length = body.len().to_string();
        let whole = head.lines().any(|line| line.eq_ignore_ascii_case(&format!("content-length: {length}")));
        match head.starts_with("HTTP/1.1 200 ") && whole {
            true => Ok(body.to_owned()),
            false => Err(io::Error::other(answer)),
        }
    }
}

impl UnixLoad {
    /// Four clients, each with a connection for every request.
    pub fn start(client: &Client) -> Self {
        let (answered, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let begin = |_| {
            let (client, answered, end) = (client.clone(), Arc::clone(&answered), Arc::clone(&end));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !end.load(Ordering::Relaxed) && failures.len() < 100 {
                    match client.get("/") {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(error.to_string()),
                    }
                }
                failures
            })
        };
        Self { clients: (0..4).map(begin).collect(), answered, end }
    }

    #[track_caller]
    pub fn wait_for_answers(&self, more: usize) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        wait_for("answers", || (self.answered.load(Ordering::Relaxed) >= enough).then_some(()));
    }

    /// Ends it, and tells what was not answered well.
    pub fn failures(self) -> Vec<String> {
        self.end.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

/// Reloads under new connections, none of which may be refused, cut off or late.
#[track_caller]
pub fn five_reloads_lose_nothing(zdr: &Zdr, address: &str) {
    let load = UnixLoad::start(&Client::of(address));
    for _ in 0..5 {
        load.wait_for_answers(20);
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}");
    }
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    load.wait_for_answers(20);
    assert_eq!(load.failures(), Vec::<String>::new());
}

/// A sample server on this socket in the folder of the test, with these keys.
fn on(keys: &str) -> (Setup, String) {
    let setup = Setup::of(&sample(&[])).option("--ready", "/health").option("--bake", "0s");
    let path = setup.place("web.sock");
    (setup.listen(&[&format!("unix:{path}{keys}")]), path)
}

#[track_caller]
fn answers(path: &str, generation: u64) {
    let body = Client::of(path).get("/").unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(body.contains(&format!("generation {generation},")), "{body}");
}

/// What is left beside the path.
fn side_files(path: &str) -> Vec<String> {
    let folder = fs::read_dir(std::path::Path::new(path).parent().unwrap()).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".zdr-")).collect()
}

fn refused(setup: Setup) -> String {
    let Told { code, error, .. } = setup.flag("--quiet").output();
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    error
}

#[test]
fn an_abstract_name_is_reloaded_without_a_refused_connection() {
    let setup = Setup::of(&rust(End::InOrder)).option("--ready", "/health").option("--bake", "0s");
    let name = format!("@{}", setup.place("name"));
    let zdr = setup.listen(&[&format!("unix:{name}")]).start();
    five_reloads_lose_nothing(&zdr, &name);
}

#[test]
fn behind_an_abstract_name_the_old_does_not_answer_for_the_new() {
    for ready in ["/health", "tcp"] {
        let setup = Setup::of(&sample(&[])).option("--ready", ready).option("--ready-timeout", "3s");
        let name = setup.place("name");
        let zdr = setup.listen(&[&format!("unix:@{name}")]).start();
        let told = zdr.reload_to(&sample(&["--bad", "hang"]));
        assert_eq!(told.code, 3, "{told:?}");
        let why = format!("answered by process {} (zdr) of generation 1, not by the new one", zdr.server_pid());
        assert!(told.error.contains(&why), "{told:?}");
        answers(&format!("@{name}"), 1);
    }
}

#[test]
fn an_abstract_name_that_somebody_has_is_refused() {
    let setup = Setup::of(&sample(&[]));
    let name = setup.place("name");
    let _theirs = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let error = refused(setup.listen(&[&format!("unix:@{name}")]));
    let us = format!("process {} (zdr-", std::process::id());
    assert!(error.contains(&format!("cannot listen on unix:@{name}: {us}")), "{error}");
}

/// Each takes and says the mode that its socket came with, and then turns it round.
fn turns_the_mode_round() -> Vec<String> {
    server(
        "
import fcntl
s = listener()
flags = fcntl.fcntl(s, fcntl.F_GETFL)
mode = 'nonblocking' if flags & os.O_NONBLOCK else 'blocking'
fcntl.fcntl(s, fcntl.F_SETFL, flags ^ os.O_NONBLOCK)
while True:
    select.select([s], [], [])
    try:
        c, _ = s.accept()
    except BlockingIOError:
        continue
    c.setblocking(True)
    visit(c, lambda path: mode)
",
    )
}

#[test]
fn the_blocking_mode_that_a_server_sets_reaches_no_other_generation_on_slots() {
    for (keys, mode) in [("", "blocking"), (",nonblocking", "nonblocking")] {
        let setup = Setup::of(&turns_the_mode_round()).option("--ready", "/").option("--bake", "0s");
        let path = setup.place("web.sock");
        let zdr = setup.listen(&[&format!("unix:{path}{keys}")]).start();
        for _ in 0..4 {
            assert_eq!(Client::of(&path).get("/").unwrap(), mode);
            let told = zdr.client(&["reload", "--wait", "drained"]);
            assert_eq!(told.code, 0, "{told:?}");
        }
    }
}

#[test]
fn on_a_shared_socket_the_mode_is_everybodys_unless_it_was_asked_for() {
    for (keys, after) in [("", "nonblocking"), (",nonblocking", "nonblocking")] {
        let setup = Setup::of(&turns_the_mode_round()).option("--ready", "100ms").option("--bake", "0s");
        let name = setup.place("name");
        let zdr = setup.listen(&[&format!("unix:@{name}{keys}")]).start();
        let client = Client::of(&format!("@{name}"));
        assert_eq!(client.get("/").unwrap(), if keys.is_empty() { "blocking" } else { "nonblocking" });
        let told = zdr.client(&["reload", "--wait", "drained"]);
        assert_eq!(told.code, 0, "{told:?}");
        assert_eq!(client.get("/").unwrap(), after);
    }
}

#[test]
fn the_file_has_the_mode_and_owner_that_were_asked_for_in_every_generation() {
    let (setup, path) = on(",mode=0640,owner=65534,group=65533");
    let zdr = setup.start();
    for _ in 0..3 {
        let file = fs::symlink_metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o777, file.uid(), file.gid()), (0o640, 65534, 65533));
        assert_eq!(zdr.reload().code, 0);
    }
}

#[test]
fn an_owner_who_does_not_exist_is_refused() {
    let (setup, path) = on(",owner=nobody-of-that-name");
    let error = refused(setup);
    assert!(error.contains(&format!("unix:{path}: there is no user `nobody-of-that-name`; see `owner=`")), "{error}");
}

#[test]
fn the_socket_of_a_program_that_is_gone_is_replaced() {
    let (setup, path) = on("");
    drop(UnixListener::bind(&path).unwrap());
    assert!(fs::exists(&path).unwrap());
    let _zdr = setup.start();
    answers(&path, 1);
}

#[test]
fn a_path_on_which_somebody_listens_is_refused_with_pid_and_program() {
    let (setup, path) = on("");
    let _theirs = UnixListener::bind(&path).unwrap();
    let error = refused(setup);
    let why = format!("cannot listen on unix:{path}: process {} (zdr-", std::process::id());
    assert!(error.contains(&why) && error.contains("listens there; end it"), "{error}");
}

#[test]
fn a_second_zdr_on_the_same_path_is_refused_and_the_first_serves_on() {
    let (setup, path) = on("");
    let zdr = setup.start();
    for generation in 1..3 {
        let second = Setup::of(&sample(&[])).listen(&[&format!("unix:{path}")]);
        let error = refused(second);
        assert!(error.contains(&format!("cannot listen on unix:{path}: process ")), "{error}");
        assert!(error.contains("(zdr) listens there"), "{error}");
        answers(&path, generation);
        assert_eq!(zdr.reload().code, 0);
    }
}

#[test]
fn a_file_that_is_no_socket_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    fs::write(&path, "precious").unwrap();
    let error = refused(Setup::of(&sample(&[])).listen(&[&format!("unix:{}", path.display())]));
    assert!(error.contains("web.sock: there is a file that is no socket; remove it or choose another"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_path_that_cannot_be_had_is_refused_with_the_reason() {
    let setup = Setup::of(&sample(&[]));
    let path = setup.place("missing/web.sock");
    let error = refused(setup.listen(&[&format!("unix:{path}")]));
    assert!(error.contains(&format!("cannot listen on unix:{path}: its directory does not exist")), "{error}");

    let setup = Setup::of(&sample(&[]));
    let length = 107 - setup.folder().as_os_str().len() - 1;
    let path = setup.place(&"a".repeat(length));
    let error = refused(setup.listen(&[&format!("unix:{path}")]));
    assert!(error.contains("the path may have 98 bytes, because zdr makes its sockets beside it as "), "{error}");
}

#[test]
fn a_directory_without_the_right_to_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("web.sock").display().to_string();
    let setup = Setup::of(&sample(&[])).listen(&[&format!("unix:{path}")]);
    chown(setup.folder(), Some(65534), Some(65534)).unwrap();
    let error = refused(setup.through(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]));
    assert!(error.contains(&format!("cannot listen on unix:{path}: permission denied in its directory")), "{error}");
}

#[test]
fn a_name_that_somebody_removes_is_put_back() {
    let (setup, path) = on("");
    let zdr = setup.start();
    for generation in 1..3 {
        fs::remove_file(&path).unwrap();
        wait_for("the name", || fs::exists(&path).unwrap().then_some(()));
        answers(&path, generation);
        assert_eq!(zdr.reload().code, 0);
    }
}

/// Some servers remove the name that they find their socket bound to, which is the one beside the path.
#[test]
fn a_server_that_removes_the_name_of_its_own_socket_can_be_reloaded_again_and_again() {
    let removes = "s = listener()\nsignal.signal(signal.SIGTERM, lambda *_: (os.unlink(s.getsockname()), os._exit(0)))\n\
                   serve(s, lambda path: os.unlink(s.getsockname()) or 'gone' if path == '/remove' else 'generation %s,' % GENERATION)";
    let (setup, path) = on("");
    let zdr = setup.command(&server(removes)).start();
    assert_eq!(Client::of(&path).get("/remove").unwrap(), "gone");
    for generation in 1..5 {
        answers(&path, generation);
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}");
        zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
    }
}

#[test]
fn a_program_that_takes_the_path_keeps_it_and_zdr_says_so() {
    let (setup, path) = on("");
    let zdr = setup.start();
    let theirs = format!("{path}.theirs");
    let other = UnixListener::bind(&theirs).unwrap();
    fs::rename(&theirs, &path).unwrap();
    wait_for("the warning", || zdr.log().contains("another program has taken the path").then_some(()));
    assert_eq!(zdr.log().matches("another program has taken the path").count(), 1, "{}", zdr.log());
    let _client = UnixStream::connect(&path).unwrap();
    assert!(other.accept().is_ok());
    assert_eq!(zdr.client(&["stop"]).code, 0);
    assert!(fs::exists(&path).unwrap(), "it is not zdr's to remove");
}

#[test]
fn a_stop_under_load_answers_what_was_taken_and_leaves_no_file() {
    for command in [rust(End::InOrder), rust(End::Abrupt)] {
        let (setup, path) = on("");
        let mut zdr = setup.command(&command).start();
        let load = UnixLoad::start(&Client::of(&path));
        load.wait_for_answers(40);
        assert_eq!(zdr.client(&["stop"]).code, 0);
        zdr.ended();
        assert!(!fs::exists(&path).unwrap());
        assert_eq!(side_files(&path), Vec::<String>::new());
        // Who comes later is told at once that nobody is there, and nobody else is turned away.
        let absent = |failure: &String| failure.contains("os error 2)") || failure.contains("os error 111)");
        let lost: Vec<String> = load.failures().into_iter().filter(|failure| !absent(failure)).collect();
        assert_eq!(lost, Vec::<String>::new());
    }
}

#[test]
fn what_a_killed_zdr_leaves_is_replaced_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock").display().to_string();
    let setup = || Setup::of(&sample(&[])).listen(&[&format!("unix:{path}")]).option("--ready", "/health");
    let mut first = setup().start();
    first.signal(Signal::SIGKILL);
    first.ended();
    wait_for("the end of its servers", || {
        let left = first.processes();
        for pid in &left {
            // It may have gone by itself.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    });
    assert!(fs::exists(&path).unwrap() && side_files(&path).len() >= 2, "{:?}", side_files(&path));
    let second = setup().start();
    answers(&path, 1);
    assert_eq!(second.reload().code, 0);
    answers(&path, 2);
    assert_eq!(second.client(&["stop"]).code, 0);
    assert_eq!((fs::exists(&path).unwrap(), side_files(&path)), (false, Vec::new()));
}
