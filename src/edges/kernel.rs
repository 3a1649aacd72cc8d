//! The only `unsafe` of zdr: one file per kernel interface, each a small safe API.
//!
//! Nothing here knows of generations or slots.
#![expect(unsafe_code, reason = "the fence: these interfaces have no safe wrapper, see each file")]

pub mod allocator;
pub mod clone;
pub mod code;
mod companion;
pub mod keeper;
pub mod membarrier;
pub mod owner;
pub mod pidfd;
pub mod priority;
pub mod readable;
pub mod relay;
pub mod reuseport;
pub mod seccomp;
pub mod sock_diag;
pub mod sockopt;
