//! Additional parameters in low-rank form beside frozen weights.
pub mod lora;
