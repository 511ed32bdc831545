//! Metrics, logs and health.
