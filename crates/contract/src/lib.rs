//! What methods, models and storage agree on.
