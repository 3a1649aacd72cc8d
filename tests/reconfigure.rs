//! A file that has changed: each of its settings is that of the next generation, and nobody notices the change but by that.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Setup, Zdr, free_port, in_seat, sample, wait_for};
use crate::managed::{command, load, managed, nothing_was_lost, reload_as, server, write};
use crate::python::{python, server as program, teller};

const LISTEN: &str = "listen = '127.0.0.1:0'\nready = '/'\nbake = '0s'\n";

/// The system's interpreter, because the one of the tests may be in a home that no other user can enter.
fn anybodys_teller(arguments: &[&str]) -> Vec<String> {
    let mut words = teller();
    let system = "/usr/bin/python3";
    words[0] = if Path::new(system).exists() { system.to_owned() } else { python().to_owned() };
    words.extend(arguments.iter().map(ToString::to_string));
    words
}

fn told(zdr: &Zdr) -> Value {
    let body = zdr.get("/");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}\n{}", zdr.log()))
}

/// A line of a file below `/proc/PID`.
fn of_process(zdr: &Zdr, file: &str, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/{file}", zdr.server_pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All that the settings of a process come to.
fn process(zdr: &Zdr) -> Value {
    let told = told(zdr);
    let variable = |name: &str| told["environment"][name].clone();
    let variables = ["A", "B", "C", "D"].map(variable);
    json!({
        "arguments": told["arguments"], "directory": told["directory"], "pid told": !variable("LISTEN_PID").is_null(),
        "variables": variables, "watchdog": variable("WATCHDOG_USEC"),
        "ids": [of_process(zdr, "status", "Uid:"), of_process(zdr, "status", "Gid:")],
        "umask": of_process(zdr, "status", "Umask:"), "privileges": of_process(zdr, "status", "NoNewPrivs:"),
        "files": of_process(zdr, "limits", "Max open files"),
    })
}

#[test]
fn what_the_file_says_of_the_process_is_that_of_the_next_generation_and_what_it_says_no_more_is_gone() {
    let setup = Setup::of(&[""; 0]);
    let variables = setup.place("variables");
    fs::write(&variables, "C=1\nD=1\n").unwrap();
    let first = format!(
        "{}{LISTEN}chdir = '/'\nenv-file = {variables:?}\numask = '0022'\n[env]\nA = 1\nB = 1\n[limit]\nnofile = 300\n",
        command(&anybodys_teller(&["one"]))
    );
    let second = format!(
        "{}{LISTEN}chdir = '/usr'\nenv-file = {variables:?}\numask = '0077'\nuser = '65534'\ngroup = '65534'\nno-new-privs = true
no-listen-pid = true\nwatchdog = '1h'\n[env]\nA = 2\n[limit]\nnofile = '400:500'\n",
        command(&anybodys_teller(&["two", "words"]))
    );
    let zdr = managed(setup, &first).start();
    let load = load(zdr.address(), 4);
    let expected = json!({
        "arguments": ["one"], "directory": "/", "pid told": true, "variables": ["1", "1", "1", "1"], "watchdog": null,
        "ids": ["0 0 0 0", "0 0 0 0"], "umask": "0022", "privileges": "0", "files": "300 300 files",
    });
    assert_eq!(process(&zdr), expected);
    fs::write(&variables, "C=2\n").unwrap();
    reload_as(&zdr, &second);
    let changed = json!({
        "arguments": ["two", "words"], "directory": "/usr", "pid told": false, "variables": ["2", null, "2", null],
        "watchdog": "3600000000", "ids": ["65534 65534 65534 65534", "65534 65534 65534 65534"], "umask": "0077",
        "privileges": "1", "files": "400 500 files",
    });
    assert_eq!(process(&zdr), changed);
    fs::write(&variables, "C=1\nD=1\n").unwrap();
    reload_as(&zdr, &first);
    assert_eq!(process(&zdr), expected);
    nothing_was_lost(&zdr, load);
}

#[test]
fn a_hang_up_and_the_first_user_signal_read_the_file_as_well() {
    let text = |word: &str| format!("{}{LISTEN}[env]\nA = '{word}'\n", command(&teller()));
    let zdr = managed(Setup::of(&[""; 0]), &text("one")).start();
    let load = load(zdr.address(), 4);
    for (number, (signal, word)) in [(Signal::SIGHUP, "two"), (Signal::SIGUSR1, "three")].into_iter().enumerate() {
        write(&zdr, text(word));
        zdr.signal(signal);
        let generation = u64::try_from(number).unwrap() + 2;
        zdr.wait_until("the next generation", |status| in_seat(status, "serving") == Some(generation));
        assert_eq!(told(&zdr)["environment"]["A"], word);
        assert_eq!(zdr.status()["config_version"], generation);
    }
    nothing_was_lost(&zdr, load);
}

#[test]
fn readiness_is_asked_for_as_the_file_says_now() {
    let text = |ready: &str| format!("{}listen = '127.0.0.1:0'\nbake = '0s'\n{ready}\n", command(&sample(&[])));
    let zdr = managed(Setup::of(&[""; 0]), &text("ready = '/health'")).start();
    let load = load(zdr.address(), 4);
    for (ready, reason) in [
        ("ready = '/nothing'\nready-timeout = '200ms'", "was not ready after 200ms: last probe of /nothing: 404"),
        (
            "ready = '/health'\nready-status = '204'\nready-timeout = '150ms'",
            "was not ready after 150ms: last probe of /health: 200",
        ),
        ("ready = 'notify'\nready-timeout = '100ms'", "was not ready after 100ms: "),
        ("ready = 'exec:exit 3'\nready-timeout = '300ms'", "was not ready after 300ms: "),
    ] {
        write(&zdr, text(ready));
        let told = zdr.reload();
        assert!(told.code == 3 && told.error.contains(reason), "{ready}: {told:?}");
    }
    for ready in [
        "ready = '/nothing'\nready-status = '404'",
        "ready = 'tcp'",
        "ready = 'exec:true'\nready-successes = 3\nready-interval = '10ms'",
        "",
    ] {
        reload_as(&zdr, &text(ready));
    }
    // Twice the time, so that the second looks cannot be those of the first settings.
    for ready in ["ready = '100ms'", "ready = '200ms'"] {
        let told = reload_as(&zdr, &text(ready));
        let after = told.out.lines().find_map(|line| line.split_once("serves after ")).expect("it serves").1;
        let after: f64 = after.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        let least: f64 = ready.split('\'').nth(1).unwrap().trim_end_matches("ms").parse().unwrap();
        assert!(after >= least, "{told:?}");
    }
    nothing_was_lost(&zdr, load);
}

/// A server that notes the signals that it gets, and ends of the second.
const NOTES: &str = "
def note(number, _):
    with open(os.environ['NOTES'], 'a') as notes:
        print(GENERATION, signal.Signals(number).name, file=notes)
    if signal.Signals(number).name in os.environ['ENDS']:
        os._exit(0)
for name in ['SIGTERM', 'SIGQUIT', 'SIGINT']:
    signal.signal(getattr(signal, name), note)
serve(listener(), lambda path: 'generation %s' % GENERATION)
";

#[test]
fn each_generation_drains_as_the_file_said_when_it_was_started() {
    let setup = Setup::of(&[""; 0]);
    let notes = setup.place("notes");
    let text = |drain: &str, ends: &str| {
        let variables = format!("env = {:?}\n", [format!("NOTES={notes}"), format!("ENDS={ends}")]);
        format!("{}{LISTEN}{variables}{drain}\n", command(&program(NOTES)))
    };
    let zdr = managed(setup, &text("", "SIGTERM")).start();
    let load = load(zdr.address(), 0);
    reload_as(&zdr, &text("drain-signal = 'QUIT'", "SIGQUIT"));
    reload_as(&zdr, &text("drain-signal = 'INT'\ndrain-timeout = '1s'\ndrain-idle = '0s'", "nothing"));
    reload_as(&zdr, &text("", "SIGTERM"));
    nothing_was_lost(&zdr, load);
    let mut seen: Vec<String> = fs::read_to_string(&notes).unwrap().lines().map(str::to_owned).collect();
    seen.sort();
    assert_eq!(seen, ["1 SIGTERM", "2 SIGQUIT", "3 SIGINT"]);
    assert!(zdr.log().contains("generation 3 is killed: it had not ended 1s after the signal"), "{}", zdr.log());
}

#[test]
fn the_old_one_is_kept_as_long_as_the_file_says_now() {
    let text = |bake: &str| format!("{}listen = '127.0.0.1:0'\nready = '/health'\n{bake}\n", command(&sample(&[])));
    let zdr = managed(Setup::of(&[""; 0]), &text("bake = '0s'")).start();
    let goal = || zdr.status()["rollback"].clone();
    for (bake, warm) in
        [("bake = '1h'", true), ("bake = '0s'", false), ("bake = '0s'\nbake-keep = '1h'", true), ("bake = '0s'", false)]
    {
        let before = zdr.serving();
        reload_as(&zdr, &text(bake));
        assert_eq!(goal(), json!({ "generation": before, "warm": warm }), "{bake}");
    }
}

#[test]
fn instances_are_as_many_as_the_file_says_now_and_come_as_it_says() {
    let text = |more: &str| format!("{}{LISTEN}{more}\n", command(&sample(&[])));
    let zdr = managed(Setup::of(&[""; 0]), &text("")).start();
    let load = load(zdr.address(), 4);
    let (instances, slots) = (
        || server(&zdr)["instances"].as_array().unwrap().len(),
        || zdr.status()["listeners"][0]["slots"].as_u64().unwrap(),
    );
    assert_eq!((instances(), slots()), (1, 2));
    let told = reload_as(&zdr, &text("instances = 3"));
    assert_eq!((instances(), slots()), (3, 2), "they have one queue");
    assert!(!told.out.contains("share"), "{told:?}");
    let told = reload_as(&zdr, &text("instances = 3\nsurge = 1"));
    for part in ["1 of 3", "2 of 3"] {
        assert!(told.out.contains(part), "{told:?}");
    }
    reload_as(&zdr, &text("instances = 3\nqueue = 'per-instance'"));
    assert!(instances() == 3 && slots() >= 4, "each has its own: {}", slots());
    reload_as(&zdr, &text("instances = 2"));
    assert_eq!(instances(), 2);
    // What somebody asked for holds until the file says something else.
    assert_eq!(zdr.client(&["scale", "4"]).code, 0);
    reload_as(&zdr, &text("instances = 2\nsurge = 2"));
    assert_eq!(instances(), 4);
    reload_as(&zdr, &text("instances = 1"));
    assert_eq!(instances(), 1);
    nothing_was_lost(&zdr, load);
}

#[test]
fn what_replaces_a_generation_is_what_the_file_says_now() {
    let text = |more: &str| format!("{}{LISTEN}{more}\n", command(&sample(&[])));
    let zdr = managed(Setup::of(&[""; 0]), &text("")).start();
    let load = load(zdr.address(), 4);
    for (more, why) in [
        ("max-lifetime = '1s'", "has served for 1s, as long as it may"),
        ("max-memory = '1M'", "more than the 1 MiB of --max-memory"),
        ("live = 'exec:false'\nlive-interval = '100ms'\nlive-failures = 1", "stuck"),
        ("watchdog = '200ms'", "WATCHDOG=1"),
    ] {
        reload_as(&zdr, &text(more));
        let generation = zdr.serving();
        zdr.wait_until(more, |status| in_seat(status, "serving") > generation);
        reload_as(&zdr, &text(""));
        assert!(zdr.log().contains(why), "{why}:\n{}", zdr.log());
    }
    // Without them it stays.
    let generation = zdr.serving();
    assert!(load.wait_for_answers(200, crate::harness::DEADLINE));
    assert_eq!(zdr.serving(), generation);
    nothing_was_lost(&zdr, load);
}

#[test]
fn restarts_are_as_many_as_the_file_says_now() {
    let text = |more: &str| format!("{}{LISTEN}{more}\n", command(&sample(&[])));
    let mut zdr = managed(Setup::of(&[""; 0]), &text("restart = 'never'")).start();
    reload_as(&zdr, &text("max-restarts = '1/1h'"));
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("the next", |status| in_seat(status, "serving") == Some(3));
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    assert_eq!(zdr.ended().code(), Some(128 + 9), "{}", zdr.log());
    assert!(zdr.log().contains("has used up its 1 restarts in 1h"), "{}", zdr.log());
}

#[test]
fn checks_hooks_and_last_lines_are_those_of_the_file_as_it_is_now() {
    let setup = Setup::of(&[""; 0]);
    let place = setup.place("");
    let text = |server: &[String], more: &str| format!("{}{LISTEN}{more}\n", command(server));
    let hook = |name: &str| format!("hook = 'after-serving=touch {place}{name}'\n");
    let good = sample(&[]);
    let zdr = managed(setup, &text(&good, &format!("{}check = 'one=exec:true'", hook("first")))).start();
    let names = || {
        let status = zdr.status();
        let checks = status["checks"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        checks.into_iter().filter(|name| ["one", "two"].contains(&name.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["one"]);
    reload_as(&zdr, &text(&good, &format!("{}check = 'two=exec:true'", hook("second"))));
    assert_eq!(names(), ["two"]);
    wait_for("the second hook", || fs::exists(format!("{place}second")).unwrap().then_some(()));
    fs::remove_file(format!("{place}second")).unwrap();
    reload_as(&zdr, &text(&good, ""));
    assert_eq!(names(), Vec::<String>::new());
    assert!(!fs::exists(format!("{place}second")).unwrap());
    let bad = ["sh", "-c", "seq 5 >&2; exit 1"].map(str::to_owned);
    for (tail, lines) in [("", 5), ("tail = 2", 2), ("tail = 0", 0)] {
        write(&zdr, text(&bad, tail));
        let told = zdr.client(&["reload", "--json"]);
        let verdict: Value = serde_json::from_str(told.out.lines().last().unwrap()).unwrap();
        assert_eq!((told.code, verdict["output"].as_array().unwrap().len()), (3, lines), "{told:?}");
    }
}

#[test]
fn what_cannot_change_while_zdr_runs_is_named_with_the_reason_and_the_rest_is_applied() {
    let text = |more: &str| format!("{}{LISTEN}{more}", command(&teller()));
    let setup = Setup::of(&[""; 0]);
    let admin = setup.place("elsewhere");
    let zdr = managed(setup, &text("[env]\nA = 'one'\n")).start();
    let load = load(zdr.address(), 4);
    let health = format!("127.0.0.1:{}", free_port());
    let changed = format!(
        "name = 'other'\nhealth = '{health}'\nhealth-path = '/up'\nlog-format = 'json'\nquiet = 2\n[env]\nA = 'two'\n"
    );
    let told_of = reload_as(&zdr, &text(&changed));
    for key in ["name", "health", "health-path", "log-format", "quiet"] {
        let sentence = format!("`{key}` has no effect before zdr is started again: ");
        for told in [&told_of.out, &zdr.log()] {
            assert!(told.contains(&sentence), "{key}: {told}");
        }
    }
    assert_eq!(told(&zdr)["environment"]["A"], "two");
    assert!(std::net::TcpStream::connect(health).is_err());
    let told_of = reload_as(&zdr, &text(&format!("verbose = true\nadmin = {admin:?}\n")));
    assert!(told_of.out.contains("`verbose` has no effect") && !told_of.out.contains("`quiet`"), "{told_of:?}");
    // The command line says where the admin socket is, and so the file says nothing of it.
    assert!(!told_of.out.contains("`admin`"), "{told_of:?}");
    nothing_was_lost(&zdr, load);
}

#[test]
fn another_program_is_no_other_name() {
    let zdr = managed(Setup::of(&[""; 0]), &format!("{}{LISTEN}", command(&sample(&[])))).start();
    let name = zdr.status()["name"].clone();
    let told = reload_as(&zdr, &format!("{}{LISTEN}", command(&teller())));
    assert!(!told.out.contains("has no effect"), "{told:?}");
    assert_eq!(zdr.status()["name"], name);
}

#[test]
fn a_command_that_was_given_holds_until_the_file_has_another_one() {
    let text = |work: &str| format!("{}{LISTEN}", command(&sample(&["--work", work])));
    let zdr = managed(Setup::of(&[""; 0]), &text("1ms")).start();
    let runs = || server(&zdr)["command"].as_array().unwrap().last().cloned().unwrap();
    assert_eq!(zdr.reload_to(&sample(&["--work", "5ms"])).code, 0);
    assert_eq!(runs(), "5ms");
    reload_as(&zdr, &format!("{}# no other command\n", text("1ms")));
    assert_eq!(runs(), "5ms");
    reload_as(&zdr, &text("2ms"));
    assert_eq!(runs(), "2ms");
    // Whoever gives one goes before whatever the file says.
    write(&zdr, text("3ms"));
    assert_eq!(zdr.reload_to(&sample(&["--work", "5ms"])).code, 0);
    assert_eq!(runs(), "5ms");
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(runs(), "5ms");
}

#[test]
fn a_configuration_is_counted_when_the_file_reads_otherwise() {
    let text = |more: &str| format!("{}{LISTEN}{more}\n", command(&sample(&[])));
    let zdr = managed(Setup::of(&[""; 0]), &text("")).start();
    let versions = || (zdr.status()["config_version"].clone(), server(&zdr)["config_version"].clone());
    assert_eq!(versions(), (json!(1), json!(1)));
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(versions(), (json!(1), json!(1)), "it is the same");
    reload_as(&zdr, &text("# more"));
    assert_eq!(versions(), (json!(2), json!(2)));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _stranger = crate::listeners::stranger(taken, false);
    for refused in ["raedy = 1", "user = 'nobody-here'", &format!("health = '{taken}'\nlimit = 'nofile=99999999999'")] {
        write(&zdr, text(refused));
        assert_eq!(zdr.reload().code, 3);
        assert_eq!(versions(), (json!(2), json!(2)), "{refused}");
    }
    write(&zdr, text("chdir = '/nowhere/at/all'"));
    assert_eq!(zdr.reload().code, 3);
    assert_eq!(versions(), (json!(2), json!(2)), "what serves is as the last but one said");
    reload_as(&zdr, &text("# and more"));
    assert_eq!(versions(), (json!(4), json!(4)));
}
