//! What is kept of a program's output: the head up to a cap, and a short tail
//! for people who watch. The rest is read and dropped, so that the program
//! never blocks and the node's memory never grows with it.

use std::collections::VecDeque;
use std::io;
use tokio::net::unix::pipe::Receiver;

/// One output stream.
pub(super) struct Stream {
    /// `None` once it has ended.
    pipe: Option<Receiver>,
    head: Vec<u8>,
    cap: usize,
    truncated: bool,
    last: Tail,
}

impl Stream {
    /// Keeps the first `cap` bytes of `pipe`.
    pub(super) fn new(pipe: Option<Receiver>, cap: usize) -> Stream {
        Stream { pipe, head: Vec::new(), cap, truncated: false, last: Tail::new(LINE_BYTES) }
    }

    /// Whether more may come.
    pub(super) fn open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits until there is something to read. Never, if it is closed.
    pub(super) async fn readable(&self) {
        match &self.pipe {
            // An error is met again, and handled, when it is read.
            Some(pipe) => drop(pipe.readable().await),
            None => std::future::pending().await,
        }
    }

    /// Reads once into `buffer`, and keeps what is to be kept of it.
    pub(super) fn read(&mut self, buffer: &mut [u8], watched: &mut Tail) {
        let Some(pipe) = &self.pipe else { return };
        match pipe.try_read(buffer) {
            Ok(0) => self.pipe = None,
            Ok(n) => {
                self.keep(&buffer[..n]);
                watched.push(&buffer[..n]);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.pipe = None,
        }
    }

    /// The head, and whether there was more.
    pub(super) fn take(self) -> (Vec<u8>, bool) {
        (self.head, self.truncated)
    }

    /// The last line that is not blank, or the end of it.
    pub(super) fn last_line(&self) -> String {
        let text = self.last.bytes();
        let text = String::from_utf8_lossy(&text);
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.cap - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.truncated |= bytes.len() > room;
        self.last.push(bytes);
    }
}

/// The last bytes of something.
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    cap: usize,
    changed: bool,
}

impl Tail {
    /// Keeps the last `cap` bytes.
    pub(super) fn new(cap: usize) -> Tail {
        Tail { bytes: VecDeque::new(), cap, changed: false }
    }

    fn push(&mut self, more: &[u8]) {
        let more = &more[more.len().saturating_sub(self.cap)..];
        let over = (self.bytes.len() + more.len()).saturating_sub(self.cap);
        self.bytes.drain(..over);
        self.bytes.extend(more);
        self.changed = true;
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }

    /// The tail, if it changed since it was last asked for.
    pub(super) fn news(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.changed).then(|| self.bytes())
    }
}

/// What an error message quotes at most.
const LINE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_kept_up_to_the_cap_and_the_last_line_beyond_it() {
        let mut stream = Stream::new(None, 5);
        stream.keep(b"abc");
        assert!(!stream.truncated);
        stream.keep(b"defg\nthe last\n\n");
        assert_eq!(stream.last_line(), "the last");
        assert_eq!(stream.take(), (b"abcde".to_vec(), true));
    }

    #[test]
    fn a_tail_is_told_once_for_each_change() {
        let mut tail = Tail::new(4);
        assert_eq!(tail.news(), None);
        tail.push(b"ab");
        tail.push(b"cde");
        assert_eq!(tail.news(), Some(b"bcde".to_vec()));
        assert_eq!(tail.news(), None);
        tail.push(b"0123456789");
        assert_eq!(tail.news(), Some(b"6789".to_vec()));
    }
}
