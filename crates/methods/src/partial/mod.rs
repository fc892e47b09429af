//! Some of the base's own parameters train.
pub mod bitfit;
pub mod fish_mask;
pub mod freeze_layers;
