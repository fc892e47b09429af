//! `luthier methods`: the catalogue.

use crate::args::MethodsArgs;
use crate::error::CliError;
use crate::output::Output;
use luthier_contract::Card;
use luthier_methods::{METHODS, find};
use serde_json::{Value, json};
use std::fmt::Write;

/// Runs the command.
pub fn run(args: &MethodsArgs, output: &Output) -> Result<(), CliError> {
    match &args.id {
        None => {
            let cards: Vec<&Card> = METHODS.iter().map(|row| row.card).collect();
            output.result(
                || json!({"methods": cards.iter().map(|card| to_json(card)).collect::<Vec<_>>()}),
                || list(&cards),
            );
        }
        Some(id) => {
            let row = find(id).ok_or_else(|| unknown(id))?;
            output.result(|| to_json(row.card), || describe(row.card));
        }
    }
    Ok(())
}

fn unknown(id: &str) -> CliError {
    let ids = || METHODS.iter().map(|row| row.card.id);
    let all = ids().collect::<Vec<_>>().join(", ");
    let error = CliError::input("method-unknown", format!("unknown method `{id}`"));
    match luthier_config::nearest(id, ids()) {
        Some(near) => error.help(format!("did you mean `{near}`? ready methods: {all}")),
        None => error.help(format!("ready methods: {all}")),
    }
}

fn to_json(card: &Card) -> Value {
    json!({
        "id": card.id,
        "name": card.name,
        "name_zh": card.name_zh,
        "class": card.class.as_str(),
        "family": card.family,
        "principle": card.principle,
        "position": card.position,
        "characteristics": card.characteristics,
        "paper": {"cite": card.paper.cite, "arxiv": card.paper.arxiv},
        "equation": card.equation,
        "parameters": card.parameters,
        "hooks": card.hooks.iter().map(|hook| hook.as_str()).collect::<Vec<_>>(),
        "mergeable": card.mergeable,
    })
}

fn list(cards: &[&Card]) -> String {
    let wide = |of: fn(&Card) -> usize| cards.iter().map(|card| of(card)).max().unwrap_or(0);
    let (ids, names) = (wide(|card| card.id.len()), wide(|card| card.name.len()));
    let mut text = String::new();
    for card in cards {
        let _ = writeln!(text, "{:ids$}  {:names$}  {}", card.id, card.name, card.principle);
    }
    text.push_str("\nOne in full: luthier methods ID");
    text
}

fn describe(card: &Card) -> String {
    let mut text = format!("{} ({}, {})\n\n", card.id, card.name, card.name_zh);
    let hooks = card.hooks.iter().map(|hook| hook.as_str()).collect::<Vec<_>>().join(", ");
    for (name, value) in [
        ("class", card.class.as_str()),
        ("principle", card.principle),
        ("position", card.position),
        ("character", card.characteristics),
        ("equation", card.equation),
        ("parameters", card.parameters),
        ("hooks", &hooks),
        ("mergeable", if card.mergeable { "yes" } else { "no" }),
    ] {
        let _ = writeln!(text, "{name:10}  {value}");
    }
    let _ = writeln!(text, "{:10}  {}, https://arxiv.org/abs/{}", "paper", card.paper.cite, card.paper.arxiv);
    let _ = write!(text, "\nIn a run.toml: [method.{}]", card.id);
    text
}
