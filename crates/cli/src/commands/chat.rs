//! `luthier chat`: a conversation, line by line.

use crate::args::ChatArgs;
use crate::commands::generate::settings;
use crate::error::CliError;
use crate::opened::Opened;
use crate::output::Output;
use luthier_data::Template;
use luthier_decode::Chat;
use luthier_platform::terminal::{Stream, is_tty};
use serde_json::json;
use std::io::BufRead;
use std::ops::ControlFlow;

/// Runs the command. Reads turns from standard input; ends with the input, or at `/exit`.
pub fn run(args: &ChatArgs, output: &Output) -> Result<(), CliError> {
    let settings = settings(&args.sampling);
    let opened = Opened::new(&args.model.model, args.model.adapter.as_deref(), args.model.compute)?;
    let template = Template::of_model(opened.tokenizer())?;
    let mut chat = Chat::new(opened.generator(), template, args.system.as_deref())?;
    let asks = is_tty(Stream::Out) && !output.json();
    if asks {
        output.note("/exit ends, /reset forgets");
    }
    let mut turns = 0_u64;
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if asks {
            output.stream("> ");
        }
        let Some(line) = lines.next() else { break };
        let line = line.map_err(|error| CliError::input("prompt", format!("cannot read a line: {error}")))?;
        match line.trim() {
            "" => {}
            "/exit" => break,
            "/reset" => chat.reset(),
            text => {
                let answer = chat.say(text, &settings, &mut |piece| {
                    output.stream(piece);
                    ControlFlow::Continue(())
                })?;
                turns += 1;
                output.stream("\n");
                output.event(&json!({
                    "event": "answer", "text": answer.text, "tokens": answer.tokens.len(), "reason": answer.reason
                }));
            }
        }
    }
    output.event(&json!({"event": "done", "turns": turns}));
    Ok(())
}
