//! Counting, on a thread of its own: ten thousand connections take tens of milliseconds, and everybody else goes first.

use std::thread::Builder;

use tokio::sync::oneshot;

use super::kernel::priority::step_back;

/// As for the threads of the event loop.
const STACK: usize = 256 * 1024;

/// Counts; whoever asked may have gone meanwhile. Without a thread nothing comes.
pub fn count_aside<T: Send + 'static>(count: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, counted) = oneshot::channel();
    let counting = move || {
        step_back();
        drop(done.send(count()));
    };
    let _ = Builder::new().name("zdr-count".to_owned()).stack_size(STACK).spawn(counting);
    counted
}
