//! From `[data]` of a configuration to what the data crate reads: one translation for training, evaluation and the doctor.
use crate::error::Error;
use luthier_config::{Eval, Format as Written, LossOn, Run, Template};
use luthier_data::{DataSpec, EvalSpec, Fields, Format, Loss, TemplateChoice};
use serde_json::Value;

/// `[data]` as the data crate takes it. A template file is read here; no row is.
///
/// # Errors
/// At the key's place: a format of another task, a field that no format has, a template file that cannot be read.
pub fn data_spec(run: &Run) -> Result<DataSpec, Error> {
    let data = &run.data;
    let (format, fields) = format(run)?;
    Ok(DataSpec {
        train: data.train.clone(),
        eval: match &data.eval {
            None => EvalSpec::None,
            Some(Eval::Files(files)) => EvalSpec::Files(files.clone()),
            Some(Eval::Share(share)) => EvalSpec::Fraction(*share),
        },
        format,
        fields,
        loss: match data.loss {
            LossOn::Assistant => Loss::Assistant,
            LossOn::Last => Loss::Last,
            LossOn::All => Loss::All,
        },
        max_tokens: data.max_tokens,
        encoding: data.encoding.clone(),
        template: template(run)?,
        seed: run.seed,
    })
}

fn template(run: &Run) -> Result<TemplateChoice, Error> {
    Ok(match &run.data.template {
        Template::Auto => TemplateChoice::Auto,
        Template::Chatml => TemplateChoice::Chatml,
        Template::Plain => TemplateChoice::Plain,
        Template::None => TemplateChoice::None,
        Template::File(path) => TemplateChoice::Source(std::fs::read_to_string(path).map_err(|error| {
            let message = format!("{} cannot be read: {error}", path.display());
            run.refuse("data.template", message, None)
        })?),
    })
}

fn format(run: &Run) -> Result<(Format, Fields), Error> {
    let format = match run.data.format {
        Written::Auto => Format::Auto,
        Written::Alpaca => Format::Alpaca,
        Written::Messages => Format::Messages,
        Written::Sharegpt => Format::Sharegpt,
        Written::PromptCompletion => Format::PromptCompletion,
        Written::QuestionAnswer => Format::QuestionAnswer,
        Written::Text => Format::Text,
        Written::Classification | Written::Preference => {
            let message = "this format is not here yet, expected one for task lm".to_string();
            return Err(run.refuse("data.format", message, None).into());
        }
    };
    let mut columns = serde_json::Map::new();
    for (key, column) in &run.data.fields {
        let key = match key.as_str() {
            "question" => "prompt",
            "answer" => "completion",
            other => other,
        };
        columns.insert(key.into(), Value::String(column.clone()));
    }
    let named = columns.contains_key("prompt") || columns.contains_key("completion");
    // With columns of other names, question-answer is prompt-completion; the one not named keeps its name.
    let format = if format == Format::QuestionAnswer && named {
        for (key, own) in [("prompt", "question"), ("completion", "answer")] {
            columns.entry(key).or_insert_with(|| Value::String(own.into()));
        }
        Format::PromptCompletion
    } else {
        format
    };
    let fields = serde_json::from_value::<Fields>(Value::Object(columns)).map_err(|error| {
        let known =
            "prompt, completion, question, answer, system, instruction, input, output, messages, text";
        run.refuse("data.fields", error.to_string(), Some(format!("known fields: {known}")))
    })?;
    Ok((format, fields))
}
