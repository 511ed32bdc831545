//! Specs and configurations that tests start from.

use crate::task::{Durability, Requirements, RetryPolicy, Spec};
use crate::time::Unix;

/// An `echo` task of no payload.
#[must_use]
pub fn spec() -> Spec {
    Spec {
        task_type: "echo".into(),
        payload: (&b"{}"[..]).into(),
        tags: Vec::new(),
        metadata: None,
        timeout: None,
        retry: RetryPolicy::default(),
        requirements: Requirements::default(),
        not_before: None,
        deadline: None,
        depends_on: Vec::new(),
        fairness_key: None,
        durability: Durability::default(),
        exclusive: false,
        idempotency_key: None,
        retry_of: None,
        submitted_at: Unix(0),
    }
}
