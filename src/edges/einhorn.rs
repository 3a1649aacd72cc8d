//! The socket on which a server made for einhorn says that it is ready; every instance has its own, beside its notify
//! socket.
//!
//! Understands the ack and nothing else of einhorn's command socket. Answers nothing, because clients read nothing: the
//! connection is closed, as einhorn does it (`worker:ack` in lib/einhorn/command/interface.rb).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::notify::Said;
use super::words::Words;

/// The longest line that is read; the longest of a known client has 60 bytes.
const LONGEST: u64 = 4096;

/// Whoever has connected says it at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take to close its connection by itself.
const FAREWELL: Duration = Duration::from_secs(1);

/// Clients that are listened to at a time; the others wait in the queue.
const AT_A_TIME: usize = 16;

/// The pause after an accept that failed, which is where descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// The receiving end; the path is removed when it is dropped.
#[derive(Debug)]
pub struct AckSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AckSocket {
    /// Binds the path; what a dead zdr left there is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { listener: UnixListener::bind(path)?, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells what is said with its sender, until it is ended. A client that says nothing keeps no other one waiting.
    pub async fn run(self, tell: impl Fn(Said) + Clone + Send + 'static) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept(), if clients.len() < AT_A_TIME => match accepted {
                    Ok((client, _)) => {
                        clients.spawn(timeout(PATIENCE, hear(client, tell.clone())));
                    }
                    Err(_) => sleep(PAUSE).await,
                },
            }
        }
    }
}

impl Drop for AckSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// One line. The sender is whoever connected (SO_PEERCRED, unix(7)), whatever process number the line has.
async fn hear(client: UnixStream, tell: impl Fn(Said)) {
    let Some(pid) = client.peer_cred().ok().and_then(|sender| sender.pid()) else { return };
    let mut client = BufReader::new(client.take(LONGEST));
    let mut line = Vec::new();
    if client.read_until(b'\n', &mut line).await.is_ok() {
        tell(Said { pid, words: Words::of_ready(says_ack(&line)) });
    }
    // A client may write another line end by itself (stripe/go-einhorn), and fails if nobody is there any more to take it.
    let _ = timeout(FAREWELL, client.read_to_end(&mut line)).await;
}

/// The line is JSON, or YAML with its line ends written as `%0A`, which is what einhorn's own library sends. It is the value
/// that counts, because one of the Go clients (stripe/go-einhorn) misspells the key.
fn says_ack(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line).replace("%20", " ").replace("%22", "\"").replace("%0A", "\n");
    let words = text.split(|c: char| c.is_whitespace() || "\"'{},".contains(c));
    words.into_iter().any(|word| word == "worker:ack" || word.ends_with(":worker:ack"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::edges::task::Task;

    #[test]
    fn the_ack_of_every_known_client_is_understood() {
        for line in [
            // The documentation of einhorn.
            r#"{"command":"worker:ack", "pid":7}"#,
            // lib/einhorn/client.rb
            "---%0Acommand: worker:ack%0Apid: 7%0A",
            // node-einhorn
            "---%0Acommand:%20worker:ack%0Apid:%207",
            // stripe/go-einhorn
            r#"{"comand":"worker:ack","Pid":7}"#,
            // zenazn/goji
            r#"{"command": "worker:ack", "pid": 7}"#,
        ] {
            assert!(says_ack(line.as_bytes()), "{line}");
        }
        for line in ["", "\n", r#"{"command":"worker:ping"}"#, r#"{"command":"worker:acknowledge"}"#, "\u{fffd}"] {
            assert!(!says_ack(line.as_bytes()), "{line}");
        }
    }

    #[tokio::test]
    async fn an_ack_comes_with_its_sender_though_others_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ack");
        fs::write(&path, "left by a dead zdr").unwrap();
        let socket = AckSocket::bind(&path).unwrap();
        let (tell, mut heard) = unbounded_channel();
        let mut silent = Vec::new();
        for _ in 1..AT_A_TIME {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"{\"command\":\"worker:ack\",\"pid\":1}\n").await.unwrap();
        let running = Task::start(socket.run(move |said| tell.send(said).unwrap()));
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(heard.recv().await, Some(Said { pid: own, words: Words::of_ready(true) }));
        client.write_all(b"\n").await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
        drop(running);
        assert_eq!(heard.recv().await, None);
        assert!(!path.exists());
    }
}
