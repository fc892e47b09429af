//! From `[data]` of a configuration to what the data crate reads: one translation for training, evaluation and the doctor.
use crate::error::Error;
use luthier_config::{Eval, Format as Written, LossOn, Run, Task as Asked, Template};
use luthier_data::{DataSpec, EvalSpec, Fields, Format, Loss, Task, TemplateChoice};
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
        task: task(run)?,
        labels: data.labels.clone(),
        preferred_labels: None,
    })
}

/// What the model learns to answer.
fn task(run: &Run) -> Result<Task, Error> {
    Ok(match run.task {
        Asked::Lm => Task::Lm,
        Asked::Classification => Task::Classification { multi_label: run.data.multi_label },
        Asked::Regression => Task::Regression,
        Asked::TokenClassification => Task::TokenClassification,
        Asked::MaskedLm => Task::MaskedLm,
        Asked::Seq2seq => {
            let help =
                "expected lm, masked-lm, classification, regression or token-classification".to_owned();
            return Err(run.refuse("task", "task seq2seq is not here yet".into(), Some(help)).into());
        }
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
        Written::Classification => Format::Classification,
        Written::TokenClassification => Format::TokenClassification,
        Written::Conll => Format::Conll,
        other => Format::benchmark(&other.name()).ok_or_else(|| {
            run.refuse("data.format", format!("format {} is not here yet", other.name()), None)
        })?,
    };
    let mut columns = serde_json::Map::new();
    for (key, column) in &run.data.fields {
        let is_chat = run.task == Asked::Lm;
        let key = match key.as_str() {
            "question" if is_chat => "prompt",
            "answer" if is_chat => "completion",
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
            "prompt, completion, question, answer, system, instruction, input, output, messages, text, pair, label, tokens, tags";
        run.refuse("data.fields", error.to_string(), Some(format!("known fields: {known}")))
    })?;
    Ok((format, fields))
}
