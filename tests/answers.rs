//! Who answers when: requests one after another, each over a connection of its own, and which generation answered each.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{JoinHandle, panicking, spawn};
use std::time::{Duration, Instant};

use crate::harness::{DEADLINE, Zdr, get};

/// Requests under way; they end when this is dropped.
pub struct Answers {
    news: mpsc::Receiver<(Instant, u64)>,
    over: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

/// How long it took until the old generation answered.
pub struct Times {
    /// From the order on the admin socket.
    pub asked: Duration,
    /// From the start of the client command.
    pub commanded: Duration,
}

impl Answers {
    /// Asks as fast as it is answered.
    pub fn watch(address: SocketAddr) -> Self {
        let (tell, news) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&over);
        let asking = spawn(move || {
            while !watched.load(Ordering::Relaxed) {
                let (status, body) = get(address, "/");
                assert_eq!(status, 200, "a request was lost");
                let _ = tell.send((Instant::now(), generation(&body)));
            }
        });
        Self { news, over, asking: Some(asking) }
    }

    /// The first answer from then on that is of another generation than this.
    fn first_after(&self, begun: Instant, other_than: u64) -> Instant {
        loop {
            let (at, generation) = self.news.recv_timeout(DEADLINE).expect("answers");
            if at > begun && generation != other_than {
                return at;
            }
        }
    }

    /// Reloads and goes back twice: by an order on the admin socket, and by the command.
    pub fn warm_rollbacks(&self, zdr: &Zdr) -> Times {
        let asked = self.after_a_reload(
            zdr,
            || {},
            || {
                let told = zdr
                    .ask_raw("POST /v1/rollback HTTP/1.1\r\nHost: z\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                assert!(told.contains("serves again"), "{told}");
            },
        );
        let commanded = self.after_a_reload(zdr, || {}, || assert_eq!(zdr.client(&["rollback"]).code, 0));
        Times { asked, commanded }
    }

    /// The time from going back, after a reload and what follows it, to the first answer of somebody else.
    pub fn after_a_reload(&self, zdr: &Zdr, wait: impl FnOnce(), go_back: impl FnOnce()) -> Duration {
        assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
        let new = zdr.serving().expect("somebody serves");
        // Until the new one answers there are answers of the old one on their way.
        while self.news.recv_timeout(DEADLINE).expect("answers").1 != new {}
        wait();
        let begun = Instant::now();
        go_back();
        self.first_after(begun, new) - begun
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let asked = self.asking.take().map(JoinHandle::join);
        assert!(panicking() || matches!(asked, Some(Ok(()))), "a request was lost");
    }
}

/// As the servers of the tests say it.
fn generation(body: &str) -> u64 {
    let (_, rest) = body.split_once("generation ").expect("a body with the generation");
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().expect("a number")
}
