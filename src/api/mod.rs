//! The faces of a node.
