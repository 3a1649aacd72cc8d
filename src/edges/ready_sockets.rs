//! The two sockets on which an instance can say how it is: the notify socket and einhorn's.
//!
//! Passes on who said what; whether it counts is decided elsewhere.

use std::io;

use super::child::SaidOn;
use super::einhorn::AckSocket;
use super::notice::{Notice, Owner};
use super::notify::{NotifyPlace, NotifySocket, Said};
use crate::runtime_directory::beside;
use crate::supervisor::Instance;

/// Both, with paths that are removed when this is dropped.
#[derive(Debug)]
pub struct ReadySockets {
    notify: NotifySocket,
    acks: AckSocket,
}

impl ReadySockets {
    /// Binds those of an instance, the second beside the first.
    pub fn bind(place: &NotifyPlace, instance: Instance) -> io::Result<Self> {
        let notify = place.bind(instance)?;
        let acks = AckSocket::bind(&beside(notify.path(), "ack"))?;
        place.give(acks.path())?;
        Ok(Self { notify, acks })
    }

    /// What the instance is told.
    pub fn paths(&self) -> SaidOn<'_> {
        SaidOn { notify: self.notify.path(), einhorn: self.acks.path() }
    }

    /// Tells the owner what is said, until it is ended.
    pub async fn listen(self, instance: Instance, owner: Owner) {
        let Self { notify, acks } = self;
        let tell = move |Said { pid, words }| {
            let _ = owner.send(Notice::Said { instance, pid, words });
        };
        let also_tell = tell.clone();
        let notified = async {
            while let Ok(said) = notify.next().await {
                also_tell(said);
            }
        };
        tokio::join!(notified, acks.run(tell));
    }
}
