//! The methods, one file each, and the table that names them.
//!
//! To add one: write the file, add its `mod` line and its row. `cargo xtask tidy`
//! fails if a file has no row.
pub mod adapter;
pub mod full;
pub mod low_rank;
pub mod partial;

mod own_file;
mod parts;
mod peft;

pub use peft::{AdapterFile, Patterns, ReadError, read_config};

use luthier_contract::{Card, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// A method's row: its card, and how it is made.
#[derive(Clone, Copy)]
pub struct Row {
    /// The card.
    pub card: &'static Card,
    /// From the table in `run.toml`.
    pub configure: fn(Value) -> Result<Arc<dyn Method>, serde_json::Error>,
    /// The settings in full, defaults included, as a table of `run.toml`.
    pub resolve: fn(Value) -> Result<Value, serde_json::Error>,
}

const fn row<M: Method + DeserializeOwned + serde::Serialize + 'static>(card: &'static Card) -> Row {
    Row {
        card,
        configure: |table| Ok(Arc::new(serde_json::from_value::<M>(table)?)),
        resolve: |table| serde_json::to_value(serde_json::from_value::<M>(table)?),
    }
}

/// Every ready method, in alphabetic order.
pub static METHODS: &[Row] = &[
    row::<full::adalomo::AdaLomo>(&full::adalomo::CARD),
    row::<low_rank::adalora::AdaLora>(&low_rank::adalora::CARD),
    row::<partial::bitfit::Bitfit>(&partial::bitfit::CARD),
    row::<low_rank::dora::Dora>(&low_rank::dora::CARD),
    row::<partial::fish_mask::FishMask>(&partial::fish_mask::CARD),
    row::<partial::freeze_layers::FreezeLayers>(&partial::freeze_layers::CARD),
    row::<full::full_ft::FullFt>(&full::full_ft::CARD),
    row::<full::galore::Galore>(&full::galore::CARD),
    row::<adapter::ia3::Ia3>(&adapter::ia3::CARD),
    row::<full::lomo::Lomo>(&full::lomo::CARD),
    row::<low_rank::lora::Lora>(&low_rank::lora::CARD),
    row::<low_rank::lora_fa::LoraFa>(&low_rank::lora_fa::CARD),
    row::<low_rank::lora_plus::LoraPlus>(&low_rank::lora_plus::CARD),
    row::<full::mezo::Mezo>(&full::mezo::CARD),
    row::<low_rank::vera::Vera>(&low_rank::vera::CARD),
];

/// Ids that can stand under `[method]`.
pub fn ids() -> Vec<&'static str> {
    METHODS.iter().map(|row| row.card.id).collect()
}

/// The row named `id`.
pub fn find(id: &str) -> Option<&'static Row> {
    METHODS.iter().find(|m| m.card.id == id)
}
