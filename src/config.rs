//! The node's settings: flags, then environment, then file, then defaults.
