//! The arguments of an operation.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskmesh::fuzzing::tool_arguments(bytes));
