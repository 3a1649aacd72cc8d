//! Going back to the release before: at once while it is kept warm, else as it was, and with nothing lost.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::answers::{Answers, Times};
use crate::harness::{Setup, Told, ZDR, Zdr, get, in_seat, sample, seats, wait_for};
use crate::python::python;
use crate::refusal::{load, nothing_lost};

/// What `zdr status --json` says that a rollback would go to.
fn goal(zdr: &Zdr) -> Value {
    zdr.status()["rollback"].clone()
}

fn until_drained(zdr: &Zdr) {
    zdr.wait_until("the old one to be gone", |status| in_seat(status, "draining").is_none());
}

#[track_caller]
fn rolled_back(zdr: &Zdr, words: &str) -> Told {
    let told = zdr.client(&["rollback"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.contains(words), "{words}: {told:?}");
    assert_eq!(zdr.status()["last_verdict"]["cause"], "rolled_back");
    told
}

/// An executable file that is put there in one step, as a deployment does.
fn install(path: &str, text: &str) {
    let draft = format!("{path}.draft");
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&draft, path).unwrap();
}

fn point(link: &str, to: &str) {
    let draft = format!("{link}.draft");
    symlink(to, &draft).unwrap();
    fs::rename(&draft, link).unwrap();
}

#[test]
fn while_it_is_kept_warm_the_very_processes_answer_again() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "30s").start();
    assert_eq!(goal(&zdr), Value::Null);
    let old = zdr.server_pid();
    assert_eq!(zdr.reload().code, 0);
    let new = zdr.server_pid();
    assert_eq!(goal(&zdr), json!({ "generation": 1, "warm": true }));
    rolled_back(&zdr, "generation 1 serves again");
    assert_eq!((zdr.serving(), zdr.server_pid(), goal(&zdr)), (Some(1), old, Value::Null));
    assert!(zdr.get("/").contains("generation 1,"));
    until_drained(&zdr);
    assert!(!zdr.processes().contains(&new));
    // And forward again, with a number of its own.
    assert_eq!(zdr.reload().code, 0);
    assert_eq!((zdr.serving(), goal(&zdr)), (Some(3), json!({ "generation": 1, "warm": true })));
}

#[test]
fn one_can_go_back_as_far_as_there_was_something_and_then_no_further() {
    let site = |number: u16| sample(&["--bad", &format!("status:20{number}")]);
    let zdr = Setup::of(&site(1)).option("--bake", "0s").start();
    for (generation, number) in [(1, 2), (2, 3)] {
        assert_eq!(zdr.reload_to(&site(number)).code, 0);
        assert_eq!(goal(&zdr), json!({ "generation": generation, "warm": false }));
    }
    rolled_back(&zdr, "generation 4 serves after");
    assert!(zdr.get("/health").starts_with("202 from generation 4,"));
    assert_eq!(goal(&zdr), json!({ "generation": 1, "warm": false }));
    rolled_back(&zdr, "generation 5 serves after");
    assert!(zdr.get("/health").starts_with("201 from generation 5,"));
    assert_eq!(goal(&zdr), Value::Null);
    let told = zdr.client(&["rollback"]);
    assert_eq!((told.code, told.error.as_str()), (1, "zdr: there is no generation before this one to go back to\n"));
    assert_eq!(zdr.serving(), Some(5));
    // What crashes is started again as what it went back to.
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("the next one", |status| in_seat(status, "serving") == Some(6));
    assert!(zdr.get("/health").starts_with("201 from generation 6,"));
}

/// A server in Python that tells what it was started with, in a file that says which release it is.
const APP: &str = r#"
import json, os, socket, threading
BESIDE = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")).read()
NAMES, COLOUR = os.environ["LISTEN_FDNAMES"], os.environ.get("COLOUR")
TOLD = json.dumps({"release": RELEASE, "beside": BESIDE, "listeners": NAMES, "colour": COLOUR, "here": os.getcwd()}).encode()
def visit(c):
    with c:
        c.recv(4096)
        c.sendall(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (STATUS, len(TOLD)) + TOLD)
        c.shutdown(socket.SHUT_WR)
        c.recv(1)
def serve(s):
    while True:
        threading.Thread(target=visit, args=(s.accept()[0],), daemon=True).start()
for position in range(1, int(os.environ["LISTEN_FDS"])):
    threading.Thread(target=serve, args=(socket.socket(fileno=3 + position),), daemon=True).start()
serve(socket.socket(fileno=3))
"#;

/// A site with a `current` that leads to its first release, and a configuration for it.
fn site(setup: &Setup) -> String {
    for (release, status) in [("r1", 201), ("r2", 202)] {
        let folder = setup.folder().join(release);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("app.py"), format!("RELEASE = {release:?}\nSTATUS = {status}\n{APP}")).unwrap();
        fs::write(folder.join("data"), release).unwrap();
    }
    point(&setup.place("current"), &setup.place("r1"));
    fs::write(setup.place("variables"), "COLOUR=red\n").unwrap();
    let file = setup.place("zdr.toml");
    configure(&file, setup.folder(), "['web=127.0.0.1:0']", "201");
    file
}

fn configure(file: &str, folder: &Path, listeners: &str, status: &str) {
    let folder = folder.display();
    let command = format!("command = [{:?}, '{folder}/current/app.py']", python());
    let text = format!(
        "{command}\nlisten = {listeners}\nchdir = '{folder}/current'\nenv-file = '{folder}/variables'\n\
         ready = '/'\nready-status = '{status}'\nready-timeout = '5s'\nbake = '0s'\n"
    );
    fs::write(file, text).unwrap();
}

#[test]
fn one_that_is_not_kept_warm_is_started_as_it_was() {
    let setup = Setup::of(&[""; 0]).listen(&[]);
    let file = site(&setup);
    let zdr = setup.option("-c", &file).start();
    let told = |zdr: &Zdr| serde_json::from_str::<Value>(&zdr.get("/")).unwrap();
    let first = told(&zdr);
    assert_eq!((&first["release"], &first["colour"], &first["beside"]), (&"r1".into(), &"red".into(), &"r1".into()));
    let web = zdr.address();
    // All of it is another: the release, the variables, the listeners, the status that means ready.
    point(&zdr.place("current"), &zdr.place("r2"));
    fs::write(zdr.place("variables"), "COLOUR=blue\n").unwrap();
    configure(&file, zdr.folder(), "['web=127.0.0.1:0', 'more=127.0.0.1:0']", "202");
    let reloaded = zdr.reload();
    assert_eq!(reloaded.code, 0, "{reloaded:?}");
    let second = told(&zdr);
    let expected = [("release", "r2"), ("colour", "blue"), ("beside", "r2"), ("listeners", "web:more")];
    for (name, value) in expected {
        assert_eq!(second[name], value);
    }
    let status = zdr.status();
    let more = status["listeners"][1]["address"].as_str().unwrap().parse().unwrap();
    assert_eq!((get(web, "/").0, get(more, "/").0), (202, 202));
    rolled_back(&zdr, "generation 3 serves after");
    assert_eq!(told(&zdr), first);
    until_drained(&zdr);
    wait_for("the other listener to be closed", || TcpStream::connect(more).is_err().then_some(()));
    // A reload takes what is there now.
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(told(&zdr)["release"], "r2");
}

#[test]
fn a_release_that_is_deleted_cannot_be_gone_back_to_and_the_new_one_serves_on() {
    let setup = Setup::of(&[""; 0]).listen(&[]);
    let file = site(&setup);
    let zdr = setup.option("-c", &file).start();
    point(&zdr.place("current"), &zdr.place("r2"));
    configure(&file, zdr.folder(), "['web=127.0.0.1:0']", "202");
    assert_eq!(zdr.reload().code, 0);
    let load = load(&zdr, 2, 0);
    fs::remove_dir_all(zdr.place("r1")).unwrap();
    let told = zdr.client(&["rollback"]);
    assert_eq!(told.code, 3, "{told:?}");
    let reason = format!(
        "generation 3 could not be started: the release directory {} is gone; generation 2 serves on",
        zdr.place("r1")
    );
    assert!(told.error.contains(&reason), "{told:?}");
    assert_eq!(zdr.serving(), Some(2));
    nothing_lost(&zdr, load);
}

#[test]
fn the_very_file_that_was_executed_is_executed_again() {
    let setup = Setup::of(&[""]).option("--bake", "0s").option("--ready", "tcp");
    let program = setup.place("server");
    let script =
        |status: u16| format!("#!/bin/sh\nexec {} \"$@\"\n", sample(&["--bad", &format!("status:{status}")]).join(" "));
    install(&program, &script(201));
    let zdr = setup.command(&[&program]).start();
    install(&program, &script(202));
    assert_eq!(zdr.reload().code, 0);
    // A binary, and then a script in its place that says that it is one.
    let draft = zdr.place("binary");
    fs::copy(ZDR, &draft).unwrap();
    fs::rename(&draft, &program).unwrap();
    let options = ["sample-server", "--bad", "status:203"];
    let command: Vec<&str> = [program.as_str()].into_iter().chain(options).collect();
    assert_eq!(zdr.reload_to(&command).code, 0);
    assert!(zdr.get("/health").starts_with("203 from generation 3,"));
    install(&program, &script(204));
    assert_eq!(zdr.reload_to(&[&program]).code, 0);
    assert!(zdr.get("/health").starts_with("204 from generation 4,"));
    for (generation, status) in [(5, 203), (6, 202), (7, 201)] {
        rolled_back(&zdr, &format!("generation {generation} serves after"));
        assert!(
            zdr.get("/health").starts_with(&format!("{status} from generation {generation},")),
            "{}",
            zdr.get("/health")
        );
    }
}

#[test]
fn during_a_reload_the_reload_is_given_up_and_who_asked_for_it_is_told() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "0s").option("--ready", "/health").start();
    assert_eq!(zdr.reload().code, 0);
    let load = load(&zdr, 3, 3);
    let words: Vec<String> =
        ["reload", "--"].map(str::to_owned).into_iter().chain(sample(&["--bad", "hang"])).collect();
    let reload = zdr.client_in_background(&words);
    zdr.wait_until("it to start", |status| in_seat(status, "starting") == Some(3));
    assert_eq!(goal(&zdr), json!({ "generation": 2, "warm": true }));
    let told = zdr.client(&["rollback"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.contains("generation 2 serves on, and generation 3 is given up"), "{told:?}");
    let told: Told = reload.wait_with_output().unwrap().into();
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains("generation 3 is given up for a rollback; generation 2 serves on"), "{told:?}");
    assert_eq!(goal(&zdr), json!({ "generation": 1, "warm": false }));
    until_drained(&zdr);
    assert_eq!(zdr.processes(), [zdr.server_pid()]);
    nothing_lost(&zdr, load);
}

#[test]
fn while_nothing_serves_nobody_waits_for_what_starts() {
    let setup = Setup::of(&sample(&["--bad", "status:201"])).option("--bake", "0s").option("--ready", "/health");
    let bad = setup.place("bad");
    let (good, hangs) = (sample(&["--bad", "status:202"]).join(" "), sample(&["--bad", "hang"]).join(" "));
    let zdr = setup.start();
    let script = format!("test -e {bad} && exec {hangs}; exec {good}");
    assert_eq!(zdr.reload_to(&["sh", "-c", &script]).code, 0);
    fs::write(&bad, "").unwrap();
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("it to be started again", |status| in_seat(status, "starting") == Some(3));
    let address = zdr.address();
    let waits = std::thread::spawn(move || get(address, "/health"));
    zdr.wait_until("a client to wait", |status| status["listeners"][0]["queue"].as_u64() > Some(0));
    assert_eq!(goal(&zdr), json!({ "generation": 1, "warm": false }));
    rolled_back(&zdr, "generation 4 serves after");
    let (status, body) = waits.join().unwrap();
    assert_eq!(status, 201, "{body}\n{}", zdr.log());
}

#[test]
fn fifty_reloads_and_rollbacks_under_load_lose_nothing() {
    for keep in ["30s", "0s"] {
        let zdr = Setup::of(&sample(&["--work", "2ms"]))
            .option("--bake", "0s")
            .option("--bake-keep", keep)
            .option("--ready", "/health")
            .start();
        let load = load(&zdr, 4, 4);
        for _ in 0..25 {
            let told = zdr.reload();
            assert_eq!(told.code, 0, "{told:?}");
            let old = goal(&zdr);
            assert_eq!(old["warm"], keep == "30s");
            let told = zdr.client(&["rollback"]);
            assert_eq!(told.code, 0, "{told:?}");
            assert_eq!(zdr.serving() == old["generation"].as_u64(), keep == "30s", "{old}");
        }
        nothing_lost(&zdr, load);
        until_drained(&zdr);
        assert_eq!(seats(&zdr.status()).count(), 1);
    }
}

#[test]
fn the_first_answer_of_one_that_is_kept_warm_comes_in_no_time() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "0s").option("--bake-keep", "1m").start();
    let answers = Answers::watch(zdr.address());
    let times: Vec<_> = (0..5).map(|_| answers.warm_rollbacks(&zdr)).collect();
    // Other tests want the processors as well; `tests/measure rollback` tells how long it takes.
    for of in [|times: &Times| times.asked, |times: &Times| times.commanded] {
        let least = times.iter().map(of).min().unwrap();
        assert!(least < Duration::from_millis(50), "{least:?}");
    }
}
