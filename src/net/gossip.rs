//! What is gossiped: beats and announcements, each with a number of its own,
//! at a limited rate.

use super::wire;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use taskmesh_core::Message;
use taskmesh_core::limits::GOSSIP_BYTES;

/// Beats and other signs of life; announcements of tasks.
pub(super) const TOPICS: [&str; 2] = ["nodes", "tasks"];

/// Gives each publication its number. Two beats of an idle node are equal in
/// every field: without the number the second would be dropped as a duplicate.
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    /// `boot` is random, so that numbers differ from those before a restart.
    pub(super) fn new(boot: u64) -> Numbers {
        Numbers(AtomicU64::new(boot))
    }

    /// The topic and the bytes of a publication; `None`: it is not one that
    /// may be gossiped, or it is too large.
    pub(super) fn publication(&self, message: &Message) -> Option<(&'static str, Vec<u8>)> {
        let topic = topic_of(message)?;
        let mut bytes = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec();
        wire::encode(message, &mut bytes);
        (bytes.len() <= GOSSIP_BYTES).then_some((topic, bytes))
    }
}

/// The message of a publication, or why it is bad.
pub(super) fn read(bytes: &[u8]) -> Result<Message, &'static str> {
    let content = bytes.get(8..).ok_or("short_gossip")?;
    let message = wire::decode(content).map_err(|e| e.reason())?;
    if topic_of(&message).is_none() {
        return Err("not_for_gossip");
    }
    Ok(message)
}

fn topic_of(message: &Message) -> Option<&'static str> {
    match message {
        Message::Beat(_) => Some(TOPICS[0]),
        Message::Announce { .. } => Some(TOPICS[1]),
        _ => None,
    }
}

/// A token bucket: gossip costs every node, so a node that says too much is
/// cut off at the source.
pub(super) struct Rate {
    tokens: f64,
    filled: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Rate {
        Rate { tokens: BURST, filled: now }
    }

    /// Whether one more may go out now.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * PER_SECOND).min(BURST);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// At 20/s and 100 nodes the median delay of gossip was over a second.
const PER_SECOND: f64 = 20.0;
const BURST: f64 = 40.0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_rate_is_bounded_and_recovers() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert_eq!((0..100).filter(|_| rate.allows(start)).count(), 40);
        assert_eq!((0..100).filter(|_| rate.allows(start + Duration::from_secs(1))).count(), 20);
    }

    #[test]
    fn equal_announcements_differ_on_the_wire_and_nonsense_is_named() {
        let numbers = Numbers::new(u64::MAX);
        let message = Message::Announce { ready: vec![("echo".into(), 1)] };
        let (_, first) = numbers.publication(&message).expect("may be gossiped");
        let (_, second) = numbers.publication(&message).expect("may be gossiped");
        assert_ne!(first, second);
        assert_eq!(read(&first), Ok(message));
        assert_eq!(read(&first[..7]), Err("short_gossip"));
        assert_eq!(numbers.publication(&Message::WhoAreYou), None);
    }
}
