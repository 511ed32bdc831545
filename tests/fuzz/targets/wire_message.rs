//! One message of another node.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskmesh::fuzzing::wire_message(bytes));
