//! The one loop: inputs in, `core.handle`, one durable commit, effects out.
//! The only place that sees both the core and the shell.

use std::sync::Arc;
use taskmesh_core::{BlobHash, NodeId, Refusal, Reply, Request};
use tokio::sync::{mpsc, oneshot};

/// How the faces talk to the node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    node: NodeId,
    asks: mpsc::Sender<Ask>,
    blobs: Arc<dyn Fn(BlobHash, u64, usize) -> Option<Vec<u8>> + Send + Sync>,
}

struct Ask {
    request: Request,
    answer: oneshot::Sender<Result<Reply, Refusal>>,
}

impl Handle {
    /// This node's name.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Asks the node, and through it the mesh. Dropping the future abandons
    /// the request (a change may still happen).
    ///
    /// # Errors
    /// The node's own refusal, `Refusal::Full` when its inbox is full and
    /// `Refusal::Unavailable` when it is stopping.
    pub async fn ask(&self, request: Request) -> Result<Reply, Refusal> {
        let (answer, reply) = oneshot::channel();
        let stopping = || Refusal::Unavailable {
            problem: "this node is stopping; ask another".into(),
            retry_after: taskmesh_core::Millis(1_000),
        };
        self.asks.try_send(Ask { request, answer }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Refusal::Full {
                what: "this node's inbox".into(),
                limit: self.asks.max_capacity() as u64,
                retry_after: taskmesh_core::Millis(100),
            },
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        reply.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Up to `len` bytes of a blob on this node's disk, from `offset`; `None`
    /// if it is not here. Reads a file: call it where blocking is allowed.
    #[must_use]
    pub fn blob(&self, hash: BlobHash, offset: u64, len: usize) -> Option<Vec<u8>> {
        (self.blobs)(hash, offset, len)
    }
}
