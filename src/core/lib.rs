//! The protocol and the state of a taskmesh node: a deterministic function
//! `(state, now, input) → effects`.
//!
//! Nothing here touches a socket, a disk, a clock, a process or a source of
//! randomness: those feed a [`Node`] with [`Input`]s and obey its [`Effect`]s.
//! So whole meshes run in one thread from one seed (`tests/sim`).
//!
//! # Glossary
//! - **node**: one process of the mesh, named by its Ed25519 public key.
//! - **task**: a unit of work, kept as a **record** on its **holders**.
//! - **owner**: the holder that alone may write a record now.
//! - **ballot**: who owns a record, by epoch; the greater ballot wins.
//! - **pledge**: the greatest ballot that a holder has promised to respect.
//! - **stamp**: the version of a record: ballot, then the owner's revision.
//! - **executor**: the node that runs a task, in one of its **workers**.
//! - **worker**: named slots and capabilities on a node.
//! - **attempt**: one grant of a task to an executor; a **run** is its process.
//! - **fence**: ballot and attempt; a result counts only with its fence.
//! - **beat**: the periodic sign of life; **lease**: how long one beat lasts.
//! - **step**: one task of a workflow; **item**: one of an array.
//! - **schedule**: what submits a task at each **tick**, a time of its pattern.
//! - **forgotten**: of a node, gone for ever by an operator's word.
//! - **caller**: on whose behalf a request is made: a node, or the **bearer** of
//!   a **token**; its **authority** is what it may do, its **subject** who it is.
#![forbid(unsafe_code)]

pub mod array;
pub mod authority;
mod blobs;
pub mod cache;
mod check;
mod claims;
pub mod command;
pub mod config;
mod controls;
pub mod effect;
pub mod execution;
pub mod explain;
pub mod features;
pub mod forgotten;
mod holders;
pub mod ids;
mod lanes;
mod leases;
mod lifecycle;
pub mod limits;
pub mod message;
pub mod node;
pub mod order;
mod origin;
mod ownership;
mod pages;
mod peers;
pub mod permits;
pub mod placement;
pub mod prng;
mod promises;
mod queue;
mod ranked;
pub mod record;
pub mod register;
mod requests;
mod reuse;
pub mod schedule;
mod seen;
mod shares;
pub mod shelf;
mod stats;
mod step_inputs;
mod steps;
pub mod task;
pub mod template;
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;
mod ticks;
pub mod time;
pub mod token;
pub mod view;
mod views;
pub mod watch;
mod workers;
pub mod workflow;
mod workflow_views;

pub use command::{Command, Query, Refusal, Request};
pub use config::Config;
pub use effect::{Disk, Effect, Entry, Input, Key, NetCommand, Notice, PeerEvent};
pub use ids::{BlobHash, NoHash, NodeId, RequestId, TaskId, WorkerId};
pub use message::Message;
pub use node::Node;
pub use record::{Ballot, Fence, Record, Slot, Stamp};
pub use task::{Outcome, Spec, TaskState};
pub use time::{Millis, Unix};
pub use view::Reply;
