//! Traces of tasks, exported over OTLP (OpenTelemetry Protocol 1, protobuf over
//! HTTP) where a collector is configured. A call of the facade is a span, in the
//! caller's trace if it sent a `traceparent` (W3C Trace Context), and what it
//! submits goes on under it, on whichever nodes that is: `accept` and `queue` and
//! `settle` where the task is owned, `run` where it runs.

use async_trait::async_trait;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use taskmesh_core::{Millis, NodeId, Notice};

/// How long a collector may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// What a collector says beside its status; more is not read.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long the end of a node waits for the last spans to be taken.
const LAST: Duration = Duration::from_secs(3);

/// Where spans go. Cheap to clone; they are sent in batches from a thread of
/// their own, and are lost where the collector does not take them.
#[derive(Clone)]
pub struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

/// A call that is under way.
pub struct Call(Span);

impl Traces {
    /// Exports to the collector at `endpoint`, an address without `/v1/traces`.
    /// Of the traces that begin here, `percent` of 100 are sampled; for others
    /// their beginners decided. Must be called on the runtime that is to send.
    ///
    /// # Errors
    /// The endpoint is no address, for people.
    pub fn to(endpoint: &str, percent: u64, node: NodeId) -> Result<Traces, String> {
        let client = reqwest::Client::builder().timeout(ANSWER).redirect(reqwest::redirect::Policy::none());
        let client = client.build().map_err(|e| e.to_string())?;
        let sender = Sender { client, runtime: tokio::runtime::Handle::current() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(ANSWER)
            .build()
            .map_err(|e| e.to_string())?;
        let resource = Resource::builder_empty().with_attributes([
            KeyValue::new("service.name", "taskmesh"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_string()),
        ]);
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(percent as f64 / 100.0)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource.build())
            .build();
        Ok(Traces { tracer: provider.tracer("taskmesh"), provider })
    }

    /// A call of the facade begins; `parent`: what its client sent.
    #[must_use]
    pub fn call(&self, operation: &'static str, subject: &str, parent: Option<&str>) -> Call {
        let mut attributes = vec![KeyValue::new("taskmesh.operation", operation)];
        if !subject.is_empty() {
            attributes.push(KeyValue::new("taskmesh.subject", subject.to_owned()));
        }
        let builder = SpanBuilder::from_name(operation).with_kind(SpanKind::Server).with_attributes(attributes);
        let parent = parent.and_then(context_of).unwrap_or_default();
        Call(builder.start_with_context(&self.tracer, &parent))
    }

    /// Something of a task whose trace is `trace` is over.
    pub fn tell(&self, trace: &str, notice: &Notice) {
        let (Some(parent), Some(step)) = (context_of(trace), step_of(notice)) else { return };
        let end = SystemTime::now();
        let start = end.checked_sub(Duration::from_millis(step.took.0)).unwrap_or(end);
        let builder = SpanBuilder::from_name(step.name)
            .with_kind(SpanKind::Internal)
            .with_start_time(start)
            .with_attributes(step.attributes);
        let mut span = builder.start_with_context(&self.tracer, &parent);
        if let Some(error) = step.error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(end);
    }

    /// Sends what is left. Blocks for seconds at most.
    pub fn close(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST) {
            tracing::warn!(%error, "the last traces were not taken; is the collector at traces.endpoint up?");
        }
    }
}

impl Call {
    /// What goes on under it: a `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> Arc<str> {
        let context = self.0.span_context();
        let flags = context.trace_flags().to_u8();
        format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()).into()
    }

    /// It is over; `ok` or the code of its failure.
    pub fn end(mut self, code: &'static str) {
        self.0.set_attribute(KeyValue::new("taskmesh.code", code));
        if code != "ok" {
            self.0.set_status(Status::error(code));
        }
        self.0.end();
    }
}

/// A span that is over.
struct Step {
    name: &'static str,
    took: Millis,
    attributes: Vec<KeyValue>,
    error: Option<&'static str>,
}

fn step_of(notice: &Notice) -> Option<Step> {
    let of = |task: &taskmesh_core::TaskId| KeyValue::new("taskmesh.task", task.to_string());
    let at = |attempt: u32| KeyValue::new("taskmesh.attempt", i64::from(attempt));
    let kind = |task_type: &str| KeyValue::new("taskmesh.task_type", task_type.to_owned());
    Some(match notice {
        Notice::TaskAccepted { task, task_type, took } => {
            Step { name: "accept", took: *took, attributes: vec![of(task), kind(task_type)], error: None }
        }
        Notice::TaskGranted { task, executor, attempt, waited } => {
            let to = KeyValue::new("taskmesh.executor", executor.to_string());
            Step { name: "queue", took: *waited, attributes: vec![of(task), at(*attempt), to], error: None }
        }
        Notice::RunEnded { task, task_type, attempt, verdict, ran } => {
            let verdict_of = KeyValue::new("taskmesh.verdict", *verdict);
            let attributes = vec![of(task), kind(task_type), at(*attempt), verdict_of];
            Step { name: "run", took: *ran, attributes, error: (*verdict != "completed").then_some(verdict) }
        }
        Notice::TaskClosed { task, task_type, status, attempt, settled_in, .. } => {
            let status = KeyValue::new("taskmesh.status", status.name());
            let attributes = vec![of(task), kind(task_type), at(*attempt), status];
            Step { name: "settle", took: *settled_in, attributes, error: None }
        }
        _ => return None,
    })
}

/// The parent that a `traceparent` names, of this or a later version.
fn context_of(traceparent: &str) -> Option<Context> {
    let mut fields = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(fields.next()?).ok()?;
    let span = SpanId::from_hex(fields.next()?).ok()?;
    let flags = u8::from_str_radix(fields.next()?.get(..2)?, 16).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE);
    context.is_valid().then(|| Context::new().with_remote_span_context(context))
}

/// Sends on the node's runtime, whichever thread asks.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let (head, body) = request.into_parts();
            let request = client.request(head.method, head.uri.to_string()).headers(head.headers).body(body);
            let mut answer = request.send().await?;
            let mut response = Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                headers.clone_from(answer.headers());
            }
            let mut body = Vec::new();
            while let Some(part) = answer.chunk().await? {
                if body.len() + part.len() > ANSWER_BYTES {
                    break;
                }
                body.extend_from_slice(&part);
            }
            Ok::<_, HttpError>(response.body(Bytes::from(body))?)
        });
        sent.await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_the_parent_of_what_goes_on_under_it() {
        let sent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let context = context_of(sent).expect("well-formed");
        let parent = context.span().span_context().clone();
        assert_eq!(parent.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id().to_string(), "00f067aa0ba902b7");
        assert!(parent.is_sampled());
        for bad in ["", "00", "00-zz-00f067aa0ba902b7-01", "00-0af7651916cd43dd8448eb211c80319c-0-é"] {
            assert!(context_of(bad).is_none(), "{bad}");
        }
    }
}
