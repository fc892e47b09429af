//! `adapter_config.json` of methods that PEFT does not have: our own type, versioned.
//!
//! ```json
//! { "luthier_type": "bitfit", "version": 1, "base_model_name_or_path": "..", "settings": { .. } }
//! ```
//! `settings` is the method's table of `run.toml`, defaults included.
use crate::find;
use crate::peft::{AdapterFile, ReadError};
use serde::Serialize;
use serde_json::{Value, json};

/// The layout that is written and read.
const VERSION: u64 = 1;

/// The file's content.
pub(crate) fn config(id: &str, base_name: &str, method: &impl Serialize) -> Value {
    let settings = serde_json::to_value(method).expect("settings are plain data with text keys");
    json!({ "luthier_type": id, "version": VERSION, "base_model_name_or_path": base_name, "settings": settings })
}

/// The method that the file describes.
pub(crate) fn read(id: &str, config: &Value) -> Result<AdapterFile, ReadError> {
    let row = find(id).ok_or_else(|| ReadError::UnknownType { got: id.into() })?;
    let version = config.get("version").and_then(Value::as_u64);
    if version != Some(VERSION) {
        let got = config.get("version").unwrap_or(&Value::Null).to_string();
        return Err(ReadError::Key { key: "version".into(), expected: "1", got });
    }
    let settings = config.get("settings").cloned().unwrap_or_else(|| json!({}));
    let method = (row.configure)(settings).map_err(|e| ReadError::Settings { reason: e.to_string() })?;
    let base_name = config.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_string);
    Ok(AdapterFile { method, base_name })
}
