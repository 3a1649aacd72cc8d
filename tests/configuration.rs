//! The configuration file: what it says is done, the command line wins over it, and whatever is wrong with it is told with
//! its place, all at once, before anything is started.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::Mode;

use crate::harness::{Setup, Told, free_port, sample, zdr};

/// A file of this content, as text.
fn file(folder: &Path, text: impl AsRef<[u8]>) -> String {
    let path = folder.join("zdr.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn checked(text: impl AsRef<[u8]>, options: &[&str]) -> Told {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), text);
    let mut told = zdr(&[&["check", &path], options].concat());
    told.error = told.error.replace(&path, "zdr.toml");
    told.out = told.out.replace(&path, "zdr.toml");
    told
}

/// The command of the sample server as a value.
fn command() -> String {
    format!("command = {:?}\n", sample(&[]))
}

#[track_caller]
fn refused(told: &Told, sentences: &[&str]) {
    assert_eq!((told.code, told.out.as_str()), (2, ""), "{told:?}");
    let mut rest = told.error.as_str();
    for sentence in sentences {
        let at = rest.find(&format!("zdr: {sentence}")).unwrap_or_else(|| panic!("{sentence}: {told:?}"));
        rest = &rest[at + 1..];
    }
    let said = told.error.lines().filter(|line| line.starts_with("zdr: ")).count();
    assert_eq!(said, sentences.len(), "{told:?}");
}

#[test]
fn a_server_runs_as_its_file_says_and_the_command_line_wins() {
    let setup = Setup::of(&[""; 0]).listen(&[]);
    let text = format!("{}listen = 'web=127.0.0.1:0'\nready = '/health'\nname = 'of-the-file'\n", command());
    let path = file(setup.folder(), text);
    let zdr = setup.option("-c", &path).option("--name", "of-the-line").start();
    let status = zdr.status();
    assert_eq!((&status["name"], &status["listeners"][0]["name"]), (&"of-the-line".into(), &"web".into()));
    assert_eq!(zdr.reload().code, 0);
    let told = zdr.client(&["check", &path, "--admin", &zdr.admin().display().to_string()]);
    assert_eq!((told.code, told.out), (0, format!("zdr: {path} is good\n")));
}

#[test]
fn whatever_is_at_the_path_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("large"), vec![b'#'; 10_000_000]).unwrap();
    fs::write(at("latin"), b"# one\n# two\nname = \"\xe4\"\n").unwrap();
    symlink("circle", at("circle")).unwrap();
    nix::unistd::mkfifo(at("pipe").as_str(), Mode::S_IRWXU).unwrap();
    fs::create_dir(at("folder")).unwrap();
    for (name, why) in [
        ("missing", "no such file or directory"),
        ("folder", "a directory, not a regular file"),
        ("pipe", "not a regular file"),
        ("large", "larger than 1 MiB"),
        ("circle", "its symbolic links lead round in a circle"),
    ] {
        let sentence = format!("cannot read the configuration file {}: {why}", at(name));
        refused(&zdr(&["check", &at(name), "--", "true"]), &[&sentence]);
        refused(&zdr(&["run", "-c", &at(name), "--", "true"]), &[&sentence]);
    }
    refused(&zdr(&["check", "/dev/zero"]), &["cannot read the configuration file /dev/zero: not a regular file"]);
    refused(&zdr(&["check", &at("latin")]), &[&format!("{}:3: not UTF-8", at("latin"))]);
}

#[test]
fn a_file_that_may_not_be_read_is_refused_in_one_sentence() {
    let setup = Setup::of(&["true"]);
    let path = file(setup.folder(), command());
    fs::set_permissions(setup.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let told = setup.option("-c", &path).through(&nobody).output();
    refused(&told, &[&format!("cannot read the configuration file {path}: permission denied")]);
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    for (text, place) in [
        ("name = 'a'\nready = \"/hea", "2:14"),
        ("name = 'a'\nlisten = [", "2:11"),
        ("name = 'a'\nname = 'b'\n", "2:1"),
        ("name = 'a\0b'\n", "1:10"),
        ("name 'a'\n", "1:6"),
    ] {
        let told = checked(text, &[]);
        refused(&told, &["this is no TOML: "]);
        assert!(told.error.contains(&format!("\n --> zdr.toml:{place}\n")), "{text}: {told:?}");
    }
}

#[test]
fn an_empty_file_and_one_with_a_byte_order_mark_are_read() {
    assert_eq!(checked("", &["--", "true"]).out, "zdr: zdr.toml is good\n");
    refused(&checked("", &[]), &["the command is missing"]);
    assert_eq!(checked("\u{feff}command = ['true']", &[]).code, 0);
    let told = checked("\u{feff}naem = 'ä'", &[]);
    assert!(told.error.contains(" --> zdr.toml:1:1\n"), "{told:?}");
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_place_and_a_hint() {
    let text = "\
command = './server --x'
lisen = '127.0.0.1:8080'
ready-timeout = 30
capture = 'nevr'
instances = 0
listen = ['127.0.0.1:99999', 5.5]
name = \"a\\u0000b\"
hook = { later = 'x' }
no-new-privs = 'yes'
config = 'x'
[env]
A = true
";
    let told = checked(text, &[]);
    refused(
        &told,
        &[
            "`command` should be an array, not a string",
            "there is no key `lisen`",
            "ready-timeout: the duration `30` has no unit; write for example `30s` or `30ms`",
            "capture: `nevr` is not one of auto, always, never",
            "instances: 0 is not in 1..=256",
            "listen: `127.0.0.1:99999` is no listener: the port 99999 is above 65535",
            "`listen` should be a string or a whole number, not a fraction",
            "this has a zero byte",
            "hook: `later=x` is no hook: `later` is not one of before-start",
            "`no-new-privs` should be true or false, not a string",
            "a configuration file cannot name another one",
            "`env.A` should be a string or a whole number, not true or false",
        ],
    );
    for place in ["1:11", "2:1", "3:17", "4:11", "5:13", "6:11", "6:30", "7:8", "8:18", "9:16", "10:1", "12:5"] {
        assert!(told.error.contains(&format!("--> zdr.toml:{place}\n")), "{place}: {told:?}");
    }
    for hint in ["command = [\"./server\", \"--x\"]", "did you mean `listen`?", "did you mean `never`?"] {
        assert!(told.error.contains(hint), "{hint}: {told:?}");
    }
    assert!(!told.error.contains('\u{1b}'), "{told:?}");
}

#[test]
fn what_several_options_show_together_is_told_at_once_where_the_file_says_it() {
    let text = "\
command = []
listen = ['a=udp://127.0.0.1:0', 'a=udp://127.0.0.1:0']
check = ['one=exec:true', 'one=tcp']
hook = ['after-drain=a', 'after-drain=b']
";
    let told = checked(text, &["--ready", "tcp"]);
    let sentences = [
        "the command is missing",
        "two listeners are called `a`",
        "--ready tcp needs a TCP or Unix listener to ask",
        "--check one=tcp needs a TCP or Unix listener to ask",
        "two checks are called `one`",
        "there are two hooks after-drain",
    ];
    refused(&told, &sentences);
    for place in ["1:1", "2:1", "3:27", "3:1", "4:1"] {
        assert!(told.error.contains(&format!("--> zdr.toml:{place}\n")), "{place}: {told:?}");
    }
    refused(&checked("verbose = 1\nquiet = true\n", &[]), &["`quiet` cannot be used together with `verbose`"]);
    refused(&checked("capture = 'never'\n", &["--", "true"]), &["no listener: say where to listen"]);
}

#[test]
fn what_only_the_machine_can_tell_is_tried_and_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    fs::write(place("bad.env"), "A=1\nB\n").unwrap();
    let text = format!(
        "command = ['no-such-program']
listen = ['127.0.0.1:0', 'unix:/no/such/folder/x']
health = 'unix:/no/such/folder/y'
user = 'no-such-user'
env-file = ['-/no/such/file', '/no/such/file', {:?}]
limit = 'nofile=99999999999'
watch = ['/', '/no/such/path']
",
        place("bad.env")
    );
    refused(
        &checked(&text, &[]),
        &[
            "--user: there is no user `no-such-user`",
            "cannot read the environment file /no/such/file: no such file",
            &format!("{}:2: no `=`", place("bad.env")),
            "--limit nofile=99999999999 is more than zdr may give",
            "`no-such-program`: cannot execute it: no such file or directory",
            "cannot watch /no/such/path: no such file or directory",
            "cannot listen on unix:/no/such/folder/x: its directory does not exist",
            "cannot listen on unix:/no/such/folder/y: its directory does not exist",
        ],
    );
    for (option, value, sentence) in [
        ("--chdir", "/no/such/folder", "cannot enter the working directory /no/such/folder: no such file or directory"),
        ("--chdir", "/etc/passwd", "cannot enter the working directory /etc/passwd: not a directory"),
        ("--group", "no-such-group", "--group: there is no group `no-such-group`"),
        ("--admin", "/etc/passwd/admin", "cannot make /etc/passwd: not a directory"),
        ("--env", "PATH=/no/such/folder", "`true`: cannot execute it: no such file or directory"),
    ] {
        let told = zdr(&["check", option, value, "--", "true"]);
        refused(&told, &[sentence]);
        assert!(!told.error.contains("-->"), "{told:?}");
    }
    refused(&zdr(&["check", "--", "/etc/passwd"]), &["`/etc/passwd`: cannot execute it: permission denied"]);
    assert_eq!(zdr(&["check", "--", "true"]).out, "zdr: the settings are good\n");
}

#[test]
fn the_rights_that_count_are_those_of_the_user_that_the_server_is_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let private = folder.path().display().to_string();
    let program = folder.path().join("program").display().to_string();
    fs::copy("/bin/true", &program).unwrap();
    let rights = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    let check = |user: &[&str], directory: &str, program: &str| {
        zdr(&[&["check"], user, &["--chdir", directory, "--", program]].concat())
    };
    let nobody = ["--user", "65534", "--group", "65534"];
    rights(0o700);
    assert_eq!(check(&[], &private, &program).code, 0);
    let sentence = format!(
        "cannot enter the working directory {private}: permission denied; choose one that the user of --user may enter"
    );
    refused(&check(&nobody, &private, "true"), &[&sentence]);
    refused(&check(&nobody, "/", &program), &[&format!("`{program}`: cannot execute it: permission denied")]);
    rights(0o755);
    assert_eq!(check(&nobody, &private, &program).code, 0);
}

#[test]
fn colours_are_for_those_who_want_them() {
    let told = |wanted: &str| {
        let mut command = std::process::Command::new(crate::harness::ZDR);
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "naem = 'a'");
        let told: Told = command.args(["check", &path]).env(wanted, "1").output().unwrap().into();
        told.error
    };
    assert!(told("CLICOLOR_FORCE").contains("\u{1b}["));
    assert!(!told("NO_COLOR").contains('\u{1b}'));
}

#[test]
fn a_check_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (trace, socket, admin) = (place("trace"), place("socket"), place("new/admin"));
    let hook = format!("before-start=touch {trace}");
    let listen = format!("unix:{socket}");
    let told = zdr(&["check", "--admin", &admin, "-l", &listen, "--hook", &hook, "--", "touch", &trace]);
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_address_that_is_taken_is_a_mistake_unless_the_same_supervisor_has_it() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap();
    let told = checked(format!("{}listen = ['127.0.0.1:0', '{taken}']\n", command()), &[]);
    refused(&told, &[&format!("cannot listen on {taken}: process {}", std::process::id())]);
    assert!(told.error.contains(" --> zdr.toml:2:26\n"), "{told:?}");

    let setup = Setup::of(&[""; 0]).listen(&[]);
    let (main, health) = (free_port(), free_port());
    let socket = setup.place("socket");
    let name = format!("@zdr-test-{main}-{}", std::process::id());
    let listen = format!("listen = ['127.0.0.1:{main}', 'unix:{socket}', 'unix:{name}']");
    let text = format!("{}{listen}\nhealth = '127.0.0.1:{health}'\n", command());
    let path = file(setup.folder(), text);
    let zdr = setup.option("-c", &path).start();
    let told = zdr.client(&["check", &path, "--admin", &zdr.admin().display().to_string()]);
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(zdr.reload().code, 0);
    let another = crate::harness::zdr(&["check", &path]);
    let process = format!("process {} (zdr) listens there", zdr.pid());
    let addresses = [&format!("127.0.0.1:{main}"), &format!("unix:{socket}"), &format!("unix:{name}")];
    let sentences = [addresses[0], addresses[1], addresses[2], &format!("127.0.0.1:{health}")]
        .map(|address| format!("cannot listen on {address}: {process}"));
    refused(&another, &sentences.each_ref().map(String::as_str));
}

#[test]
fn two_addresses_that_exclude_each_other_are_found() {
    let port = free_port();
    let text = format!("command = ['true']\nlisten = ['a=127.0.0.1:{port}', 'b=0.0.0.0:{port}']\n");
    refused(&checked(text, &[]), &[&format!("0.0.0.0:{port} and another address of these settings")]);
}

#[test]
fn the_settings_are_printed_with_where_they_come_from_and_mean_the_same_when_read_again() {
    let text = "\
command = ['sh', '-c', \"sleep 1 # \\\"ä\\\" \\u007f\"]
tail = 7
no-new-privs = true
env = ['A=1', 'B=']
quiet = 2

[limit]
core = 0
nofile = '64:1000'
";
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), text);
    let print = |path: &str, options: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::ZDR);
        command.args(["check", path, "--print"]).args(options).env("PORT", "127.0.0.1:0");
        let told: Told = command.env("RUNTIME_DIRECTORY", folder.path()).output().unwrap().into();
        assert_eq!(told.code, 0, "{told:?}");
        told.out
    };
    let first = print(&path, &["--bake", "7s", "-e", "C={port}"]);
    for line in [
        &format!("command = [\"sh\", \"-c\", \"sleep 1 # \\\"ä\\\" \\u007f\"] # {path}:1"),
        "listen = [\"127.0.0.1:0\"] # $PORT",
        &format!("tail = 7 # {path}:2"),
        &format!("no-new-privs = true # {path}:3"),
        "env = [\"C={port}\"] # command line",
        &format!("limit = [\"core=0\", \"nofile=64:1000\"] # {path}:7"),
        "bake = \"7s\" # command line",
        "ready-timeout = \"60s\" # default",
        "health-path = [\"/health\", \"/_health\"] # default",
        "name = \"sh\" # default",
        "# user: not set",
    ] {
        assert!(first.lines().any(|other| other == line), "{line}: {first}");
    }
    let again = file(folder.path(), &first);
    let second = print(&again, &[]);
    let settings = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
    assert_eq!(settings(&first), settings(&second));
    let from_the_file = second.lines().filter(|line| !line.starts_with('#'));
    assert!(from_the_file.clone().count() > 30);
    assert!(from_the_file.clone().all(|line| line.contains(&format!("# {again}:"))), "{second}");
}
