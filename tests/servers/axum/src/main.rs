//! A server on axum: on the socket that the listenfd crate finds, else on a port given as the argument. Every request takes 10 ms.
//!
//! On SIGTERM it shuts down gracefully, as axum's documentation says.

use std::time::Duration;
use std::env;

use axum::Router;
use axum::routing::get;
use listenfd::ListenFd;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

const WORK: Duration = Duration::from_millis(10);

fn answer() -> ([(&'static str, String); 1], String) {
    let generation = env::var("ZDR_GENERATION").unwrap_or_default();
    ([("x-generation", generation.clone())], format!("generation {generation}\n"))
}

#[tokio::main]
async fn main() {
    let work = || async {
        sleep(WORK).await;
        answer()
    };
    let app = Router::new().route("/", get(work)).route("/health", get(|| async { answer() }));
    let listener = match ListenFd::from_env().take_tcp_listener(0).unwrap() {
        Some(listener) => {
            listener.set_nonblocking(true).unwrap();
            TcpListener::from_std(listener).unwrap()
        }
        None => TcpListener::bind(format!("127.0.0.1:{}", env::args().nth(1).unwrap())).await.unwrap(),
    };
    let mut told = signal(SignalKind::terminate()).unwrap();
    let told = async move {
        told.recv().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(told).await.unwrap();
}
