//! MCP over libp2p streams, `/mcp+p2p/1.0.0`, for peers that are no members of
//! the mesh. Three dialects share the protocol, and a stream's first message
//! tells which it is (`dialect`); a fourth, `task_queue.rpc`, is a tool in each
//! of them (`queue`).
//!
//! Everything about a stream is bounded: see [`Limits`].

mod authority;
mod dialect;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod line;
mod methods;
mod queue;
mod quota;
mod remote;
mod reply;
mod session;
pub mod source;
#[cfg(test)]
mod tests;
mod values;

pub use authority::TOKEN_KEY;
pub use frame::FRAME_BYTES;
pub use quota::Limits;
pub use remote::{Remote, RemoteError};

use super::Meter;
use super::audit::Audit;
use super::auth::Gate;
use super::budget::Budget;
use super::mcp::{Facade, Feed};
use crate::driver::Foreign;
use crate::ops::Offer;
use crate::templates::Shelf;
use methods::Methods;
use queue::Queue;
use quota::Quotas;
use std::any::Any;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream that a peer opened.
pub struct Visit {
    /// Who, as a peer id, proven by its connection.
    pub peer: Arc<str>,
    /// The stream.
    pub stream: Box<dyn Duplex>,
    /// Dropped when the stream is over.
    pub place: Box<dyn Any + Send>,
}

/// What this face stands on.
pub struct Face {
    /// The node, and who may ask it what.
    pub gate: Gate,
    /// Told of each call that would change something.
    pub audit: Audit,
    /// Foreign programs that work for it.
    pub foreign: Foreign,
    /// Told of each call.
    pub meter: Meter,
    /// Which operations there are.
    pub offer: Offer,
    /// Those that submissions may name.
    pub templates: Shelf,
    /// The bounds.
    pub limits: Limits,
}

/// What all streams share.
struct Shared {
    methods: Arc<Methods>,
    quotas: Quotas,
    budget: Budget,
    me: Arc<str>,
}

/// Serves every stream that comes until `shutdown`, or until no more can come.
pub async fn serve(mut visits: mpsc::Receiver<Visit>, face: Face, shutdown: CancellationToken) {
    let me: Arc<str> = face.gate.node().to_string().into();
    let methods = Methods {
        queue: Queue {
            gate: face.gate.clone(),
            audit: face.audit.clone(),
            foreign: face.foreign,
            meter: face.meter.clone(),
            me: me.clone(),
        },
        facade: Facade::new(face.gate.clone(), face.audit, face.meter, Feed::default(), face.offer, face.templates),
        gate: face.gate,
        limits: face.limits.clone(),
        me: me.clone(),
    };
    let quotas = Quotas::new(face.limits);
    let shared = Arc::new(Shared { methods: Arc::new(methods), quotas, budget: Budget::new(frame::BUDGET_BYTES), me });
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = streams.join_next(), if !streams.is_empty() => {}
            visit = visits.recv() => {
                let Some(Visit { peer, stream, place }) = visit else { return };
                let Some(admitted) = shared.quotas.admit(&peer) else { continue };
                let shared = shared.clone();
                streams.spawn(async move {
                    let _place = place;
                    session::serve(stream, peer, admitted, shared).await;
                });
            }
        }
    }
}
