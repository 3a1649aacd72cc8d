//! Several instances: all of them serve, each is known by its number, and one that dies is replaced alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{DEADLINE, Setup, Zdr, in_seat, sample, seats, wait_for};
use crate::load::report::Failure;
use crate::python::server;
use crate::refusal::{load, nothing_lost};

/// Tells which instance it is.
const NUMBERED: &str = "serve(listener(), lambda path: os.environ['ZDR_INSTANCE'])";

/// The instances of the serving generation: number, process, state.
pub fn serving_instances(status: &Value) -> Vec<(u64, i32, String)> {
    let seat = seats(status).find(|seat| seat["seat"] == "serving");
    let rows = seat.and_then(|seat| seat["instances"].as_array()).into_iter().flatten();
    let pid = |row: &Value| row["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
    rows.map(|row| (row["instance"].as_u64().unwrap(), pid(row), row["state"].as_str().unwrap().to_owned())).collect()
}

/// Waits until so many serve.
pub fn wait_for_serving(zdr: &Zdr, many: usize) -> Vec<(u64, i32, String)> {
    let all = |status: &Value| {
        let its = serving_instances(status);
        its.len() == many && its.iter().all(|(_, _, state)| state == "serving")
    };
    serving_instances(&zdr.wait_until(&format!("{many} instances to serve"), all))
}

/// Kills the instance with this number.
fn kill_instance(zdr: &Zdr, number: u64) -> i32 {
    let its = serving_instances(&zdr.status());
    let (_, pid, _) = its.iter().find(|(other, ..)| *other == number).unwrap();
    kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    *pid
}

#[test]
fn all_instances_serve_and_each_knows_its_number() {
    for queue in ["shared", "per-instance"] {
        let body = "serve(listener(), lambda path: json.dumps([sys.argv[1], os.environ['ZDR_INSTANCE'], os.environ['GIVEN'], \
                    os.environ['LISTEN_PID'] == str(os.getpid()), os.environ['NOTIFY_SOCKET']]))";
        let mut command = server(body);
        command.push("at-{instance}".to_owned());
        let setup = Setup::of(&command).option("-n", "4").option("--queue", queue).option("--env", "GIVEN={instance}");
        let zdr = setup.start();
        let mut seen = BTreeSet::new();
        wait_for("an answer of each", || {
            seen.insert(zdr.get("/"));
            (seen.len() >= 4).then_some(())
        });
        let told: Vec<Value> = seen.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let numbers: Vec<&str> = told.iter().map(|told| told[1].as_str().unwrap()).collect();
        assert_eq!(numbers, ["1", "2", "3", "4"], "{queue}");
        for told in &told {
            let number = told[1].as_str().unwrap();
            assert_eq!((&told[0], &told[2]), (&format!("at-{number}").into(), &number.into()));
            assert_eq!(told[3], true, "LISTEN_PID names each process itself");
        }
        let sockets: BTreeSet<&str> = told.iter().map(|told| told[4].as_str().unwrap()).collect();
        assert_eq!(sockets.len(), 4, "each has a notify socket of its own");
    }
}

#[test]
fn reloads_of_several_instances_under_load_lose_nothing() {
    for queue in ["shared", "per-instance"] {
        let setup = Setup::of(&sample(&["--work", "2ms"])).option("-n", "4").option("--queue", queue);
        let zdr = setup.option("--bake", "50ms").start();
        let load = load(&zdr, 4, 4);
        for generation in 2..8 {
            let told = zdr.reload();
            assert_eq!(told.code, 0, "{told:?}");
            let status = zdr.status();
            assert_eq!(in_seat(&status, "serving"), Some(generation));
            assert_eq!(serving_instances(&status).len(), 4, "{status}");
        }
        nothing_lost(&zdr, load);
    }
}

#[test]
fn one_that_dies_is_replaced_alone() {
    for queue in ["shared", "per-instance"] {
        let zdr = Setup::of(&sample(&[])).option("-n", "3").option("--queue", queue).start();
        let before = wait_for_serving(&zdr, 3);
        let load = load(&zdr, 4, 0);
        let dead = kill_instance(&zdr, 2);
        let after = serving_instances(&zdr.wait_until("another number 2", |status| {
            let its = serving_instances(status);
            its.len() == 3 && its[1].1 != dead && its.iter().all(|(_, _, state)| state == "serving")
        }));
        assert_eq!((&after[0], &after[2]), (&before[0], &before[2]), "{queue}");
        assert_eq!((zdr.serving(), after[1].0), (Some(1), 2));
        assert_eq!(zdr.status()["crashes"], 1);
        let report = load.stop();
        let cut = |failure: &Failure| matches!(failure, Failure::Reset | Failure::Closed | Failure::Short);
        assert!(report.new_connection.failures.keys().all(cut), "{queue}: {report}");
        assert!(report.failed() <= 4, "{queue}: no more than each client had under way: {report}");
    }
}

/// Asks on a new connection, and leaves the answer for later.
fn asks(zdr: &Zdr) -> TcpStream {
    let mut client = TcpStream::connect(zdr.address()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(client, "GET / HTTP/1.0\r\n\r\n").unwrap();
    client
}

fn answer(mut client: TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_waits_in_the_own_queue_of_one_that_dies_is_answered_by_the_next_of_its_number() {
    let zdr = Setup::of(&server(NUMBERED)).option("-n", "2").option("--queue", "per-instance").start();
    let before = wait_for_serving(&zdr, 2);
    kill(Pid::from_raw(before[1].1), Signal::SIGSTOP).unwrap();
    let clients: Vec<TcpStream> = (0..40).map(|_| asks(&zdr)).collect();
    kill(Pid::from_raw(before[1].1), Signal::SIGKILL).unwrap();
    let answers: Vec<String> = clients.into_iter().map(answer).collect();
    assert!(answers.iter().all(|answer| answer.contains("200 OK")), "{answers:?}");
    let of_the_second = answers.iter().filter(|answer| answer.ends_with('2')).count();
    assert!(of_the_second > 0, "both queues have had some: {answers:?}");
    assert_eq!(wait_for_serving(&zdr, 2)[0], before[0]);
}

/// Instance 2 notes each of its starts, and from the second on it ends at once.
#[test]
fn one_that_cannot_be_started_again_is_tried_more_and_more_slowly_while_the_others_serve() {
    let setup = Setup::of(&[""]).option("-n", "3");
    let starts = setup.place("starts");
    let body = format!(
        "if os.environ['ZDR_INSTANCE'] == '2':
    with open('{starts}', 'a+') as noted:
        noted.write('x')
        noted.flush()
        if noted.tell() > 1: sys.exit(9)
{NUMBERED}"
    );
    let zdr = setup.command(&server(&body)).start();
    let load = load(&zdr, 2, 0);
    let before = wait_for_serving(&zdr, 3);
    kill_instance(&zdr, 2);
    let count = || fs::read(&starts).unwrap().len();
    wait_for("five starts", || (count() >= 5).then_some(()));
    let begun = std::time::Instant::now();
    wait_for("the sixth start", || (count() >= 6).then_some(()));
    assert!(begun.elapsed() > Duration::from_millis(500), "800 ms lie between the fifth and the sixth");
    let after = serving_instances(&zdr.status());
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert!(
        zdr.log().contains("instance 2 of generation 1") && zdr.log().contains("exited with code 9"),
        "{}",
        zdr.log()
    );
    let report = load.stop();
    // What the killed one had in hand.
    assert!(report.failed() <= 2, "{report}");
}

#[test]
fn what_one_says_makes_no_other_ready() {
    let setup = Setup::of(&[""]).option("-n", "2").option("--ready", "notify");
    let go = setup.place("go");
    let body = format!(
        "def say(words):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(words, os.environ['NOTIFY_SOCKET'])
until('{go}.' + os.environ['ZDR_INSTANCE'])
say(b'READY=1')
{NUMBERED}"
    );
    let zdr = setup.command(&server(&body)).begin();
    wait_for("both to start", || zdr.log().contains("instance 2 of generation 1 started").then_some(()));
    fs::write(format!("{go}.2"), "").unwrap();
    wait_for("the second to be ready", || {
        zdr.log().contains("instance 2 of generation 1 is ready, 1 of 2").then_some(())
    });
    assert_eq!(zdr.status()["ready"], false);
    fs::write(format!("{go}.1"), "").unwrap();
    zdr.wait_until("both to serve", |status| status["ready"] == true);
    assert!(zdr.log().contains("instance 1 of generation 1 is ready, 2 of 2"), "{}", zdr.log());
}

/// One that holds the socket and never accepts is not ready, however quickly the others answer.
#[test]
fn all_must_be_ready_before_any_of_them_serves() {
    let zdr = Setup::of(&sample(&[])).option("-n", "3").option("--ready-timeout", "2s").start();
    let load = load(&zdr, 2, 2);
    let lame = server(&format!("if os.environ['ZDR_INSTANCE'] == '2': time.sleep(1000)\n{NUMBERED}"));
    let told = zdr.reload_to(&lame);
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains("instance 2 of generation 2 was not ready after 2s"), "{told:?}");
    assert_eq!(zdr.serving(), Some(1));
    nothing_lost(&zdr, load);
}

#[test]
fn sixteen_in_one_queue_are_ready_soon_after_their_start() {
    for ready in ["tcp", "/health"] {
        let zdr = Setup::of(&sample(&[])).option("-n", "16").option("--ready", ready).start();
        assert_eq!(wait_for_serving(&zdr, 16).len(), 16);
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}");
    }
}
