//! Commands at the turns of a reload: told what happens, allowed to say no before it does, and ended with all they started.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::harness::{Setup, Told, Zdr, in_seat, sample, wait_for};
use crate::refusal::{load, nothing_lost};

/// All four turns, in their order.
const TURNS: [&str; 4] = ["before-start", "before-cut-over", "after-serving", "after-drain"];

/// The sample server, with this command at one of the turns.
fn with(turn: &str, command: &str) -> Setup {
    Setup::of(&sample(&[])).option("--bake", "0s").option("--hook", &format!("{turn}={command}"))
}

/// A command that does as the file says that is named after its turn, where there is one.
fn as_told(setup: Setup) -> Setup {
    let folder = setup.folder().display().to_string();
    let obey = format!("if test -e {folder}/$ZDR_HOOK; then . {folder}/$ZDR_HOOK; fi");
    TURNS.iter().fold(setup.option("--bake", "0s"), |setup, turn| setup.option("--hook", &format!("{turn}={obey}")))
}

fn tell(zdr: &Zdr, turn: &str, script: &str) {
    let draft = zdr.place("draft");
    fs::write(&draft, script).unwrap();
    fs::rename(draft, zdr.place(turn)).unwrap();
}

fn outcome(child: Child) -> Told {
    child.wait_with_output().unwrap().into()
}

#[track_caller]
fn until_there(path: &str) -> String {
    wait_for(path, || fs::read_to_string(path).ok().filter(|text| text.ends_with('\n')))
}

/// Only the server runs, and what a hook was about to do is over.
#[track_caller]
fn until_nothing_else_runs(zdr: &Zdr) {
    let server = zdr.server_pid();
    wait_for("the others to be gone", || (zdr.processes() == [server]).then_some(()));
}

/// One that has ended has no arguments any more, although nobody may have waited for it.
fn is_running(pid: &str) -> bool {
    fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|arguments| !arguments.is_empty())
}

#[test]
fn each_turn_has_its_moment_and_is_told_what_happens() {
    let setup = Setup::of(&sample(&[])).option("--bake", "0s").option("--drain-idle", "0s");
    let notes = setup.place("notes");
    let note = format!("echo $ZDR_HOOK new=$ZDR_NEW old=$ZDR_OLD $ZDR_REASON >> {notes}; test -S $ZDR_ADMIN");
    let setup = TURNS.iter().fold(setup, |setup, turn| setup.option("--hook", &format!("{turn}={note}")));
    let mut zdr = setup.start();
    let until_noted = |number: usize| {
        let written = || fs::read_to_string(&notes).unwrap_or_default();
        wait_for("the notes", || Some(written()).filter(|text| text.lines().count() >= number))
    };
    let mut expected = "\
before-start new=1 old= boot
before-cut-over new=1 old= boot
after-serving new=1 old= boot
"
    .to_owned();
    assert_eq!(until_noted(3), expected);
    let told = zdr.client(&["reload", "--wait", "drained"]);
    assert_eq!(told.code, 0, "{told:?}");
    expected += "\
before-start new=2 old=1 reload
before-cut-over new=2 old=1 reload
after-serving new=2 old=1 reload
after-drain new=2 old=1 reload
";
    assert_eq!(until_noted(7), expected);
    assert_eq!(zdr.client(&["rollback"]).code, 0);
    expected += "\
before-start new=3 old=2 rollback
before-cut-over new=3 old=2 rollback
after-serving new=3 old=2 rollback
after-drain new=3 old=2 rollback
";
    assert_eq!(until_noted(11), expected);
    assert_eq!(zdr.client(&["stop"]).code, 0);
    assert_eq!(zdr.ended().code(), Some(0));
    assert_eq!(until_noted(12), expected + "after-drain new= old=3 stop\n");
}

#[test]
fn a_command_that_says_no_keeps_the_old_one_and_the_new_one_gets_nothing() {
    let zdr = as_told(Setup::of(&sample(&[])).option("--ready", "/health")).start();
    let load = load(&zdr, 3, 3);
    for (generation, turn) in (2..).zip(["before-start", "before-cut-over"]) {
        tell(&zdr, turn, "echo the database is not migrated >&2; exit 7");
        let told = zdr.reload();
        let reason = format!(
            "generation {generation} does not serve: its {turn} hook exited with code 7; generation 1 serves on"
        );
        assert_eq!(told.code, 3, "{told:?}");
        assert!(told.error.contains(&reason), "{told:?}");
        let verdict = &zdr.status()["last_verdict"];
        assert_eq!((&verdict["outcome"], &verdict["cause"]), (&"kept".into(), &"hook".into()), "{verdict}");
        assert!(zdr.log().contains("the database is not migrated"), "{}", zdr.log());
        let started = zdr.log().contains(&format!("generation {generation} started as process"));
        assert_eq!(started, turn == "before-cut-over");
        until_nothing_else_runs(&zdr);
        assert_eq!((zdr.serving(), in_seat(&zdr.status(), "draining")), (Some(1), None));
        fs::remove_file(zdr.place(turn)).unwrap();
    }
    assert!(load.wait_for_answers(20, Duration::from_secs(10)));
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
    let answered = |by: &std::collections::BTreeMap<u64, u64>| by.keys().copied().collect::<Vec<_>>();
    assert_eq!(answered(&report.new_connection.by_generation), [1]);
    assert_eq!(answered(&report.keep_alive.by_generation), [1]);
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn a_command_that_says_no_at_boot_is_asked_again_and_then_zdr_ends() {
    let mut zdr = with("before-start", "exit 1").begin();
    assert_eq!(zdr.ended().code(), Some(1));
    assert_eq!(zdr.log().matches("its before-start hook exited with code 1").count(), 5, "{}", zdr.log());
}

#[test]
fn a_failure_after_the_fact_is_the_verdict_and_the_new_one_serves() {
    let zdr = as_told(Setup::of(&sample(&[]))).start();
    tell(&zdr, "after-serving", "exit 3");
    let told = zdr.reload();
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.error.contains("generation 2 serves after"), "{told:?}");
    assert!(told.error.contains(", but its after-serving hook exited with code 3"), "{told:?}");
    assert_eq!((zdr.serving(), &zdr.status()["last_verdict"]["outcome"]), (Some(2), &"failed".into()));
    fs::remove_file(zdr.place("after-serving")).unwrap();

    tell(&zdr, "after-drain", "kill -9 $$");
    let told = zdr.client(&["reload", "--wait", "drained"]);
    assert_eq!(told.code, 1, "{told:?}");
    let reason = "generation 3 serves and generation 2 is gone, but its after-drain hook was killed by signal 9 (KILL)";
    assert!(told.error.contains(reason), "{told:?}");
    assert_eq!(zdr.serving(), Some(3));
    // Who does not wait for that has the verdict already.
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn a_command_that_hangs_is_killed_with_all_it_started() {
    let zdr = as_told(Setup::of(&sample(&[])).option("--hook-timeout", "300ms")).start();
    let pids = zdr.place("pids");
    for (generation, turn) in (2..).zip(["before-start", "before-cut-over"]) {
        tell(&zdr, turn, &format!("sleep 1000 & setsid sh -c 'echo $$ > {pids}; exec sleep 1000' & wait"));
        let told = zdr.reload();
        assert_eq!(told.code, 3, "{told:?}");
        let reason =
            format!("generation {generation} does not serve: its {turn} hook had not ended after 300ms and was killed");
        assert!(told.error.contains(&reason), "{told:?}");
        let pid = until_there(&pids);
        wait_for("it to be killed", || (!is_running(&pid)).then_some(()));
        until_nothing_else_runs(&zdr);
        fs::remove_file(&pids).unwrap();
        fs::remove_file(zdr.place(turn)).unwrap();
    }
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn one_that_goes_to_the_background_holds_up_nothing_and_is_ended() {
    let zdr = as_told(Setup::of(&sample(&[]))).start();
    let pids = zdr.place("pids");
    for turn in TURNS {
        let script =
            format!("setsid sh -c 'echo $$ > {pids}; exec sleep 1000' & while ! test -s {pids}; do sleep 0.01; done");
        tell(&zdr, turn, &script);
        let told = zdr.client(&["reload", "--wait", "drained"]);
        assert_eq!(told.code, 0, "{turn}: {told:?}");
        let pid = until_there(&pids);
        wait_for("what it left to be ended", || (!is_running(&pid)).then_some(()));
        until_nothing_else_runs(&zdr);
        fs::remove_file(&pids).unwrap();
        fs::remove_file(zdr.place(turn)).unwrap();
    }
}

#[test]
fn a_command_that_is_missing_says_no() {
    let zdr = as_told(Setup::of(&sample(&[]))).start();
    tell(&zdr, "before-start", "/nowhere/migrate --all");
    let told = zdr.reload();
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains("its before-start hook exited with code 127"), "{told:?}");
    assert!(zdr.log().contains("/nowhere/migrate: not found"), "{}", zdr.log());
}

#[test]
fn what_it_writes_goes_to_standard_error_alone() {
    let setup = with("before-start", "echo said; echo complained >&2");
    let (out, error) = (setup.place("out"), setup.place("error"));
    let zdr = setup.start_with(Stdio::from(File::create(&out).unwrap()), Stdio::from(File::create(&error).unwrap()));
    assert_eq!(zdr.reload().code, 0);
    let (out, error) = (fs::read_to_string(out).unwrap(), fs::read_to_string(error).unwrap());
    assert_eq!(out, "");
    assert!(error.matches("said\n").count() == 2 && error.matches("complained\n").count() == 2, "{error}");
}

#[test]
fn it_runs_where_and_as_whom_the_server_does_and_without_its_sockets() {
    let mut setup = Setup::of(&["sleep", "1000"]).option("--ready", "50ms").option("--drain-idle", "0s");
    let (told, directory, variables) = (setup.place("told"), setup.place("site"), setup.place("variables"));
    fs::create_dir(&directory).unwrap();
    fs::write(&variables, "COLOUR=red\n").unwrap();
    fs::write(&told, "").unwrap();
    let mut user = geteuid().as_raw();
    if geteuid().is_root() {
        user = 65534;
        fs::set_permissions(setup.folder(), Permissions::from_mode(0o755)).unwrap();
        chown(&told, Some(user), Some(user)).unwrap();
        setup = setup.option("--user", "65534").option("--group", "65534");
    }
    let command = format!(
        "{{ id -u; pwd; echo $COLOUR $SHAPE; echo $LISTEN_FDS $NOTIFY_SOCKET; readlink /proc/$$/fd/* | grep -c socket: ; echo .; }} > {told}"
    );
    let zdr = setup
        .option("--chdir", &directory)
        .option("--env-file", &variables)
        .option("--env", "SHAPE=round")
        .option("--bake", "0s")
        .option("--hook", &format!("before-cut-over={command}"))
        .start();
    let first = format!("{user}\n{directory}\nred round\n\n0\n.\n");
    assert_eq!(fs::read_to_string(&told).unwrap(), first);
    // As the generation that it is about.
    fs::write(&variables, "COLOUR=blue\n").unwrap();
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(fs::read_to_string(&told).unwrap(), first.replace("red", "blue"));
}

#[test]
fn a_stop_does_not_wait_for_what_nobody_needs_any_more() {
    for turn in ["before-start", "before-cut-over", "after-serving"] {
        let mut zdr = as_told(Setup::of(&sample(&[]))).start();
        let begun = zdr.place("begun");
        tell(&zdr, turn, &format!("echo $$ > {begun}; sleep 1000"));
        let asked = zdr.client_in_background(&["reload"]);
        let pid = until_there(&begun);
        assert_eq!(zdr.client(&["stop"]).code, 0, "{turn}");
        assert_eq!(zdr.ended().code(), Some(0), "{turn}: {}", zdr.log());
        wait_for("the hook to be killed", || (!is_running(&pid)).then_some(()));
        wait_for("the last to be gone", || zdr.processes().is_empty().then_some(()));
        let told = outcome(asked);
        assert_eq!(told.code, 1, "{turn}: {told:?}");
    }
}

#[test]
fn a_stop_waits_for_what_follows_a_drain_unless_it_is_asked_for_twice() {
    let mut zdr = as_told(Setup::of(&sample(&[]))).start();
    let (begun, go) = (zdr.place("begun"), zdr.place("go"));
    tell(&zdr, "after-drain", &format!("echo $$ > {begun}; until test -e {go}; do sleep 0.01; done; echo over >&2"));
    let stop = zdr.client_in_background(&["stop"]);
    until_there(&begun);
    fs::write(&go, "").unwrap();
    assert_eq!(outcome(stop).code, 0);
    assert_eq!(zdr.ended().code(), Some(0));
    assert!(zdr.log().contains("over\n"), "{}", zdr.log());

    let mut zdr = as_told(Setup::of(&sample(&[]))).start();
    let begun = zdr.place("begun");
    tell(&zdr, "after-drain", &format!("echo $$ > {begun}; sleep 1000"));
    zdr.signal(Signal::SIGTERM);
    let pid = until_there(&begun);
    let asked = Instant::now();
    zdr.signal(Signal::SIGTERM);
    assert_eq!(zdr.ended().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "it waited for the time limit of the hook");
    wait_for("the hook to be killed", || (!is_running(&pid)).then_some(()));
}

#[test]
fn reloads_asked_for_while_a_command_runs_run_after_it() {
    let zdr = as_told(Setup::of(&sample(&[]))).start();
    let load = load(&zdr, 2, 2);
    for (turn, after) in TURNS.iter().take(3).zip([3, 5, 7]) {
        let (begun, go) = (zdr.place("begun"), zdr.place("go"));
        tell(&zdr, turn, &format!("echo > {begun}; until test -e {go}; do sleep 0.01; done"));
        let first = zdr.client_in_background(&["reload"]);
        until_there(&begun);
        let others: Vec<Child> = (0..3).map(|_| zdr.client_in_background(&["reload", "--json"])).collect();
        fs::write(&go, "").unwrap();
        assert_eq!(outcome(first).code, 0, "{turn}");
        for told in others.into_iter().map(outcome) {
            assert_eq!(told.code, 0, "{turn}: {told:?}");
        }
        assert!(zdr.serving() >= Some(after), "{turn}: {:?}", zdr.serving());
        fs::remove_file(begun).unwrap();
        fs::remove_file(go).unwrap();
        fs::remove_file(zdr.place(turn)).unwrap();
    }
    nothing_lost(&zdr, load);
}
