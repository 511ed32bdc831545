//! The table of all settings: key, kind, meaning, and how each is put into a
//! [`Config`] and taken out of it again.

pub use super::check::TOOLSETS;
use super::check::{
    collector, directives, door, host, host_and_port, http, keys, multiaddr, name, peer, socket, toolset,
};
use super::{Config, ENV_PREFIX, Kind, LogFormat, Raw};
use std::collections::BTreeMap;
use taskmesh_core::cache::Policy;
use taskmesh_core::features::Feature;
use taskmesh_core::order::Scheduling;
use taskmesh_core::permits::Limit;
use taskmesh_core::{Millis, limits};
use toml::Value;

/// One setting.
pub struct Setting {
    /// `section.key`.
    pub key: &'static str,
    /// What it must be.
    pub kind: Kind,
    /// What it means: a line or two for people.
    pub about: &'static str,
    /// A value for the example, where the default depends on the machine or
    /// says nothing.
    pub example: Option<&'static str>,
    pub(super) set: fn(&mut Config, Raw) -> Result<(), String>,
    show: fn(&Config) -> Value,
}

impl Setting {
    /// The name of its environment variable.
    #[must_use]
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }

    /// Its value in `config`.
    #[must_use]
    pub fn value(&self, config: &Config) -> Value {
        (self.show)(config)
    }

    pub(super) fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    pub(super) fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }
}

/// The setting with this key.
#[must_use]
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

type Access = (fn(&mut Config, Raw) -> Result<(), String>, fn(&Config) -> Value);

const fn setting(key: &'static str, kind: Kind, about: &'static str, access: Access) -> Setting {
    Setting { key, kind, about, example: None, set: access.0, show: access.1 }
}

const fn like(setting: Setting, example: &'static str) -> Setting {
    Setting { example: Some(example), ..setting }
}

/// Each is a capability of the node's worker, beside those of the executors.
const PROGRAMS: usize = limits::ATTRIBUTES - 8;
/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// Every setting, by section, in the order of the example.
pub static SETTINGS: &[Setting] = &[
    like(
        setting(
            "node.data_dir",
            Kind::Text(1024),
            "Where identity, keys, token and store are kept; made with mode 0700.\n\
             Default: $XDG_DATA_HOME/taskmesh, else ~/.local/share/taskmesh.",
            (
                |c, v| {
                    c.node.data_dir = v.text().into();
                    Ok(())
                },
                |c| Value::String(c.node.data_dir.display().to_string()),
            ),
        ),
        "\"~/.local/share/taskmesh\"",
    ),
    like(
        setting(
            "node.name",
            Kind::Text(64),
            "For people, and the label `node` of this node's own worker.\n\
             Default: the machine's name.",
            (|c, v| name(v.text()).map(|n| c.node.name = n), |c| Value::String(c.node.name.clone())),
        ),
        "\"box-1\"",
    ),
    setting(
        "node.drain_ms",
        Kind::Whole(0, 3_600_000),
        "How long running tasks may go on after SIGTERM; what is left is handed back.",
        number!(node.drain_ms),
    ),
    like(
        setting(
            "node.templates_dir",
            Kind::Text(1024),
            "Folder of workflow templates: JSON and YAML files, read again when they change.\n\
             Default: `templates` in the data folder.",
            file!(node.templates_dir),
        ),
        "\"~/.local/share/taskmesh/templates\"",
    ),
    setting(
        "node.clock_ahead_s",
        Kind::Whole(0, 366 * 86_400),
        "How far this node's clock is put ahead of the machine's. For tests of what waits for a\n\
         time: the same on all nodes, and never taken back on a mesh that is to last.",
        number!(node.clock_ahead_s),
    ),
    setting(
        "net.listen",
        Kind::List(limits::ADDRESSES),
        "Multiaddresses for other nodes. /ip4/0.0.0.0/… is reachable from other machines.\n\
         If port 4770 is taken and nothing was chosen here, any free port.",
        list!(net.listen, multiaddr),
    ),
    setting(
        "net.listen_port",
        Kind::Whole(0, 65_535),
        "In the place of net.listen: this port of every IPv4 address, TCP and QUIC, so that one rule\n\
         opens a firewall. 0: net.listen says where.",
        number!(net.listen_port),
    ),
    setting(
        "net.seeds",
        Kind::List(64),
        "Multiaddresses of nodes to join by, with /p2p/<peer id> or without; an invite brings its own.",
        list!(net.seeds, multiaddr),
    ),
    setting(
        "net.external",
        Kind::List(limits::ADDRESSES),
        "Multiaddresses under which others reach this node, if not those it listens on.",
        list!(net.external, multiaddr),
    ),
    setting("net.mdns", Kind::Flag, "Find nodes of the same mesh on the local network.", flag!(net.mdns)),
    setting(
        "net.autonat",
        Kind::Flag,
        "Have other nodes that do so too dial back, to find out whether this one can be reached,\n\
         and under which address.",
        flag!(net.autonat),
    ),
    setting(
        "net.relay_serve",
        Kind::Flag,
        "Carry connections between nodes of the mesh that can't reach each other. For a node that\n\
         all others reach, at net.external or where it listens.",
        flag!(net.relay_serve),
    ),
    setting(
        "net.relay_circuits",
        Kind::Whole(1, 10_000),
        "Such connections at once, if it does; each ends after a day or 64 GiB, and is made anew.",
        number!(net.relay_circuits),
    ),
    setting(
        "net.relay_use",
        Kind::Flag,
        "Be reached through nodes that serve as relays, and reach others so: for a node behind NAT,\n\
         and for all that are to reach it.",
        flag!(net.relay_use),
    ),
    setting(
        "net.hole_punching",
        Kind::Flag,
        "Try to replace a relayed connection by a direct one through both NATs. Needs net.relay_use.",
        flag!(net.hole_punching),
    ),
    setting(
        "net.allow",
        Kind::List(limits::MEMBERS),
        "Peer ids of the only nodes that may connect; empty: all that have the mesh's key.",
        list!(net.allow, peer),
    ),
    setting("net.deny", Kind::List(limits::MEMBERS), "Peer ids of nodes that may not.", list!(net.deny, peer)),
    setting(
        "net.max_connections",
        Kind::Whole(1, 10_000),
        "Connections to other nodes at once.",
        number!(net.max_connections),
    ),
    like(
        setting(
            "net.mesh_key_file",
            Kind::Text(1024),
            "File with the mesh's key, 64 hexadecimal digits: a mounted secret, the same for all nodes.\n\
             Default: mesh.key in the data folder, made at the first start or by --join.",
            file!(net.mesh_key_file),
        ),
        "\"/run/secrets/mesh.key\"",
    ),
    setting(
        "api.listen",
        Kind::Text(64),
        "The MCP endpoint. On an address that is not loopback it speaks TLS alone.\n\
         If port 4780 is taken and nothing was chosen here, any free port.",
        (|c, v| socket(v.text()).map(|a| c.api.listen = a), |c| Value::String(c.api.listen.to_string())),
    ),
    like(
        setting(
            "api.tls_cert",
            Kind::Text(1_024),
            "PEM file with the certificate of the MCP endpoint and its chain; turns TLS on for\n\
             loopback too. Default: one that the node makes, whose fingerprint `taskmesh up` prints.",
            file!(api.tls_cert),
        ),
        "\"/etc/taskmesh/cert.pem\"",
    ),
    like(
        setting("api.tls_key", Kind::Text(1_024), "PEM file with the key of that certificate.", file!(api.tls_key)),
        "\"/etc/taskmesh/key.pem\"",
    ),
    setting(
        "api.hosts",
        Kind::List(16),
        "Names under which clients reach the MCP endpoint, beside its address: requests for\n\
         others are refused, and a certificate that the node makes is for them.",
        list!(api.hosts, host),
    ),
    like(
        setting(
            "api.p2p_listen",
            Kind::List(limits::ADDRESSES),
            "Multiaddresses for MCP over libp2p, for peers that are no nodes of the mesh but have\n\
             the token. Empty: there is none.",
            list!(p2p.listen, multiaddr),
        ),
        "[\"/ip4/127.0.0.1/tcp/4782\"]",
    ),
    setting(
        "api.p2p_announce",
        Kind::List(8),
        "Files that tell where that is, written at the start for programs on this machine\n\
         that look there, such as ipfs_accelerate_py's. Empty: none.",
        list!(p2p.announce, Ok),
    ),
    setting(
        "api.toolsets",
        Kind::List(TOOLSETS.len()),
        "Groups of operations to offer: task, queue, worker, workflow, peer; empty: all.",
        list!(api.toolsets, toolset),
    ),
    setting("api.read_only", Kind::Flag, "Offer only operations that change nothing.", flag!(api.read_only)),
    setting(
        "api.dashboard",
        Kind::Flag,
        "Serve the dashboard at /dashboard/, beside the MCP endpoint.",
        flag!(api.dashboard),
    ),
    like(
        setting(
            "source.queue",
            Kind::Text(512),
            "Another program's task queue to take work from: the multiaddress, with /p2p/<peer id>,\n\
             at which it speaks `task_queue.rpc`: ipfs_accelerate_py, or the door of another mesh.\n\
             Default: none.",
            text!(source.queue, door),
        ),
        "\"/ip4/192.0.2.7/tcp/4782/p2p/12D3KooW…\"",
    ),
    like(
        setting(
            "source.types",
            Kind::List(32),
            "Types of tasks that are claimed there, as this node's workers have room for them. Whoever\n\
             may submit there then runs these here.",
            list!(source.types, Ok),
        ),
        "[\"echo\"]",
    ),
    like(
        setting(
            "source.token_file",
            Kind::Text(1_024),
            "A file with the token that the queue wants to see. Default: none is shown.",
            file!(source.token_file),
        ),
        "\"/etc/taskmesh/source.token\"",
    ),
    setting(
        "source.lease_s",
        Kind::Whole(5, 3_600),
        "How long a claim holds there without a sign of this node, if that queue knows leases.",
        number!(source.lease_s),
    ),
    like(
        setting(
            "auth.issuer",
            Kind::Text(512),
            "The authorisation server whose JSON Web Tokens are accepted beside the mesh's own\n\
             tokens: `iss`. Scopes taskmesh:viewer to taskmesh:admin give the role. Default: none.",
            text!(auth.issuer, http),
        ),
        "\"https://id.example\"",
    ),
    like(
        setting(
            "auth.audience",
            Kind::Text(512),
            "`aud` of tokens for this mesh; a token for anything else is refused.",
            text!(auth.audience, Ok::<String, String>),
        ),
        "\"https://mesh.example/mcp\"",
    ),
    like(
        setting(
            "auth.jwks",
            Kind::Text(1024),
            "Its public keys: a file, or an address that is fetched when needed, at most every 10 s.",
            text!(auth.jwks, keys),
        ),
        "\"https://id.example/keys\"",
    ),
    like(
        setting(
            "auth.resource",
            Kind::Text(512),
            "How clients reach the MCP endpoint, for the metadata by which they find the server.\n\
             Default: the address that it listens on.",
            text!(auth.resource, http),
        ),
        "\"https://mesh.example/mcp\"",
    ),
    setting(
        "metrics.listen",
        Kind::Text(64),
        "/metrics, /healthz, /readyz and /sd.\n\
         If port 4781 is taken and nothing was chosen here, any free port.",
        (|c, v| socket(v.text()).map(|a| c.metrics.listen = a), |c| Value::String(c.metrics.listen.to_string())),
    ),
    like(
        setting(
            "metrics.advertise",
            Kind::Text(limits::TEXT_BYTES),
            "Where Prometheus reaches that, host:port: what /sd of every node says of this one.\n\
             Default: the address that it listens on, or one of the machine's.",
            text!(metrics.advertise, host_and_port),
        ),
        "\"node-1.example:4781\"",
    ),
    like(
        setting(
            "traces.endpoint",
            Kind::Text(512),
            "Where traces of tasks are sent: a collector that speaks OTLP over HTTP, without /v1/traces.\n\
             Empty: nowhere.",
            text!(traces.endpoint, collector),
        ),
        "\"http://collector.example:4318\"",
    ),
    setting(
        "traces.sample_percent",
        Kind::Whole(0, 100),
        "How many of the traces that begin here are sent; callers decide of those that they began.",
        number!(traces.sample_percent),
    ),
    like(
        setting(
            "worker.slots",
            Kind::Whole(0, limits::SLOTS as u64),
            "Tasks at once on this node; 0: it runs none. Default: the number of cores.",
            number!(worker.slots),
        ),
        "4",
    ),
    setting(
        "worker.capabilities",
        Kind::List(limits::ATTRIBUTES),
        "What this node's own worker may run; empty: every executor of the node.",
        list!(worker.capabilities, Ok),
    ),
    like(
        setting(
            "worker.labels",
            Kind::Texts(limits::ATTRIBUTES),
            "For the requirements of tasks. Default: none.",
            (
                |c, v| {
                    c.worker.labels = v.entries().map(|(k, v)| (k.clone(), v.text().to_owned())).collect();
                    Ok(())
                },
                |c| Value::Table(c.worker.labels.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect()),
            ),
        ),
        "{ zone = \"a\" }",
    ),
    like(
        setting(
            "worker.resources",
            Kind::Amounts(limits::ATTRIBUTES),
            "What its tasks may use up together: cpus, memory_mb, gpus, and any other name.\n\
             Default: none, which is unlimited.",
            (
                |c, v| {
                    c.worker.resources = v.entries().filter_map(|(k, v)| v.number().map(|n| (k.clone(), n))).collect();
                    Ok(())
                },
                |c| Value::Table(c.worker.resources.iter().map(|(k, v)| (k.clone(), (*v).into())).collect()),
            ),
        ),
        "{ cpus = 4, memory_mb = 8192 }",
    ),
    setting(
        "exec.allow",
        Kind::List(PROGRAMS),
        "Programs that tasks of type exec may run on this node, such as \"sha256sum\";\n\
         \"*\": any; empty: this node runs no programs.",
        list!(exec.allow, Ok),
    ),
    setting(
        "exec.output_bytes",
        Kind::Whole(0, limits::BLOB_BYTES),
        "What is kept of a program's output, and of its errors, if its task names no limit.",
        number!(exec.output_bytes),
    ),
    setting(
        "exec.output_max_bytes",
        Kind::Whole(0, limits::BLOB_BYTES),
        "The most that a task may name as that limit.",
        number!(exec.output_max_bytes),
    ),
    setting(
        "exec.kill_after_ms",
        Kind::Whole(0, 600_000),
        "From SIGTERM to SIGKILL, for a program that was cancelled or ran out of time.",
        number!(exec.kill_after_ms),
    ),
    setting(
        "mesh.holders",
        Kind::WholeOf(&[1, 3, 5]),
        "Copies of each task, in a mesh of at least that many nodes.",
        number!(mesh.holders),
    ),
    setting("mesh.beat_ms", Kind::Whole(50, 60_000), "How often a node says that it lives.", millis!(beat)),
    setting(
        "mesh.lease_ms",
        Kind::Whole(150, 600_000),
        "A node silent for longer is replaced, as owner and as executor. At least 3 beats.",
        millis!(lease),
    ),
    setting(
        "mesh.stagger_ms",
        Kind::Whole(10, 60_000),
        "How far apart the holders of a task try to take it over.",
        millis!(stagger),
    ),
    setting(
        "mesh.retransmit_ms",
        Kind::Whole(10, 60_000),
        "How often what was not answered is sent again.",
        millis!(retransmit),
    ),
    setting(
        "mesh.away_ms",
        Kind::Whole(150, 30 * DAY_MS),
        "How long a holder may be silent before another node keeps its copies.",
        millis!(away),
    ),
    setting(
        "mesh.scheduling",
        Kind::OneOf(&["fifo", "priority", "deadline", "priority_deadline"]),
        "The order of ready tasks; give all nodes of a mesh the same. deadline: the earliest\n\
         first, those without one last; priority_deadline: both, weighted.",
        (
            |c, v| {
                c.mesh.scheduling = Scheduling::from_name(v.text()).ok_or_else(|| "is not known".to_owned())?;
                Ok(())
            },
            |c| Value::String(c.mesh.scheduling.name().to_owned()),
        ),
    ),
    setting(
        "mesh.deadline_weight",
        Kind::Whole(0, 100),
        "Percent: how much the deadline counts in priority_deadline.",
        number!(mesh.deadline_weight),
    ),
    like(
        setting(
            "mesh.fairness_weights",
            Kind::Amounts(limits::ATTRIBUTES),
            "What values of fairness_key get of the workers' time beside each other, from 0.001;\n\
             1 for those that are not named. Default: all the same.",
            (
                |c, v| {
                    let weights = v.entries().map(|(key, weight)| (key.as_str().into(), weight_of(weight)));
                    c.mesh.fairness_weights = weights.collect();
                    Ok(())
                },
                |c| {
                    let weight = |n: &u64| Value::Float(*n as f64 / 1_000.0);
                    Value::Table(c.mesh.fairness_weights.iter().map(|(k, n)| (k.to_string(), weight(n))).collect())
                },
            ),
        ),
        "{ nightly = 0.5, interactive = 4 }",
    ),
    like(
        setting(
            "mesh.limits",
            Kind::Texts(limits::LIMITS / 2),
            "What may run at once, or start in a period, in the whole mesh: by \"type:…\", \"tag:…\"\n\
             or \"key:…\" (of fairness_key), such as \"20\", \"100/60s\" or both: \"20 100/60s\".\n\
             Give all nodes the same. Default: none.",
            (
                |c, v| {
                    c.mesh.limits.clear();
                    for (subject, bounds) in v.entries() {
                        c.mesh.limits.extend(Limit::read(subject, bounds.text())?);
                    }
                    if c.mesh.limits.len() > limits::LIMITS {
                        return Err(format!("has {} limits; at most {}", c.mesh.limits.len(), limits::LIMITS));
                    }
                    Ok(())
                },
                |c| {
                    let mut table: BTreeMap<String, Vec<String>> = BTreeMap::new();
                    for limit in &c.mesh.limits {
                        table.entry(limit.subject.to_string()).or_default().push(limit.bound.to_string());
                    }
                    Value::Table(table.into_iter().map(|(k, bounds)| (k, bounds.join(" ").into())).collect())
                },
            ),
        ),
        "{ \"type:exec\" = \"20\", \"tag:api\" = \"100/60s\" }",
    ),
    setting(
        "mesh.reserve_ms",
        Kind::Whole(0, DAY_MS),
        "How long a task waits for more of a resource than any worker has free, before the\n\
         room of one is kept for it.",
        millis!(reserve),
    ),
    setting(
        "mesh.ageing_s",
        Kind::Whole(0, 86_400),
        "What each doubling of a task's priority is worth as a head start in the queue. Nothing\n\
         that is ready 128 times as long after a task goes before it, in any order.",
        seconds!(ageing),
    ),
    setting("mesh.retention_s", Kind::Whole(0, 365 * 86_400), "How long an ended task is kept.", seconds!(retention)),
    setting(
        "mesh.retained_tasks",
        Kind::Whole(0, 10_000_000),
        "Ended tasks of its own that a node keeps; the oldest go first.",
        number!(mesh.retained_tasks),
    ),
    setting(
        "mesh.without",
        Kind::List(Feature::ALL.len()),
        "Features that this node does not use, as if it were of a version before them. A mesh takes\n\
         nothing that one of its nodes does not know: during an upgrade, new kinds of work wait for the last.",
        list!(mesh.without, |name: String| name.parse::<Feature>()),
    ),
    setting(
        "mesh.open_tasks",
        Kind::Whole(1, 10_000_000),
        "Tasks that have not ended, of its own, that a node takes; more are refused.",
        number!(mesh.open_tasks),
    ),
    setting(
        "mesh.prefetch_ms",
        Kind::Whole(0, 10_000),
        "Work granted ahead to a worker, in the time that it takes to run.",
        millis!(prefetch),
    ),
    setting(
        "mesh.grace_ms",
        Kind::Whole(100, 3_600_000),
        "What an executor gets beyond a task's timeout before it is given up.",
        millis!(grace),
    ),
    setting(
        "mesh.crash_limit",
        Kind::Whole(1, 1_000),
        "Attempts that a task may lose with their nodes before it fails.",
        number!(mesh.crash_limit),
    ),
    setting(
        "mesh.request_timeout_ms",
        Kind::Whole(100, limits::WAIT_MS),
        "How long a node waits for another's answer to a forwarded request.",
        millis!(request_timeout),
    ),
    setting(
        "cache.entries",
        Kind::Whole(0, 1_000_000),
        "Results that this node keeps for tasks that may take an earlier one; 0: none.",
        (|c, v| narrow(v.whole()).map(|n| c.mesh.cache.entries = n), |c| whole(c.mesh.cache.entries)),
    ),
    setting(
        "cache.bytes",
        Kind::Whole(0, 1 << 40),
        "How large they may be together, with what is kept in files.",
        (|c, v| narrow(v.whole()).map(|n| c.mesh.cache.bytes = n), |c| whole(c.mesh.cache.bytes)),
    ),
    setting(
        "cache.ttl_s",
        Kind::Whole(0, 365 * 86_400),
        "How long a result is taken by others; 0: not at all.",
        seconds!(cache.ttl),
    ),
    setting(
        "cache.policy",
        Kind::OneOf(&["lru", "lfu", "fifo", "ttl"]),
        "Which result goes first where there is no room: the one not used for longest, the\n\
         one used least, the oldest, or the one that ends first.",
        (
            |c, v| {
                c.mesh.cache.policy = Policy::from_name(v.text()).ok_or_else(|| "is not known".to_owned())?;
                Ok(())
            },
            |c| Value::String(c.mesh.cache.policy.name().to_owned()),
        ),
    ),
    setting(
        "log.format",
        Kind::OneOf(&["human", "json"]),
        "How log lines look, on standard error.",
        (
            |c, v| {
                c.log.format = if v.text() == "json" { LogFormat::Json } else { LogFormat::Human };
                Ok(())
            },
            |c| {
                let name = match c.log.format {
                    LogFormat::Human => "human",
                    LogFormat::Json => "json",
                };
                Value::String(name.to_owned())
            },
        ),
    ),
    setting(
        "log.level",
        Kind::Text(1024),
        "error, warn, info, debug or trace; or by module: \"info,taskmesh::net=debug\".",
        (|c, v| directives(v.text()).map(|l| c.log.level = l), |c| Value::String(c.log.level.clone())),
    ),
];

fn whole(n: impl TryInto<i64>) -> Value {
    Value::Integer(n.try_into().unwrap_or(i64::MAX))
}

fn narrow<T: TryFrom<u64>>(n: u64) -> Result<T, String> {
    T::try_from(n).map_err(|_| format!("is {n}; it is too large for this machine"))
}

/// In thousandths; nobody gets nothing.
fn weight_of(value: &Raw) -> u64 {
    let weight = value.number().unwrap_or(1.0) * 1_000.0;
    (weight as u64).clamp(1, 1_000_000_000_000)
}
