//! From a configuration's words to the engine's.

use crate::error::CliError;
use luthier_config::{Eval, Format, LossOn, Run, Template};
use luthier_data::{DataSpec, EvalSpec, Fields, Loss, TemplateChoice};
use luthier_methods::METHODS;

/// Ids that can stand under `[method]`.
pub fn method_ids() -> Vec<&'static str> {
    METHODS.iter().map(|row| row.card.id).collect()
}

/// `[data]` as the data crate takes it.
pub fn data(run: &Run) -> Result<DataSpec, CliError> {
    let data = &run.data;
    let format = match data.format {
        Format::Auto => luthier_data::Format::Auto,
        Format::Alpaca => luthier_data::Format::Alpaca,
        Format::Messages => luthier_data::Format::Messages,
        Format::Sharegpt => luthier_data::Format::Sharegpt,
        Format::PromptCompletion => luthier_data::Format::PromptCompletion,
        Format::QuestionAnswer => luthier_data::Format::QuestionAnswer,
        Format::Text => luthier_data::Format::Text,
        Format::Classification | Format::Preference => {
            let message = "this format is not part of this build".to_owned();
            return Err(run.refuse("data.format", message, None).into());
        }
    };
    Ok(DataSpec {
        train: data.train.clone(),
        eval: match &data.eval {
            None => EvalSpec::None,
            Some(Eval::Files(files)) => EvalSpec::Files(files.clone()),
            Some(Eval::Share(share)) => EvalSpec::Fraction(*share),
        },
        format,
        fields: fields(run)?,
        loss: match data.loss {
            LossOn::Assistant => Loss::Assistant,
            LossOn::Last => Loss::Last,
            LossOn::All => Loss::All,
        },
        max_tokens: data.max_tokens,
        encoding: data.encoding.clone(),
        template: match &data.template {
            Template::Auto => TemplateChoice::Auto,
            Template::Chatml => TemplateChoice::Chatml,
            Template::Plain => TemplateChoice::Plain,
            Template::None => TemplateChoice::None,
            Template::File(path) => TemplateChoice::Source(
                std::fs::read_to_string(path)
                    .map_err(|error| run.refuse("data.template", format!("cannot be read: {error}"), None))?,
            ),
        },
        seed: run.seed,
    })
}

/// `fields`, in which `question` and `answer` are other words for prompt and completion.
fn fields(run: &Run) -> Result<Fields, CliError> {
    let mut map = serde_json::Map::new();
    for (field, column) in &run.data.fields {
        let field = match (field.as_str(), run.data.format) {
            ("question", _) => "prompt",
            ("answer", _) => "completion",
            (field, _) => field,
        };
        map.insert(field.to_owned(), column.clone().into());
    }
    serde_json::from_value(map.into()).map_err(|error| {
        let known =
            "prompt, completion, question, answer, system, instruction, input, output, messages, text";
        run.refuse("data.fields", error.to_string(), Some(format!("known fields: {known}"))).into()
    })
}
