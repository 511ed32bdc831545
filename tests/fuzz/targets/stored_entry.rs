//! An entry of the store under a right checksum.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| taskmesh::fuzzing::stored_entry(bytes));
