//! Networks that a test makes: two hosts, each behind a router with NAT, and
//! nodes with public addresses, on one line that may be slow.
//!
//! Both private networks have the same addresses, as those of two homes have.

use crate::partition::ip;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// How a router maps the port of a host to one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// To the same, whoever is spoken to: a hole can be agreed on.
    SamePort,
    /// To another for each connection, which nobody can guess.
    AnyPort,
}

/// How far everybody is from everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Fast,
    /// Each frame takes [`DELAY_MS`], and [`LOSS_PERCENT`] of them are lost.
    Slow,
}

pub(crate) const DELAY_MS: u32 = 100;
pub(crate) const LOSS_PERCENT: u32 = 2;
const HOSTS: usize = 2;

/// Namespaces, removed with it.
pub(crate) struct Routers {
    prefix: String,
    public: usize,
    made: Vec<String>,
    line: Option<Child>,
}

impl Routers {
    /// `public` nodes beside the two hosts. `None`, with the reason on the
    /// output, where this machine can't.
    pub(crate) fn build(name: &str, mapping: Mapping, line: Line, public: usize) -> Option<Routers> {
        let prefix = format!("taskmesh-{}-{name}", std::process::id());
        let mut net = Routers { prefix, public, made: Vec::new(), line: None };
        match net.lay(mapping, line) {
            Ok(()) => Some(net),
            Err(reason) => {
                println!("skipped: no networks with NAT here: {reason}");
                None
            }
        }
    }

    /// The namespace of a node with a public address.
    pub(crate) fn public(&self, n: usize) -> String {
        format!("{}-public{n}", self.prefix)
    }

    /// The namespace of a host behind a router.
    pub(crate) fn host(&self, n: usize) -> String {
        format!("{}-host{n}", self.prefix)
    }

    fn lay(&mut self, mapping: Mapping, line: Line) -> Result<(), String> {
        let hub = self.add(format!("{}-hub", self.prefix))?;
        let mut ports = Vec::new();
        for n in 0..self.public {
            let name = self.add(self.public(n))?;
            ports.push(plug(&hub, &format!("public{n}"), &name, "eth0", &format!("203.0.113.{}/24", 10 + n))?);
        }
        for n in 0..HOSTS {
            let (router, host) = (self.add(format!("{}-router{n}", self.prefix))?, self.add(self.host(n))?);
            ports.push(plug(&hub, &format!("router{n}"), &router, "wan", &format!("203.0.113.{}/24", 1 + n))?);
            plug(&router, "lan", &host, "eth0", "192.168.1.2/24")?;
            ip(&["-n", &router, "addr", "add", "192.168.1.1/24", "dev", "lan"])?;
            ip(&["-n", &host, "route", "add", "default", "via", "192.168.1.1"])?;
            inside(&router, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], "")?;
            inside(&router, &["nft", "-f", "-"], &rules(mapping))?;
        }
        match line {
            Line::Fast => bridge(&hub, &ports),
            Line::Slow => self.slow(&hub, &ports),
        }
    }

    fn add(&mut self, name: String) -> Result<String, String> {
        ip(&["netns", "add", &name])?;
        self.made.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(name)
    }

    /// By netem where the kernel has it, and else by a program.
    fn slow(&mut self, hub: &str, ports: &[String]) -> Result<(), String> {
        let (delay, loss) = (format!("{DELAY_MS}ms"), format!("{LOSS_PERCENT}%"));
        let netem = ports.iter().try_for_each(|port| {
            let shape = ["tc", "qdisc", "add", "dev", port, "root", "netem", "delay", &delay, "loss", &loss];
            inside(hub, &shape, "")
        });
        let Err(reason) = netem else { return bridge(hub, ports) };
        println!("no netem here ({reason}): a program delays and loses the frames");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/slow_line.py");
        let mut line = Command::new("ip")
            .args(["netns", "exec", hub, "python3"])
            .arg(program)
            .args([DELAY_MS.to_string(), LOSS_PERCENT.to_string()])
            .args(ports)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("python3: {e}"))?;
        let mut said = String::new();
        let output = line.stdout.take().map(BufReader::new);
        self.line = Some(line);
        let read = output.map(|mut output| output.read_line(&mut said));
        if said == "ready\n" { Ok(()) } else { Err(format!("the slow line does not work: {read:?}")) }
    }
}

impl Drop for Routers {
    fn drop(&mut self) {
        if let Some(mut line) = self.line.take() {
            // It may have ended by itself.
            let _ = line.kill();
            let _ = line.wait();
        }
        for name in &self.made {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// A cable from `port` of a namespace to `device` of another, with an address.
/// Large frames are cut, so that each is lost or delayed by itself.
fn plug(hub: &str, port: &str, to: &str, device: &str, address: &str) -> Result<String, String> {
    ip(&["-n", hub, "link", "add", port, "type", "veth", "peer", "name", device, "netns", to])?;
    ip(&["-n", hub, "link", "set", port, "up"])?;
    ip(&["-n", to, "link", "set", device, "gso_max_segs", "1"])?;
    ip(&["-n", to, "addr", "add", address, "dev", device])?;
    ip(&["-n", to, "link", "set", device, "up"])?;
    Ok(port.to_owned())
}

fn bridge(hub: &str, ports: &[String]) -> Result<(), String> {
    ip(&["-n", hub, "link", "add", "br0", "type", "bridge"])?;
    ip(&["-n", hub, "link", "set", "br0", "up"])?;
    ports.iter().try_for_each(|port| ip(&["-n", hub, "link", "set", port, "master", "br0"]))
}

/// A home's router: what comes from outside and nobody inside has asked for is
/// dropped.
fn rules(mapping: Mapping) -> String {
    let how = match mapping {
        Mapping::SamePort => "",
        Mapping::AnyPort => " fully-random",
    };
    format!(
        "table ip home {{
            chain out {{
                type nat hook postrouting priority 100
                oifname \"wan\" masquerade{how}
            }}
            chain own {{
                type filter hook input priority 0
                iifname \"wan\" ct state new drop
            }}
            chain in {{
                type filter hook forward priority 0
                iifname \"wan\" ct state new drop
            }}
        }}
        "
    )
}

/// Runs a program in a namespace.
pub(crate) fn inside(namespace: &str, program: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace])
        .args(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("ip: {e}"))?;
    // One that has ended already says why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let done = child.wait_with_output().map_err(|e| format!("{}: {e}", program[0]))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", program.join(" "), String::from_utf8_lossy(&done.stderr).trim()))
}
