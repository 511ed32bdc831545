//! The ways to run a task on this node.
