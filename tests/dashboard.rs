//! The dashboard in a real Chromium: what somebody sees there while a real zdr goes through its days.
//!
//! `tests/dashboard/install` brings the browser; without it these tests fail.

mod browser;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use self::browser::Page;
use crate::admin::health_address;
use crate::harness::{Setup, Zdr, free_port, get, sample, wait_for};
use crate::python::server;
use crate::readiness::SAYS_READY;

/// The release that a hurried colleague made.
const BROKEN: [&str; 3] = ["sh", "-c", "echo 'KeyError: <b id=markup>DATABASE_URL</b>' >&2; echo 'bye' >&2; exit 7"];

fn started(options: &[(&str, &str)]) -> (Zdr, SocketAddr) {
    let setup = Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").option("--name", "shop");
    let zdr = options.iter().fold(setup, |setup, (name, value)| setup.option(name, value)).start();
    let address = health_address(&zdr);
    (zdr, address)
}

/// Kept-alive connections that have had an answer.
fn connections(zdr: &Zdr, count: usize) -> Vec<TcpStream> {
    let address = zdr.address();
    let connect = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        stream
    };
    (0..count).map(|_| connect()).collect()
}

#[test]
fn the_first_look_says_who_serves_and_everybody_can_read_it() {
    let (zdr, address) = started(&[]);
    let _held = connections(&zdr, 3);
    let mut page = Page::open(address);
    page.shows("#name", "shop");
    page.shows("#now", "Serving");
    page.shows("#now", "Generation 1 serves, since ");
    page.shows("#figures", "Connections\n3");
    page.shows("[aria-labelledby=serving] li", &format!("process {}", zdr.server_pid()));
    page.shows("#checks", "generation 1 serves");
    page.shows("#listeners", &zdr.address().to_string());
    assert_eq!(page.evaluate("document.title"), "✓ shop: serving");
    let icon = page.evaluate("document.querySelector('link[rel=icon]').href");
    assert!(icon.as_str().unwrap().starts_with("data:image/svg+xml,"), "{icon}");
    // A failed reload, so that there is something to open, to scroll and to read.
    assert_eq!(zdr.reload_to(&BROKEN).code, 3);
    page.shows("#story", "exited with code 7");
    for width in [320, 768, 1440] {
        for scheme in ["light", "dark"] {
            page.look(width, scheme);
            let wide = page.evaluate("document.documentElement.scrollWidth");
            assert_eq!(wide, width, "{scheme}");
            if let Some(folder) = std::env::var_os("ZDR_PICTURES") {
                let path = Path::new(&folder).join(format!("{width}-{scheme}.png"));
                page.order(&json!({ "order": "picture", "path": path }));
            }
        }
    }
    let dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor");
    page.look(1440, "light");
    assert_ne!(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"), dark);
    page.is_well(address);
}

#[test]
fn no_rule_of_accessibility_is_broken_in_light_or_dark() {
    let (zdr, address) = started(&[]);
    let mut page = Page::open(address);
    assert_eq!(zdr.reload_to(&BROKEN).code, 3);
    page.shows("#story", "exited with code 7");
    for (width, scheme) in [(320, "light"), (1440, "dark")] {
        page.look(width, scheme);
        assert_eq!(page.order(&json!({ "order": "accessibility" })), json!([]), "{width} {scheme}");
    }
}

#[test]
fn every_control_is_reached_with_the_keyboard_and_shows_that_it_is() {
    let (zdr, address) = started(&[]);
    let mut page = Page::open(address);
    assert_eq!(zdr.reload_to(&BROKEN).code, 3);
    page.shows("#story", "exited with code 7");
    let controls = page.evaluate(
        "window.controls = [...document.querySelectorAll('a, button, summary, pre[tabindex]')].filter(it => it.checkVisibility()); controls.length",
    );
    assert!(controls.as_u64().unwrap() >= 2, "{controls}");
    page.evaluate("window.reached = []; addEventListener('focusin', event => reached.push(event.target))");
    for _ in 0..controls.as_u64().unwrap() {
        page.order(&json!({ "order": "press", "key": "Tab" }));
        let outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle");
        assert_eq!(outline, "solid");
    }
    assert_eq!(page.evaluate("controls.filter(it => !reached.includes(it)).map(it => it.outerHTML)"), json!([]));
    // The steps of a generation open and close with a key, and stay open while the page goes on.
    page.evaluate("document.querySelector('#story li details:last-child summary').focus()");
    page.order(&json!({ "order": "press", "key": "Enter" }));
    page.shows("#story li details:last-child[open]", "generation 2 started as process");
    assert_eq!(zdr.reload().code, 0);
    page.shows("#story", "Generation 3");
    assert_eq!(page.evaluate("document.querySelectorAll('#story li details[open]:last-child').length"), 1);
    assert_eq!(page.evaluate("document.activeElement.tagName"), "SUMMARY");
    page.is_well(address);
}

#[test]
fn a_broken_release_and_then_a_good_one_can_be_told_from_the_page_alone() {
    let (zdr, address) = started(&[("--bake", "0s")]);
    let mut page = Page::open(address);
    page.wait("what comes now is news", "fresh()");
    assert_eq!(zdr.reload_to(&BROKEN).code, 3);
    page.shows("#trouble", "generation 2 exited with code 7 before it was ready; generation 1 serves on");
    page.shows("#announce", "generation 2 exited with code 7");
    page.shows("#trouble pre", "KeyError: <b id=markup>DATABASE_URL</b>\nbye");
    page.shows("#health", "degraded");
    page.shows("#checks li:first-child", "last_reload");
    page.shows("#story > li:first-child", "failed");
    page.shows("#story > li:first-child", "it exited");
    assert_eq!(page.evaluate("document.title"), "! shop: serving, degraded");
    assert_eq!(zdr.reload_to(&sample(&[])).code, 0);
    page.shows("#story > li:first-child", "Generation 3");
    page.shows("#story > li:first-child", "serves");
    page.shows("#announce", "generation 3 serves");
    page.shows("#who", "Generation 3 serves");
    page.shows("#health", "healthy");
    page.wait("no trouble is left", "document.querySelector('#trouble').hidden");
    let told = |page: &mut Page| {
        page.shows("#story", "Generation 1");
        let story = page.text("#story");
        assert!(
            story.contains("generation 2 exited with code 7 before it was ready; generation 1 serves on"),
            "{story}"
        );
        assert!(story.contains("KeyError: <b id=markup>DATABASE_URL</b>\nbye"), "{story}");
        assert_eq!(page.evaluate("document.querySelector('#markup')"), Value::Null);
        page.is_well(address);
    };
    told(&mut page);
    // Whoever comes later is told the same, from the first start on.
    let mut later = Page::open(address);
    told(&mut later);
    later.shows("#story > li:last-child", "first start");
    later.is_well(address);
}

#[test]
fn what_servers_say_is_text_and_never_markup() {
    let (zdr, address) = started(&[]);
    let mut page = Page::open(address);
    let path = "/nowhere/<img src=x onerror=document.title=1>/<script>document.title=2</script>";
    assert_eq!(zdr.reload_to(&[path]).code, 3);
    page.shows("#trouble", "<img src=x onerror=document.title=1>");
    page.shows("#story", "<script>document.title=2</script>");
    assert_eq!(page.evaluate("document.querySelectorAll('img, main script').length"), 0);
    page.is_well(address);
}

#[test]
fn a_reload_is_seen_as_it_happens() {
    let gate = tempfile::NamedTempFile::new().unwrap();
    let ready = format!("exec:test -s {}", gate.path().display());
    std::fs::write(&gate, "open").unwrap();
    let (zdr, address) = started(&[("--bake", "1m"), ("--ready", &ready)]);
    let mut held = connections(&zdr, 8);
    let mut page = Page::open(address);
    page.shows("[aria-labelledby=serving] li", "8 connections");
    // The next one is not ready before it has been looked at.
    std::fs::write(&gate, "").unwrap();
    let mut reload = zdr.client_in_background(&["reload"]);
    page.shows("[aria-labelledby=starting] li", "Generation 2");
    page.shows("#now", "Reloading");
    page.shows("#story > li:first-child", "generation 2 is not ready yet");
    std::fs::write(&gate, "open").unwrap();
    page.shows("[aria-labelledby=serving] li", "Generation 2");
    assert!(reload.wait().unwrap().success());
    page.shows("[aria-labelledby=starting]", "nobody");
    page.shows("[aria-labelledby=draining] li", "8 of 8 connections left");
    held.truncate(3);
    page.shows("[aria-labelledby=draining] li", "3 of 8 connections left");
    let bar =
        page.evaluate("(bar => [bar.value, bar.max])(document.querySelector('[aria-labelledby=draining] progress'))");
    assert_eq!(bar, json!([3, 8]));
    held.clear();
    page.shows("[aria-labelledby=draining] li", "0 of 8 connections left");
    let chart = page.evaluate("document.querySelector('#chart-connections svg').getAttribute('aria-label')");
    assert!(chart.as_str().unwrap().contains("now 0, lowest 0, highest 8"), "{chart}");
    page.is_well(address);
}

#[test]
fn several_instances_a_pause_and_the_way_back_are_seen() {
    let (zdr, address) = started(&[("--instances", "3"), ("--bake", "1m")]);
    let mut page = Page::open(address);
    page.shows("[aria-labelledby=serving] li", "3 instances: 3 serving");
    page.shows("#figures", "Instances\n3");
    assert_eq!(page.evaluate("document.querySelectorAll('[aria-labelledby=serving] .crew .pill').length"), 3);
    page.wait("nobody can go back yet", "document.querySelector('#back').hidden");
    page.wait("what comes now is news", "fresh()");
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    page.shows("#announce", "instance 1 of generation 1 was killed by signal 9 (KILL); 2 others serve");
    page.evaluate("document.querySelector('#story li details:last-child').open = true");
    page.shows("#story li details:last-child", "instance 1 of generation 1 is ready, 3 of 3");
    page.shows("[aria-labelledby=serving] li", "3 instances: 3 serving");
    assert_eq!(zdr.client(&["pause"]).code, 0);
    page.shows("#now", "new connections are held, for ");
    page.shows("#story > li:first-child", "new connections are held for at most 30s");
    assert_eq!(zdr.client(&["resume"]).code, 0);
    page.wait("they are let go", "!document.querySelector('#now').innerText.includes('are held')");
    assert_eq!(zdr.reload().code, 0);
    page.shows("#back", "A rollback goes to generation 1, which is kept warm.");
    page.shows("[aria-labelledby=draining] li", "3 instances: 3 draining");
    assert_eq!(page.order(&json!({ "order": "accessibility" })), json!([]));
    assert_eq!(zdr.client(&["rollback"]).code, 0);
    page.shows("#who", "Generation 1 serves");
    page.shows("#story", "serves again");
    page.is_well(address);
}

#[test]
fn a_failing_check_comes_first() {
    let zdr = Setup::of(&sample(&["--bad", "hang"])).option("--health", "127.0.0.1:0").begin();
    wait_for("its health address", || zdr.log().contains("answering health questions").then_some(()));
    let address = health_address(&zdr);
    let mut page = Page::open(address);
    page.shows("#now", "Starting");
    page.shows("#ready", "not ready");
    page.shows("#checks li:first-child", "serving");
    page.shows("#checks li:first-child", "unhealthy");
    page.shows("#checks li:first-child", "critical");
    page.shows("[aria-labelledby=serving]", "nobody: connections wait");
    page.is_well(address);
}

#[test]
fn a_check_that_fails_and_recovers_is_seen_doing_so() {
    let trouble = tempfile::NamedTempFile::new().unwrap();
    let path = trouble.path().display();
    let check = format!("stock=exec:cat {path}; test ! -s {path},interval=100ms");
    let (_zdr, address) = started(&[("--check", &check)]);
    let mut page = Page::open(address);
    page.shows("#checks", "stock");
    page.wait("what comes now is news", "fresh()");
    std::fs::write(&trouble, "nothing <i>left</i>").unwrap();
    page.shows("#checks li:first-child", "stock");
    page.shows("#checks li:first-child", "nothing <i>left</i>");
    page.shows("#story > li:first-child", "check stock is");
    page.wait("it is not well", "document.title.startsWith('! ') || document.title.startsWith('✗ ')");
    std::fs::write(&trouble, "").unwrap();
    page.wait("it is well", "document.title.startsWith('✓ ')");
    page.shows("#story > li:first-child", "check stock is healthy");
    page.is_well(address);
}

#[test]
fn what_a_server_says_of_itself_is_shown_in_its_seat() {
    let body = "say(b'STATUS=7 of 9 <b>shelves</b>\\nREADY=1')\nserve(listener(), lambda path: 'up')";
    let server = server(&format!("{SAYS_READY}{body}"));
    let zdr = Setup::of(&server).option("--health", "127.0.0.1:0").start();
    let mut page = Page::open(health_address(&zdr));
    page.shows("[aria-labelledby=serving] .said", "7 of 9 <b>shelves</b>");
}

#[test]
fn a_lost_connection_is_shown_and_found_again() {
    let health = format!("127.0.0.1:{}", free_port());
    let setup = || Setup::of(&sample(&[])).option("--health", &health);
    let mut zdr = setup().start();
    let address: SocketAddr = health.parse().unwrap();
    let mut page = Page::open(address);
    assert_eq!(zdr.reload_to(&BROKEN).code, 3);
    page.shows("#story", "exited with code 7");
    // Not a byte comes, and nothing says why.
    zdr.signal(Signal::SIGSTOP);
    page.shows("#lost", "zdr does not answer");
    assert!(page.evaluate("document.title").as_str().unwrap().ends_with(": no answer"));
    assert_eq!(page.order(&json!({ "order": "accessibility" })), json!([]));
    zdr.signal(Signal::SIGCONT);
    page.wait("it is found again", "link === 'live' && document.querySelector('#lost').hidden");
    page.shows("#story", "exited with code 7");
    page.complaints();
    // Another zdr on the same address: its story begins anew.
    zdr.signal(Signal::SIGKILL);
    zdr.ended();
    page.shows("#lost", "zdr does not answer");
    page.complaints();
    let other = setup().start();
    page.shows("#about", &format!("process {}", other.pid()));
    page.wait("it is found again", "link === 'live' && document.querySelector('#lost').hidden");
    assert!(!page.text("#story").contains("exited with code 7"));
    // That nobody answered is what the browser itself notes, as often as it asked.
    let others = page.complaints().into_iter().filter(|note| !note.contains("net::ERR_")).collect::<Vec<_>>();
    assert_eq!(others, [""; 0]);
    assert_eq!(other.reload().code, 0);
    page.shows("#who", "Generation 2 serves");
    page.is_well(address);
}

#[test]
fn a_page_that_nobody_sees_asks_for_nothing_after_a_while_and_is_live_at_once_when_seen() {
    let (zdr, address) = started(&[]);
    let mut page = Page::open(address);
    // The minute that it waits is over at once.
    page.evaluate(
        "{ const real = setTimeout; window.setTimeout = (then, after) => real(then, after === HIDDEN ? 1 : after); }",
    );
    let hidden = |yes: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {yes}, configurable: true }}); document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    page.evaluate(&hidden(true));
    page.wait("it sleeps", "link === 'asleep' && !watching");
    assert!(page.evaluate("document.title").as_str().unwrap().ends_with("not watched while hidden"));
    assert_eq!(zdr.reload().code, 0);
    page.evaluate(&hidden(false));
    page.shows("#who", "Generation 2 serves");
    page.shows("#story", "Generation 2");
    page.is_well(address);
}

#[test]
fn the_page_allows_nothing_but_itself() {
    let (zdr, address) = started(&[("--health-path", "/up")]);
    let answer = zdr.ask_raw("GET / HTTP/1.0\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    for line in [
        "http/1.0 200 ok",
        "content-type: text/html; charset=utf-8",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "content-security-policy: default-src 'none'; connect-src 'self'; script-src 'sha256-",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    for part in ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
        assert!(head.contains(part), "{part}: {head}");
    }
    assert_eq!(get(address, "/").1, body);
    // It knows where health is.
    let mut page = Page::open(address);
    page.shows("#now", "Serving");
    page.is_well(address);
}

/// A proxy that has zdr's paths below `/ops/zdr/`, as people put such pages beside others.
fn proxy(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let visit = move |mut client: TcpStream| -> std::io::Result<()> {
        let mut server = TcpStream::connect(to)?;
        for line in BufReader::new(client.try_clone()?).lines() {
            let line = line?.replace(" /ops/zdr/", " /").replace("keep-alive", "close");
            write!(server, "{line}\r\n")?;
            if line.is_empty() {
                break;
            }
        }
        std::io::copy(&mut server, &mut client)?;
        client.shutdown(std::net::Shutdown::Both)
    };
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || visit(client));
        }
    });
    address
}

#[test]
fn it_works_below_the_prefix_of_a_proxy() {
    let (zdr, address) = started(&[]);
    let mut page = Page::open(address);
    let proxy = proxy(address);
    page.order(&json!({ "order": "go", "url": format!("http://{proxy}/ops/zdr/") }));
    page.shows("#now", "Generation 1 serves");
    page.wait("what comes now is news", "fresh()");
    assert_eq!(zdr.reload().code, 0);
    page.shows("#story", "Generation 2");
    assert_eq!(page.complaints(), [""; 0]);
}
