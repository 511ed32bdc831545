//! The network: one swarm actor; what it carries is the core's messages.

pub mod wire;
