//! What the fuzzers in `tests/fuzz` run: for every reader of bytes from outside,
//! what must hold whatever the bytes are. Nobody links this but they and the
//! tests, which run the same on bytes that are right: the fuzzers start there.

use crate::api::p2p;
use crate::net::wire;
use crate::{ops, store};
use taskmesh_core::{Command, Request};

/// The first byte says how much of the rest comes at once: a stream of frames
/// of MCP over libp2p.
pub fn p2p_frame(bytes: &[u8]) {
    p2p::fuzzing::frames(bytes);
}

/// Messages of MCP over libp2p, one a line: the first tells the dialect.
pub fn p2p_dialect(bytes: &[u8]) {
    p2p::fuzzing::dialect(bytes);
}

/// The first byte picks an operation, the rest are its arguments. What a face
/// lets through must be fit to be asked of another node, and to be kept.
pub fn tool_arguments(bytes: &[u8]) {
    let Some(request) = ops::fuzzing::arguments(bytes) else { return };
    wire::fuzzing::request(&request);
    if let Request::Command(Command::Submit(submission)) = &request {
        store::fuzzing::spec(&submission.spec);
    }
}

/// A kind, a version and a body: an entry of the store, its checksum made right.
pub fn stored_entry(bytes: &[u8]) {
    store::fuzzing::entry(bytes);
}

/// One message of another node.
pub fn wire_message(bytes: &[u8]) {
    wire::fuzzing::message(bytes);
}

/// A frame of messages of another node.
pub fn wire_frame(bytes: &[u8]) {
    wire::fuzzing::frame(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// A fuzzer, what it starts from, and words that its input is made of.
    struct Start {
        target: &'static str,
        run: fn(&[u8]),
        seeds: Vec<Vec<u8>>,
        words: Vec<String>,
    }

    fn starts() -> Vec<Start> {
        let start = |target, run, seeds, words| Start { target, run, seeds, words };
        let plain = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        vec![
            start("p2p_frame", p2p_frame, p2p::fuzzing::frame_seeds(), plain(p2p::fuzzing::WORDS)),
            start("p2p_dialect", p2p_dialect, p2p::fuzzing::dialect_seeds(), plain(p2p::fuzzing::WORDS)),
            start("tool_arguments", tool_arguments, ops::fuzzing::seeds(), ops::fuzzing::words()),
            start("stored_entry", stored_entry, store::fuzzing::seeds(), Vec::new()),
            start("wire_message", wire_message, wire::fuzzing::message_seeds(), Vec::new()),
            start("wire_frame", wire_frame, wire::fuzzing::frame_seeds(), Vec::new()),
        ]
    }

    /// In the folder that `FUZZ_SEEDS` names, a folder of seeds and a dictionary
    /// for each fuzzer.
    fn write(folder: &Path, start: &Start) {
        let seeds = folder.join(start.target);
        std::fs::create_dir_all(&seeds).expect("a folder");
        for (n, seed) in start.seeds.iter().enumerate() {
            std::fs::write(seeds.join(format!("seed-{n:03}")), seed).expect("written");
        }
        let escaped = |word: &String| word.replace('\\', "\\\\").replace('"', "\\\"");
        let lines = start.words.iter().map(|word| format!("\"{}\"\n", escaped(word)));
        std::fs::write(folder.join(format!("{}.dict", start.target)), lines.collect::<String>()).expect("written");
    }

    #[test]
    fn what_is_right_passes_and_the_fuzzers_start_from_it() {
        let folder = std::env::var_os("FUZZ_SEEDS");
        for start in starts() {
            let different: BTreeSet<_> = start.seeds.iter().collect();
            assert!(different.len() >= 8, "{}: {} seeds", start.target, different.len());
            start.seeds.iter().for_each(|seed| (start.run)(seed));
            if let Some(folder) = &folder {
                write(Path::new(folder), &start);
            }
        }
    }

    #[test]
    fn what_is_cut_or_damaged_is_refused_or_holds() {
        for start in starts() {
            for (n, seed) in start.seeds.iter().enumerate().filter(|(_, seed)| seed.len() < 2_000) {
                let place = n * 31 % seed.len();
                (start.run)(&seed[..place]);
                let mut damaged = seed.clone();
                damaged[place] ^= 1 << (n % 8);
                (start.run)(&damaged);
            }
            (start.run)(&[]);
        }
    }

    #[test]
    fn every_fuzzer_is_a_target() {
        let targets = include_str!("../tests/fuzz/Cargo.toml");
        let named: BTreeSet<_> = targets.lines().filter_map(|line| line.strip_prefix("path = \"targets/")).collect();
        let expected: Vec<_> = starts().iter().map(|start| format!("{}.rs\"", start.target)).collect();
        assert_eq!(named, expected.iter().map(String::as_str).collect());
    }
}
