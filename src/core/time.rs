//! The two times of the core: a monotonic one that decides, and a wall-clock
//! one that is only data (shown to people, compared with deadlines).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};

/// Milliseconds since the node started, or a span of them. The only time that
/// leases, beats and retransmissions are counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// Milliseconds since the Unix epoch, UTC. Travels in records; never used to
/// decide who owns anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unix(pub u64);

impl Millis {
    /// Farther away than any node lives.
    pub const NEVER: Millis = Millis(u64::MAX);

    /// The span from `earlier` to `self`; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }
}

impl Sub for Millis {
    type Output = Millis;
    fn sub(self, span: Millis) -> Millis {
        Millis(self.0.saturating_sub(span.0))
    }
}

impl Unix {
    /// The span from `earlier` to `self`; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Unix) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for Unix {
    type Output = Unix;
    fn add(self, span: Millis) -> Unix {
        Unix(self.0.saturating_add(span.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
