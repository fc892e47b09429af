//! Mathematics and settings that several methods share.
pub(crate) mod budget;
pub(crate) mod orthogonality;
pub(crate) mod over_lora;
pub(crate) mod whole_base;
