//! The way to a foreign queue: one stream after another, made again when it is
//! lost or used up, and with patience when that fails.

use super::{Dial, Tell, Told};
use crate::api::p2p::line::{Line, LineError};
use crate::ops::value::Object;
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// After the first failure; twice as long after each further one.
const FIRST: Duration = Duration::from_millis(500);
/// And no longer than this.
const LONGEST: Duration = Duration::from_secs(60);

/// The way to one queue.
pub(super) struct Link {
    dial: Dial,
    token: Option<String>,
    tell: Tell,
    line: tokio::sync::Mutex<Option<Arc<Line>>>,
    health: Mutex<Health>,
}

struct Health {
    connected: bool,
    /// Since the last call that went well.
    failures: u32,
    not_before: Instant,
}

impl Link {
    pub(super) fn new(dial: Dial, token: Option<String>, tell: Tell) -> Link {
        let health = Health { connected: false, failures: 0, not_before: Instant::now() };
        Link { dial, token, tell, line: tokio::sync::Mutex::default(), health: Mutex::new(health) }
    }

    /// One op of the queue: its answer, `ok` or not.
    ///
    /// # Errors
    /// There is no stream now, or this call was lost with it.
    pub(super) async fn op(&self, arguments: Value) -> Result<Object, LineError> {
        let line = self.line().await?;
        let done = line.op(arguments).await;
        match &done {
            Ok(_) => self.went_well(),
            Err(error) if error.is_final() => {}
            // The first to see it says so.
            Err(error) if line.retire() => self.failed(error),
            Err(_) => {}
        }
        done
    }

    /// The stream that there is, or a new one. Those who come meanwhile wait.
    async fn line(&self) -> Result<Arc<Line>, LineError> {
        let mut current = self.line.lock().await;
        if let Some(line) = current.as_ref().filter(|line| !line.is_spent()) {
            return Ok(line.clone());
        }
        *current = None;
        let not_before = self.health().not_before;
        tokio::time::sleep_until(not_before).await;
        let line = self.open().await.inspect_err(|error| self.failed(error))?;
        Ok(current.insert(Arc::new(line)).clone())
    }

    async fn open(&self) -> Result<Line, LineError> {
        let opened = (self.dial)().await.map_err(LineError::Broken)?;
        Line::open(opened.stream, self.token.clone(), opened.connection).await
    }

    fn went_well(&self) {
        let mut health = self.health();
        health.failures = 0;
        if !std::mem::replace(&mut health.connected, true) {
            tracing::info!("the foreign queue answers");
            (self.tell)(Told::Connected(true));
        }
    }

    fn failed(&self, error: &LineError) {
        let mut health = self.health();
        health.not_before = Instant::now() + FIRST.saturating_mul(1 << health.failures.min(10)).min(LONGEST);
        if health.failures == 0 {
            tracing::warn!(%error, "the foreign queue can't be talked to; it is tried again");
        } else {
            tracing::debug!(%error, failures = health.failures, "the foreign queue still can't be talked to");
        }
        health.failures = health.failures.saturating_add(1);
        health.connected = false;
        (self.tell)(Told::Connected(false));
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
