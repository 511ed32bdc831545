//! The tests with real processes and real sockets.
