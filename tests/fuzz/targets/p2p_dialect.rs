//! The first messages of a stream of MCP over libp2p.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskmesh::fuzzing::p2p_dialect(bytes));
