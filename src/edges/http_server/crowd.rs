//! Who is connected to one door, and who has to go when one more comes.
//!
//! Never closes a connection whose request is in progress, and never reads the clock: who has waited longest is a matter of turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet, yield_now};

/// The connections of one door, each a task with a seat. Dropping it closes all of them.
pub(super) struct Crowd {
    most: usize,
    turns: Arc<AtomicU64>,
    tasks: JoinSet<()>,
    seats: HashMap<Id, (Arc<Seat>, AbortHandle)>,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Self {
        // Turn 0 means that nobody is waiting.
        Self { most, turns: Arc::new(AtomicU64::new(1)), tasks: JoinSet::new(), seats: HashMap::new() }
    }

    /// A seat for a connection that has just come and not said anything.
    pub(super) fn seat(&self) -> Arc<Seat> {
        let seat = Seat { state: AtomicU64::new(IN_PROGRESS), turns: Arc::clone(&self.turns) };
        seat.wait();
        Arc::new(seat)
    }

    /// Runs a connection. There may be one more than `most`: the one that is told there is no room, and first to go at the next.
    pub(super) fn admit(&mut self, seat: Arc<Seat>, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.seats.insert(task.id(), (seat, task));
    }

    /// Waits until a connection is over; None if there is none. Cancel safe, as `join_next_with_id` is.
    pub(super) async fn one_left(&mut self) -> Option<()> {
        let gone = self.tasks.join_next_with_id().await?;
        self.forget(gone);
        Some(())
    }

    /// Closes whoever has waited longest, if need be. False if all have requests in progress.
    pub(super) async fn make_room(&mut self) -> bool {
        if self.seats.len() < self.most {
            return true;
        }
        // What has been accepted in one go has not been read yet. Its tasks, and the runtime's look at the sockets, come first.
        yield_now().await;
        while let Some(gone) = self.tasks.try_join_next_with_id() {
            self.forget(gone);
        }
        while self.seats.len() >= self.most {
            let Some(id) = self.longest_waiting() else { return false };
            if let Some((_, task)) = self.seats.remove(&id) {
                task.abort();
            }
        }
        true
    }

    fn longest_waiting(&self) -> Option<Id> {
        let waiting = self.seats.iter().filter_map(|(id, (seat, _))| Some((seat.waits_since()?, *id)));
        waiting.min_by_key(|(turn, _)| *turn).map(|(_, id)| id)
    }

    /// A panic has been reported by the panic hook already, and ended nothing but its connection.
    fn forget(&mut self, gone: Result<(Id, ()), JoinError>) {
        let id = gone.map_or_else(|error| error.id(), |(id, ())| id);
        self.seats.remove(&id);
    }
}

/// A request is being answered.
const IN_PROGRESS: u64 = 0;

/// hyper has the whole answer, but the kernel may not.
const ANSWERED: u64 = u64::MAX;

/// Where one connection stands: in progress, answered, or waiting since a turn. Shared by the connection's task and the crowd.
pub(super) struct Seat {
    state: AtomicU64,
    turns: Arc<AtomicU64>,
}

impl Seat {
    /// A whole request is here. Before that, a slow head or body is waiting like any other.
    pub(super) fn request_received(self: &Arc<Self>) -> InProgress {
        self.state.store(IN_PROGRESS, Ordering::Relaxed);
        InProgress(Arc::clone(self))
    }

    /// Everything hyper had to write is written.
    pub(super) fn flushed(&self) {
        if self.state.load(Ordering::Relaxed) == ANSWERED {
            self.wait();
        }
    }

    /// No earlier answer is still on its way.
    pub(super) fn all_is_written(&self) -> bool {
        self.state.load(Ordering::Relaxed) != ANSWERED
    }

    fn wait(&self) {
        self.state.store(self.turns.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn waits_since(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        (state != IN_PROGRESS && state != ANSWERED).then_some(state)
    }
}

/// Held from a whole request to the end of its answer.
pub(super) struct InProgress(Arc<Seat>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.state.store(ANSWERED, Ordering::Relaxed);
    }
}
