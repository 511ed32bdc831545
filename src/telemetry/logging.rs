//! Logs: to standard error, for people or as JSON lines. What the core tells
//! in its [`Notice`]s is logged here, by one rule: what an operator may have to
//! act on is a warning, what changes the mesh is information, and the life of
//! a single task is for debugging.

use std::io::{self, IsTerminal};
use taskmesh_core::Notice;
use taskmesh_core::forgotten::{FRESH_START, Forgotten};
use tracing::{debug, info, trace, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; in colours on a terminal, unless `NO_COLOR` is set.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is neither a level nor a list of directives.
    #[error("log level {level:?} can't be read: {problem}")]
    Level {
        /// As it was given.
        level: String,
        /// What is wrong.
        problem: String,
    },
    /// This process has a logger already.
    #[error("logging was set up before")]
    Again,
}

/// Sets up logging for the process. `level` is a level (`info`) or `tracing`
/// directives (`info,taskmesh::net=debug`); they go over the built-in ones
/// that keep libraries quiet.
///
/// # Errors
/// `level` can't be read, or there is a logger already.
pub fn init(format: Format, level: &str) -> Result<(), LoggingError> {
    let filter = filter(level)?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let logs = subscriber(format, filter, colours, io::stderr);
    // Takes in what libraries say through the `log` crate, too.
    tracing_subscriber::util::SubscriberInitExt::try_init(logs).map_err(|_| LoggingError::Again)
}

fn subscriber<W>(
    format: Format,
    filter: EnvFilter,
    colours: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        Format::Human => Box::new(logs.with_ansi(colours).finish()),
        Format::Json => Box::new(logs.json().flatten_event(true).finish()),
    }
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    // The last directive for a target counts.
    EnvFilter::builder()
        .parse(format!("{QUIET},{level}"))
        .map_err(|e| LoggingError::Level { level: level.to_owned(), problem: e.to_string() })
}

/// Logs what happened.
pub fn tell(notice: &Notice) {
    match notice {
        Notice::TaskAccepted { task, task_type, took } => debug!(%task, %task_type, took_ms = took.0, "task accepted"),
        Notice::TaskMoved { task_type, from, to } => trace!(%task_type, ?from, ?to, "task moved"),
        Notice::TaskGranted { task, executor, attempt, waited } => {
            debug!(%task, %executor, attempt, waited_ms = waited.0, "task granted");
        }
        Notice::TaskStarted { task, task_type, attempt, .. } => debug!(%task, %task_type, attempt, "run started"),
        Notice::RunEnded { task, task_type, attempt, verdict, ran } => {
            debug!(%task, %task_type, attempt, verdict, ran_ms = ran.0, "run ended");
        }
        Notice::TaskClosed { task, task_type, status, attempt, executor, took, .. } => {
            let executor = executor.map(tracing::field::display);
            debug!(%task, %task_type, status = status.name(), attempt, executor, took_ms = took.0, "task ended");
        }
        Notice::TaskRetried { task, error, delay } => {
            debug!(%task, %error, delay_ms = delay.0, "attempt failed, and is tried again");
        }
        Notice::LeaseLost { task, executor } => info!(%task, %executor, "attempt lost with its node"),
        Notice::OwnerAdopted { task, from } => info!(%task, %from, "task adopted from a silent owner"),
        Notice::HoldersChanged { task, holders } => {
            let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
            debug!(%task, holders = holders.join(" "), "holders changed");
        }
        Notice::PeerUp(peer) => info!(%peer, "peer up"),
        Notice::PeerLost(peer) => info!(%peer, "peer lost"),
        Notice::Refused { from, why } => debug!(%from, why, "message refused"),
        Notice::Damaged { task } => warn!(%task, "copy damaged, being repaired from the other holders"),
        Notice::Repaired { task } => info!(%task, "copy repaired"),
        Notice::NodeForgotten(word) => {
            let reason = word.reason.as_deref();
            warn!(node = %word.node, by = &*word.by, reason, "a node is gone for ever, by an operator's word");
        }
        Notice::CastOut(word) => cast_out(word),
        Notice::QueuePaused(true) => info!("queue paused"),
        Notice::QueuePaused(false) => info!("queue resumed"),
        Notice::CacheLookedUp { found } => trace!(found, "result looked for"),
        Notice::CacheEvicted { policy, why } => trace!(policy = policy.name(), why = why.name(), "result evicted"),
        Notice::CacheHolds { entries, bytes } => trace!(entries, bytes, "results kept"),
        Notice::Replicated { took } => trace!(took_ms = took.0, "replicated"),
    }
}

/// The mesh goes on without this very node.
pub fn cast_out(word: &Forgotten) {
    let reason = word.reason.as_deref();
    tracing::error!(by = &*word.by, reason, "the mesh has forgotten this node: {FRESH_START}");
}

/// Libraries that tell at `info` or `debug` what only their authors need.
const QUIET: &str = "rmcp=warn,libp2p=warn,libp2p_core=warn,libp2p_swarm=warn,libp2p_kad=error,libp2p_gossipsub=warn,\
libp2p_mdns=warn,libp2p_identify=warn,libp2p_ping=warn,libp2p_request_response=warn,libp2p_stream=warn,\
libp2p_tcp=warn,libp2p_quic=warn,libp2p_noise=warn,libp2p_dns=warn,multistream_select=warn,yamux=warn,quinn=warn,\
quinn_proto=warn,rustls=warn,netlink_proto=warn,netlink_packet_route=warn,hickory_proto=warn,hickory_resolver=warn,\
hyper=warn,hyper_util=warn,h2=warn,tower=warn,reqwest=warn,sled=warn";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::sync::{Arc, Mutex};
    use taskmesh_core::{NodeId, TaskId};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, level: &str, say: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let logs = subscriber(format, filter(level).unwrap(), false, move || writer.clone());
        tracing::subscriber::with_default(logs, say);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn libraries_are_quiet_unless_asked() {
        let say = || {
            info!(target: "libp2p_kad::behaviour", "chatter");
            info!(target: "rmcp", "chatter");
            warn!(target: "rmcp", "trouble");
            info!(target: "taskmesh::net", "news");
        };
        let text = logged(Format::Human, "info", say);
        assert!(!text.contains("chatter") && text.contains("trouble") && text.contains("news"), "{text}");
        assert!(logged(Format::Human, "info,libp2p_kad=debug", say).contains("chatter"));
        assert_eq!(logged(Format::Human, "off", || info!("news")), "");
    }

    #[test]
    fn json_lines_carry_the_ids() {
        let task = TaskId::new("job/7").unwrap();
        let notice = Notice::LeaseLost { task, executor: NodeId([7; 32]) };
        let text = logged(Format::Json, "info", || tell(&notice));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["task"], "job/7");
        assert_eq!(line["executor"], NodeId([7; 32]).to_string());
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "attempt lost with its node");
    }

    #[test]
    fn a_level_that_is_none_is_an_error() {
        for level in ["nonsense=level=x", "taskmesh=loud"] {
            assert!(matches!(filter(level), Err(LoggingError::Level { .. })), "{level}");
        }
    }
}
