//! A taskmesh node: the shell around `taskmesh-core`. See ARCHITECTURE.md.

pub mod api;
pub mod cli;
pub mod config;
pub mod driver;
pub mod exec;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod net;
pub mod ops;
pub mod store;
pub mod telemetry;
pub mod templates;
