//! How base weights are kept.
