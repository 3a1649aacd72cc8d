//! Listeners that come, go, and change their names and options with the file: those that stay lose nothing, and those that
//! go are served to the end, and then refuse.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Setup, Zdr, free_port, get, in_seat, sample, wait_for};
use crate::inherited::launched;
use crate::listeners::stranger;
use crate::managed::{command, load, managed, nothing_was_lost, reload_as, write};
use crate::python::server;
use crate::unix_paths::{Client, UnixLoad};

/// Serves on every socket that it is lent, and tells what they are called and what they are like.
const EVERYWHERE: &str = "
import fcntl
NAMES = os.environ.get('LISTEN_FDNAMES', '').split(':')
TCP = socket.IPPROTO_TCP
def like(s):
    if s.family == socket.AF_UNIX:
        return {}
    c = {'nonblocking': bool(fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK)}
    if s.type == socket.SOCK_STREAM:
        c['backlog'] = struct.unpack_from('I', s.getsockopt(TCP, socket.TCP_INFO, 104), 28)[0]
        c['nodelay'] = bool(s.getsockopt(TCP, socket.TCP_NODELAY))
        c['defer-accept'] = s.getsockopt(TCP, socket.TCP_DEFER_ACCEPT) > 0
    return c
def echo(s):
    while True:
        _, who = s.recvfrom(100)
        s.sendto(GENERATION.encode(), who)
def wait(s, say):
    while True:
        select.select([s], [], [])
        try:
            c, _ = s.accept()
        except BlockingIOError:
            continue
        c.setblocking(True)
        threading.Thread(target=visit, args=(c, say), daemon=True).start()
LENT = [listener(i) for i in range(int(os.environ['LISTEN_FDS']))]
def tell(s, name):
    return lambda path: json.dumps({'generation': int(GENERATION), 'name': name, 'names': NAMES, 'like': like(s)})
for s, name in zip(LENT, NAMES):
    run = (echo, (s,)) if s.type == socket.SOCK_DGRAM else (wait, (s, tell(s, name)))
    threading.Thread(target=run[0], args=run[1]).start()
";

/// With this in the table of listeners.
fn text(listen: &str) -> String {
    format!("{}ready = '/'\nbake = '0s'\n[listen]\n{listen}\n", command(&server(EVERYWHERE)))
}

fn baking(listen: &str) -> String {
    text(listen).replace("bake = '0s'", "bake = '1h'")
}

/// Names and addresses in order, as the status has them.
fn listeners(zdr: &Zdr) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = zdr.status();
    let all = status["listeners"].as_array().unwrap().iter();
    all.map(|listener| (text(&listener["name"]), text(&listener["address"]))).collect()
}

fn names(zdr: &Zdr) -> Vec<String> {
    listeners(zdr).into_iter().map(|(name, _)| name).collect()
}

/// Where the listener of this name is.
fn at(zdr: &Zdr, name: &str) -> String {
    let all: BTreeMap<String, String> = listeners(zdr).into_iter().collect();
    all[name].clone()
}

fn tcp(zdr: &Zdr, name: &str) -> SocketAddr {
    at(zdr, name).parse().unwrap()
}

fn asked(address: SocketAddr) -> Value {
    let body = get(address, "/").1;
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {address}: {body}"))
}

fn asked_by_datagram(address: &str) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send_to(b"?", address.trim_start_matches("udp://")).unwrap();
    let mut answer = [0; 10];
    let length = socket.recv(&mut answer).unwrap();
    std::str::from_utf8(&answer[..length]).unwrap().parse().unwrap()
}

/// Each connection until then is answered, or refused; none hangs and none is cut off.
#[track_caller]
fn is_served_and_then_refused(address: SocketAddr) {
    wait_for("its end", || {
        let mut stream = match TcpStream::connect_timeout(&address, DEADLINE / 2) {
            Ok(stream) => stream,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                return Some(());
            }
        };
        stream.set_read_timeout(Some(DEADLINE / 2)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("generation"), "{answer}");
        None
    });
}

#[test]
fn what_is_added_serves_and_what_stays_keeps_its_sockets_and_loses_nothing() {
    let setup = Setup::of(&[""; 0]);
    let (path, name) = (setup.place("web.sock"), format!("@zdr-test-added-{}", std::process::id()));
    let zdr = managed(setup, &text("web = '127.0.0.1:0'")).start();
    let web = tcp(&zdr, "web");
    let load = load(web, 0);
    let all = format!(
        "a = 'unix:{path}'\nb = 'unix:{name}'\nweb = '127.0.0.1:0'\nc = 'udp://127.0.0.1:0'\nd = '[::1]:0'\ne = '127.0.0.1:0'"
    );
    reload_as(&zdr, &text(&all));
    let order = ["a", "b", "web", "c", "d", "e"];
    assert_eq!(names(&zdr), order);
    assert_eq!(tcp(&zdr, "web"), web, "the port that the kernel chose is kept");
    let fixed: Vec<String> = listeners(&zdr).into_iter().map(|(_, address)| address).collect();
    for generation in 2..4 {
        for name in ["web", "d", "e"] {
            let told = asked(tcp(&zdr, name));
            assert_eq!((&told["generation"], &told["name"]), (&json!(generation), &json!(name)));
            assert_eq!(told["names"], json!(order));
        }
        for address in [&path, &name] {
            let told = wait_for("the new one", || {
                let told: Value = serde_json::from_str(&Client::of(address).get("/").unwrap()).unwrap();
                (told["generation"] == generation).then_some(told)
            });
            assert_eq!(told["names"], json!(order));
        }
        assert_eq!(asked_by_datagram(&at(&zdr, "c")), generation);
        assert_eq!(zdr.reload().code, 0);
        let now: Vec<String> = listeners(&zdr).into_iter().map(|(_, address)| address).collect();
        assert_eq!(now, fixed, "nothing moves");
        zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    }
    let more = [load_of_new(&zdr, "d"), load_of_new(&zdr, "e")];
    let local = UnixLoad::start(&Client::of(&path));
    assert_eq!(zdr.reload().code, 0);
    local.wait_for_answers(20);
    for more in more {
        nothing_was_lost(&zdr, more);
    }
    assert_eq!(local.failures(), Vec::<String>::new());
    nothing_was_lost(&zdr, load);
}

fn load_of_new(zdr: &Zdr, name: &str) -> crate::load::Load {
    load(tcp(zdr, name), 0)
}

#[test]
fn a_reload_that_fails_leaves_the_listeners_as_they_were() {
    let setup = Setup::of(&[""; 0]);
    let path = setup.place("new.sock");
    let zdr = managed(setup, &text("web = '127.0.0.1:0'\nother = '127.0.0.1:0'")).start();
    let (web, before) = (load(tcp(&zdr, "web"), 0), listeners(&zdr));
    let (free, taken) = (free_port(), free_port());
    let _stranger = stranger(format!("127.0.0.1:{taken}").parse().unwrap(), false);
    let free: SocketAddr = format!("127.0.0.1:{free}").parse().unwrap();
    let new = format!("web = '127.0.0.1:0,backlog=7'\nfree = '{free}'\npath = 'unix:{path}'\n");
    let unchanged = |code: i32| {
        assert_eq!(code, 3);
        assert_eq!(listeners(&zdr), before);
        let refused = TcpStream::connect(free).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(!fs::exists(&path).unwrap());
        assert_eq!(asked(tcp(&zdr, "other"))["generation"], 1);
        assert_eq!(asked(tcp(&zdr, "web"))["like"]["backlog"], 4096);
        let files = fs::read_dir(zdr.folder()).unwrap().flatten().map(|file| file.file_name());
        assert!(!files.into_iter().any(|name| name.to_string_lossy().contains("new.sock")));
    };
    // One of them cannot be had.
    write(&zdr, text(&format!("{new}taken = '127.0.0.1:{taken}'")));
    unchanged(zdr.reload().code);
    // All of them can be had, and the generation fails: at its hook, its start, and its readiness.
    let hook = |text: String| text.replace("[listen]", "hook = 'before-start=exit 1'\n[listen]");
    let nowhere = |text: String| text.replace("[listen]", "chdir = '/nowhere'\n[listen]");
    let late = |text: String| text.replace("'/'", "'notify'\nready-timeout = '300ms'");
    for broken in [hook(text(&new)), nowhere(text(&new)), late(text(&new))] {
        write(&zdr, broken);
        let told = zdr.reload();
        // It is told before the last of its processes is reaped.
        zdr.wait_until("the end of the failed one", |status| status["generations"].as_array().unwrap().len() == 1);
        unchanged(told.code);
    }
    reload_as(&zdr, &text(&new));
    zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
    assert_eq!(names(&zdr), ["web", "free", "path"]);
    assert_eq!(asked(free)["generation"], 5);
    nothing_was_lost(&zdr, web);
}

#[test]
fn what_is_removed_is_served_until_the_old_one_has_drained_and_then_refused() {
    let zdr = managed(Setup::of(&[""; 0]), &baking("web = '127.0.0.1:0'\nold = '127.0.0.1:0'")).start();
    let (web, old) = (load(tcp(&zdr, "web"), 0), tcp(&zdr, "old"));
    reload_as(&zdr, &baking("web = '127.0.0.1:0'"));
    assert_eq!(names(&zdr)[0], "web");
    // The old one is kept warm, and may have everything back.
    assert_eq!((asked(old)["generation"].clone(), asked(old)["name"].clone()), (json!(1), json!("old")));
    let told = zdr.client(&["rollback"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(asked(old)["generation"], 1);
    assert_eq!(names(&zdr), ["web", "old"]);
    zdr.wait_until("the second to drain", |status| in_seat(status, "draining").is_none());
    let seen = std::thread::spawn(move || is_served_and_then_refused(old));
    reload_as(&zdr, &text("web = '127.0.0.1:0'"));
    seen.join().unwrap();
    assert_eq!(names(&zdr), ["web"]);
    nothing_was_lost(&zdr, web);
}

#[test]
fn a_release_that_dies_on_trial_gives_the_removed_ones_back_and_takes_the_added_ones_with_it() {
    let zdr = managed(Setup::of(&[""; 0]), &baking("web = '127.0.0.1:0'\nold = '127.0.0.1:0'")).start();
    let (web, old) = (tcp(&zdr, "web"), tcp(&zdr, "old"));
    let of_old = load(old, 0);
    reload_as(
        &zdr,
        &baking("api = '127.0.0.1:0'\nnew = '127.0.0.1:0'").replace("api = '127.0.0.1:0'", &format!("api = '{web}'")),
    );
    let new = tcp(&zdr, "new");
    assert_eq!(asked(new)["generation"], 2);
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("the first again", |status| in_seat(status, "serving") == Some(1));
    assert_eq!(names(&zdr)[..2], ["web", "old"]);
    assert_eq!((asked(web)["generation"].clone(), asked(web)["name"].clone()), (json!(1), json!("web")));
    is_served_and_then_refused(new);
    assert_eq!(names(&zdr), ["web", "old"]);
    nothing_was_lost(&zdr, of_old);
}

#[test]
fn a_renamed_listener_keeps_its_sockets() {
    let port = free_port();
    let zdr =
        managed(Setup::of(&[""; 0]), &text(&format!("web = '127.0.0.1:{port}'\nx = 'udp://127.0.0.1:0'"))).start();
    let (address, load) = (tcp(&zdr, "web"), load(tcp(&zdr, "web"), 0));
    let datagrams = at(&zdr, "x");
    reload_as(&zdr, &text(&format!("x = 'udp://127.0.0.1:0'\napi = '127.0.0.1:{port}'")));
    assert_eq!(listeners(&zdr), [("x".into(), datagrams), ("api".into(), address.to_string())]);
    let told = asked(address);
    assert_eq!((&told["generation"], &told["names"]), (&json!(2), &json!(["x", "api"])));
    nothing_was_lost(&zdr, load);
}

#[test]
fn changed_options_are_those_of_the_next_generation() {
    let setup = Setup::of(&[""; 0]);
    let path = setup.place("web.sock");
    let listen = |tcp: &str, unix: &str, six: &str| {
        format!("web = '127.0.0.1:0{tcp}'\nlocal = 'unix:{path}{unix}'\nsix = '[::1]:0{six}'")
    };
    let zdr = managed(setup, &text(&listen("", ",mode=0600", ""))).start();
    let (web, local) = (load(tcp(&zdr, "web"), 0), UnixLoad::start(&Client::of(&path)));
    let plain = json!({ "nonblocking": false, "backlog": 4096, "nodelay": false, "defer-accept": false });
    let rights = || {
        let file = fs::metadata(&path).unwrap();
        (file.permissions().mode() & 0o777, file.uid(), file.gid())
    };
    assert_eq!((asked(tcp(&zdr, "web"))["like"].clone(), rights()), (plain.clone(), (0o600, 0, 0)));
    let changed =
        listen(",backlog=77,nodelay,defer-accept=5,nonblocking", ",mode=0660,owner=65534,group=65534", ",v6only");
    let told = reload_as(&zdr, &text(&changed));
    let like = json!({ "nonblocking": true, "backlog": 77, "nodelay": true, "defer-accept": true });
    assert_eq!((asked(tcp(&zdr, "web"))["like"].clone(), rights()), (like, (0o660, 65534, 65534)));
    assert!(
        told.out.contains("listener `six`: v6only stays as it is until zdr is restarted, because the kernel"),
        "{told:?}"
    );
    assert_eq!(told.out.matches("stays as it is").count(), 1, "{told:?}");
    reload_as(&zdr, &text(&listen("", ",mode=0600,owner=0,group=0", "")));
    assert_eq!((asked(tcp(&zdr, "web"))["like"].clone(), rights()), (plain, (0o600, 0, 0)));
    local.wait_for_answers(20);
    assert_eq!(local.failures(), Vec::<String>::new());
    nothing_was_lost(&zdr, web);
}

#[test]
fn a_captured_server_may_take_another_port() {
    let [first, second, third] = [free_port(), free_port(), free_port()];
    let text = |ports: &[u16]| {
        let binds: Vec<String> = ports.iter().map(|port| format!("bound({port})")).collect();
        let serves = "for s in ALL:\n    threading.Thread(target=serve, args=(s, lambda path: 'generation ' + GENERATION)).start()";
        let program = server(&format!("ALL = [{}]\n{serves}\n", binds.join(", ")));
        format!("{}ready = 'tcp'\nbake = '0s'\n", command(&program))
    };
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let zdr = managed(Setup::of(&[""; 0]), &text(&[first, second])).start();
    let load = load(local(second), 0);
    let seen = std::thread::spawn(move || is_served_and_then_refused(local(first)));
    reload_as(&zdr, &text(&[second, third]));
    assert_eq!(get(local(third), "/").1, "generation 2");
    seen.join().unwrap();
    assert_eq!(get(local(second), "/").1, "generation 2");
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(get(local(third), "/").1, "generation 3");
    nothing_was_lost(&zdr, load);
}

#[test]
fn a_server_that_was_captured_may_be_lent_its_address_and_bind_by_itself_again() {
    let port = free_port();
    let binds = server(&format!("serve(bound({port}), lambda path: 'generation ' + GENERATION)"));
    let captured = format!("{}ready = '/'\nbake = '0s'\n", command(&binds));
    let lent = format!("{}ready = '/'\nbake = '0s'\nlisten = '127.0.0.1:{port}'\n", command(&sample(&[])));
    let zdr = managed(Setup::of(&[""; 0]), &captured).start();
    let load = load(SocketAddr::from(([127, 0, 0, 1], port)), 0);
    for text in [&lent, &captured, &lent] {
        reload_as(&zdr, text);
        zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
        assert_eq!(listeners(&zdr).len(), 1);
    }
    nothing_was_lost(&zdr, load);
}

#[test]
fn a_list_in_the_file_takes_over_the_sockets_that_zdr_was_started_with() {
    let [web, other] = [free_port(), free_port()];
    let settings =
        json!({ "sockets": [format!("tcp:127.0.0.1:{web}"), format!("tcp:127.0.0.1:{other}")], "names": "a:b" });
    let without = format!("{}ready = '/'\nbake = '0s'\n", command(&server(EVERYWHERE)));
    let zdr = launched(managed(Setup::of(&[""; 0]), &without), &settings).start();
    assert_eq!(names(&zdr), ["a", "b"]);
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let loads = [load(local(web), 0), load(local(other), 0)];
    reload_as(&zdr, &text(&format!("web = '127.0.0.1:{web}'\nother = '127.0.0.1:{other}'\nnew = '127.0.0.1:0'")));
    assert_eq!(names(&zdr), ["web", "other", "new"]);
    assert_eq!(asked(tcp(&zdr, "new"))["names"], json!(["web", "other", "new"]));
    reload_as(&zdr, &without);
    assert_eq!(names(&zdr), ["web", "other", "new"], "those that are there");
    let told = reload_as(&zdr, &text(&format!("web = '127.0.0.1:{web}'\nother = '127.0.0.1:{other}'")));
    assert!(!told.out.contains("waits for nobody"), "{told:?}");
    for load in loads {
        nothing_was_lost(&zdr, load);
    }
}

#[test]
fn what_only_whoever_started_zdr_can_close_or_pass_on_is_told() {
    let [web, other] = [free_port(), free_port()];
    let settings =
        json!({ "sockets": [format!("tcp:127.0.0.1:{web}"), format!("tcp:127.0.0.1:{other}")], "names": "a:b" });
    let without = format!("{}ready = '/'\nbake = '0s'\n", command(&server(EVERYWHERE)));
    let list = text(&format!("web = '127.0.0.1:{web}'"));
    let zdr = launched(managed(Setup::of(&[""; 0]), &without), &settings).start();
    let told = reload_as(&zdr, &list);
    let sentence =
        format!("listener `b`: who comes to 127.0.0.1:{other} waits for nobody until whoever started zdr with it");
    assert!(told.out.contains(&sentence) && told.out.matches("waits for nobody").count() == 1, "{told:?}");
    drop(zdr);
    let zdr = launched(managed(Setup::of(&[""; 0]), &text("web = '127.0.0.1:0'")), &settings).start();
    let told = reload_as(&zdr, &without);
    let sentence =
        "`listen` has no effect before zdr is started again: the sockets of LISTEN_FDS are taken when it starts";
    assert!(told.out.contains(sentence), "{told:?}");
    assert_eq!(names(&zdr), ["web"]);
}

#[test]
fn a_listener_that_moves_is_served_at_both_places_until_the_old_one_has_drained() {
    let [from, to] = [free_port(), free_port()];
    let zdr = managed(Setup::of(&[""; 0]), &text(&format!("web = '127.0.0.1:{from}'"))).start();
    let old = tcp(&zdr, "web");
    let held = TcpStream::connect(old).unwrap();
    held.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let seen = std::thread::spawn(move || is_served_and_then_refused(old));
    reload_as(&zdr, &text(&format!("web = '127.0.0.1:{to}'")));
    assert_eq!(asked(SocketAddr::from(([127, 0, 0, 1], to)))["generation"], 2);
    drop(held);
    seen.join().unwrap();
    assert_eq!(listeners(&zdr), [("web".to_owned(), format!("127.0.0.1:{to}"))]);
}
