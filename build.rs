//! Compiles `proto/` to Rust, without `protoc`, and writes down the shape of
//! each message for `net/wire/weigh.rs`.

use protox::prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

const FILES: [&str; 3] = ["taskmesh/v1/task.proto", "taskmesh/v1/request.proto", "taskmesh/v1/mesh.proto"];
/// What a `String` or a `Vec` takes beside its content.
const HEADER: usize = 24;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    prost_build::Config::new()
        .btree_map(["."])
        .boxed(".taskmesh.v1.TaskView.spec")
        .compile_fds(compiler.file_descriptor_set())?;

    let messages: Vec<_> = compiler.descriptor_pool().all_messages().collect();
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("shapes.rs");
    std::fs::write(out, shapes(&messages)?)?;
    Ok(())
}

/// Rust text of one constant and a table: for each message what an element of
/// it weighs in memory, and which of its fields repeat or hold a message.
fn shapes(messages: &[MessageDescriptor]) -> Result<String, Box<dyn Error>> {
    let places: BTreeMap<_, _> = messages.iter().enumerate().map(|(n, m)| (m.full_name().to_owned(), n)).collect();
    let mut text = String::new();
    let root = places.get("taskmesh.v1.Message").ok_or("no taskmesh.v1.Message")?;
    writeln!(text, "pub(super) const MESSAGE: usize = {root};")?;
    writeln!(text, "pub(super) static SHAPES: [Shape; {}] = [", messages.len())?;
    for message in messages {
        writeln!(text, "    // {}", message.full_name())?;
        writeln!(text, "    Shape {{ weight: {}, fields: &[", weight(message))?;
        for field in message.fields().filter(|f| f.is_list() || f.is_map() || child(f).is_some()) {
            let repeats = field.cardinality() == Cardinality::Repeated;
            let inside = child(&field).map(|m| places[m.full_name()]);
            writeln!(text, "        Field {{ number: {}, repeats: {repeats}, inside: {inside:?} }},", field.number())?;
        }
        writeln!(text, "    ] }},")?;
    }
    writeln!(text, "];")?;
    Ok(text)
}

fn child(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    field.kind().as_message().cloned()
}

/// Bytes of memory of one empty message: at least what its struct takes.
/// Alternatives are added up as if each had its own place.
fn weight(message: &MessageDescriptor) -> usize {
    message.fields().map(|f| field_weight(&f)).sum::<usize>().max(8)
}

fn field_weight(field: &FieldDescriptor) -> usize {
    if field.is_list() || field.is_map() {
        return HEADER;
    }
    match field.kind() {
        Kind::Message(inner) => weight(&inner) + 8,
        Kind::String | Kind::Bytes => HEADER,
        _ => 16,
    }
}
