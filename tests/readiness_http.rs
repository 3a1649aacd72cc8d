//! Readiness by HTTP: only the answer of the new generation itself counts.

use std::io::Write;
use std::net::TcpListener;

use rcgen::generate_simple_self_signed;

use crate::harness::{Setup, Zdr, free_port, get, in_seat, sample};
use crate::python::server;
use crate::readiness::refused;

#[test]
fn a_path_is_asked_of_the_first_listener() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").option("--ready-timeout", "2s").start();
    refused(&zdr, &sample(&["--bad", "status:500"]), "was not ready after 2s: last probe of /health: 500");
    assert_eq!(zdr.reload_to(&sample(&[])).code, 0);
}

#[test]
fn a_url_on_our_own_listener_is_asked_of_the_new_generation_only() {
    for host in ["127.0.0.1", "localhost"] {
        let port = free_port();
        let (listen, url) = (format!("127.0.0.1:{port}"), format!("http://{host}:{port}/health"));
        let zdr =
            Setup::of(&sample(&[])).listen(&[&listen]).option("--ready", &url).option("--ready-timeout", "2s").start();
        // The old one answers 200 at that very URL all the time.
        refused(&zdr, &sample(&["--bad", "status:500"]), "500");
        refused(&zdr, &sample(&["--bad", "hang"]), "was not ready after 2s");
        assert_eq!(zdr.reload_to(&sample(&[])).code, 0);
    }
}

#[test]
fn a_wildcard_listener_is_asked_by_its_loopback_address() {
    for listen in ["0.0.0.0", "[::]"] {
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}/health");
        let zdr = Setup::of(&sample(&[]))
            .listen(&[&format!("{listen}:{port}")])
            .option("--ready", &url)
            .option("--ready-timeout", "2s")
            .start();
        refused(&zdr, &sample(&["--bad", "status:503"]), "503");
        assert_eq!(zdr.reload_to(&sample(&[])).code, 0);
    }
}

/// Serves on its listener, and on `port` as soon as it can have it.
fn with_another_port(port: u16, reuse: &str) -> Vec<String> {
    server(&format!(
        "
def other():
    while True:
        try:
            s = bound({port}, {reuse})
            break
        except OSError:
            time.sleep(0.02)
    serve(s, lambda path: 'fine')
threading.Thread(target=other, daemon=True).start()
serve(listener(), lambda path: 'hello')
"
    ))
}

fn asked_on_another_port(port: u16, reuse: &str) -> Zdr {
    Setup::of(&with_another_port(port, reuse))
        .option("--ready", &format!("http://127.0.0.1:{port}/"))
        .option("--ready-timeout", "3s")
        .option("--bake", "0s")
        .start()
}

#[test]
fn an_answer_of_the_old_generation_does_not_count_for_the_new_and_is_named() {
    let port = free_port();
    let zdr = asked_on_another_port(port, "False");
    let pid = zdr.server_pid();
    refused(&zdr, &sample(&[]), &format!("answered by process {pid} ("));
    let reason = zdr.status()["last_verdict"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("python3") && reason.contains("of generation 1, not by the new one"), "{reason}");
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/").1, "fine");
}

#[test]
fn a_port_shared_by_both_generations_counts_once_the_new_one_answers_there() {
    let port = free_port();
    let zdr = asked_on_another_port(port, "True");
    for generation in 2..5 {
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}");
        assert_eq!(zdr.serving(), Some(generation));
        zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
    }
}

#[test]
fn an_answer_of_a_stranger_does_not_count() {
    let port = free_port();
    let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let answering = std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = stranger.accept() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            kept.push(stream);
        }
    });
    let mut zdr = Setup::of(&sample(&[]))
        .option("--ready", &format!("http://127.0.0.1:{port}/"))
        .option("--ready-timeout", "2s")
        .begin();
    assert_eq!(zdr.ended().code(), Some(1));
    let words = format!("answered by process {} (", std::process::id());
    assert!(zdr.log().contains(&words) && zdr.log().contains("does not belong to zdr"), "{}", zdr.log());
    drop(answering);
}

#[test]
fn an_https_answer_with_a_self_signed_certificate_counts_on_loopback() {
    let setup = Setup::of(&[""]);
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(setup.folder().join("cert.der"), made.cert.der()).unwrap();
    std::fs::write(setup.folder().join("key.der"), made.signing_key.serialize_der()).unwrap();
    let folder = setup.folder().display().to_string();
    let body = format!(
        "
import base64, ssl
pem = ssl.DER_cert_to_PEM_cert(open('{folder}/cert.der', 'rb').read())
key = base64.encodebytes(open('{folder}/key.der', 'rb').read()).decode()
path = '{folder}/pem' + str(os.getpid())
open(path, 'w').write(pem + '-----BEGIN PRIVATE KEY-----\\n' + key + '-----END PRIVATE KEY-----\\n')
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(path)
s = listener()
while True:
    c, _ = s.accept()
    try:
        visit(context.wrap_socket(c, server_side=True), lambda path: 'secret')
    except OSError:
        pass
"
    );
    let port = free_port();
    let zdr = setup
        .command(&server(&body))
        .listen(&[&format!("127.0.0.1:{port}")])
        .option("--ready", &format!("https://127.0.0.1:{port}/"))
        .option("--ready-timeout", "8s")
        .start();
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
    // One that speaks no TLS is not ready.
    let told = zdr.reload_to(&sample(&[]));
    assert_eq!(told.code, 3, "{told:?}");
}

#[test]
fn the_statuses_that_count_can_be_chosen() {
    let zdr = Setup::of(&sample(&["--bad", "status:503"]))
        .option("--ready", "/health")
        .option("--ready-status", "204,500-599")
        .option("--ready-timeout", "2s")
        .start();
    refused(&zdr, &sample(&[]), "last probe of /health: 200");
}

#[test]
fn as_many_good_answers_in_a_row_are_wanted_as_asked() {
    let counted = "asked = [0]\ndef say(path):\n    asked[0] += path == '/ready'\n    return str(asked[0])\n";
    let zdr = Setup::of(&server(&format!("{counted}serve(listener(), say)")))
        .option("--ready", "/ready")
        .option("--ready-successes", "4")
        .option("--ready-timeout", "3s")
        .start();
    assert_eq!(zdr.get("/"), "4");
    let every_other =
        format!("{counted}serve(listener(), lambda path: (say(path), '200 OK' if asked[0] % 2 else '500 No'))");
    refused(&zdr, &server(&every_other), "was not ready after 3s");
}

#[test]
fn proxies_in_the_environment_are_not_asked() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let setup = Setup::of(&sample(&[])).option("--ready", "/health");
    let zdr = names.into_iter().fold(setup, |setup, name| setup.environment(name, &url)).start();
    assert_eq!(zdr.reload().code, 0);
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err());
}

#[test]
fn a_redirect_to_elsewhere_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let location = format!("Location: http://{}/\\r\\n", elsewhere.local_addr().unwrap());
    let zdr = Setup::of(&sample(&[]))
        .option("--ready", "/health")
        .option("--ready-status", "200")
        .option("--ready-timeout", "2s")
        .start();
    refused(&zdr, &server(&format!("serve(listener(), lambda path: ('', '302 Found', '{location}'))")), "302");
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err());
}

#[test]
fn an_answer_that_never_ends_is_cut_at_the_limit_of_a_probe() {
    let endless = server(
        "
def pour(c):
    try:
        read_head(c)
        c.sendall(b'HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n')
        while True:
            c.sendall(b'10000\\r\\n' + b'x' * 65536 + b'\\r\\n')
    except OSError:
        pass
s = listener()
while True:
    c, _ = s.accept()
    threading.Thread(target=pour, args=(c,), daemon=True).start()
",
    );
    let zdr = Setup::of(&sample(&[]))
        .option("--ready", "/health")
        .option("--ready-limit", "200ms")
        .option("--ready-timeout", "2s")
        .start();
    // Whether a 200 with no end counts is one question, whether zdr comes to a verdict and stays small another.
    let told = zdr.reload_to(&endless);
    assert!(told.code == 0 || told.code == 3, "{told:?}");
    assert_eq!(zdr.reload_to(&sample(&[])).code, 0);
}
