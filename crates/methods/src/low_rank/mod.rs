//! Additional parameters in low-rank form beside frozen weights.
pub mod adalora;
pub mod dora;
pub mod lora;
pub mod lora_fa;
pub mod lora_plus;
pub mod vera;
