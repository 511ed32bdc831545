//! Metrics, logs and health: what a node says of itself to people and to
//! their monitoring. Listens; decides nothing.

mod book;
mod document;
mod exposition;
mod families;
pub mod health;
pub mod logging;
pub mod metrics;
#[cfg(test)]
mod metrics_tests;
pub mod process;
pub mod targets;
pub mod traces;

pub use document::document;
pub use health::Vitals;
pub use metrics::{Metrics, NetCounts};
pub use targets::Targets;
