//! The types of run.toml.
