//! How an instance is started: its sockets, its environment, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::harness::{Setup, ZDR, Zdr, get, sample};
use crate::python::{python, server, teller};

fn told(zdr: &Zdr) -> Value {
    let body = zdr.get("/");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}\n{}", zdr.log()))
}

#[test]
fn listen_pid_is_exactly_the_pid_of_the_server() {
    let zdr = Setup::of(&teller()).start();
    let told = told(&zdr);
    assert_eq!(told["environment"]["LISTEN_PID"], told["pid"].to_string());
    assert_eq!(told["environment"]["LISTEN_FDS"], "1");
    assert_eq!(told["pid"], zdr.server_pid());
}

#[test]
fn listen_pid_is_right_behind_the_exec_of_a_shell() {
    let command = ["sh".to_owned(), "-c".to_owned(), "exec \"$@\"".to_owned(), "sh".to_owned()];
    let zdr = Setup::of(&command.into_iter().chain(teller()).collect::<Vec<_>>()).start();
    let told = told(&zdr);
    assert_eq!(told["environment"]["LISTEN_PID"], told["pid"].to_string());
}

#[test]
fn several_listeners_come_in_the_order_given_with_their_names() {
    let command = server(
        "TOLD = tell()\n\
         ALL = [listener(i) for i in range(3)]\n\
         TOLD['ports'] = [s.getsockname()[1] for s in ALL]\n\
         serve(ALL[0], lambda path: json.dumps(TOLD))",
    );
    let zdr = Setup::of(&command)
        .listen(&["web=127.0.0.1:0", "127.0.0.1:0", "api=127.0.0.1:0"])
        .option("--ready", "/")
        .start();
    let (told, status) = (told(&zdr), zdr.status());
    assert_eq!(told["environment"]["LISTEN_FDNAMES"], "web:listener2:api");
    assert_eq!(told["environment"]["LISTEN_FDS"], "3");
    for position in 0..3 {
        let address = status["listeners"][position]["address"].as_str().unwrap();
        assert!(address.ends_with(&format!(":{}", told["ports"][position])), "{told} {status}");
    }
}

/// zdr itself is started with more descriptors than it knows, with signals blocked and ignored.
fn from_an_untidy_parent(setup: Setup) -> Setup {
    let untidy = "import os, signal, sys\n\
        for fd in (7, 9, 40): os.dup2(os.open('/dev/null', os.O_RDONLY), fd, inheritable=True)\n\
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)\n\
        signal.signal(signal.SIGHUP, signal.SIG_IGN)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH, signal.SIGTERM])\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    setup.through(&[python(), "-I", "-S", "-c", untidy])
}

#[test]
fn no_other_descriptor_reaches_the_server() {
    let zdr = from_an_untidy_parent(Setup::of(&teller())).option("--health", "127.0.0.1:0").start();
    for _ in 0..2 {
        let told = told(&zdr);
        let fds: Vec<&String> = told["fds"].as_object().unwrap().keys().collect();
        assert_eq!(fds, ["0", "1", "2", "3"], "{told}");
        assert_eq!(zdr.reload().code, 0);
    }
}

#[test]
fn a_server_starts_with_no_signal_blocked_or_ignored() {
    let setup = Setup::of(&["sh"]);
    let report = setup.place("status");
    let script = format!("cat /proc/self/status > {report}.new; mv {report}.new {report}; exec {ZDR} sample-server");
    let zdr = from_an_untidy_parent(setup.command(&["sh", "-c", &script])).start();
    let status = fs::read_to_string(zdr.place("status")).unwrap();
    for field in ["SigBlk", "SigIgn"] {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
    // zdr itself hears SIGTERM although its parent had it blocked.
    let mut zdr = zdr;
    zdr.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(zdr.ended().code(), Some(0));
}

#[test]
fn a_server_leads_its_own_process_group() {
    let told = told(&Setup::of(&teller()).start());
    assert_eq!(told["group"], told["pid"]);
}

#[test]
fn directory_environment_and_placeholders_are_as_asked() {
    let setup = Setup::of(&[""]).listen(&["web=127.0.0.1:0"]);
    fs::create_dir(setup.folder().join("work")).unwrap();
    let work = setup.place("work");
    let words = ["{port}", "{fd:web}", "{address:web}", "{generation}.{instance}", "{other}"].map(str::to_owned);
    let command: Vec<String> = teller().into_iter().chain(words).collect();
    let zdr = setup
        .command(&command)
        .option("--chdir", &work)
        .option("--env", "COLOUR=red")
        .option("--env", "AT=port {port} of {generation}")
        .environment("COLOUR", "blue")
        .start();
    let told = told(&zdr);
    let port = zdr.address().port();
    assert_eq!(told["directory"], work);
    assert_eq!(told["environment"]["COLOUR"], "red");
    assert_eq!(told["environment"]["AT"], format!("port {port} of 1"));
    let filled =
        [port.to_string(), "3".to_owned(), format!("127.0.0.1:{port}"), "1.1".to_owned(), "{other}".to_owned()];
    assert_eq!(told["arguments"], Value::from(filled.to_vec()));
}

#[test]
fn a_port_that_the_kernel_chose_is_printed() {
    let zdr = Setup::of(&sample(&[])).start();
    assert_ne!(zdr.address().port(), 0);
    assert!(zdr.log().contains(&format!("address={}", zdr.address())), "{}", zdr.log());
}

#[test]
fn all_slots_share_the_port_that_the_kernel_chose() {
    let zdr = Setup::of(&sample(&[])).start();
    let before = zdr.address();
    for generation in 2..5 {
        assert_eq!(zdr.reload().code, 0);
        assert!(get(before, "/").1.contains(&format!("generation {generation},")));
    }
    assert_eq!(zdr.address(), before);
}

#[test]
fn what_the_service_manager_told_zdr_is_not_passed_on() {
    let zdr = Setup::of(&teller())
        .environment("NOTIFY_SOCKET", "/run/systemd/notify")
        .environment("WATCHDOG_USEC", "1000000")
        .environment("LISTEN_PIDFDID", "17")
        .start();
    let told = told(&zdr);
    assert_eq!(told["environment"]["NOTIFY_SOCKET"], zdr.place("admin.1.1"));
    assert_eq!(told["environment"]["WATCHDOG_USEC"], Value::Null);
    assert_eq!(told["environment"]["LISTEN_PIDFDID"], Value::Null);
    assert_eq!(told["environment"]["ZDR_ADMIN"], zdr.place("admin"));
    assert_eq!(told["environment"]["ZDR_GENERATION"], "1");
}

#[test]
fn other_dialects_name_the_same_sockets() {
    let zdr = Setup::of(&teller()).start();
    let told = told(&zdr);
    assert_eq!(told["environment"]["SERVER_STARTER_PORT"], format!("{}=3", zdr.address()));
    assert_eq!(told["environment"]["SERVER_STARTER_GENERATION"], "1");
    assert_eq!(told["environment"]["EINHORN_FD_COUNT"], "1");
    assert_eq!(told["environment"]["EINHORN_FD_0"], "3");
}

/// A release: a folder with an executable called `server`.
fn release(setup: &Setup, name: &str) {
    let folder = setup.folder().join(name);
    fs::create_dir(&folder).unwrap();
    let mut command = teller();
    let body = command.pop().unwrap();
    fs::write(folder.join("body.py"), body).unwrap();
    let script = format!("#!/bin/sh\nRELEASE={name} exec {} -I -S {}\n", command[0], folder.join("body.py").display());
    crate::start_errors::executable(&folder.join("server"), &script);
}

#[test]
fn a_symlink_that_was_switched_is_followed_afresh_by_every_generation() {
    let setup = Setup::of(&[""]);
    release(&setup, "one");
    release(&setup, "two");
    let current = setup.folder().join("current");
    symlink(setup.folder().join("one"), &current).unwrap();
    let link = current.display().to_string();
    let zdr = setup.command(&["./server"]).option("--chdir", &link).start();
    assert_eq!(told(&zdr)["environment"]["RELEASE"], "one");
    fs::remove_file(&current).unwrap();
    symlink(zdr.folder().join("two"), &current).unwrap();
    assert_eq!(zdr.reload().code, 0);
    let told = told(&zdr);
    assert_eq!(told["environment"]["RELEASE"], "two");
    assert_eq!(told["directory"], zdr.place("two"));
}
