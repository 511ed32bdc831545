//! What waits to be written to one peer: bounded by number and by weight.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use taskmesh_core::Message;
use taskmesh_core::command::{Command, Request};
use taskmesh_core::limits::INLINE_BYTES;
use taskmesh_core::task::Spec;
use tokio::sync::Notify;

/// Messages in order. Filled by the node's thread, emptied by one writer.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    max_messages: usize,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    weight: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(max_messages: usize) -> Queue {
        Queue { state: Mutex::default(), filled: Notify::new(), max_messages }
    }

    /// Appends a message without waking the writer; `false` if there is no room.
    pub(super) fn push(&self, message: Message) -> bool {
        let mut state = self.lock();
        // A single message of any weight passes, or it never would.
        let full = state.messages.len() >= self.max_messages || state.weight >= MAX_WEIGHT;
        if full || state.closed {
            return false;
        }
        state.weight += weight(&message);
        state.messages.push_back(message);
        true
    }

    /// Wakes the writer: once for everything that was pushed.
    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    /// Takes no more; the writer ends when it has written what there is.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    /// What fits one frame, at least one message; `None`: closed and empty.
    pub(super) async fn take(&self) -> Option<Vec<Message>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if !state.messages.is_empty() {
                    return Some(state.take_frame());
                }
                if state.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().messages.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_frame(&mut self) -> Vec<Message> {
        let mut taken = 0;
        let fits = |message: &&Message| {
            let first = taken == 0;
            taken += weight(message);
            first || taken <= FRAME_WEIGHT
        };
        let n = self.messages.iter().take_while(fits).count();
        let frame: Vec<_> = self.messages.drain(..n).collect();
        self.weight -= frame.iter().map(weight).sum::<usize>();
        frame
    }
}

/// About the bytes of a message on the wire, without encoding it: only what can
/// be large is counted.
pub(super) fn weight(message: &Message) -> usize {
    let heavy = match message {
        Message::Offer { spec, .. } => spec.as_deref().map_or(0, spec_weight),
        Message::Taken { spec, .. } => spec_weight(spec),
        Message::Pledge { .. } => 3 * INLINE_BYTES,
        Message::Grant(grant) => spec_weight(&grant.spec),
        Message::Finished(_) => 3 * INLINE_BYTES,
        Message::Progress { log_tail, .. } => log_tail.as_ref().map_or(0, |t| t.len()),
        Message::Request { request, .. } => request_weight(request),
        // The sizes of replies are bounded by pages and inline limits.
        Message::Response { .. } => REPLY_WEIGHT,
        Message::Hello(hello) => hello.members.len() * 40 + hello.workers.len() * 512,
        _ => 0,
    };
    MESSAGE_WEIGHT + heavy
}

fn spec_weight(spec: &Spec) -> usize {
    spec.payload.len() + SPEC_WEIGHT
}

fn request_weight(request: &Request) -> usize {
    let Request::Command(Command::Submit(submission)) = request else { return 0 };
    spec_weight(&submission.spec) + submission.items.iter().map(|i| i.len() + 16).sum::<usize>()
}

/// One frame, one write: large enough that the cost of a write is shared by
/// hundreds of messages, small enough that it does not hold the rest up.
const FRAME_WEIGHT: usize = 256 * 1024;
/// Of everything that waits for one peer.
const MAX_WEIGHT: usize = 32 * 1024 * 1024;
/// A record with its holders, ids and stamps.
const MESSAGE_WEIGHT: usize = 400;
/// A spec without its payload.
const SPEC_WEIGHT: usize = 1024;
/// A middling page.
const REPLY_WEIGHT: usize = 16 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use taskmesh_core::TaskId;

    fn lost(n: usize) -> Message {
        Message::Lost { task: TaskId::new(&format!("t{n}")).unwrap() }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_closed_one_empties_in_order() {
        let queue = Queue::new(3);
        assert!((0..3).all(|n| queue.push(lost(n))));
        assert!(!queue.push(lost(3)), "the fourth has no room");
        queue.close();
        assert_eq!(queue.take().await, Some((0..3).map(lost).collect()));
        assert_eq!(queue.take().await, None);
        assert!(!queue.push(lost(4)), "closed");
    }

    #[tokio::test]
    async fn a_frame_is_bounded_by_weight_and_never_empty() {
        let queue = Queue::new(10_000);
        for n in 0..2_000 {
            assert!(queue.push(lost(n)));
        }
        let first = queue.take().await.unwrap();
        assert_eq!(first.len(), FRAME_WEIGHT / MESSAGE_WEIGHT);
        assert_eq!(first[0], lost(0));
        assert_eq!(queue.take().await.unwrap()[0], lost(first.len()));
    }
}
