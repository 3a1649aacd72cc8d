//! A server on actix-web: on the socket that the listenfd crate finds, else on a port given as the argument. Every request takes 10 ms.
//!
//! On SIGTERM actix-web shuts down gracefully by itself.

use std::env;
use std::time::Duration;

use actix_web::rt::time::sleep;
use actix_web::web::get;
use actix_web::{App, HttpResponse, HttpServer};
use listenfd::ListenFd;

const WORK: Duration = Duration::from_millis(10);

async fn health() -> HttpResponse {
    let generation = env::var("ZDR_GENERATION").unwrap_or_default();
    HttpResponse::Ok().insert_header(("X-Generation", generation.clone())).body(format!("generation {generation}\n"))
}

async fn work() -> HttpResponse {
    sleep(WORK).await;
    health().await
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let server = HttpServer::new(|| App::new().route("/", get().to(work)).route("/health", get().to(health)));
    let server = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(listener) => server.listen(listener)?,
        None => server.bind(format!("127.0.0.1:{}", env::args().nth(1).unwrap()))?,
    };
    server.workers(2).run().await
}
