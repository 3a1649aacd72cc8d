//! When a generation counts as ready: by connections, messages, commands and time. HTTP is in `readiness_http.rs`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::harness::{Setup, Zdr, in_seat, sample, wait_for};
use crate::python::server;

/// Refuses the reload to this command, within the time, with these words; the first generation serves on.
#[track_caller]
pub fn refused(zdr: &Zdr, command: &[String], words: &str) {
    let told = zdr.reload_to(command);
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains(words), "{words}: {told:?}");
    assert_eq!(zdr.serving(), Some(1), "{told:?}");
}

#[test]
fn by_default_and_by_tcp_a_generation_that_accepts_nothing_is_not_ready() {
    for spec in [None, Some("tcp")] {
        let setup = Setup::of(&sample(&[])).option("--ready-timeout", "2s");
        let zdr = spec.into_iter().fold(setup, |setup, spec| setup.option("--ready", spec)).start();
        refused(&zdr, &sample(&["--bad", "hang"]), "was not ready after 2s");
        assert!(
            zdr.status()["last_verdict"]["reason"].as_str().unwrap().contains("it accepts no connection on `main`")
        );
        assert_eq!(zdr.reload_to(&sample(&["--start-after", "200ms"])).code, 0);
    }
}

#[test]
fn every_stream_listener_must_be_accepted_on() {
    let only_the_first = server("serve(listener(), lambda path: 'hello')");
    let both = server(
        "threading.Thread(target=serve, args=(listener(1), lambda path: 'two'), daemon=True).start()\n\
         serve(listener(), lambda path: 'one')",
    );
    let zdr = Setup::of(&both).listen(&["web=127.0.0.1:0", "api=127.0.0.1:0"]).option("--ready-timeout", "3s").start();
    refused(&zdr, &only_the_first, "it accepts no connection on `api`");
}

/// `say(text)`, in the words of sd_notify.
pub const SAYS_READY: &str = "
def say(text, fds=()):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(text, os.environ['NOTIFY_SOCKET'])
";

#[test]
fn notify_waits_for_ready_and_takes_it_from_its_own_processes_only() {
    let setup = Setup::of(&[""]);
    let go = setup.place("go");
    let body = format!(
        "{SAYS_READY}say(b'STATUS=loading')\nuntil('{go}')\nsay(b'STATUS=up\\nREADY=1')\nserve(listener(), lambda path: 'up')"
    );
    let zdr = setup.command(&server(&body)).option("--ready", "notify").begin();
    let socket = zdr.folder().join("admin.1.1");
    wait_for("the notify socket", || socket.exists().then_some(()));
    wait_for("the first generation", || zdr.log().contains("generation 1 started").then_some(()));
    // This test is no process of the generation.
    UnixDatagram::unbound().unwrap().send_to(b"READY=1", &socket).unwrap();
    wait_for("the message to be ignored", || {
        zdr.log().contains("does not belong to the generation was ignored").then_some(())
    });
    assert_eq!(zdr.status()["ready"], false);
    fs::write(&go, "").unwrap();
    zdr.wait_until("it to serve", |status| status["ready"] == true);
}

#[test]
fn ready_from_a_descendant_counts() {
    let body = format!(
        "{SAYS_READY}if os.fork() == 0:\n    say(b'READY=1'); time.sleep(1000)\nserve(listener(), lambda path: 'up')"
    );
    let zdr = Setup::of(&server(&body)).option("--ready", "notify").start();
    assert_eq!(zdr.get("/"), "up");
}

#[test]
fn ready_from_the_systemd_notify_program_counts() {
    let script = format!("systemd-notify --ready; exec {} sample-server", crate::harness::ZDR);
    let zdr = Setup::of(&["sh", "-c", &script]).option("--ready", "notify").start();
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn a_generation_that_never_says_ready_is_refused() {
    let says = format!("{SAYS_READY}say(b'READY=1')\nserve(listener(), lambda path: 'up')");
    let zdr = Setup::of(&server(&says)).option("--ready", "notify").option("--ready-timeout", "3s").start();
    refused(&zdr, &sample(&[]), "was not ready after 3s: it has not sent READY=1");
}

#[test]
fn without_a_spec_ready_is_enough_even_where_nothing_is_accepted_yet() {
    let body = format!("{SAYS_READY}say(b'READY=1')\ntime.sleep(0.3)\nserve(listener(), lambda path: 'up')");
    let zdr = Setup::of(&server(&body)).start();
    assert_eq!(zdr.get("/"), "up");
}

#[test]
fn a_command_decides_by_its_exit_code() {
    let setup = Setup::of(&sample(&[]));
    let marker = setup.place("good");
    fs::write(&marker, "").unwrap();
    let spec = format!("exec:test -e {marker} || exit 9");
    let zdr = setup.option("--ready", &spec).option("--ready-timeout", "2s").start();
    assert_eq!(zdr.reload().code, 0);
    fs::remove_file(zdr.folder().join("good")).unwrap();
    let told = zdr.reload();
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains("it exited with code 9") && told.error.contains("generation 2 serves on"), "{told:?}");
}

#[test]
fn a_command_knows_whom_it_asks_about() {
    let setup = Setup::of(&sample(&[]));
    let out = setup.place("out");
    let zdr = setup.option("--ready", &format!("exec:echo $ZDR_PID $ZDR_GENERATION $LISTEN_FDS > {out}")).start();
    let told = fs::read_to_string(zdr.place("out")).unwrap();
    assert_eq!(told.trim(), format!("{} 1", zdr.server_pid()));
}

#[test]
fn a_command_that_hangs_is_ended_with_all_it_started() {
    let setup = Setup::of(&sample(&[]));
    let good = setup.place("good");
    fs::write(&good, "").unwrap();
    let spec = format!("exec:test -e {good} && exit 0; sleep 1000 & setsid sleep 1000 & sleep 1000");
    let zdr = setup.option("--ready", &spec).option("--ready-limit", "200ms").option("--ready-timeout", "1s").start();
    fs::remove_file(zdr.folder().join("good")).unwrap();
    refused(&zdr, &sample(&[]), "not done within 200ms");
    let server = zdr.server_pid();
    wait_for("the end of all that the probe started", || (zdr.processes() == [server]).then_some(()));
}

#[test]
fn a_command_leaves_nothing_behind_when_its_reload_ends_first() {
    let setup = Setup::of(&sample(&[]));
    let good = setup.place("good");
    fs::write(&good, "").unwrap();
    let spec = format!("exec:test -e {good} && exit 0; sleep 1000; true");
    let zdr = setup.option("--ready", &spec).option("--ready-timeout", "2s").start();
    fs::remove_file(zdr.folder().join("good")).unwrap();
    refused(&zdr, &sample(&[]), "was not ready after 2s");
    let server = zdr.server_pid();
    wait_for("the end of all that the probe started", || (zdr.processes() == [server]).then_some(()));
}

#[test]
fn a_duration_asks_that_it_stays_up_that_long() {
    let begun = Instant::now();
    let zdr = Setup::of(&sample(&[])).option("--ready", "400ms").start();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    refused(&zdr, &["sh", "-c", "sleep 0.1; exit 5"].map(str::to_owned), "exited with code 5 before it was ready");
}

#[test]
fn where_there_is_nothing_to_ask_it_must_stay_up_for_the_startup_grace() {
    let begun = Instant::now();
    let zdr = Setup::of(&server("time.sleep(1000)"))
        .listen(&["udp://127.0.0.1:0"])
        .option("--startup-grace", "400ms")
        .start();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(in_seat(&zdr.status(), "serving"), Some(1));
}

#[test]
fn a_server_that_is_woken_only_by_a_first_word_is_ready_without_having_been_told_how() {
    let setup = Setup::of(&server("serve(listener(), lambda path: 'up')")).listen(&["127.0.0.1:0,defer-accept=30"]);
    let zdr = setup.option("--ready-timeout", "5s").start();
    assert_eq!(zdr.get("/"), "up");
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn instances_that_take_from_the_same_queues_need_not_be_first_at_all_of_them_at_once() {
    let setup = Setup::of(&sample(&[])).listen(&["127.0.0.1:0"; 8]);
    let zdr = setup.option("--instances", "6").option("--ready-timeout", "15s").start();
    assert_eq!(zdr.status()["instances"], 6);
    assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
}
