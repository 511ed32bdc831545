//! Real nodes: processes, sockets and disks of this machine. What can be shown
//! without them is shown in the simulator, which repeats; these tests show
//! that the shell around the core keeps what the core promises.

mod abuse;
mod arrays;
mod bad_input;
mod cache;
mod contract;
mod disk;
mod drain;
mod failover;
#[path = "../fleet/mod.rs"]
mod fleet;
mod foreign;
mod forget;
mod graphs;
mod nat;
mod news;
mod operator;
mod partition;
mod reads;
mod restart;
mod routers;
mod schedule;
mod scheduling;
mod size;
mod source;
mod stranger;
mod templates;
mod tokens;
mod traces;
mod upgrade;
mod watch;
mod workflow;
