//! The program `taskmesh`: a node, and the command line that asks one.

use std::process::ExitCode;

fn main() -> ExitCode {
    taskmesh::cli::main()
}
