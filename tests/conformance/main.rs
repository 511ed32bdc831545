//! A node for the official conformance suite of MCP: the program itself, built
//! with the fixtures that the suite expects. `make conformance` runs it.

fn main() -> std::process::ExitCode {
    taskmesh::cli::main()
}
