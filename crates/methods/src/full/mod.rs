//! Full-parameter tuning: existing weights train, all of them.
pub mod full_ft;
