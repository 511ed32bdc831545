//! Tells a supervisor how the node does, as sd_notify(3) has it: when it is up,
//! that its loop turns, and that it is stopping. Without one nothing is told.

use super::monitor::vitals;
use crate::config::Supervisor;
use crate::driver::Handle;
use crate::telemetry::health;
use std::convert::Infallible;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the supervisor.
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// A supervisor that can't be reached is logged, and does without.
    pub(super) fn new(supervisor: Option<&Supervisor>) -> Notifier {
        let Some(supervisor) = supervisor else { return Notifier { socket: None, watchdog: None } };
        let watchdog = supervisor.watchdog_us.map(Duration::from_micros);
        match connect(&supervisor.socket) {
            Ok(socket) => Notifier { socket: Some(socket), watchdog },
            Err(error) => {
                tracing::warn!(%error, socket = supervisor.socket, "the supervisor can't be told how this node does");
                Notifier { socket: None, watchdog: None }
            }
        }
    }

    /// Everything listens.
    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=up");
    }

    /// It takes no more work, and will be gone within `grace`.
    pub(super) fn stopping(&self, grace: Duration) {
        self.tell(&format!("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC={}", grace.as_micros()));
    }

    /// Says that the node lives for as long as its loop turns, twice as often
    /// as it must; never ends.
    pub(super) async fn keep_alive(&self, handle: &Handle) -> Infallible {
        let (Some(watchdog), Some(_)) = (self.watchdog, &self.socket) else { return std::future::pending().await };
        let mut every = tokio::time::interval((watchdog / 2).max(SHORTEST));
        loop {
            every.tick().await;
            if health::healthz(&vitals(handle)).0 == 200 {
                self.tell("WATCHDOG=1");
            }
        }
    }

    fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(state.as_bytes()) {
            tracing::debug!(%error, state, "the supervisor was not told");
        }
    }
}

fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not hold the node up.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Of the times between two signs of life.
const SHORTEST: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a datagram");
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn a_supervisor_is_told_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("taskmesh-test-{}", std::process::id());
        let hidden = SocketAddr::from_abstract_name(&name).expect("a name");
        let sockets = [
            (path.display().to_string(), UnixDatagram::bind(&path).expect("a socket")),
            (format!("@{name}"), UnixDatagram::bind_addr(&hidden).expect("a socket")),
        ];
        for (address, socket) in sockets {
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let notifier = Notifier::new(Some(&Supervisor { socket: address, watchdog_us: None }));
            notifier.ready();
            assert_eq!(heard(&socket), "READY=1\nSTATUS=up");
            notifier.stopping(Duration::from_secs(2));
            assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=2000000");
        }
    }

    #[test]
    fn a_node_does_without_a_supervisor_that_is_not_there() {
        let gone = Supervisor { socket: "/no/such/socket".to_owned(), watchdog_us: Some(1) };
        assert!(Notifier::new(Some(&gone)).socket.is_none());
        Notifier::new(None).ready();
    }
}
