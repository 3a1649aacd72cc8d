//! What servers made for other supervisors are told, and what they say: einhorn's ack, and LISTEN_PID with a wrapper between.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::harness::{DEADLINE, Setup, sample, wait_for};
use crate::python::{python, server, teller};
use crate::readiness::refused;

/// As lib/einhorn/client.rb and lib/einhorn/worker.rb of the gem do it: a worker is who has the master for its parent, and
/// the command is YAML on one line, after which the client closes.
const ACK: &str = "
def ack():
    assert os.getppid() == int(os.environ['EINHORN_MASTER_PID'])
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ['EINHORN_SOCK_PATH'])
    s.sendall(b'---%0Acommand: worker:ack%0Apid: ' + str(os.getpid()).encode() + b'%0A\\n')
    s.close()
def inherited():
    assert os.environ['EINHORN_FD_COUNT'] == '1'
    family = getattr(socket, os.environ['EINHORN_FD_FAMILY_0'])
    return socket.socket(family, socket.SOCK_STREAM, fileno=int(os.environ['EINHORN_FD_0']))
";

#[test]
fn the_ack_of_an_einhorn_worker_is_as_good_as_ready() {
    let setup = Setup::of(&[""]).option("--ready", "notify").option("--bake", "0s");
    let go = setup.place("go");
    let body = format!("{ACK}until('{go}')\nack()\nserve(inherited(), lambda path: 'up')");
    let zdr = setup.command(&server(&body)).begin();
    let socket = zdr.folder().join("admin.1.1.ack");
    wait_for("the first generation", || zdr.log().contains("generation 1 started").then_some(()));
    // This test is no process of the generation.
    let mut stranger = UnixStream::connect(&socket).unwrap();
    stranger.set_read_timeout(Some(DEADLINE)).unwrap();
    stranger.write_all(b"{\"command\":\"worker:ack\",\"pid\":1}\n").unwrap();
    wait_for("the ack to be ignored", || {
        zdr.log().contains("does not belong to the generation was ignored").then_some(())
    });
    assert_eq!(stranger.read(&mut [0]).unwrap(), 0, "einhorn says nothing and closes");
    assert_eq!(zdr.status()["ready"], false);
    fs::write(&go, "").unwrap();
    zdr.wait_until("it to serve", |status| status["ready"] == true);
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(zdr.get("/"), "up");
    wait_for("the end of the socket with its generation", || (!socket.exists()).then_some(()));
}

#[test]
fn the_ack_of_one_instance_makes_no_other_ready() {
    let setup = Setup::of(&[""]).option("--ready", "notify").option("-n", "2");
    let go = setup.place("go");
    let body =
        format!("{ACK}until('{go}.' + os.environ['ZDR_INSTANCE'])\nack()\nserve(inherited(), lambda path: 'up')");
    let zdr = setup.command(&server(&body)).begin();
    let ready = |number: u32, of_two: u32| format!("instance {number} of generation 1 is ready, {of_two} of 2");
    wait_for("both to be started", || zdr.log().contains("instance 2 of generation 1 started").then_some(()));
    for (number, of_two) in [(2, 1), (1, 2)] {
        assert_eq!(zdr.status()["ready"], false);
        fs::write(format!("{go}.{number}"), "").unwrap();
        wait_for("its ack to count", || zdr.log().contains(&ready(number, of_two)).then_some(()));
    }
    zdr.wait_until("both to serve", |status| status["ready"] == true);
    assert_eq!(zdr.get("/"), "up");
}

#[test]
fn a_ping_of_an_einhorn_worker_is_no_ack() {
    let body = format!("{ACK}ack()\nserve(inherited(), lambda path: 'up')");
    let zdr = Setup::of(&server(&body)).option("--ready", "notify").option("--ready-timeout", "3s").start();
    refused(
        &zdr,
        &server(&body.replace("worker:ack", "worker:ping")),
        "was not ready after 3s: it has not sent READY=1",
    );
}

#[test]
fn with_no_listen_pid_a_server_behind_a_wrapper_is_told_of_its_socket_and_of_no_stranger() {
    let environment = |flags: &[&str]| {
        let setup = Setup::of(&[""]).environment("LISTEN_PID", "1").environment("LISTEN_FDS", "7");
        let program = setup.place("server.py");
        fs::write(&program, teller().pop().unwrap()).unwrap();
        let wrapper = ["sh".to_owned(), "-c".to_owned(), format!("{} {program} & wait", python())];
        let zdr = flags.iter().fold(setup.command(&wrapper), |setup, flag| setup.flag(flag)).start();
        let told: Value = serde_json::from_str(&zdr.get("/")).unwrap();
        assert_ne!(told["pid"], zdr.server_pid(), "the server is not what zdr started");
        (zdr.server_pid().to_string(), told["environment"].clone())
    };
    let (wrapper, without_the_flag) = environment(&[]);
    assert_eq!(without_the_flag["LISTEN_PID"], wrapper, "no server behind a wrapper takes that for its own");
    let (_, with_it) = environment(&["--no-listen-pid"]);
    assert_eq!(with_it["LISTEN_PID"], Value::Null);
    assert_eq!((&with_it["LISTEN_FDS"], &with_it["LISTEN_FDNAMES"]), (&"1".into(), &"main".into()));
}

/// The drain signal ends the wrapper, and the server that it leaves behind goes with it.
#[test]
fn a_server_behind_a_wrapper_is_replaced_with_all_its_processes() {
    let command = ["sh".to_owned(), "-c".to_owned(), format!("{} & wait", sample(&[]).join(" "))];
    let zdr = Setup::of(&command).flag("--no-listen-pid").option("--bake", "0s").start();
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(zdr.client(&["reload", "--wait", "drained"]).code, 0);
    wait_for("the end of the first two generations", || {
        (zdr.processes_of(1).is_empty() && zdr.processes_of(2).is_empty()).then_some(())
    });
}
