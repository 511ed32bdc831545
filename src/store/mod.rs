//! What survives a crash: one folder, one committer.
