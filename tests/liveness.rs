//! Servers that live and do nothing any more, and what servers say of themselves: they are replaced with nothing new lost.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Setup, Zdr, get, sample, wait_for};
use crate::python::server;

/// Asked often, so that a stuck one is noticed after a quarter of a second.
fn asked(setup: Setup, spec: &str) -> Setup {
    let setup = setup.option("--live", spec).option("--live-interval", "100ms").option("--live-timeout", "100ms");
    setup.option("--live-failures", "2").option("--drain-timeout", "1s").option("--bake", "0s")
}

fn freeze(zdr: &Zdr) -> i32 {
    let server = zdr.server_pid();
    kill(Pid::from_raw(server), Signal::SIGSTOP).unwrap();
    server
}

#[track_caller]
fn until_logged(zdr: &Zdr, words: &str) {
    wait_for(words, || zdr.log().contains(words).then_some(()));
}

fn until_serving(zdr: &Zdr, generation: u64) {
    zdr.wait_until("another one to serve", |status| status["generation"] == generation && status["draining"] == 0);
}

#[test]
fn a_server_that_stops_answering_is_replaced_and_nothing_is_lost_but_what_it_had_in_its_hands() {
    const CLIENTS: usize = 4;
    let zdr = asked(Setup::of(&sample(&["--work", "2ms"])), "/health").start();
    let address = zdr.address();
    let (over, answered, lost) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let mut frozen = None;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    match get(address, "/").0 {
                        200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        _ => lost.lock().unwrap().push(begun),
                    }
                }
            });
        }
        wait_for("some load", || (answered.load(Ordering::Relaxed) > 200).then_some(()));
        let stuck = freeze(&zdr);
        frozen = Some(Instant::now());
        until_serving(&zdr, 2);
        let before = answered.load(Ordering::Relaxed);
        wait_for("more load", || (answered.load(Ordering::Relaxed) > before + 200).then_some(()));
        over.store(true, Ordering::Relaxed);
        assert!(!fs::exists(format!("/proc/{stuck}")).unwrap());
    });
    let lost = lost.into_inner().unwrap();
    eprintln!("{} answered, {} lost in the hands of the stuck one", answered.into_inner(), lost.len());
    assert!(lost.len() <= CLIENTS && lost.iter().all(|begun| Some(*begun) < frozen), "{lost:?} {frozen:?}");
    let log = zdr.log();
    assert!(log.contains("generation 1 is stuck: /health: no answer within 100ms, 2 times in a row"), "{log}");
    assert!(log.contains("in place of one that is stuck"), "{log}");
}

#[test]
fn what_waited_in_the_queue_of_a_stuck_server_is_answered() {
    let setup = Setup::of(&sample(&[]));
    let sick = setup.place("sick");
    let zdr = asked(setup, &format!("exec:test ! -e {sick}")).start();
    let address = zdr.address();
    freeze(&zdr);
    let waiting: Vec<_> = (0..20).map(|_| std::thread::spawn(move || get(address, "/"))).collect();
    zdr.wait_until("them to wait", |status| status["listeners"][0]["queue"] == 20);
    fs::write(&sick, "").unwrap();
    until_logged(&zdr, "generation 2 serves");
    fs::remove_file(&sick).unwrap();
    for client in waiting {
        assert_eq!(client.join().unwrap().0, 200, "{}", zdr.log());
    }
}

#[test]
fn to_be_connected_is_no_sign_of_life() {
    let zdr = asked(Setup::of(&sample(&[])), "tcp").start();
    freeze(&zdr);
    until_serving(&zdr, 2);
    assert!(zdr.log().contains("generation 1 is stuck: tcp: no answer within 100ms"), "{}", zdr.log());
}

#[test]
fn while_the_replacement_fails_the_stuck_one_serves_on_and_what_it_comes_to_is_told() {
    let setup = Setup::of(&[""]);
    let (bad, sick) = (setup.place("bad"), setup.place("sick"));
    let script = format!("test -e {bad} && exit 3; exec {}", sample(&[]).join(" "));
    let spec = format!("exec:test ! -e {sick} || {{ echo no database; exit 1; }}");
    let zdr = asked(setup.command(&["sh", "-c", &script]), &spec).start();
    fs::write(&bad, "").unwrap();
    fs::write(&sick, "").unwrap();
    until_logged(&zdr, "generation 1 serves on; trying to replace it again in 100.0ms");
    until_logged(&zdr, "generation 1 serves on; trying to replace it again in 400.0ms");
    let status = zdr.status();
    assert_eq!(
        (&status["generation"], &status["ready"], &status["status"]),
        (&1.into(), &true.into(), &"unhealthy".into())
    );
    let why = status["checks"]["serving"]["message"].as_str().unwrap();
    assert!(
        why.contains("generation 1 is stuck: exec:test") && why.contains(": no database, 2 times in a row"),
        "{why}"
    );
    assert_eq!(get(zdr.address(), "/").0, 200);
    fs::remove_file(&sick).unwrap();
    until_logged(&zdr, "generation 1 is well again");
    let started = zdr.log().matches(" started as process ").count();
    fs::remove_file(&bad).unwrap();
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(zdr.log().matches(" started as process ").count(), started + 1, "{}", zdr.log());
}

/// Says what is in a file, line by line, as soon as it is there, and serves.
fn speaker(file: &str) -> Vec<String> {
    server(&format!(
        "
def say(text):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), os.environ['NOTIFY_SOCKET'])
def speak():
    if GENERATION != '1':
        return
    said = ''
    while True:
        text = open('{file}').read() if os.path.exists('{file}') else ''
        if text != said:
            said = text
            say(text)
        time.sleep(0.005)
threading.Thread(target=speak, daemon=True).start()
serve(listener(), lambda path: os.environ.get('WATCHDOG_USEC', 'none') + ' ' + os.environ.get('WATCHDOG_PID', 'none'))"
    ))
}

/// A zdr whose first generation says what is written to this place.
fn speaking(options: impl Fn(Setup) -> Setup) -> (Zdr, String) {
    let setup = Setup::of(&[""]).option("--bake", "0s");
    let file = setup.place("words");
    let zdr = options(setup.command(&speaker(&file))).start();
    (zdr, file)
}

fn say(file: &str, words: &str) {
    let draft = format!("{file}.draft");
    fs::write(&draft, words).unwrap();
    fs::rename(&draft, file).unwrap();
}

#[test]
fn one_that_is_silent_to_its_watchdog_is_replaced() {
    let setup = Setup::of(&[""]);
    let mute = setup.place("mute");
    let body = format!(
        "
def live():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while GENERATION != '1' or not os.path.exists('{mute}'):
        s.sendto(b'WATCHDOG=1', os.environ['NOTIFY_SOCKET'])
        time.sleep(int(os.environ['WATCHDOG_USEC']) / 20e6)
threading.Thread(target=live, daemon=True).start()
serve(listener(), lambda path: os.environ['WATCHDOG_USEC'] + ' ' + os.environ.get('WATCHDOG_PID', 'none'))"
    );
    let zdr = setup.command(&server(&body)).option("--bake", "0s").option("--watchdog", "1500ms").start();
    assert_eq!(zdr.get("/"), "1500000 none");
    let begun = Instant::now();
    wait_for("twice its time", || (begun.elapsed() > Duration::from_secs(3)).then_some(()));
    assert_eq!(zdr.serving(), Some(1), "{}", zdr.log());
    fs::write(&mute, "").unwrap();
    until_serving(&zdr, 2);
    assert!(zdr.log().contains("generation 1 is stuck: it has not sent WATCHDOG=1 for 1s 500ms"), "{}", zdr.log());
}

#[test]
fn one_may_say_that_it_is_stuck_and_choose_the_time_of_its_watchdog() {
    let (zdr, file) = speaking(|setup| setup.option("--watchdog", "1h"));
    assert_eq!(zdr.get("/"), "3600000000 none");
    say(&file, "WATCHDOG=trigger");
    until_serving(&zdr, 2);
    assert!(zdr.log().contains("generation 1 is stuck: it has sent WATCHDOG=trigger"), "{}", zdr.log());
    let (zdr, file) = speaking(|setup| setup.option("--watchdog", "1h"));
    say(&file, "WATCHDOG_USEC=50000");
    until_serving(&zdr, 2);
    let (zdr, file) = speaking(|setup| setup);
    assert_eq!(zdr.get("/"), "none none");
    say(&file, "WATCHDOG=trigger\nSTATUS=no watchdog here");
    zdr.wait_until("its words", |status| status["generations"][0]["status_text"] == "no watchdog here");
    assert_eq!(zdr.serving(), Some(1));
}

#[test]
fn its_status_is_shown_and_its_word_is_taken_for_its_readiness() {
    let (zdr, file) = speaking(|setup| setup.option("--ready", "tcp"));
    assert!(zdr.status()["generations"][0]["status_text"].is_null());
    say(&file, "STATUS=\u{1b}[1mwarming\u{1b}[0m the cache\u{7}");
    zdr.wait_until("its words", |status| status["generations"][0]["status_text"] == "warming the cache");
    say(&file, "READY=0\nSTATUS=");
    let status = zdr.wait_until("it not to be ready", |status| status["ready"] == false);
    assert_eq!((&status["generation"], &status["state"]), (&1.into(), &"serving".into()));
    assert!(status["generations"][0]["status_text"].is_null());
    assert_eq!(status["checks"]["serving"]["message"], "generation 1 has said that it is not ready");
    assert_eq!(zdr.ask_raw("GET /readyz HTTP/1.0\r\n\r\n").split(' ').nth(1), Some("503"));
    assert_eq!(get(zdr.address(), "/").0, 200, "nobody else could answer");
    say(&file, "READY=1");
    zdr.wait_until("it to be ready again", |status| status["ready"] == true);
    let log = zdr.log();
    assert!(
        log.contains("generation 1 has said that it is not ready") && log.contains("generation 1 is well again"),
        "{log}"
    );
}

#[test]
fn one_that_is_about_to_end_is_replaced_before_it_does() {
    let (zdr, file) = speaking(|setup| setup);
    say(&file, "STOPPING=1");
    until_serving(&zdr, 2);
    let log = zdr.log();
    assert!(log.contains("generation 1 has said that it is about to end"), "{log}");
    assert!(log.contains("in place of one that is about to end"), "{log}");
    assert_eq!(zdr.status()["crashes"], 0);
}

#[test]
fn a_start_is_not_ready_while_it_says_so() {
    let says = "
def say(text):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text, os.environ['NOTIFY_SOCKET'])
say(b'READY=0')
time.sleep(0.3)
";
    let body = format!("{says}threading.Timer(0.5, say, [b'READY=1']).start()\nserve(listener(), lambda path: 'up')");
    let zdr = Setup::of(&server(&body)).start();
    assert!(zdr.log().contains("generation 1 is not ready yet: it has sent READY=0"), "{}", zdr.log());
}

#[test]
fn only_words_of_its_own_processes_count() {
    let zdr = Setup::of(&sample(&[])).option("--watchdog", "1h").start();
    let stranger = UnixDatagram::unbound().unwrap();
    for word in ["READY=0", "STOPPING=1", "STATUS=nonsense", "WATCHDOG=trigger"] {
        stranger.send_to(word.as_bytes(), zdr.folder().join("admin.1.1")).unwrap();
    }
    wait_for("all to be ignored", || {
        (zdr.log().matches("does not belong to the generation").count() == 4).then_some(())
    });
    let status = zdr.status();
    assert_eq!((&status["ready"], &status["generation"], &status["draining"]), (&true.into(), &1.into(), &0.into()));
    assert!(status["generations"][0]["status_text"].is_null());
}

#[test]
fn the_systemd_notify_program_can_say_all_of_it() {
    let setup = Setup::of(&[""]).option("--watchdog", "1h").option("--bake", "0s");
    let go = setup.place("go");
    let script = format!(
        "(systemd-notify --status='from a shell'; until test -e {go}; do sleep 0.01; done; \
         test $ZDR_GENERATION = 1 && systemd-notify WATCHDOG=trigger) & exec {}",
        sample(&[]).join(" ")
    );
    let zdr = setup.command(&["sh", "-c", &script]).start();
    zdr.wait_until("its words", |status| status["generations"][0]["status_text"] == "from a shell");
    fs::write(&go, "").unwrap();
    until_serving(&zdr, 2);
}
