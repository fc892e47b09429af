//! The loop, events, checkpoints.
