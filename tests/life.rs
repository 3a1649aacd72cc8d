//! Crashes, restarts and the end.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{DEADLINE, Setup, Zdr, in_seat, sample, wait_for};
use crate::load::report::Failure;
use crate::python::server;
use crate::refusal::{load, nothing_lost};

#[test]
fn clients_that_connect_while_the_server_is_dead_wait_and_are_answered() {
    let zdr = Setup::of(&sample(&["--start-after", "300ms"])).start();
    let address = zdr.address();
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).expect("no connection is refused")).collect();
    for mut client in clients {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(client, "GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("200 from generation 2,"), "{answer}");
    }
    assert_eq!(zdr.status()["crashes"], 1);
}

#[test]
fn a_killed_server_costs_only_what_it_had_in_hand() {
    let zdr = Setup::of(&sample(&["--work", "2ms"])).start();
    let load = load(&zdr, 4, 0);
    for generation in 2..5 {
        kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
        zdr.wait_until("the next to serve", |status| in_seat(status, "serving") == Some(generation));
    }
    assert!(load.wait_for_answers(20, DEADLINE));
    let report = load.stop();
    let failures = &report.new_connection.failures;
    assert!(failures.keys().all(|kind| matches!(kind, Failure::Reset | Failure::Closed | Failure::Short)), "{report}");
    // Each of the four clients can have had one request in the dead server's hands, three times.
    assert!(report.failed() <= 12, "{report}");
}

#[test]
fn a_server_that_keeps_dying_is_started_again_more_and_more_slowly() {
    let begun = Instant::now();
    let mut zdr = Setup::of(&["sh", "-c", "sleep 0.05; exit 1"]).option("--ready", "10ms").begin();
    wait_for("five deaths", || (zdr.log().matches("while serving").count() >= 5).then_some(()));
    // 0, 100, 200 and 400 ms lie between them.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{}", zdr.log());
    assert!(zdr.log().contains("trying again in 400.0ms"), "{}", zdr.log());
    zdr.signal(Signal::SIGTERM);
    assert_eq!(zdr.ended().code(), Some(0));
}

#[test]
fn a_server_that_never_serves_ends_zdr_after_five_failures() {
    let mut zdr = Setup::of(&["sh", "-c", "exit 7"]).begin();
    assert_eq!(zdr.ended().code(), Some(1));
    assert_eq!(zdr.log().matches("exited with code 7 before it was ready").count(), 5, "{}", zdr.log());
}

#[test]
fn a_restart_loses_no_connection() {
    let zdr = Setup::of(&sample(&["--start-after", "100ms"])).start();
    let load = load(&zdr, 4, 0);
    for generation in 2..5 {
        let told = zdr.client(&["restart"]);
        assert_eq!(told.code, 0, "{told:?}");
        assert_eq!(zdr.serving(), Some(generation));
    }
    nothing_lost(&zdr, load);
}

#[test]
fn a_restart_ends_the_old_one_before_the_next_begins() {
    let setup = Setup::of(&[""]);
    let lock = setup.place("lock");
    let alone = server(&format!(
        "
os.mkdir('{lock}')
def end(*_):
    time.sleep(0.1)
    os.rmdir('{lock}')
    os._exit(0)
signal.signal(signal.SIGTERM, end)
serve(listener(), lambda path: 'alone')
"
    ));
    let zdr = setup.command(&alone).start();
    assert_eq!(zdr.client(&["restart"]).code, 0);
    assert_eq!(zdr.serving(), Some(2));
}

#[test]
fn term_int_and_the_stop_command_end_zdr_and_all_that_it_started() {
    let ends: [fn(&Zdr); 3] = [
        |zdr| zdr.signal(Signal::SIGTERM),
        |zdr| zdr.signal(Signal::SIGINT),
        |zdr| {
            let told = zdr.client(&["stop"]);
            assert_eq!(told.code, 0, "{told:?}");
        },
    ];
    for end in ends {
        let mut zdr = Setup::of(&sample(&[])).start();
        end(&zdr);
        assert_eq!(zdr.ended().code(), Some(0), "{}", zdr.log());
        assert!(zdr.processes().is_empty());
        assert!(!zdr.admin().exists() && !zdr.folder().join("admin.lock").exists());
    }
}

#[test]
fn a_stop_lets_a_request_finish() {
    let mut zdr = Setup::of(&server("serve(listener(), lambda path: time.sleep(0.4) or 'finished')")).start();
    let address = zdr.address();
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET / HTTP/1.0\r\n\r\n").unwrap();
    zdr.wait_until("the request to be in flight", |status| status["in_flight"] == 1);
    zdr.signal(Signal::SIGTERM);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("finished"), "{answer}\n{}", zdr.log());
    assert_eq!(zdr.ended().code(), Some(0));
}

#[test]
fn a_stop_asked_for_twice_comes_at_once() {
    let stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nserve(listener(), lambda path: 'here')";
    let mut zdr = Setup::of(&server(stubborn)).option("--drain-timeout", "1000s").start();
    zdr.signal(Signal::SIGTERM);
    zdr.wait_until("the stop", |status| status["state"] == "stopping");
    zdr.signal(Signal::SIGTERM);
    assert_eq!(zdr.ended().code(), Some(0));
    assert!(zdr.processes().is_empty());
}

#[test]
fn a_stop_while_a_generation_starts_ends_both() {
    let mut zdr = Setup::of(&sample(&[])).start();
    let words: Vec<String> =
        ["reload", "--"].map(str::to_owned).into_iter().chain(sample(&["--bad", "hang"])).collect();
    let reload = zdr.client_in_background(&words);
    zdr.wait_until("it to start", |status| in_seat(status, "starting") == Some(2));
    zdr.signal(Signal::SIGTERM);
    let told: crate::harness::Told = reload.wait_with_output().unwrap().into();
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.error.contains("zdr is stopping"), "{told:?}");
    assert_eq!(zdr.ended().code(), Some(0));
    assert!(zdr.processes().is_empty());
}

#[test]
fn a_lame_duck_says_that_it_is_not_ready_and_serves_on() {
    let mut zdr = Setup::of(&sample(&[])).option("--lame-duck", "1000s").start();
    zdr.signal(Signal::SIGTERM);
    zdr.wait_until("the stop", |status| status["state"] == "stopping");
    let said = zdr.ask_raw("GET /health/ready HTTP/1.0\r\n\r\n");
    assert!(said.starts_with("HTTP/1.0 503") || said.starts_with("HTTP/1.1 503"), "{said}");
    assert!(zdr.get("/").contains("generation 1,"));
    zdr.signal(Signal::SIGTERM);
    assert_eq!(zdr.ended().code(), Some(0));
}

/// State and parent of every process, as `/proc/PID/stat` has them.
fn zombies_of(parent: i32) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_one = |stat: &String| {
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let mut fields = after_name.split(' ');
        fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
    };
    stats.filter(is_one).count()
}

#[test]
fn orphans_are_reaped() {
    let orphans = "
for _ in range(30):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.1)
        os._exit(0)
    os.wait()
serve(listener(), lambda path: 'hello')
";
    let zdr = Setup::of(&server(orphans)).start();
    wait_for("no zombie and no orphan", || (zombies_of(zdr.pid()) == 0 && zdr.processes().len() == 1).then_some(()));
}

#[test]
fn zdr_works_as_the_first_process_of_a_container() {
    let mut zdr =
        Setup::of(&sample(&[])).through(&["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]).start();
    assert_eq!(zdr.status()["pid"], 1);
    let load = load(&zdr, 2, 2);
    for _ in 0..3 {
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}");
    }
    assert!(zdr.get("/").contains("generation 4,"));
    nothing_lost(&zdr, load);
    assert_eq!(zdr.client(&["stop"]).code, 0);
    assert_eq!(zdr.ended().code(), Some(0));
}

/// The log goes through a shell that reads one line of it, or none, and then does this.
fn logged_to(reader: &str) -> Setup {
    let script = format!("\"$@\" 2>&1 | {reader}");
    Setup::of(&sample(&[])).flag("--verbose").option("--bake", "0s").through(&["sh", "-c", &script, "sh"])
}

#[test]
fn a_log_that_nobody_reads_any_more_does_not_end_zdr() {
    let zdr = logged_to("head -n 1").start();
    for _ in 0..3 {
        assert_eq!(zdr.reload().code, 0);
    }
    assert_eq!(zdr.client(&["stop"]).code, 0);
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_zdr_up() {
    let zdr = logged_to("sleep 15").start();
    // More lines than fit into the pipe, while whoever has it sleeps.
    for _ in 0..60 {
        assert_eq!(zdr.client(&["reload", "--timeout", "5s"]).code, 0);
    }
    assert_eq!(zdr.client(&["stop"]).code, 0);
}
