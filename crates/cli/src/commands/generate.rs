//! `luthier generate`: a prompt, continued.

use crate::args::{GenerateArgs, SamplingArgs};
use crate::error::CliError;
use crate::opened::Opened;
use crate::output::Output;
use luthier_data::{Message, Role, Template, prompt_tokens};
use luthier_decode::{Sampling, Settings, Stop};
use luthier_train::PeakBytes;
use serde_json::json;
use std::io::Read;
use std::ops::ControlFlow;
use std::time::Instant;

/// Runs the command.
pub fn run(args: &GenerateArgs, output: &Output) -> Result<(), CliError> {
    let settings = settings(&args.sampling);
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None => read_stdin()?,
    };
    let opened = Opened::new(&args.model.model, args.model.adapter.as_deref(), args.model.compute)?;
    let tokenizer = opened.tokenizer();
    let ids = if args.raw {
        [tokenizer.start(), tokenizer.encode(&prompt)?].concat()
    } else {
        prompt_tokens(tokenizer, &Template::of_model(tokenizer)?, &[Message::new(Role::User, prompt)], None)?
    };
    let length = ids.len();
    let start = Instant::now();
    let answers = opened.generator().generate(vec![ids], &settings, &mut |_, text| {
        output.stream(text);
        ControlFlow::Continue(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let answer = &answers[0];
    output.result(
        || {
            json!({
                "text": answer.text,
                "tokens": answer.tokens.len(),
                "prompt_tokens": length,
                "reason": answer.reason,
                "seconds": seconds,
                "tokens_per_s": answer.tokens.len() as f64 / seconds.max(1e-9),
                "adapter": opened.adapter,
                "peak_bytes": PeakBytes::now(),
            })
        },
        String::new, // the text has gone out already; this ends its line
    );
    Ok(())
}

/// The settings that flags ask for.
pub fn settings(args: &SamplingArgs) -> Settings {
    let defaults = Sampling::default();
    Settings {
        sampling: Sampling {
            temperature: f64::from(args.temperature),
            top_k: args.top_k.map_or(defaults.top_k, usize::from),
            top_p: args.top_p.map_or(defaults.top_p, f64::from),
            min_p: args.min_p.map_or(defaults.min_p, f64::from),
            repetition_penalty: args.repetition_penalty.map_or(defaults.repetition_penalty, f64::from),
            seed: args.seed,
        },
        stop: Stop { strings: args.stop.clone(), max_tokens: args.max_tokens, ..Stop::default() },
        ..Settings::default()
    }
}

fn read_stdin() -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        CliError::input("prompt", format!("cannot read the prompt from standard input: {error}"))
    })?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}
