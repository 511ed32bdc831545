//! Changes of resources as they are told, over one request that stays open.

use super::{Client, ClientError};
use serde_json::Value;

/// A subscription. It ends when this is dropped.
pub struct News {
    client: Client,
    response: reqwest::Response,
    /// What has come and is not a whole event yet.
    rest: Vec<u8>,
}

/// An event of a node is a notification: it has a name in it.
const EVENT_BYTES: usize = 64 * 1024;

impl News {
    pub(super) fn new(client: Client, response: reqwest::Response) -> News {
        News { client, response, rest: Vec::new() }
    }

    /// Waits for the next change; the first of each resource comes at once. Safe
    /// to drop while it waits.
    ///
    /// # Errors
    /// The node has ended the subscription, or the connection broke.
    pub async fn next(&mut self) -> Result<String, ClientError> {
        loop {
            while let Some(event) = self.event() {
                if let Some(uri) = updated(&event) {
                    return Ok(uri);
                }
            }
            if self.rest.len() > EVENT_BYTES {
                return Err(self.client.broken(format!("an event of more than {EVENT_BYTES} bytes")));
            }
            match self.response.chunk().await.map_err(|e| self.client.failed(&e))? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None => return Err(self.client.broken("the node has ended the subscription".to_owned())),
            }
        }
    }

    /// Takes a whole event from what has come.
    fn event(&mut self) -> Option<String> {
        let end = self.rest.windows(2).position(|two| two == b"\n\n")?;
        let event: Vec<u8> = self.rest.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&event).into_owned())
    }
}

/// The resource that an event says has changed.
fn updated(event: &str) -> Option<String> {
    let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect();
    let message: Value = serde_json::from_str(&data).ok()?;
    let told = message["method"] == "notifications/resources/updated";
    message["params"]["uri"].as_str().filter(|_| told).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_told_from_everything_else() {
        let update = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"mesh://queue"}}"#;
        assert_eq!(updated(&format!("event: message\nid: 7\ndata: {update}\n\n")), Some("mesh://queue".to_owned()));
        for other in ["", ": ping\n\n", "data: {}\n\n", "data: no json\n\n", "data: {\"method\":\"other\"}\n\n"] {
            assert_eq!(updated(other), None, "{other}");
        }
    }
}
