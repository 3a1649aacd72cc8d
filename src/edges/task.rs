//! A task of the event loop that ends when its owner forgets it.

use std::future::Future;

use tokio::task::JoinHandle;

/// A running task; dropping it ends it.
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Task {
    /// Starts it.
    pub fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// It has not come to its end.
    pub fn is_running(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
