//! Sockets that zdr was started with: taken over with their names, reloaded on, and left as they were for the next zdr.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Setup, Told, Zdr, free_port, get, in_seat, sample, wait_for};
use crate::listeners::stranger;
use crate::load::report::Report;
use crate::load::{Load, Shape};
use crate::python::{python, server, teller};
use crate::servers::{End, gunicorn, rust};
use crate::unix_paths::{Client, UnixLoad, five_reloads_lose_nothing};

const NOBODY: u32 = 65534;

/// A zdr that is started with these sockets, see tests/launch.py.
pub fn launched(setup: Setup, settings: &Value) -> Setup {
    let launcher = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/launch.py");
    if settings["user"].is_u64() {
        chown(setup.folder(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    setup.listen(&[]).through(&[python().to_owned(), launcher.to_owned(), settings.to_string()])
}

fn refused(settings: &Value) -> Told {
    launched(Setup::of(&sample(&[])).flag("--quiet"), settings).output()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn new_connections(at: SocketAddr) -> Load {
    let shape = Shape {
        new_connection_clients: 4,
        keep_alive_clients: 0,
        rate_per_client: Some(50.0),
        path: "/".to_owned(),
        limit: DEADLINE / 2,
    };
    Load::start(at, &shape).unwrap()
}

/// Reloads under new connections, none of which may fail.
#[track_caller]
fn reloads_lose_nothing(zdr: &Zdr, at: SocketAddr) -> Report {
    let load = new_connections(at);
    for _ in 0..5 {
        assert!(load.wait_for_answers(20, DEADLINE), "no answers:\n{}", load.stop());
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}");
    }
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    assert!(load.wait_for_answers(20, DEADLINE));
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
    report
}

fn names(zdr: &Zdr) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = zdr.status();
    let listeners = status["listeners"].as_array().unwrap();
    listeners.iter().map(|listener| (text(&listener["name"]), text(&listener["address"]))).collect()
}

#[test]
fn every_kind_is_taken_over_with_its_name_and_handed_on_to_every_generation() {
    let port = free_port();
    let setup = Setup::of(&teller()).option("--ready", "100ms").option("--bake", "0s");
    let (path, name) = (setup.place("web.sock"), format!("zdr-test-{port}"));
    let sockets = [
        format!("tcp:127.0.0.1:{port}"),
        format!("tcp:[::1]:{port}"),
        format!("udp:127.0.0.1:{port}"),
        format!("unix:{path}"),
        format!("unix:@{name}"),
    ];
    let zdr = launched(setup, &json!({ "sockets": sockets, "names": "web:web::a.socket" })).start();
    let expected = [
        ("web", format!("127.0.0.1:{port}")),
        ("web", format!("[::1]:{port}")),
        ("listener3", format!("udp://127.0.0.1:{port}")),
        ("a.socket", format!("unix:{path}")),
        ("listener5", format!("unix:@{name}")),
    ];
    assert_eq!(names(&zdr), expected.map(|(name, address)| (name.to_owned(), address)));
    for generation in ["1", "2", "3"] {
        let told: Value = serde_json::from_str(&get(local(port), "/").1).unwrap();
        let environment = &told["environment"];
        assert_eq!(environment["ZDR_GENERATION"], generation);
        assert_eq!(environment["LISTEN_FDNAMES"], "web:web:listener3:a.socket:listener5");
        assert_eq!(
            (&environment["LISTEN_FDS"], &environment["LISTEN_PID"]),
            (&json!("5"), &json!(told["pid"].to_string()))
        );
        // None but these and the standard ones; what zdr was given itself does not leak.
        let sockets = told["fds"].as_object().unwrap().values().filter(|to| to.to_string().contains("socket:")).count();
        assert!(sockets <= 6, "{told}");
        assert_eq!(zdr.reload().code, 0);
    }
}

#[test]
fn a_server_is_activated_by_its_first_connection() {
    let port = free_port();
    let activate =
        ["systemd-socket-activate".to_owned(), format!("--listen=127.0.0.1:{port}"), "--fdname=web".to_owned()];
    let zdr = Setup::of(&sample(&[])).listen(&[]).option("--ready", "/health").through(&activate).begin();
    // It waits there from before zdr is started, and is answered.
    wait_for("the socket", || TcpStream::connect(local(port)).ok());
    assert_eq!(get(local(port), "/").0, 200);
    assert_eq!(zdr.client(&["wait", "--timeout", "20s"]).code, 0);
    assert_eq!(names(&zdr), [("web".to_owned(), format!("127.0.0.1:{port}"))]);
    reloads_lose_nothing(&zdr, local(port));
}

#[test]
fn descriptors_that_do_not_begin_at_3_are_found() {
    let port = free_port();
    let settings = json!({ "sockets": [format!("tcp:127.0.0.1:{port}")], "first": 20 });
    let zdr = launched(Setup::of(&sample(&[])).option("--ready", "/health"), &settings).start();
    assert_eq!(get(local(port), "/").0, 200, "{}", zdr.log());
    let told = refused(&json!({ "sockets": ["file"], "first": 20 }));
    assert!(told.error.contains("descriptor 20 of LISTEN_FDS: it is no socket"), "{told:?}");
}

#[test]
fn what_is_no_listening_socket_is_refused_with_the_reason() {
    let good = format!("tcp:127.0.0.1:{}", free_port());
    for (sockets, environment, why) in [
        (vec!["file"], json!({}), "descriptor 3 of LISTEN_FDS: it is no socket but /etc/"),
        (vec!["none"], json!({}), "descriptor 3 of LISTEN_FDS: it is not open"),
        (vec![&good, "none"], json!({}), "descriptor 4 of LISTEN_FDS: it is not open"),
        (vec!["connected"], json!({}), "descriptor 3 of LISTEN_FDS: it is connected to a client already"),
        (vec!["pair"], json!({}), "descriptor 3 of LISTEN_FDS: it is connected to a client already"),
        (vec!["datagrams"], json!({}), "descriptor 3 of LISTEN_FDS: it is no TCP, UDP or Unix stream socket"),
        (vec!["unbound"], json!({}), "descriptor 3 of LISTEN_FDS: it has no port yet"),
        (vec![&good, "again"], json!({}), "descriptor 4 of LISTEN_FDS: it listens on 127.0.0.1:"),
        (vec![], json!({"LISTEN_FDS": "junk"}), "LISTEN_FDS: `junk` is no number of sockets"),
        (vec![], json!({"LISTEN_FDS": "-1"}), "LISTEN_FDS: `-1` is no number of sockets"),
        (vec![], json!({"LISTEN_FDS": "4000000000"}), "LISTEN_FDS: `4000000000` is no number of sockets"),
    ] {
        let told = refused(&json!({ "sockets": sockets, "environment": environment }));
        assert_eq!(told.code, 2, "{sockets:?} {environment}: {told:?}");
        assert!(told.error.contains(&format!("cannot use {why}")), "{sockets:?}: {told:?}");
        assert_eq!(told.error.lines().count(), 1, "{told:?}");
    }
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let port = free_port();
    let others = json!({ "sockets": [format!("tcp:127.0.0.1:{port}")], "environment": { "LISTEN_PID": "1" } });
    let told = launched(Setup::of(&sample(&[])).flag("--quiet").option("--capture", "never"), &others).output();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.error.contains("no listener: say where to listen"), "{told:?}");
}

#[test]
fn an_address_that_a_stranger_shares_is_refused() {
    let port = free_port();
    let _theirs = stranger(local(port), true);
    let settings = json!({ "sockets": [format!("tcp:127.0.0.1:{port}")], "reuseport": true });
    let told = refused(&settings);
    assert_eq!((told.code, told.error.lines().count()), (1, 1), "{told:?}");
    assert!(told.error.contains(&format!("cannot listen on 127.0.0.1:{port}: process ")), "{told:?}");
}

#[test]
fn the_same_port_on_several_addresses_is_no_stranger() {
    let port = free_port();
    let sockets = ["127.0.0.1", "127.0.0.2", "[::1]"].map(|host| format!("tcp:{host}:{port}"));
    let setup = Setup::of(&sample(&[])).option("--ready", "/health").option("--bake", "0s");
    let zdr = launched(setup, &json!({ "sockets": sockets })).start();
    for generation in 1..4 {
        for host in ["127.0.0.1", "127.0.0.2", "[::1]"] {
            let (_, body) = get(format!("{host}:{port}").parse().unwrap(), "/");
            assert!(body.contains(&format!("generation {generation},")), "{host}: {body}\n{}", zdr.log());
        }
        assert_eq!(zdr.reload().code, 0);
    }
    assert!(!zdr.log().contains("share"), "{}", zdr.log());
}

#[test]
fn reloads_on_an_inherited_socket_lose_nothing_whatever_the_server_does_at_its_end() {
    for (host, end) in [("127.0.0.1", End::InOrder), ("127.0.0.1", End::Abrupt), ("[::]", End::Abrupt)] {
        let port = free_port();
        let setup = Setup::of(&rust(end)).option("--ready", "/health").option("--bake", "0s");
        let zdr = launched(setup, &json!({ "sockets": [format!("tcp:{host}:{port}")] })).start();
        assert!(!zdr.log().contains("share"), "{}", zdr.log());
        reloads_lose_nothing(&zdr, local(port));
    }
}

#[test]
fn a_socket_of_another_user_is_shared_and_reloads_of_a_graceful_server_lose_nothing() {
    let port = free_port();
    let setup = Setup::of(&rust(End::InOrder)).option("--ready", "/health").option("--bake", "0s");
    let zdr = launched(setup, &json!({ "sockets": [format!("tcp:127.0.0.1:{port}")], "user": NOBODY })).start();
    let log = zdr.log();
    assert!(log.contains("generations share the socket that zdr was started with: it belongs to user 0,"), "{log}");
    reloads_lose_nothing(&zdr, local(port));
}

#[test]
fn an_inherited_unix_path_is_shared_and_reloads_of_a_graceful_server_lose_nothing() {
    for command in [rust(End::InOrder), gunicorn(&["--workers=2"])] {
        let setup = Setup::of(&command).option("--ready", "/health").option("--bake", "0s");
        let path = setup.place("web.sock");
        let zdr = launched(setup, &json!({ "sockets": [format!("unix:{path}")] })).start();
        five_reloads_lose_nothing(&zdr, &path);
        // It is whoever's who made it.
        assert_eq!(zdr.client(&["stop"]).code, 0);
        assert!(fs::exists(&path).unwrap());
    }
}

#[test]
fn on_a_shared_socket_the_old_does_not_answer_for_the_new() {
    let port = free_port();
    for ready in ["/health", "tcp"] {
        let setup = Setup::of(&sample(&[])).option("--ready", ready).option("--ready-timeout", "3s");
        let zdr = launched(setup, &json!({ "sockets": [format!("tcp:127.0.0.1:{port}")], "user": NOBODY })).start();
        let told = zdr.reload_to(&sample(&["--bad", "hang"]));
        assert_eq!(told.code, 3, "{told:?}");
        let why = format!("answered by process {} (zdr) of generation 1, not by the new one", zdr.server_pid());
        assert!(told.error.contains(&why), "{told:?}");
        assert_eq!(zdr.serving(), Some(1));
    }
}

/// Two runs of zdr one after the other on one socket, which the launcher keeps open.
#[track_caller]
fn a_stop_loses_nothing(command: &[String], user: Option<u32>, reloads: u32, host: &str) {
    let port = free_port();
    let setup = Setup::of(command).option("--ready", "/health").option("--bake", "0s");
    let mut settings = json!({ "sockets": [format!("tcp:{host}:{port}")], "starts": 3 });
    if let Some(user) = user {
        settings["user"] = user.into();
    }
    let zdr = launched(setup, &settings).start();
    let load = new_connections(local(port));
    for _ in 0..2 {
        for _ in 0..reloads {
            assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
        }
        zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
        assert!(load.wait_for_answers(40, DEADLINE), "{}", load.stop());
        let before = zdr.server_pid();
        let told = zdr.client(&["stop"]);
        assert_eq!(told.code, 0, "{told:?}");
        wait_for("the next zdr", || {
            let told = zdr.client(&["status", "--json"]);
            let status: Value = serde_json::from_str(&told.out).ok()?;
            (in_seat(&status, "serving") == Some(1) && zdr.server_pid() != before).then_some(())
        });
        assert!(load.wait_for_answers(40, DEADLINE), "{}", load.stop());
    }
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
}

#[test]
fn connections_wait_in_the_inherited_socket_while_zdr_is_restarted() {
    a_stop_loses_nothing(&rust(End::InOrder), None, 0, "127.0.0.1");
    a_stop_loses_nothing(&rust(End::Abrupt), None, 0, "127.0.0.1");
}

#[test]
fn connections_wait_in_the_inherited_socket_when_a_later_generation_is_stopped() {
    a_stop_loses_nothing(&rust(End::Abrupt), None, 1, "127.0.0.1");
    a_stop_loses_nothing(&rust(End::Abrupt), None, 2, "[::]");
}

#[test]
fn connections_wait_in_a_socket_of_another_user_while_zdr_is_restarted() {
    a_stop_loses_nothing(&rust(End::InOrder), Some(NOBODY), 1, "127.0.0.1");
}

#[test]
fn connections_wait_in_an_inherited_unix_socket_while_zdr_is_restarted() {
    for socket in ["path", "@name"] {
        let setup = Setup::of(&rust(End::InOrder)).option("--ready", "/health").option("--bake", "0s");
        let place = setup.place("web.sock");
        let name = if socket == "path" { place.clone() } else { format!("@{place}") };
        let zdr = launched(setup, &json!({ "sockets": [format!("unix:{name}")], "starts": 2 })).start();
        let load = UnixLoad::start(&Client::of(&name));
        load.wait_for_answers(40);
        assert_eq!(zdr.reload().code, 0);
        let before = zdr.server_pid();
        assert_eq!(zdr.client(&["stop"]).code, 0);
        assert_eq!(zdr.client(&["wait", "--timeout", "20s"]).code, 0);
        wait_for("the next zdr", || (zdr.server_pid() != before).then_some(()));
        load.wait_for_answers(40);
        assert_eq!(load.failures(), Vec::<String>::new());
    }
}

#[test]
fn an_inherited_socket_keeps_its_blocking_mode_and_backlog_on_every_slot() {
    let shows = server(
        "
import fcntl
s = listener()
mode = 'nonblocking' if fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK else 'blocking'
fcntl.fcntl(s, fcntl.F_SETFL, fcntl.fcntl(s, fcntl.F_GETFL) ^ os.O_NONBLOCK)
while True:
    select.select([s], [], [])
    try:
        c, _ = s.accept()
    except BlockingIOError:
        continue
    c.setblocking(True)
    limit = struct.unpack_from('I', s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0]
    visit(c, lambda path: '%s %s' % (mode, limit))
",
    );
    for nonblocking in [false, true] {
        let port = free_port();
        let settings =
            json!({ "sockets": [format!("tcp:127.0.0.1:{port}")], "nonblocking": nonblocking, "backlog": 33 });
        let zdr = launched(Setup::of(&shows).option("--ready", "/"), &settings).start();
        for _ in 0..4 {
            // Each server changes the mode of its own slot, and no other one sees it.
            let expected = if nonblocking { "nonblocking 33" } else { "blocking 33" };
            assert_eq!(get(local(port), "/").1, expected);
            let told = zdr.client(&["reload", "--wait", "drained"]);
            assert_eq!(told.code, 0, "{told:?}");
        }
    }
}
