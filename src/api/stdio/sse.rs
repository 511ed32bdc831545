//! Reads a stream of server-sent events (HTML standard, section 9.2) in pieces
//! of any size: only the data matters here.

/// The most that one event may have: an answer at its largest, in both forms.
const EVENT_BYTES: usize = 32 * 1024 * 1024;

/// Events of which a part may still be missing.
#[derive(Default)]
pub(super) struct Events {
    /// An unfinished line.
    line: Vec<u8>,
    /// Data lines of an unfinished event.
    data: String,
    after_return: bool,
}

impl Events {
    /// Takes the next bytes: the data of every event that they end.
    ///
    /// # Errors
    /// An event is too large.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut ended = Vec::new();
        for byte in bytes {
            // A line ends with \n, \r or both.
            match byte {
                b'\n' if std::mem::take(&mut self.after_return) => {}
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    ended.extend(self.end_line());
                }
                _ => {
                    self.after_return = false;
                    self.line.push(*byte);
                }
            }
        }
        if self.line.len() + self.data.len() > EVENT_BYTES {
            return Err(format!("an event of more than {EVENT_BYTES} bytes"));
        }
        Ok(ended)
    }

    /// The data of an event, if this line, an empty one, ends it.
    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            data.pop();
            // Events without data only keep the connection alive.
            return (!data.trim().is_empty()).then_some(data);
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            self.data.push_str(&String::from_utf8_lossy(data));
            self.data.push('\n');
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_data_of_events_is_read() {
        let mut events = Events::default();
        let text =
            b"id: 0\nretry: 3000\ndata:\n\n: ping\n\nevent: message\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:x\n\n";
        assert_eq!(events.push(text).unwrap(), ["{\"a\":\n1}", "x"]);
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_stream_do_not_matter(cuts in prop::collection::vec(1_usize..7, 0..40)) {
            let text = "data: grün\r\n\r\ndata: 2\ndata: 3\n\nid: 5\n\ndata: 4\r\r".as_bytes();
            let whole = Events::default().push(text).unwrap();
            let (mut events, mut got, mut rest) = (Events::default(), Vec::new(), text);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                got.extend(events.push(piece).unwrap());
                rest = after;
            }
            got.extend(events.push(rest).unwrap());
            prop_assert_eq!(got, whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Events::default().push(&bytes);
        }
    }
}
