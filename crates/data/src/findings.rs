//! What in a report deserves a sentence.

use crate::report::{Finding, Level, Report};
use crate::sample::Maker;
use crate::set::Set;
use crate::task::Task;
use crate::template::TemplateSource;

/// Share of the rows from which truncations and duplicates are no accident.
const NOTICEABLE: f64 = 0.05;

/// All findings, warnings first.
pub(crate) fn findings(report: &Report, train: &Set, maker: &Maker<'_>) -> Vec<Finding> {
    let mut list = Vec::new();
    about_tokens(report, train, maker, &mut list);
    about_rows(report, &mut list);
    about_template(report, train, maker, &mut list);
    if let Some(labels) = &report.labels {
        crate::label_report::findings(labels, &mut list);
    }
    list.sort_by_key(|finding| finding.level);
    list
}

fn warn(list: &mut Vec<Finding>, code: &'static str, message: String) {
    list.push(Finding { level: Level::Warning, code, message });
}

fn note(list: &mut Vec<Finding>, code: &'static str, message: String) {
    list.push(Finding { level: Level::Note, code, message });
}

/// A count with its noun: `1 row`, `2 rows`.
fn many(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn about_tokens(report: &Report, train: &Set, maker: &Maker<'_>, list: &mut Vec<Finding>) {
    let set = &report.train;
    let special = maker.tokenizer.special();
    let doubled = train.sum(|part| part.made.double_bos);
    if doubled > 0 {
        let bos = special.bos.and_then(|id| maker.tokenizer.token(id)).unwrap_or_default();
        warn(list, "double-bos", format!("{} with two {bos} at the start", many(doubled, "sample")));
    }
    if special.eos.is_none() && maker.task == Task::Lm {
        let message = "the tokenizer names no end token: answers will not learn to stop";
        warn(list, "no-end-token", message.to_owned());
    }
    let limit = maker.max_tokens;
    if set.dropped > 0 {
        let samples = many(set.dropped, "sample");
        warn(
            list,
            "dropped",
            format!("{samples} left out: no target within {limit} tokens; raise `max_tokens`"),
        );
    }
    if set.truncated as f64 > NOTICEABLE * set.rows as f64 {
        let samples = many(set.truncated, "sample");
        let cost = if maker.task == Task::Lm {
            "where the answer does not end"
        } else {
            "and their ends are not read"
        };
        warn(list, "truncated", format!("{samples} cut at {limit} tokens, {cost}"));
    }
    if set.unknown_share > 0.01 {
        let share = set.unknown_share * 100.0;
        warn(list, "unknown", format!("{share:.1} % of the text is unknown to the tokenizer"));
    }
    if set.spelt_specials > 0 {
        let rows = many(set.spelt_specials, "row");
        warn(
            list,
            "spelt-special",
            format!("a special token is spelt out in the text of {rows}; it becomes that token"),
        );
    }
}

fn about_rows(report: &Report, list: &mut Vec<Finding>) {
    let set = &report.train;
    if report.shared_rows > 0 {
        let rows = many(report.shared_rows, "held-out row");
        warn(
            list,
            "shared-rows",
            format!("{rows} also trained on: the held-out result will look better than it is"),
        );
    }
    if set.empty_answers > 0 {
        let answers = many(set.empty_answers, "empty answer");
        warn(list, "empty-answers", format!("{answers}: the model learns to say nothing"));
    }
    if set.duplicates as f64 > NOTICEABLE * set.rows as f64 {
        warn(list, "duplicates", format!("{} of {} rows repeat an earlier one", set.duplicates, set.rows));
    }
    if report.shared_prompts > report.shared_rows {
        let rows = many(report.shared_prompts, "held-out row");
        let what = if report.labels.is_some() { "text" } else { "prompt" };
        note(list, "shared-prompts", format!("{rows} with a {what} that is also trained on"));
    }
    if set.empty_prompts > 0 {
        let what = if report.labels.is_some() { "empty text" } else { "empty prompt" };
        note(list, "empty-prompts", many(set.empty_prompts, what));
    }
}

fn about_template(report: &Report, train: &Set, maker: &Maker<'_>, list: &mut Vec<Finding>) {
    let template = &report.template;
    let is_built_in = matches!(template.source, TemplateSource::Chatml | TemplateSource::Plain);
    if template.is_used && is_built_in && maker.tokenizer.template().is_none() {
        let name = template.source.name();
        let message = format!("the model has no chat template, {name} is used; generate with the same");
        note(list, "built-in-template", message);
    }
    if template.ended_answers > 0 {
        let eos = maker.tokenizer.special().eos.and_then(|id| maker.tokenizer.token(id)).unwrap_or_default();
        let message = format!("the template does not end the answer with {eos}; it is added and learnt");
        note(list, "end-token-added", message);
    }
    let endless = train.sum(|part| part.made.endless);
    if endless > 0 {
        let answers = many(endless, "answer");
        note(
            list,
            "endless-turns",
            format!("{answers} inside conversations without an end token in the template"),
        );
    }
    if template.split_conversations > 0 {
        let conversations = many(template.split_conversations, "conversation");
        let message = format!("the template rewrites earlier turns: one sample a turn from {conversations}");
        note(list, "split-conversations", message);
    }
}
