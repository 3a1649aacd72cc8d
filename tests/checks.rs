//! Checks of the user's, as somebody sees them who looks at health: what they say, when they run, and what they leave behind.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Setup, Zdr, sample, wait_for, zdr};

fn with(checks: &[&str]) -> Setup {
    checks.iter().fold(Setup::of(&sample(&[])), |setup, check| setup.option("--check", check))
}

/// The full health answer and its code.
fn health(zdr: &Zdr) -> (u16, Value) {
    let answer = zdr.ask_raw("GET /health HTTP/1.0\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// A check as health shows it.
fn check(zdr: &Zdr, name: &str) -> Value {
    health(zdr).1["checks"][name].clone()
}

/// State and message.
#[track_caller]
fn says(zdr: &Zdr, name: &str, state: &str, message: &str) {
    let found = check(zdr, name);
    assert_eq!((found["state"].as_str(), found["message"].as_str()), (Some(state), Some(message)), "{found}");
}

/// Answers every request with this, on a port that the kernel chooses.
fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            let _ = client.write_all(answer.as_bytes());
        }
    });
    port
}

#[test]
fn every_kind_of_question_can_be_a_check() {
    let good = answering("HTTP/1.0 200 OK\r\n\r\n{\"status\":\"UP\"}");
    let bad = answering("HTTP/1.0 503 No\r\n\r\n{\"message\":\"no route to the database\"}");
    let silent = answering("");
    let zdr = with(&[
        "path=/health,interval=1h",
        "tcp=tcp",
        &format!("good=http://localhost:{good}/"),
        &format!("bad=http://127.0.0.1:{bad}/,critical"),
        &format!("silent=http://127.0.0.1:{silent}/"),
        "exec=exec:echo one; echo two, three >&2",
        "fails=exec:echo disk is full; exit 3",
    ])
    .start();
    let (status, report) = health(&zdr);
    assert_eq!((status, report["status"].as_str()), (503, Some("unhealthy")), "{report}");
    says(&zdr, "path", "healthy", &format!("200 from generation 1, pid {}", zdr.server_pid()));
    says(&zdr, "tcp", "healthy", "accepts connections");
    says(&zdr, "good", "healthy", "UP");
    says(&zdr, "bad", "unhealthy", "no route to the database");
    says(&zdr, "silent", "degraded", "connection closed before an answer");
    says(&zdr, "exec", "healthy", "two, three");
    says(&zdr, "fails", "degraded", "disk is full");
    let bad = &report["checks"]["bad"];
    assert_eq!((&bad["critical"], &report["checks"]["path"]["critical"]), (&true.into(), &false.into()));
    assert!((0.0..20.0).contains(&bad["age_secs"].as_f64().unwrap()));
    assert_eq!(zdr.status()["checks"]["fails"]["message"], "disk is full", "status is the same report");
}

#[test]
fn one_that_fails_and_is_not_critical_only_degrades_and_each_change_is_told() {
    let setup = with(&[]);
    let marker = setup.place("good");
    let spec = format!("disk=exec:test -e {marker} && echo fine || {{ echo full; exit 1; }},interval=100ms");
    let zdr = setup.option("--check", &spec).start();
    let (status, report) = health(&zdr);
    assert_eq!((status, &report["status"], &report["ready"]), (200, &"degraded".into(), &true.into()));
    fs::write(&marker, "").unwrap();
    wait_for("it to be well", || (health(&zdr).1["status"] == "healthy").then_some(()));
    wait_for("the story", || {
        let log = zdr.log();
        (log.contains("check disk is degraded: full") && log.contains("check disk is healthy: fine")).then_some(())
    });
}

#[test]
fn one_that_crashes_prints_megabytes_bytes_that_are_no_text_or_nothing_is_told_as_such() {
    let zdr = with(&[
        "killed=exec:kill -9 $$",
        "crashed=exec:echo last words; kill -SEGV $$",
        "much=exec:yes something long and useless | head -c 5000000; echo; echo the end",
        "endless=exec:yes | tr -d '\\n',timeout=300ms",
        "binary=exec:head -c 300000 /dev/urandom; printf '\\n\\377\\000\\033[31mred\\007\\n\\n'",
        "nothing=exec:true",
        "fails=exec:exit 4",
        "missing=exec:/no/such/program",
    ])
    .start();
    let done =
        |zdr: &Zdr| health(zdr).1["checks"].as_object().unwrap().values().all(|at| at["message"] != "not checked yet");
    wait_for("all of them", || done(&zdr).then_some(()));
    says(&zdr, "killed", "degraded", "was killed by signal 9 (KILL)");
    says(&zdr, "crashed", "degraded", "was killed by signal 11 (SEGV): last words");
    says(&zdr, "much", "healthy", "the end");
    says(&zdr, "endless", "degraded", "no answer within 300ms");
    says(&zdr, "binary", "healthy", "\u{fffd}red");
    says(&zdr, "nothing", "healthy", "exited with code 0");
    says(&zdr, "fails", "degraded", "exited with code 4");
    assert!(check(&zdr, "missing")["message"].as_str().unwrap().contains("not found"));
}

#[test]
fn what_a_check_leaves_behind_is_ended_and_so_is_one_that_takes_too_long() {
    let zdr = with(&[
        "child=exec:sleep 1000 & echo left,interval=1h",
        "daemon=exec:setsid sh -c 'sleep 1000 & sleep 1000' & (setsid sleep 1000 >/dev/null 2>&1 &) ; echo left,interval=1h",
        "slow=exec:sleep 1000 & setsid sleep 1000 & sleep 1000; true,timeout=200ms,interval=1h",
    ])
    .start();
    let server = zdr.server_pid();
    wait_for("all of them", || (check(&zdr, "slow")["message"] == "no answer within 200ms").then_some(()));
    says(&zdr, "child", "healthy", "left");
    says(&zdr, "daemon", "healthy", "left");
    wait_for("the end of all that they started", || (zdr.processes() == [server]).then_some(()));
}

/// With the times of its runs in a file; a second one at once would leave a mark.
fn counted(setup: &Setup, options: &str) -> String {
    let (runs, lock, twice) = (setup.place("runs"), setup.place("lock"), setup.place("twice"));
    format!("a=exec:mkdir {lock} || touch {twice}; echo run >> {runs}; sleep 0.05; rmdir {lock}{options}")
}

fn runs(zdr: &Zdr) -> usize {
    fs::read_to_string(zdr.place("runs")).unwrap_or_default().lines().count()
}

#[test]
fn a_check_never_runs_twice_at_once_and_goes_on_running_after_a_look() {
    let setup = with(&[]);
    let spec = counted(&setup, ",interval=100ms");
    let zdr = setup.option("--check", &spec).start();
    assert_eq!(runs(&zdr), 0, "nobody has looked");
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| (0..20).for_each(|_| drop(health(&zdr))))));
    });
    wait_for("ten runs without another look", || (runs(&zdr) >= 10).then_some(()));
    assert!(!zdr.folder().join("twice").exists());
}

#[test]
fn an_answer_is_kept_for_its_interval() {
    let setup = with(&[]);
    let spec = counted(&setup, ",interval=1h");
    let zdr = setup.option("--check", &spec).start();
    (0..20).for_each(|_| drop(health(&zdr)));
    assert_eq!(runs(&zdr), 1);
    let age = check(&zdr, "a")["age_secs"].as_f64().unwrap();
    wait_for("it to age", || (check(&zdr, "a")["age_secs"].as_f64().unwrap() > age).then_some(()));
}

#[test]
fn while_every_check_hangs_health_answers_and_counts_and_reloads_go_on() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/,timeout=200ms,interval=100ms", silent.local_addr().unwrap());
    let mut checks: Vec<String> = (0..32).map(|number| format!("http{number}={url}")).collect();
    checks.extend((0..16).map(|number| format!("exec{number}=exec:sleep 1000,timeout=1h")));
    let zdr = with(&checks.iter().map(String::as_str).collect::<Vec<_>>()).option("--bake", "0s").start();
    assert_eq!(health(&zdr).1["checks"]["exec3"]["message"], "not checked yet", "a first look waits a second");
    let _client = std::net::TcpStream::connect(zdr.address()).unwrap();
    zdr.wait_until("the connection to be counted", |status| status["connections"] == 1);
    assert_eq!(zdr.reload().code, 0);
    says(&zdr, "http7", "degraded", "no answer within 200ms");
    assert!(zdr.status()["checks"]["exec3"]["age_secs"].is_number());
}

#[test]
fn a_check_that_hangs_keeps_no_look_waiting() {
    let zdr = with(&["a=exec:sleep 1000,timeout=100ms,interval=100ms"]).start();
    says(&zdr, "a", "degraded", "no answer within 100ms");
    let begun = Instant::now();
    (0..50).for_each(|_| drop(health(&zdr)));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_reload_ends_no_check_and_commands_know_whom_they_are_asked_about() {
    let setup = with(&[]);
    let (go, too, begun) = (setup.place("go"), setup.place("too"), setup.place("begun"));
    let until = |file: &str| format!("until test -e {file}; do sleep 0.01; done");
    let (until_go, until_too) = (until(&go), until(&too));
    // A part of it has lost its parent.
    let orphan = format!("( ( {until_go}; touch {too} ) & )");
    let spec = format!("a=exec:{orphan}; touch {begun}; {until_too}; echo done,timeout=1m,interval=1h");
    let zdr = setup
        .option("--check", &spec)
        .option("--check", "who=exec:echo $ZDR_GENERATION $ZDR_PID $LISTEN_FDS $NOTIFY_SOCKET,interval=100ms")
        .option("--bake", "0s")
        .start();
    says(&zdr, "who", "healthy", &format!("1 {}", zdr.server_pid()));
    wait_for("it to begin", || fs::exists(&begun).unwrap().then_some(()));
    assert_eq!(zdr.reload().code, 0);
    zdr.wait_until("the old one to be gone", |status| status["generations"].as_array().unwrap().len() == 1);
    fs::write(&go, "").unwrap();
    wait_for("its answer", || (check(&zdr, "a")["message"] == "done").then_some(()));
    let now = format!("2 {}", zdr.server_pid());
    wait_for("it to be asked of the new one", || (check(&zdr, "who")["message"] == now.as_str()).then_some(()));
}

#[test]
fn what_a_check_uses_is_not_what_the_server_uses() {
    let setup = with(&[]);
    let script = setup.place("script.py");
    fs::write(&script, "import time\nmuch = b'x' * 200_000_000\nprint('done', flush=True)\ntime.sleep(1000)\n")
        .unwrap();
    let zdr = setup.option("--check", &format!("a=exec:{} {script},timeout=1h", crate::python::python())).start();
    wait_for("it to use much", || {
        let pids = zdr.processes();
        let sizes = pids.iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/statm")).ok());
        let pages = sizes.filter_map(|sizes| sizes.split(' ').nth(1)?.parse::<u64>().ok()).max();
        // Looked at again, so that it goes on.
        health(&zdr);
        pages.is_some_and(|pages| pages * 4096 > 200_000_000).then_some(())
    });
    assert!(zdr.status()["memory_bytes"].as_u64().unwrap() < 100_000_000, "{}", zdr.status());
}

#[test]
fn checks_are_asked_while_nothing_serves_and_end_with_zdr() {
    let setup = Setup::of(&sample(&["--bad", "hang"])).option("--check", "who=exec:echo [$ZDR_PID]");
    let mut zdr = setup.option("--check", "slow=exec:sleep 1000,timeout=1h").option("--drain-timeout", "1s").begin();
    wait_for("the admin socket", || zdr.log().contains("generation 1 started").then_some(()));
    says(&zdr, "who", "healthy", "[]");
    zdr.signal(nix::sys::signal::Signal::SIGTERM);
    zdr.ended();
    wait_for("the end of the check", || zdr.processes().is_empty().then_some(()));
}

/// In a network of its own, where the only resolver takes questions and never answers.
fn with_a_silent_resolver(setup: Setup) -> Setup {
    let resolver = setup.place("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:30 attempts:2\n").unwrap();
    let silent = "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 53)); \
                  print('up', flush=True); time.sleep(1000)";
    let script = format!(
        "ip link set lo up && mount --bind {resolver} /etc/resolv.conf && \
         {{ {} -I -S -c \"{silent}\" | {{ read up; exec cat; }} & }} && exec \"$@\"",
        crate::python::python()
    );
    setup.through(&["unshare", "-rmn", "sh", "-c", &script, "sh"])
}

/// The threads on which something is asked.
fn asking(zdr: &Zdr) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", zdr.pid())).unwrap().flatten();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.trim() == "zdr-asks").count()
}

#[test]
fn a_resolver_that_does_not_answer_hangs_nothing_but_its_own_check() {
    let setup = with(&["dns=http://nowhere.example:1/,timeout=300ms,interval=100ms", "other=exec:echo fine"]);
    let zdr = with_a_silent_resolver(setup).start();
    wait_for("it to hang", || (check(&zdr, "dns")["message"] == "no answer within 300ms").then_some(()));
    let begun = Instant::now();
    (0..50).for_each(|_| says(&zdr, "other", "healthy", "fine"));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(asking(&zdr), 1, "many intervals are over, and one thread still waits");
}

#[test]
fn a_resolver_that_does_not_answer_a_probe_is_not_asked_again_and_again() {
    let setup = Setup::of(&sample(&[])).option("--ready", "http://nowhere.example:1/").option("--ready-limit", "20ms");
    let zdr = with_a_silent_resolver(setup.option("--ready-interval", "10ms")).begin();
    wait_for("it to hang", || zdr.log().contains("no answer from the resolver").then_some(()));
    let begun = Instant::now();
    wait_for("many probes", || (begun.elapsed() > Duration::from_millis(500)).then_some(()));
    assert_eq!(asking(&zdr), 1);
}

#[test]
fn a_wrong_check_is_refused_before_anything_is_started() {
    for (options, words) in [
        (&["--check", "db"][..], "write NAME=SPEC"),
        (&["--check", "db=notify"], "`notify` cannot be asked"),
        (&["--check", "db=2s"], "`2s` cannot be asked"),
        (&["--check", "serving=tcp"], "the name of a check of zdr's own"),
        (&["--check", "db=tcp,interval=0s"], "should be from 100ms to 1day"),
        (&["--check", "db=tcp", "--check", "db=/x"], "two checks are called `db`"),
        (&["--live", "notify"], "`notify` cannot be asked"),
        (&["--live-interval", "1ms"], "should be from 100ms to 1day"),
        (&["--live-failures", "0"], "0 is not in 1..=1000"),
        (&["--watchdog", "soon"], "is no duration"),
        (&["--listen", "udp://127.0.0.1:0", "--check", "db=tcp"], "--check db=tcp needs a TCP or Unix listener"),
        (&["--listen", "udp://127.0.0.1:0", "--live", "/up"], "--live /up needs a TCP or Unix listener"),
    ] {
        let told = zdr(&[&["run"], options, &["--", "true"]].concat());
        assert_eq!(told.code, 2, "{told:?}");
        assert!(told.error.contains(words), "{words}: {told:?}");
    }
}
