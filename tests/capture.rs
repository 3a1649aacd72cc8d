//! Servers that bind by themselves: taken over, in every way that they do it, and never worse off for it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{DEADLINE, Setup, Zdr, free_port, get, in_seat, wait_for};
use crate::load::{Load, Shape};
use crate::servers::in_servers;

/// The server of tests/servers/capture with these words behind it.
pub fn server(words: &[&str]) -> Vec<String> {
    let own = ["python3".to_owned(), in_servers("capture/server.py")].into_iter();
    own.chain(words.iter().map(ToString::to_string)).collect()
}

pub fn captured(words: &[&str]) -> Setup {
    Setup::of(&server(words)).listen(&[]).option("--bake", "0s")
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub fn answer(port: u16) -> String {
    get(local(port), "/").1
}

#[track_caller]
pub fn reload(zdr: &Zdr) {
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
}

/// New connections for every request, none of which may fail.
pub fn strict_load(at: SocketAddr) -> Load {
    let shape = Shape {
        new_connection_clients: 4,
        keep_alive_clients: 0,
        rate_per_client: Some(50.0),
        path: "/".to_owned(),
        limit: DEADLINE / 4,
    };
    Load::start(at, &shape).unwrap()
}

/// Five reloads under new connections, none of which may fail.
#[track_caller]
pub fn reloads_lose_nothing(zdr: &Zdr, at: SocketAddr) {
    let load = strict_load(at);
    for _ in 0..5 {
        assert!(load.wait_for_answers(20, DEADLINE), "no answers:\n{}", load.stop());
        reload(zdr);
    }
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    assert!(load.wait_for_answers(20, DEADLINE));
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
}

#[test]
fn a_server_that_binds_by_itself_is_reloaded_without_a_lost_connection() {
    let port = free_port();
    let zdr = captured(&[&format!("127.0.0.1:{port}")]).start();
    reloads_lose_nothing(&zdr, local(port));
    assert_eq!(answer(port), "generation 6");
}

#[test]
fn a_user_without_rights_is_served_as_well() {
    let port = free_port();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let setup = captured(&[&format!("127.0.0.1:{port}")]);
    let zdr = as_nobody(setup, &nobody).start();
    reloads_lose_nothing(&zdr, local(port));
}

/// Its folder must be the user's, for the admin socket.
pub fn as_nobody(setup: Setup, through: &[&str]) -> Setup {
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(setup.folder(), Some(65534), Some(65534)).unwrap();
        return setup.through(through);
    }
    setup
}

/// The filter is in force before the user changes, where it takes CAP_SYS_ADMIN and nothing else.
#[test]
fn only_where_zdr_is_not_root_the_server_gets_no_new_privileges() {
    let gets = |zdr: &Zdr| fs::read_to_string(format!("/proc/{}/status", zdr.server_pid())).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let zdr = as_nobody(captured(&[&address]), &nobody).start();
    assert!(gets(&zdr).contains("NoNewPrivs:\t1"));
    if nix::unistd::geteuid().is_root() {
        let address = format!("127.0.0.1:{}", free_port());
        let zdr = captured(&[&address]).option("--user", "65534").option("--group", "65534").start();
        assert!(gets(&zdr).contains("NoNewPrivs:\t0"));
    }
}

#[test]
fn workers_that_bind_each_for_itself_are_reloaded_without_a_lost_connection() {
    let port = free_port();
    let zdr = captured(&["--workers", &format!("127.0.0.1:{port}")]).start();
    reloads_lose_nothing(&zdr, local(port));
}

#[test]
fn both_families_and_a_second_port_are_taken_over() {
    let (port, second) = (free_port(), free_port());
    let addresses = [format!("0.0.0.0:{port}"), format!("[::]:{port}"), format!("127.0.0.1:{second}")];
    let zdr = captured(&addresses.each_ref().map(String::as_str)).start();
    reload(&zdr);
    let status = zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
    assert_eq!(status["listeners"].as_array().unwrap().len(), 3, "{status}");
    assert_eq!(get(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)), "/").1, "generation 2");
    assert_eq!((answer(port), answer(second)), ("generation 2".to_owned(), "generation 2".to_owned()));
}

#[test]
fn an_address_that_the_new_version_has_no_more_is_closed() {
    let (kept, dropped) = (free_port(), free_port());
    let zdr = captured(&[&format!("127.0.0.1:{kept}"), &format!("127.0.0.1:{dropped}")])
        .option("--startup-grace", "300ms")
        .start();
    let told = zdr.reload_to(&server(&[&format!("127.0.0.1:{kept}")]));
    assert_eq!(told.code, 0, "{told:?}");
    wait_for("the address to be closed", || std::net::TcpStream::connect(local(dropped)).is_err().then_some(()));
    assert_eq!(answer(kept), "generation 2");
}

#[test]
fn an_address_that_is_bound_twice_or_again_is_treated_as_the_kernel_would() {
    let port = free_port();
    let zdr = captured(&["--twice", "--again", &format!("127.0.0.1:{port}")]).start();
    for _ in 0..2 {
        let facts = get(local(port), "/facts").1;
        assert!(facts.contains("second bind: EADDRINUSE"), "{facts}");
        assert!(facts.contains("nonblocking: False") && facts.contains("inheritable: False"), "{facts}");
        reload(&zdr);
    }
}

#[test]
fn a_unix_path_that_the_server_removes_and_binds_again_refuses_nobody() {
    let setup = captured(&[]);
    let path = setup.place("app.sock");
    let mut zdr = setup.command(&server(&[&path])).start();
    let asked = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answers = 0;
            while asked.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(ask(Path::new(&path)).starts_with("generation "));
                answers += 1;
            }
            answers
        });
        for _ in 0..5 {
            reload(&zdr);
        }
        zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
        asked.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(client.join().unwrap() > 20);
    });
    assert_eq!(ask(Path::new(&path)), "generation 6");
    assert_eq!(zdr.client(&["stop"]).code, 0);
    zdr.ended();
    let left: Vec<_> = fs::read_dir(zdr.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("app.sock")), "{left:?}");
}

pub fn ask(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").expect("a whole answer").1.to_owned()
}

#[test]
fn datagrams_of_a_server_that_binds_by_itself_are_answered_through_a_reload() {
    let (port, http) = (free_port(), free_port());
    let zdr = captured(&[&format!("udp:127.0.0.1:{port}"), &format!("127.0.0.1:{http}")]).start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.connect(local(port)).unwrap();
    let ask = || {
        client.send(b"who").unwrap();
        let mut buffer = [0; 100];
        let length = client.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(ask(), "who generation 1");
    reload(&zdr);
    assert_eq!(ask(), "who generation 2");
}

#[test]
fn an_address_of_another_program_is_named_in_the_verdict() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = theirs.local_addr().unwrap();
    let port = free_port();
    let zdr = captured(&[&format!("127.0.0.1:{port}")]).start();
    let told = zdr.reload_to(&server(&[&address.to_string()]));
    assert_eq!(told.code, 3, "{told:?}");
    let said = format!("the server binds by itself: cannot listen on {address}: process {}", std::process::id());
    assert!(told.error.contains(&said), "{told:?}\n{}", zdr.log());
    assert_eq!(answer(port), "generation 1");
}

#[test]
fn a_server_that_never_binds_is_not_ready_and_the_verdict_says_so() {
    let port = free_port();
    let zdr = captured(&[&format!("127.0.0.1:{port}")]).option("--ready-timeout", "3s").start();
    let told = zdr.reload_to(&["sleep", "60"]);
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains("it has not listened on any address yet"), "{told:?}");
    assert_eq!(answer(port), "generation 1");
}

#[test]
fn a_server_that_lets_the_kernel_choose_its_port_is_told_what_is_wrong() {
    let port = free_port();
    let zdr = captured(&[&format!("127.0.0.1:{port}")]).option("--ready-timeout", "3s").start();
    let told = zdr.reload_to(&server(&["127.0.0.1:0"]));
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains("which zdr leaves alone: give it a port that stays the same"), "{told:?}");
    assert_eq!(answer(port), "generation 1");
}

#[test]
fn a_server_that_binds_late_is_waited_for() {
    let port = free_port();
    let zdr = captured(&["--late=1.5", &format!("127.0.0.1:{port}")]).start();
    reloads_lose_nothing(&zdr, local(port));
}

#[test]
fn a_server_that_drops_its_privileges_before_it_binds_is_taken_over() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root can drop privileges");
        return;
    }
    let port = free_port();
    let zdr = captured(&["--user=65534", &format!("127.0.0.1:{port}")]).start();
    reloads_lose_nothing(&zdr, local(port));
}

#[test]
fn a_crash_leaves_connections_waiting_for_the_next_instance() {
    let port = free_port();
    let zdr = captured(&[&format!("127.0.0.1:{port}")]).start();
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("the crash to be noticed", |status| status["crashes"] == 1);
    assert_eq!(answer(port), "generation 2");
}

#[test]
fn a_listed_address_is_answered_with_the_listener_of_that_name() {
    let setup = Setup::of(&server(&["127.0.0.1:{port:web}"])).listen(&["web=127.0.0.1:0"]);
    let zdr = setup.option("--capture", "always").option("--bake", "0s").start();
    reloads_lose_nothing(&zdr, zdr.address());
}

/// It was answered by zdr as long as that lived; then it must be as if zdr had never been.
#[test]
fn a_server_is_no_worse_off_when_zdr_is_killed() {
    let port = free_port();
    let mut zdr = captured(&[&format!("127.0.0.1:{port}")]).start();
    reload(&zdr);
    zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
    zdr.signal(Signal::SIGKILL);
    zdr.ended();
    for _ in 0..10_000 {
        assert_eq!(answer_fast(port), 200);
    }
    let second = free_port();
    assert_eq!(get(local(port), &format!("/bind?{second}")).1, "bound");
    assert_eq!(answer(second), "generation 2");
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let their_port = theirs.local_addr().unwrap().port();
    std::thread::spawn(move || theirs.accept().unwrap().0.write_all(b"hello").unwrap());
    assert_eq!(get(local(port), &format!("/connect?{their_port}")).1, "hello");
}

fn answer_fast(port: u16) -> u16 {
    get(local(port), "/facts").0
}

/// A client that binds its source port is a client: what it closes is closed for its peer.
#[test]
fn what_is_bound_and_never_listens_is_left_to_the_server() {
    let port = free_port();
    let zdr = captured(&[&format!("127.0.0.1:{port}")]).start();
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let their_port = theirs.local_addr().unwrap().port();
    let peer = std::thread::spawn(move || {
        let mut stream = theirs.accept().unwrap().0;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read(&mut [0; 10]).unwrap()
    });
    assert_eq!(get(local(port), &format!("/connect?{their_port}")).1, "hello");
    assert_eq!(peer.join().unwrap(), 0, "the end of the connection was not seen");
    assert_eq!(zdr.status()["listeners"].as_array().unwrap().len(), 1);
    let second = free_port();
    assert_eq!(get(local(port), &format!("/bind?{second}")).1, "bound");
    assert_eq!(
        zdr.status()["listeners"].as_array().unwrap().len(),
        2,
        "a port that is bound late is taken over as well"
    );
    // The new one does not bind it before it is asked to, and is ready all the same.
    reload(&zdr);
    assert_eq!(answer(port), "generation 2");
}

#[test]
fn a_second_watcher_is_refused_with_the_way_out() {
    let inner = [crate::harness::ZDR, "run", "--", "true"];
    let setup = captured(&[]).command(&inner).option("--ready", "100ms").flag("--quiet");
    let runtime = setup.place("");
    let told = setup.environment("RUNTIME_DIRECTORY", &runtime).output();
    assert!(told.error.contains("another program watches its system calls already"), "{told:?}");
    assert!(told.error.contains("--capture never"), "{told:?}");
}

/// Keepers go with the processes that they are kept for.
#[test]
fn nothing_is_left_behind_by_capture() {
    let port = free_port();
    let mut zdr = captured(&[&format!("127.0.0.1:{port}")]).start();
    let keepers = || children_called(zdr.pid(), "zdr-keeper");
    assert_eq!(keepers().len(), 1);
    for _ in 0..3 {
        reload(&zdr);
    }
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    wait_for("the keepers of the old ones to end", || (keepers().len() == 1).then_some(()));
    let last = keepers();
    assert_eq!(zdr.client(&["stop"]).code, 0);
    zdr.ended();
    wait_for("the last keeper to end", || (!Path::new(&format!("/proc/{}", last[0])).exists()).then_some(()));
}

fn children_called(parent: i32, name: &str) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    children.filter(is).collect()
}
