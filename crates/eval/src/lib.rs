//! Tasks and metrics.
