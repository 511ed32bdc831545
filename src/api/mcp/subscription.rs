//! Subscriptions to resources: `subscriptions/listen` of modern clients, which
//! ends with its request, and `resources/subscribe` of legacy ones, which ends
//! with their session.

use super::access::Access;
use super::feed::Topic;
use super::uri::Uri;
use super::{Facade, answered, gone};
use crate::api::auth::{Gate, Visitor};
use crate::driver::Handle;
use crate::ops::failure::invalid;
use crate::ops::{Code, Failure};
use rmcp::model::{ResourceUpdatedNotificationParam, SubscriptionFilter};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskmesh_core::command::Detail;
use taskmesh_core::token::Caller;
use taskmesh_core::{Millis, Query, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Resources in one request, or one session.
pub(super) const EACH: usize = 100;
/// Resources on the node, over all clients.
const ALL: usize = 2_000;
/// Between two notifications of one resource.
const GAP: Duration = Duration::from_millis(100);
/// A client that takes a notification no sooner has left.
const TAKEN: Duration = Duration::from_secs(30);

/// The places for subscriptions that a node has.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ALL))
}

fn full(whose: &str, limit: usize) -> Failure {
    let error = format!("{whose} {limit} subscriptions, which is the limit: end one, or read the resource instead");
    Failure { retry_after: Some(Millis(10_000)), ..Failure::new(Code::ResourceExhausted, error) }
}

/// The subscriptions of one legacy session.
#[derive(Default)]
pub(super) struct Subscriptions {
    by_uri: Mutex<HashMap<String, AbortOnDropHandle<()>>>,
}

impl Subscriptions {
    fn by_uri(&self) -> MutexGuard<'_, HashMap<String, AbortOnDropHandle<()>>> {
        self.by_uri.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends one, if there is one.
    pub(super) fn end(&self, uri: &str) {
        self.by_uri().remove(uri);
    }
}

/// What of a request can be subscribed to: known resources that change, no more
/// than [`EACH`]. The client is told which.
pub(super) fn accepted(requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut accepted = requested.clone();
    let uris = requested.resource_subscriptions.iter().flatten();
    let known = uris.filter(|uri| topic(uri).is_ok()).take(EACH).cloned();
    accepted.resource_subscriptions = Some(known.collect()).filter(|uris: &Vec<_>| !uris.is_empty());
    accepted
}

/// Whether `visitor` may hear of `topic`, which one watcher looks at for all: a
/// limited token asks for the task by itself first.
async fn may_watch(node: &Handle, visitor: &Visitor, topic: &Topic) -> Result<(), Failure> {
    let limited = visitor.authority().is_none_or(|authority| authority.is_scoped());
    let Topic::Task(task) = topic else { return Ok(()) };
    if limited {
        let query = Query::Task { task: task.clone(), detail: Detail::default(), wait: Millis(0) };
        node.ask(Request::Query(query)).await?;
    }
    Ok(())
}

fn topic(uri: &str) -> Result<(Uri, Topic), Failure> {
    let uri = Uri::parse(uri)?;
    let topic =
        Topic::of(&uri).ok_or_else(|| invalid("uri", "content never changes: there is nothing to subscribe to"))?;
    Ok((uri, topic))
}

/// One subscription: a place, and the changes.
struct Subscription {
    gate: Gate,
    caller: Caller,
    _place: OwnedSemaphorePermit,
    uri: String,
    changes: watch::Receiver<u64>,
}

impl Subscription {
    /// Says each change with `tell` until nobody can hear it, or may.
    async fn relay<E>(mut self, tell: impl AsyncFn(String) -> Result<(), E>) {
        while self.changes.changed().await.is_ok() && self.gate.holds(&self.caller) {
            match timeout(TAKEN, tell(self.uri.clone())).await {
                Ok(Ok(())) => sleep(GAP).await,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

impl Facade {
    async fn subscription(&self, uri: String, context: &RequestContext<RoleServer>) -> Result<Subscription, ErrorData> {
        let (known, topic) = topic(&uri).map_err(|e| super::protocol_error(&e))?;
        let node = &self.node;
        let visitor = Visitor::of(context).map_err(|e| super::protocol_error(&e))?;
        let begin = async |handle| {
            may_watch(&handle, &visitor, &topic).await?;
            let place = node.places.clone().try_acquire_owned().map_err(|_| full("this node has", ALL))?;
            let (gate, caller) = (node.gate.clone(), visitor.caller.clone());
            let changes = node.feed.changes(topic, node.gate.for_all());
            Ok(Subscription { gate, caller, _place: place, uri, changes })
        };
        answered(self.guarded(Access::Watch(&known), context, begin).await)
    }

    /// Serves a modern client's subscription until its request ends.
    pub(super) async fn relay(&self, context: &SubscriptionContext) -> Result<(), ErrorData> {
        let mut relays = JoinSet::new();
        for uri in context.accepted().resource_subscriptions.clone().unwrap_or_default() {
            let subscription = self.subscription(uri, context.request_context()).await?;
            let sink = context.sink().clone();
            relays.spawn(subscription.relay(async move |uri| sink.notify_resource_updated(uri).await));
        }
        context.cancelled().await;
        Ok(())
    }

    /// Begins a legacy client's subscription.
    pub(super) async fn subscribed(&self, uri: String, context: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        if self.subscriptions.by_uri().len() >= EACH {
            return Err(super::protocol_error(&full("this session has", EACH)));
        }
        let subscription = self.subscription(uri.clone(), &context).await?;
        let peer = context.peer.clone();
        let tell = async move |uri| peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await;
        let relay = AbortOnDropHandle::new(tokio::spawn(subscription.relay(tell)));
        if context.ct.is_cancelled() {
            return Err(gone());
        }
        self.subscriptions.by_uri().insert(uri, relay);
        Ok(())
    }
}
