//! Servers that bind by themselves where zdr has few rights, and those that do it in the oddest ways: each works, or one
//! sentence says why not and what to do.

use crate::capture::{answer, as_nobody, captured, local, reload, reloads_lose_nothing, server, strict_load};
use crate::harness::{DEADLINE, Setup, Zdr, free_port, get, in_seat, wait_for};
use crate::servers::in_servers;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("only root can give up what root has in a container");
    }
    root
}

/// What Docker 20.10 does by default to root: it has fewer rights, and some calls are refused.
fn in_a_container(setup: Setup, more: &[&str]) -> Setup {
    let sandbox = in_servers("capture/sandbox.py");
    let filter = ["python3", &sandbox, "pidfd_getfd=EPERM,clone3=ENOSYS"];
    setup.through(&[&filter[..], &WITHOUT_TRACING, more].concat())
}

const WITHOUT_TRACING: [&str; 4] = [
    "setpriv",
    "--bounding-set=-sys_ptrace,-sys_admin,-sys_module,-net_admin,-dac_read_search",
    "--inh-caps=-all",
    "--",
];

fn listed(port: &str) -> Setup {
    Setup::of(&server(&[port])).listen(&["web=127.0.0.1:0"]).option("--capture", "always").option("--bake", "0s")
}

#[test]
fn root_that_may_not_trace_takes_over_what_its_own_user_binds() {
    if is_root() {
        let port = free_port();
        let zdr = captured(&[&format!("127.0.0.1:{port}")]).through(&WITHOUT_TRACING).start();
        reloads_lose_nothing(&zdr, local(port));
    }
}

#[test]
fn a_listed_address_is_taken_over_in_a_container_whoever_the_server_is() {
    if !is_root() {
        return;
    }
    for user in [None, Some("65534")] {
        let setup = in_a_container(listed("127.0.0.1:{port:web}"), &[]);
        let zdr = user.into_iter().fold(setup, |setup, user| setup.option("--user", user)).start();
        reloads_lose_nothing(&zdr, zdr.address());
    }
}

#[test]
fn a_listed_address_is_taken_over_in_a_container_without_root() {
    if is_root() {
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        let setup = as_nobody(listed("127.0.0.1:{port:web}"), &[]);
        let zdr = in_a_container(setup, &nobody).start();
        reloads_lose_nothing(&zdr, zdr.address());
    }
}

/// Why the first generation was given up.
#[track_caller]
fn reason(zdr: &Zdr) -> String {
    wait_for("the first generation to be given up", || {
        let log = zdr.log();
        let said = |line: &&str| line.contains("nothing serves, connections wait");
        log.lines().find(said).map(ToOwned::to_owned)
    })
}

#[test]
fn an_address_that_cannot_be_taken_over_in_a_container_is_named_with_the_way_out() {
    if !is_root() {
        return;
    }
    let address = format!("127.0.0.1:{}", free_port());
    let setup = captured(&[&address]).option("--user", "65534").option("--ready-timeout", "1s");
    let said = reason(&in_a_container(setup, &[]).begin());
    assert!(said.contains(&format!("the server binds {address} by itself, and zdr may not take that over")), "{said}");
    assert!(said.contains(&format!("say `--listen {address} --capture always`, or give zdr CAP_SYS_PTRACE")), "{said}");
}

#[test]
fn a_server_that_becomes_another_user_in_a_container_is_told_what_to_do_instead() {
    if !is_root() {
        return;
    }
    let setup = captured(&["--user=65534", &format!("127.0.0.1:{}", free_port())]).option("--ready-timeout", "1s");
    let said = reason(&in_a_container(setup, &[]).begin());
    assert!(said.contains("give zdr CAP_SYS_PTRACE, or say who the server is with `--user`"), "{said}");
}

/// As an ordinary user finds it: nobody but root binds there.
#[test]
fn a_port_below_1024_is_bound_for_a_server_that_may_not_only_where_that_was_asked_for() {
    if !is_root() {
        return;
    }
    let own_network = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];
    let setup = || captured(&["127.0.0.1:80"]).option("--user", "65534").through(&own_network);
    let said = reason(&setup().begin());
    assert!(
        said.contains("its user may not bind 127.0.0.1:80, because ports below 1024 need CAP_NET_BIND_SERVICE"),
        "{said}"
    );
    assert!(said.contains("say `--capture always`"), "{said}");
    let zdr = setup().option("--capture", "always").start();
    assert_eq!(zdr.address(), local(80));
    reload(&zdr);
}

#[test]
fn it_does_not_matter_which_thread_or_process_binds() {
    for way in ["thread", "helper", "child", "grandchild"] {
        let port = free_port();
        let zdr = captured(&[&format!("--way={way}"), &format!("127.0.0.1:{port}")]).start();
        reloads_lose_nothing(&zdr, local(port));
        assert_eq!(answer(port), "generation 6", "{way}");
    }
}

#[test]
fn many_addresses_bound_at_once_are_all_taken_over() {
    let addresses: Vec<String> = (0..32).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let words: Vec<&str> = ["--way=thread"].into_iter().chain(addresses.iter().map(String::as_str)).collect();
    let zdr = captured(&words).start();
    for generation in ["generation 1", "generation 2"] {
        zdr.wait_until("all of them to be taken over", |status| status["listeners"].as_array().unwrap().len() == 32);
        for address in &addresses {
            assert_eq!(get(address.parse().unwrap(), "/").1, generation);
        }
        reload(&zdr);
    }
}

#[test]
fn a_server_with_a_sandbox_of_its_own_is_taken_over() {
    for sandbox in ["--sandbox", "--lock"] {
        let port = free_port();
        let zdr = captured(&[sandbox, &format!("127.0.0.1:{port}")]).start();
        reloads_lose_nothing(&zdr, local(port));
    }
}

/// There can be one of a kind (EBUSY, seccomp(2)), and this one came first.
#[test]
fn a_server_that_watches_system_calls_itself_is_told_that_somebody_does_already() {
    let port = free_port();
    let zdr = captured(&["--own-watcher", &format!("127.0.0.1:{port}")]).start();
    assert!(get(local(port), "/facts").1.contains("own watcher: EBUSY"));
    reload(&zdr);
}

#[test]
fn a_server_that_closes_its_listener_and_binds_again_is_served_by_it_and_reloaded() {
    let port = free_port();
    let zdr = captured(&[&format!("127.0.0.1:{port}")]).start();
    for _ in 0..2 {
        assert_eq!(get(local(port), "/rebind").1, "bound");
        reloads_lose_nothing(&zdr, local(port));
    }
}

#[test]
fn a_storm_of_binds_is_answered_as_the_kernel_would_and_leaves_nothing_in_zdr() {
    let (port, passing) = (free_port(), free_port());
    let zdr = captured(&[&format!("127.0.0.1:{port}")]).start();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", zdr.pid())).unwrap().count();
    let settled = || zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
    reload(&zdr);
    settled();
    let before = descriptors();
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| get(local(port), &format!("/storm?{passing}")).1);
        assert_eq!(storm.join().unwrap(), "none failed");
    });
    assert_eq!(zdr.status()["listeners"].as_array().unwrap().len(), 1);
    reload(&zdr);
    settled();
    // One more release is held, to go back to: its directory and its executable.
    wait_for("zdr to have what it had before", || (descriptors() <= before + 2).then_some(()));
}

/// The kernel prefers the narrower address, which the old one has.
#[test]
fn a_release_that_listens_on_a_wider_address_takes_over_and_loses_nothing() {
    for (old, new) in [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "[::]"), ("127.0.0.1", "[::]")] {
        let port = free_port();
        let zdr = captured(&[&format!("{old}:{port}")]).option("--startup-grace", "200ms").start();
        let load = strict_load(local(port));
        assert!(load.wait_for_answers(20, DEADLINE));
        let told = zdr.reload_to(&server(&["--dual", &format!("{new}:{port}")]));
        assert_eq!(told.code, 0, "{told:?}");
        zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
        wait_for("the new one to answer", || (answer(port) == "generation 2").then_some(()));
        reload(&zdr);
        let report = load.stop();
        assert_eq!(report.failed(), 0, "{old} to {new}: {report}\n{}", zdr.log());
    }
}

#[test]
fn what_a_server_sets_on_its_socket_before_it_binds_survives_a_reload() {
    for words in [&["--options"][..], &[]] {
        let address = format!("127.0.0.1:{}", free_port());
        let zdr = captured(&[words, &[&address]].concat()).start();
        let told = || ["/options", "/facts"].map(|path| get(address.parse().unwrap(), path).1).concat();
        let first = told();
        assert_eq!(
            first.contains("keepalive=1 keepidle=11 nodelay=1 rcvbuf=80000 tos=16"),
            !words.is_empty(),
            "{first}"
        );
        assert_eq!(first.contains("nonblocking: True"), !words.is_empty(), "{first}");
        for _ in 0..3 {
            reload(&zdr);
            assert_eq!(told(), first);
        }
    }
}

/// As gunicorn does, so that it can be given a socket that listens.
#[test]
fn a_server_that_does_not_listen_on_what_listens_already_is_reloaded() {
    let port = free_port();
    let zdr = captured(&["--look", &format!("127.0.0.1:{port}")]).start();
    reloads_lose_nothing(&zdr, local(port));
    assert_eq!(answer(port), "generation 6");
}

#[test]
fn a_server_that_is_ready_by_its_word_before_it_has_bound_is_waited_for() {
    let port = free_port();
    let zdr = captured(&["--say", "--workers", &format!("127.0.0.1:{port}")]).start();
    wait_for("it to answer", || (answer(port) == "generation 1").then_some(()));
    reloads_lose_nothing(&zdr, local(port));
}
