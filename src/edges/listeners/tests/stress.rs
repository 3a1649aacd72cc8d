//! Connections to a listener that stays, made while all that can change does.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::edges::kernel::sock_diag::SockDiag;

/// Accepts and answers on a slot until it is retired and its queue has run empty.
fn serve(borrowed: Borrowed, retired: &AtomicBool) -> usize {
    let server = TcpListener::from(borrowed.socket);
    server.set_nonblocking(true).unwrap();
    let mut count = 0;
    loop {
        let last = retired.load(Ordering::Acquire);
        while let Ok((mut stream, _)) = server.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.write_all(b"!").unwrap();
            count += 1;
        }
        if last {
            return count;
        }
        let mut asked = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::from(5_u8)).unwrap();
    }
}

fn ask(to: SocketAddr) {
    let mut stream = connect(to);
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"!");
}

#[test]
fn nobody_who_comes_to_a_listener_that_stays_is_lost_while_others_come_and_go() {
    let mut listeners = Listeners::bind(&asked(&["127.0.0.1:0"])).unwrap();
    let to = address(&listeners, "web");
    let over = AtomicBool::new(false);
    let retired: Vec<AtomicBool> = (0..60).map(|_| AtomicBool::new(false)).collect();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !over.load(Ordering::Acquire) {
                        ask(to);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        let mut servers = Vec::new();
        for (generation, quits) in (1..).zip(&retired) {
            let place = if generation == 1 { Place::Steered } else { Place::Beside };
            let mut list = vec!["127.0.0.1:0".to_owned()];
            // Others come, go, change their names and their order.
            for other in 0..generation % 4 {
                list.insert(usize::try_from(other % 2).unwrap(), format!("other{generation}-{other}=127.0.0.1:0"));
            }
            let list: Vec<&str> = list.iter().map(String::as_str).collect();
            listeners.prepare(Generation(generation), Some(&asked(&list))).unwrap();
            let lent = lend(&mut listeners, only(generation), place);
            let web = lent.into_iter().find(|lent| lent.name == "web").unwrap();
            servers.push(scope.spawn(move || serve(web, quits)));
            if generation % 7 == 3 {
                listeners.steer(&[portion(generation - 1, &[1], 1), portion(generation, &[1], 1)]).unwrap();
            }
            listeners.steer(&all_to(generation)).unwrap();
            if generation > 1 {
                let old = usize::try_from(generation - 2).unwrap();
                listeners.retire(Generation(generation - 1)).unwrap();
                // As `quiesce` does: what had begun to come to it is in its queue, before that is looked at for the last time.
                let mut diag = SockDiag::open().unwrap();
                let begun = diag.half_open(to.port()).unwrap();
                while !diag.half_open(to.port()).unwrap().is_disjoint(&begun) {
                    ask(to);
                }
                retired[old].store(true, Ordering::Release);
                servers.remove(0).join().unwrap();
                let dropped = listeners.release(Generation(generation - 1));
                assert_eq!(dropped, 0, "of generation {}", generation - 1);
            }
        }
        over.store(true, Ordering::Release);
        let asked: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(asked > 100, "there was hardly a client");
        retired[59].store(true, Ordering::Release);
    });
    assert_eq!(listeners.all().count(), 1);
}
