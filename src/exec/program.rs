//! The payload of `exec`: what to start, and with what around it. Checked for
//! shape and bounds here; whether this node allows it is `process.rs`'s matter.

use super::payload::Fields;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use taskmesh_core::{BlobHash, limits};

/// A program to run.
#[derive(Debug, PartialEq)]
pub(super) struct Program {
    /// The program and its arguments; never empty.
    pub(super) argv: Vec<String>,
    /// What it reads, in this order.
    pub(super) stdin: Vec<Piece>,
    /// On top of the few variables that it inherits.
    pub(super) env: BTreeMap<String, String>,
    /// Where it runs, absolute; `None`: in a fresh folder.
    pub(super) cwd: Option<PathBuf>,
    /// Bytes kept of each output stream.
    pub(super) output_limit: Option<usize>,
    /// Exit codes that mean success.
    pub(super) success_codes: Vec<i32>,
}

impl Program {
    /// Reads and checks a payload.
    pub(super) fn parse(payload: &[u8]) -> Result<Program, String> {
        let mut fields = Fields::read(payload)?;
        let program = Program {
            argv: argv(&mut fields)?,
            stdin: stdin(&mut fields)?,
            env: env(&mut fields)?,
            cwd: cwd(&mut fields)?,
            output_limit: output_limit(&mut fields)?,
            success_codes: success_codes(&mut fields)?,
        };
        fields.end("argv, stdin, stdin_base64, env, cwd, output_limit, success_codes")?;
        Ok(program)
    }
}

fn argv(fields: &mut Fields) -> Result<Vec<String>, String> {
    let argv: Vec<Value> = fields.take("argv")?.ok_or("argv: is missing")?;
    let argv = argv.into_iter().enumerate().map(argument).collect::<Result<Vec<_>, _>>()?;
    if argv.is_empty() || argv.len() > ARGUMENTS {
        return Err(format!("argv: must have 1 to {ARGUMENTS} items, and has {}", argv.len()));
    }
    if argv[0].is_empty() {
        return Err("argv: its first item, the program, must not be empty".into());
    }
    if let Some(n) = argv.iter().position(|a| a.contains('\0')) {
        return Err(format!("argv: item {n} has a NUL character"));
    }
    Ok(argv)
}

/// A piece of what a program reads.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// All of a blob: a large output of another task, as workflows hand it on.
    Blob { hash: BlobHash, bytes: u64 },
}

/// A number that a step of a workflow left is an argument as it is written.
fn argument((n, value): (usize, Value)) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(format!("argv: item {n} must be a text, a number, true or false"))
        }
    }
}

fn stdin(fields: &mut Fields) -> Result<Vec<Piece>, String> {
    let plain: Option<Value> = fields.take("stdin")?;
    let coded: Option<String> = fields.take("stdin_base64")?;
    match (plain, coded) {
        (Some(_), Some(_)) => Err("stdin_base64: give either stdin or stdin_base64".into()),
        (Some(Value::Array(pieces)), None) => {
            // What was skipped or failed has left nothing.
            let pieces = pieces.into_iter().filter(|piece| !piece.is_null());
            pieces.map(|one| piece(one).map(Piece::line_ended)).collect()
        }
        (Some(one), None) => Ok(vec![piece(one)?]),
        (None, Some(coded)) => {
            STANDARD.decode(coded).map(|b| vec![Piece::Bytes(b)]).map_err(|e| format!("stdin_base64: {e}"))
        }
        (None, None) => Ok(Vec::new()),
    }
}

fn piece(value: Value) -> Result<Piece, String> {
    if let Value::String(text) = value {
        return Ok(Piece::Bytes(text.into_bytes()));
    }
    let blob = value.get("$blob").and_then(Value::as_str).and_then(|hash| hash.parse().ok());
    match (blob, value.get("bytes").and_then(Value::as_u64)) {
        (Some(hash), Some(bytes)) if bytes <= limits::BLOB_BYTES => Ok(Piece::Blob { hash, bytes }),
        _ => Err("stdin: must be a text, what a step left ({\"$blob\": …, \"bytes\": …}), or an array of these".into()),
    }
}

impl Piece {
    /// Pieces that are put together are lines: the first of one does not run
    /// into the last of the one before.
    fn line_ended(self) -> Piece {
        match self {
            Piece::Bytes(mut bytes) => {
                if bytes.last().is_some_and(|last| *last != b'\n') {
                    bytes.push(b'\n');
                }
                Piece::Bytes(bytes)
            }
            blob @ Piece::Blob { .. } => blob,
        }
    }
}

fn env(fields: &mut Fields) -> Result<BTreeMap<String, String>, String> {
    let env: BTreeMap<String, String> = fields.take("env")?.unwrap_or_default();
    if env.len() > VARIABLES {
        return Err(format!("env: must have at most {VARIABLES} entries, and has {}", env.len()));
    }
    for (name, value) in &env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("env: {name:?} is no valid variable"));
        }
        if name.starts_with(OURS) {
            return Err(format!("env: {name} can't be set: names with {OURS} are the node's own"));
        }
    }
    Ok(env)
}

fn cwd(fields: &mut Fields) -> Result<Option<PathBuf>, String> {
    let Some(cwd): Option<String> = fields.take("cwd")? else { return Ok(None) };
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return Err("cwd: must be an absolute path".into());
    }
    Ok(Some(PathBuf::from(cwd)))
}

fn output_limit(fields: &mut Fields) -> Result<Option<usize>, String> {
    let limit: Option<u64> = fields.take("output_limit")?;
    limit
        .map(|bytes| match usize::try_from(bytes) {
            Ok(fits) if bytes <= limits::BLOB_BYTES => Ok(fits),
            _ => Err(format!("output_limit: must be 0 to {} bytes", limits::BLOB_BYTES)),
        })
        .transpose()
}

fn success_codes(fields: &mut Fields) -> Result<Vec<i32>, String> {
    let Some(codes): Option<Vec<i32>> = fields.take("success_codes")? else { return Ok(vec![0]) };
    if codes.is_empty() || codes.len() > 256 || codes.iter().any(|c| !(0..=255).contains(c)) {
        return Err("success_codes: must be 1 to 256 exit codes from 0 to 255".into());
    }
    Ok(codes)
}

/// The kernel's own bound is on bytes, and is met by the start of the program.
const ARGUMENTS: usize = 4096;
/// Far more than programs read.
const VARIABLES: usize = 256;
/// Prefix of the variables that the node sets.
const OURS: &str = "TASKMESH_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_read_with_its_defaults() {
        let read = Program::parse(br#"{"argv":["sha256sum","-",1.50,true],"stdin_base64":"aGk="}"#);
        let expected = Program {
            argv: ["sha256sum", "-", "1.5", "true"].map(String::from).into(),
            stdin: vec![Piece::Bytes(b"hi".to_vec())],
            env: BTreeMap::new(),
            cwd: None,
            output_limit: None,
            success_codes: vec![0],
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn every_complaint_begins_with_its_field() {
        for (payload, field) in [
            ("[]", "payload"),
            ("{", "payload"),
            ("{}", "argv"),
            (r#"{"argv":[]}"#, "argv"),
            (r#"{"argv":[""]}"#, "argv"),
            (r#"{"argv":"ls"}"#, "argv"),
            (r#"{"argv":["ls",[1]]}"#, "argv"),
            (r#"{"argv":["ls",null]}"#, "argv"),
            (r#"{"argv":["l\u0000s"]}"#, "argv"),
            (r#"{"argv":["ls"],"stdin":1}"#, "stdin"),
            (r#"{"argv":["ls"],"stdin":["a",{}]}"#, "stdin"),
            (r#"{"argv":["ls"],"stdin":{"$blob":"no hash","bytes":1}}"#, "stdin"),
            (r#"{"argv":["ls"],"stdin":{"$blob":"00","bytes":1}}"#, "stdin"),
            (r#"{"argv":["ls"],"stdin":"","stdin_base64":""}"#, "stdin_base64"),
            (r#"{"argv":["ls"],"stdin_base64":"%"}"#, "stdin_base64"),
            (r#"{"argv":["ls"],"env":{"A=B":"c"}}"#, "env"),
            (r#"{"argv":["ls"],"env":{"A":1}}"#, "env"),
            (r#"{"argv":["ls"],"env":{"TASKMESH_FENCE":"1"}}"#, "env"),
            (r#"{"argv":["ls"],"cwd":"here"}"#, "cwd"),
            (r#"{"argv":["ls"],"output_limit":-1}"#, "output_limit"),
            (r#"{"argv":["ls"],"output_limit":999999999999}"#, "output_limit"),
            (r#"{"argv":["ls"],"success_codes":[]}"#, "success_codes"),
            (r#"{"argv":["ls"],"success_codes":[256]}"#, "success_codes"),
            (r#"{"argv":["ls"],"sdtin":"x"}"#, "sdtin"),
        ] {
            let complaint = Program::parse(payload.as_bytes()).expect_err(payload);
            assert!(complaint.starts_with(&format!("{field}: ")), "{payload}: {complaint}");
        }
    }
}
