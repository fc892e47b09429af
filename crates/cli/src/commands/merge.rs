//! `luthier merge`: an adapter, folded into its base.

use crate::args::{GgufType, MergeArgs};
use crate::error::CliError;
use crate::opened::{Opened, base_of, is_adapter};
use crate::output::Output;
use luthier_tensor::DType;
use luthier_train::{MergeFormat, merge, open_for_adapter};

/// Runs the command.
pub fn run(args: &MergeArgs, output: &Output) -> Result<(), CliError> {
    let is_gguf = args.output.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gguf"));
    let format = match args.dtype {
        _ if !is_gguf => MergeFormat::HuggingFace,
        GgufType::F16 => MergeFormat::GgufF16,
        GgufType::Q8_0 => MergeFormat::GgufQ8,
    };
    let inner = args.adapter.join("adapter");
    let folder = if is_adapter(&args.adapter) { args.adapter.clone() } else { inner };
    let base = match &args.base {
        Some(base) => luthier_hub::resolve(base)?,
        None => base_of(&folder)?,
    };
    // In f32, so that the only rounding is the one of writing.
    let opened = Opened::of(open_for_adapter(&base, Some(&folder))?, Some(folder), DType::F32)?;
    output.progress(|| "merging".to_owned());
    let merged = merge(&opened.base, &opened.model, &opened.adapters, &args.output, format, args.overwrite)?;
    if merged.dequantised {
        output.warn("the base is quantised: its decoded weights were merged into");
    }
    output.result(
        || {
            let mut result = serde_json::to_value(&merged).expect("plain data with text keys");
            result["output"] = serde_json::json!(args.output);
            result["base"] = serde_json::json!(base);
            result["adapter"] = serde_json::json!(opened.adapter);
            result
        },
        || {
            let path = merged.path.display();
            let next = if opened.model.spec().generates() {
                format!("Talk to it: luthier chat {path}")
            } else {
                format!("Measure it: luthier eval {path} --data FILE")
            };
            format!("{path}: {} tensors, {}\n\n{next}", merged.tensors, merged.encoding)
        },
    );
    Ok(())
}
