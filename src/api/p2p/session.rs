//! One stream: messages in, several requests under way, answers out in the
//! order in which they are ready, each with the id of its request.

use super::dialect::{Dialect, fits, sniff};
use super::frame::{self, Frame, FrameError};
use super::methods::{Caller, Methods};
use super::quota::{Admitted, REQUEST_TIME};
use super::reply::{Asked, Fault, Outcome, answer, too_large};
use super::{Duplex, Shared};
use crate::api::auth::Visitor;
use crate::ops::value::Object;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio_util::sync::CancellationToken;

type Reading = ReadHalf<Box<dyn Duplex>>;

/// A stream that is served.
struct Session {
    shared: Arc<Shared>,
    admitted: Admitted,
    peer: Arc<str>,
    dialect: Dialect,
    /// Whose token `initialize` came with.
    greeted: Option<Visitor>,
    writer: WriteHalf<Box<dyn Duplex>>,
    running: FuturesUnordered<BoxFuture<'static, Option<Done>>>,
    cancels: HashMap<String, CancellationToken>,
    /// Refusals for rate or token in a row.
    refusals: u32,
}

/// A request that is over.
struct Done {
    asked: Asked,
    outcome: Result<Outcome, Fault>,
}

/// Why a session is over, if it is.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    Close,
}

/// Serves one stream to its end.
pub(super) async fn serve(stream: Box<dyn Duplex>, peer: Arc<str>, admitted: Admitted, shared: Arc<Shared>) {
    let (mut reader, mut writer) = split(stream);
    let first = frame::read(&mut reader, &shared.budget, shared.quotas.limits().first).await;
    let opened = match first {
        Ok(frame) => sniff(&frame.message).map(|dialect| (dialect, frame)),
        Err(error) => match farewell(&error) {
            Some(fault) => Err(fault),
            None => return,
        },
    };
    let (dialect, frame) = match opened {
        Ok(opened) => opened,
        Err(fault) => {
            let asked = Asked { id: Value::Null, method: String::new() };
            let reply = answer(Dialect::Legacy, &asked, Err(fault), &shared.me);
            // Whoever sent it may not listen any more.
            let _ = frame::write(&mut writer, &reply).await;
            close(&mut writer).await;
            return;
        }
    };
    let mut session = Session {
        shared,
        admitted,
        peer,
        dialect,
        greeted: None,
        writer,
        running: FuturesUnordered::new(),
        cancels: HashMap::new(),
        refusals: 0,
    };
    if let Err(error) = session.run(reader, frame).await {
        tracing::debug!(peer = &*session.peer, %error, "a stream broke");
    }
    close(&mut session.writer).await;
}

impl Session {
    async fn run(&mut self, reader: Reading, first: Frame) -> io::Result<()> {
        let mut next = self.on_frame(first).await?;
        if self.dialect == Dialect::Envelope {
            // One message, one answer.
            return self.finish().await;
        }
        let mut reading = std::pin::pin!(read_on(reader, self.shared.clone()).fuse());
        while next == Next::Go {
            let room = self.running.len() < self.shared.quotas.limits().in_flight_per_stream;
            tokio::select! {
                biased;
                Some(done) = self.running.next(), if !self.running.is_empty() => self.on_done(done).await?,
                (reader, read) = &mut reading, if room => match read {
                    Ok(frame) => {
                        reading.set(read_on(reader, self.shared.clone()).fuse());
                        next = self.on_frame(frame).await?;
                    }
                    // Quiet, but it waits for answers.
                    Err(FrameError::Idle) if !self.running.is_empty() => {
                        reading.set(read_on(reader, self.shared.clone()).fuse());
                    }
                    Err(FrameError::Closed) => return self.finish().await,
                    Err(error) => {
                        if let Some(fault) = farewell(&error) {
                            self.refuse(Value::Null, fault).await?;
                        }
                        next = Next::Close;
                    }
                },
            }
        }
        Ok(())
    }

    /// The other side sends no more; what it asked is answered.
    async fn finish(&mut self) -> io::Result<()> {
        while let Some(done) = self.running.next().await {
            self.on_done(done).await?;
        }
        Ok(())
    }

    async fn on_frame(&mut self, frame: Frame) -> io::Result<Next> {
        let id = frame.message.get("id").cloned();
        let limits = self.shared.quotas.limits().clone();
        if let Err(fault) = self.admitted.peer.message(&limits) {
            return self.refuse_for_now(id, fault).await;
        }
        if self.dialect != Dialect::Envelope {
            if let Err(fault) = fits(self.dialect, &frame.message) {
                self.refuse_request(id, fault).await?;
                return Ok(Next::Close);
            }
            let Some(id) = &id else {
                self.on_notification(&frame.message);
                return Ok(Next::Go);
            };
            if let Err(fault) = self.check_id(id) {
                return self.refuse(Value::Null, fault).await.map(|()| Next::Go);
            }
        }
        let permit = match self.admitted.peer.request(&limits) {
            Ok(permit) => permit,
            Err(fault) => return self.refuse_for_now(id, fault).await,
        };
        let wish = match self.wish(frame, id.clone()).await {
            Ok(wish) => wish,
            Err(fault) if fault.code == UNAUTHORIZED => return self.refuse_for_now(id, fault).await,
            Err(fault) => return self.refuse_request(id, fault).await.map(|()| Next::Go),
        };
        self.refusals = 0;
        self.begin(wish, permit);
        Ok(Next::Go)
    }

    /// What a message asks, once its sender may ask it.
    async fn wish(&mut self, mut frame: Frame, id: Option<Value>) -> Result<Wish, Fault> {
        let method = frame.message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut params = match frame.message.remove("params") {
            Some(Value::Object(params)) => params,
            None | Some(Value::Null) => Object::new(),
            Some(_) => return Err(Fault::invalid("`params` must be an object")),
        };
        if self.dialect == Dialect::Envelope && frame.message.get("type").is_some_and(|kind| kind != "request") {
            return Err(Fault::new(-32600, "invalid_message").because("`type` must be \"request\""));
        }
        let visitor = self.shared.methods.admit(&self.peer, self.greeted.as_ref(), &method, &mut params).await?;
        if method == "initialize" && self.dialect == Dialect::Legacy {
            self.greeted = visitor.clone();
        }
        let caller = Caller { peer: self.peer.clone(), dialect: self.dialect, visitor };
        let asked = Asked { id: id.unwrap_or(Value::Null), method };
        Ok(Wish { asked, params, caller, frame })
    }

    fn begin(&mut self, wish: Wish, permit: tokio::sync::OwnedSemaphorePermit) {
        let cancel = CancellationToken::new();
        self.cancels.insert(wish.asked.id.to_string(), cancel.clone());
        let methods = self.shared.methods.clone();
        let run = async move {
            // The memory of the frame and the place of the request go with it.
            let (_frame, _permit) = (wish.frame, permit);
            let call = AssertUnwindSafe(perform(methods, wish.caller, &wish.asked, wish.params)).catch_unwind();
            let outcome = tokio::select! {
                () = cancel.cancelled() => return None,
                ended = tokio::time::timeout(REQUEST_TIME, call) => match ended {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_panic)) => Err(Fault::new(-32603, "internal").because("this is a defect; the node's log has it")),
                    Err(_elapsed) => Err(Fault::new(-32603, "deadline_exceeded")
                        .because("no answer in time; the outcome is unknown: repeat with the same ids")),
                },
            };
            Some(Done { asked: wish.asked, outcome })
        };
        self.running.push(run.boxed());
    }

    fn check_id(&self, id: &Value) -> Result<(), Fault> {
        let right = match id {
            Value::String(text) => text.len() <= 256,
            Value::Number(number) => number.is_i64() || number.is_u64(),
            _ => false,
        };
        if !right {
            let rule = "`id` must be an integer, or a string of at most 256 bytes";
            return Err(Fault::new(-32600, "invalid_id").because(rule));
        }
        if self.cancels.contains_key(&id.to_string()) {
            return Err(Fault::new(-32600, "duplicate_id").because("a request with this id is under way"));
        }
        Ok(())
    }

    fn on_notification(&mut self, message: &Object) {
        if message.get("method").is_some_and(|method| method == "notifications/cancelled")
            && let Some(id) = message.get("params").and_then(|params| params.get("requestId"))
            && let Some(cancel) = self.cancels.remove(&id.to_string())
        {
            cancel.cancel();
        }
    }

    async fn on_done(&mut self, done: Option<Done>) -> io::Result<()> {
        // Cancelled: nobody waits for an answer.
        let Some(Done { asked, outcome }) = done else { return Ok(()) };
        self.cancels.remove(&asked.id.to_string());
        let reply = answer(self.dialect, &asked, outcome, &self.shared.me);
        match frame::write(&mut self.writer, &reply).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let outcome = Ok(Outcome::Tool(Err(too_large(frame::FRAME_BYTES)), Object::new()));
                let reply = answer(self.dialect, &asked, outcome, &self.shared.me);
                frame::write(&mut self.writer, &reply).await
            }
            written => written,
        }
    }

    /// For rate or token: whoever goes on regardless is left.
    async fn refuse_for_now(&mut self, id: Option<Value>, fault: Fault) -> io::Result<Next> {
        self.refusals += 1;
        self.refuse_request(id, fault).await?;
        let patient = self.refusals < self.shared.quotas.limits().patience;
        Ok(if patient { Next::Go } else { Next::Close })
    }

    /// A notification is not answered.
    async fn refuse_request(&mut self, id: Option<Value>, fault: Fault) -> io::Result<()> {
        match id {
            Some(id) => self.refuse(id, fault).await,
            None if self.dialect == Dialect::Envelope => self.refuse(Value::Null, fault).await,
            None => Ok(()),
        }
    }

    async fn refuse(&mut self, id: Value, fault: Fault) -> io::Result<()> {
        let asked = Asked { id, method: String::new() };
        let reply = answer(self.dialect, &asked, Err(fault), &self.shared.me);
        frame::write(&mut self.writer, &reply).await
    }
}

/// A message whose sender may ask what it asks.
struct Wish {
    asked: Asked,
    params: Object,
    caller: Caller,
    frame: Frame,
}

async fn perform(methods: Arc<Methods>, caller: Caller, asked: &Asked, params: Object) -> Result<Outcome, Fault> {
    methods.perform(&caller, &asked.method, params).await
}

/// The reader comes back with what it read: a frame that was begun is not lost
/// when something else happens first.
async fn read_on(mut reader: Reading, shared: Arc<Shared>) -> (Reading, Result<Frame, FrameError>) {
    let read = frame::read(&mut reader, &shared.budget, shared.quotas.limits().idle).await;
    (reader, read)
}

/// What is said when a frame can't be had, if anybody may still listen.
fn farewell(error: &FrameError) -> Option<Fault> {
    match error {
        FrameError::Closed | FrameError::Truncated => None,
        FrameError::Busy => Some(Fault::rate_limited("too many large messages are held; send it again in a moment")),
        FrameError::Idle
        | FrameError::Slow
        | FrameError::Empty
        | FrameError::TooLarge
        | FrameError::Json
        | FrameError::Message => Some(Fault::framing(error.to_string())),
    }
}

async fn close(writer: &mut WriteHalf<Box<dyn Duplex>>) {
    use tokio::io::AsyncWriteExt as _;
    let _ = tokio::time::timeout(frame::FRAME_TIME, writer.shutdown()).await;
}

const UNAUTHORIZED: i64 = -32001;
