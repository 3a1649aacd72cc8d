//! Who the server is and what it may use: user, groups, mask, limits, rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Setup, Told, Zdr, sample, wait_for};
use crate::python::{python, server, teller};

const NOBODY: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];

/// By the system's interpreter: the one of the tests may be in a home that no other user can enter.
fn anybodys(mut command: Vec<String>) -> Vec<String> {
    let system = "/usr/bin/python3";
    let found = if Path::new(system).exists() { system } else { python() };
    found.clone_into(&mut command[0]);
    command
}

/// zdr sees a user database in which zed, 4711, of the group 4712, is also a member of the group 4713.
fn with_zed(setup: Setup) -> Setup {
    let root = "root:x:0:0:root:/root:/bin/sh\n";
    fs::write(setup.folder().join("passwd"), format!("{root}zed:x:4711:4712::/home/zed:/bin/zsh\n")).unwrap();
    let groups = "root:x:0:\nzed:x:4712:\nextra:x:4713:zed\nthird:x:4714:\n";
    fs::write(setup.folder().join("group"), groups).unwrap();
    let script = format!(
        "mount --bind {} /etc/passwd && mount --bind {} /etc/group && exec \"$@\"",
        setup.place("passwd"),
        setup.place("group")
    );
    setup.through(&["unshare", "--mount", "sh", "-c", &script, "sh"])
}

fn of_zed(command: Vec<String>) -> Setup {
    with_zed(Setup::of(&anybodys(command))).option("--chdir", "/")
}

/// A line of `/proc/PID/status`, its words joined by single blanks.
fn status(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn told(zdr: &Zdr) -> Value {
    let body = zdr.get("/");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}\n{}", zdr.log()))
}

#[test]
fn a_server_is_the_user_that_was_asked_for_with_all_its_groups() {
    for (user, group, gid, groups) in [
        ("zed", None, "4712", "4712 4713"),
        ("4711", None, "4712", "4712 4713"),
        ("zed", Some("third"), "4714", "4713 4714"),
        ("4799", Some("4799"), "4799", "4799"),
    ] {
        let setup = of_zed(teller()).option("--user", user);
        let zdr = group.into_iter().fold(setup, |setup, group| setup.option("--group", group)).start();
        let uid = if user == "zed" { "4711" } else { user };
        let pid = zdr.server_pid();
        assert_eq!(status(pid, "Uid"), [uid; 4].join(" "));
        assert_eq!(status(pid, "Gid"), [gid; 4].join(" "));
        assert_eq!(status(pid, "Groups"), groups);
        assert_eq!(status(pid, "CapEff"), "0000000000000000");
        assert_eq!(zdr.reload().code, 0);
        assert_eq!(status(zdr.server_pid(), "Uid"), [uid; 4].join(" "));
    }
}

#[test]
fn a_group_alone_changes_the_group_alone() {
    let zdr = of_zed(teller()).option("--group", "third").start();
    let pid = zdr.server_pid();
    assert_eq!((status(pid, "Uid"), status(pid, "Gid")), ("0 0 0 0".to_owned(), "4714 4714 4714 4714".to_owned()));
    assert_eq!(status(pid, "Groups"), "4714");
}

#[test]
fn the_environment_is_that_of_a_login_unless_an_option_says_otherwise() {
    let zdr = of_zed(teller()).option("--user", "zed").option("--env", "USER=other").start();
    let known = told(&zdr)["environment"].clone();
    let values = ["HOME", "USER", "LOGNAME", "SHELL"].map(|name| known[name].as_str().unwrap().to_owned());
    assert_eq!(values, ["/home/zed", "other", "zed", "/bin/zsh"]);
    // Nobody is called 4799; what zdr has is another's.
    let zdr = of_zed(teller()).option("--user", "4799").option("--group", "0").environment("HOME", "/root").start();
    assert_eq!(told(&zdr)["environment"]["HOME"], Value::Null);
}

#[test]
fn mask_limits_and_rights_are_as_asked() {
    let zdr = of_zed(teller())
        .option("--user", "zed")
        .option("--umask", "0027")
        .option("--limit", "nofile=100:200")
        .option("--limit", "core=0")
        .option("--limit", "fsize=1M:infinity")
        .flag("--no-new-privs")
        .start();
    let pid = zdr.server_pid();
    assert_eq!((status(pid, "Umask"), status(pid, "NoNewPrivs")), ("0027".to_owned(), "1".to_owned()));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for (name, soft, hard) in
        [("Max open files", "100", "200"), ("Max core file size", "0", "0"), ("Max file size", "1048576", "unlimited")]
    {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], [soft, hard], "{name}");
    }
    // zdr's own are as they were.
    assert_eq!(status(zdr.pid(), "NoNewPrivs"), "0");
    let own = fs::read_to_string(format!("/proc/{}/limits", zdr.pid())).unwrap();
    assert!(!own.lines().any(|line| line.starts_with("Max open files") && line.contains(" 200 ")), "{own}");
}

#[test]
fn a_limit_that_zdr_may_not_give_is_refused_before_anything_is_started() {
    let low = ["sh", "-c", "ulimit -n 1000 && exec \"$@\"", "sh"].into_iter().chain(NOBODY).collect::<Vec<_>>();
    let setup = Setup::of(&["true"]).option("--limit", "nofile=500:2000").through(&low);
    let told = setup.output();
    assert_eq!(told.code, 2, "{told:?}");
    let words =
        "--limit nofile=2000 is more than zdr may give: its own hard limit is 1000; choose less, or raise that first";
    assert_eq!(told.error, format!("zdr: {words}\n"));
}

#[test]
fn sockets_are_made_before_by_the_rights_of_zdr() {
    // In a network of its own, where the port is free.
    let up = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];
    let command = anybodys(teller());
    let setup = Setup::of(&command).listen(&["127.0.0.1:80"]).option("--chdir", "/").through(&up);
    let zdr = setup.option("--user", "65534").option("--group", "65534").start();
    assert_eq!(status(zdr.server_pid(), "Uid"), "65534 65534 65534 65534");
    assert_eq!((zdr.address().port(), zdr.reload().code), (80, 0));
}

#[test]
fn ready_from_another_user_counts_and_the_admin_socket_is_out_of_its_reach() {
    let body = "
def reach(path, kind):
    s = socket.socket(socket.AF_UNIX, kind)
    try:
        s.connect(path)
        return s
    except PermissionError:
        return None
notify = reach(os.environ['NOTIFY_SOCKET'], socket.SOCK_DGRAM)
TOLD = dict(tell(), admin=reach(os.environ['ZDR_ADMIN'], socket.SOCK_STREAM) is not None, uid=os.getuid())
notify.send(b'READY=1')
serve(listener(), lambda path: json.dumps(TOLD))
";
    let mut zdr = of_zed(server(body)).option("--user", "zed").option("--ready", "notify").start();
    for _ in 0..2 {
        let told = told(&zdr);
        assert_eq!((&told["uid"], &told["admin"]), (&Value::from(4711), &Value::from(false)), "{told}");
        assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
    }
    // Only that user may send, and nobody finds the name.
    let path = told(&zdr)["environment"]["NOTIFY_SOCKET"].as_str().unwrap().to_owned();
    let folder = Path::new(&path).parent().unwrap().display().to_string();
    let send = "import os, socket, sys\n\
        try: os.listdir(sys.argv[2]); print('listed')\n\
        except PermissionError: pass\n\
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', sys.argv[1])";
    let command = anybodys([python(), "-I", "-S", "-c", send].map(str::to_owned).to_vec());
    // An exec comes between, because setpriv reaches for it with the rights it had.
    let drop = NOBODY.into_iter().chain(["sh", "-c", "exec \"$@\"", "sh"]).map(str::to_owned);
    let words: Vec<String> = drop.chain(command).chain([path.clone(), folder]).collect();
    let told: Told = std::process::Command::new(&words[0]).args(&words[1..]).output().unwrap().into();
    assert!(told.code != 0 && told.error.contains("PermissionError") && told.out.is_empty(), "{told:?}");
    zdr.signal(Signal::SIGTERM);
    assert_eq!(zdr.ended().code(), Some(0));
    assert!(!Path::new(&path).exists());
}

#[test]
fn what_a_killed_zdr_left_of_its_notify_sockets_is_removed_by_the_next() {
    let zdr = of_zed(teller()).option("--user", "zed").start();
    assert_eq!(zdr.reload().code, 0);
    let left = told(&zdr)["environment"]["NOTIFY_SOCKET"].as_str().unwrap().to_owned();
    assert!(left.ends_with(".2.1"), "{left}");
    let servers = zdr.processes();
    zdr.signal(Signal::SIGKILL);
    for server in servers {
        let _ = kill(Pid::from_raw(server), Signal::SIGKILL);
    }
    wait_for("the end of its servers", || zdr.processes().is_empty().then_some(()));
    assert!(Path::new(&left).exists());
    let next = of_zed(teller()).option("--user", "zed").start();
    assert!(!Path::new(&left).exists());
    assert_eq!(next.reload().code, 0);
}

#[test]
fn a_readiness_command_runs_as_the_same_user_with_the_same_variables() {
    let setup = of_zed(teller());
    let file = setup.place("variables");
    fs::write(&file, "COLOUR=red\n").unwrap();
    let spec = "exec:test \"$(id -u) $(id -G) $COLOUR $(umask)\" = '4711 4712 4713 red 0077'";
    let zdr = setup
        .option("--ready", spec)
        .option("--user", "zed")
        .option("--umask", "77")
        .option("--env-file", &file)
        .option("--ready-timeout", "5s")
        .start();
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn a_directory_that_the_user_may_not_enter_is_told_with_the_way_out() {
    let setup = with_zed(Setup::of(&["true"])).option("--user", "zed").flag("--quiet");
    fs::set_permissions(setup.folder(), fs::Permissions::from_mode(0o700)).unwrap();
    let folder = setup.folder().display().to_string();
    let told = setup.option("--chdir", &folder).output();
    assert_eq!(told.code, 126, "{told:?}");
    let words =
        "cannot enter its working directory: permission denied; choose one with --chdir that the user of --user";
    assert!(told.error.contains(words), "{told:?}");
}

#[test]
fn a_zdr_that_is_not_root_may_start_servers_as_nobody_but_itself() {
    for (option, value) in [("--user", "0"), ("--user", "1"), ("--group", "0")] {
        let told = Setup::of(&["true"]).option(option, value).through(&NOBODY).output();
        assert_eq!(told.code, 2, "{told:?}");
        assert_eq!(told.error.lines().count(), 1, "{told:?}");
        assert!(told.error.contains("may not start a server as somebody else; start zdr as root"), "{told:?}");
    }
    let setup = Setup::of(&sample(&[])).option("--user", "65534").option("--umask", "0077").through(&NOBODY);
    chown(setup.folder(), Some(65534), Some(65534)).unwrap();
    let zdr = setup.start();
    assert_eq!(zdr.reload().code, 0);
    let pid = zdr.server_pid();
    assert_eq!((status(pid, "Uid"), status(pid, "Umask")), ("65534 65534 65534 65534".to_owned(), "0077".to_owned()));
}

#[test]
fn a_root_without_the_right_to_change_users_says_so() {
    let less = ["setpriv", "--bounding-set=-setuid,-setgid"];
    let told = Setup::of(&["true"]).option("--user", "65534").option("--group", "65534").through(&less).output();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.error.contains("give it the capabilities CAP_SETUID and CAP_SETGID"), "{told:?}");
}

/// Root in a default container has neither.
fn without_trace(setup: Setup) -> Setup {
    setup.through(&["setpriv", "--bounding-set=-sys_ptrace,-dac_override,-dac_read_search", "--inh-caps=-all"])
}

#[test]
fn a_server_of_another_user_is_seen_and_drained_without_the_right_to_trace() {
    let body = "serve(listener(), lambda path: (time.sleep(0.7) if path == '/slow' else None) or 'whole')";
    let setup = Setup::of(&anybodys(server(body))).option("--chdir", "/").option("--bake", "0s");
    let zdr = without_trace(setup).option("--user", "65534").option("--group", "65534").start();
    let address = zdr.address();
    let slow = std::thread::spawn(move || crate::harness::get(address, "/slow").1);
    zdr.wait_until("the request to be in flight", |status| status["in_flight"] == 1);
    assert_eq!(zdr.reload().code, 0);
    // A server in Python with no handler dies of its signal at once; it is not sent while the request is in flight.
    assert_eq!(slow.join().unwrap(), "whole", "{}", zdr.log());
}
