//! `report.html`: one page about a run that needs no other file and no network.
//!
//! The page is for a phone as for a wide screen, light or dark as the reader's system is. All text of the run (settings,
//! samples) is escaped: what a model says cannot become markup.

mod chart;

use crate::output::bytes;
use std::fmt::Write;

/// What the page is about.
#[derive(Debug, Default)]
pub struct Report {
    /// The run in a few words.
    pub title: String,
    /// The figures that matter, each with its name: `("held-out loss", "2.31 -> 1.42")`.
    pub figures: Vec<(String, String)>,
    /// Training loss by step.
    pub train: Vec<Point>,
    /// Held-out loss by step.
    pub eval: Vec<Point>,
    /// Peak bytes by account, in the order to show; `total` is apart.
    pub memory: Vec<(String, u64)>,
    /// Peak bytes of all accounts together.
    pub memory_total: u64,
    /// What the model says to a prompt, before and after.
    pub samples: Vec<Sample>,
    /// The resolved configuration.
    pub settings: String,
}

/// A loss at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Updates done.
    pub step: u64,
    /// Mean over the tokens that count, nats.
    pub loss: f64,
}

/// One prompt and what the model made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// Without the adapter.
    pub before: String,
    /// With it.
    pub after: String,
}

/// Text as HTML text or as a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // HTML has no way to write other control characters.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

impl Report {
    /// The page.
    pub fn to_html(&self) -> String {
        let title = escape(&self.title);
        let mut page = String::new();
        let _ = write!(
            page,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        );
        self.write_figures(&mut page);
        self.write_curve(&mut page);
        self.write_memory(&mut page);
        self.write_samples(&mut page);
        if !self.settings.is_empty() {
            let _ = write!(
                page,
                "<section>\n<h2>Settings</h2>\n<p class=\"note\">This file gives the same run.</p>\n\
                 <pre>{}</pre>\n</section>\n",
                escape(self.settings.trim())
            );
        }
        let _ = write!(
            page,
            "<footer>luthier {}</footer>\n</main>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        );
        page
    }

    fn write_figures(&self, page: &mut String) {
        if self.figures.is_empty() {
            return;
        }
        page.push_str("<dl class=\"figures\">\n");
        for (name, value) in &self.figures {
            let _ = writeln!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
        page.push_str("</dl>\n");
    }

    fn write_curve(&self, page: &mut String) {
        let Some(chart) = chart::curve(&self.train, &self.eval) else { return };
        let _ =
            write!(page, "<section>\n<h2>Loss</h2>\n<p class=\"note\">Nats a token, by step.</p>\n{chart}");
        if !self.eval.is_empty() {
            page.push_str("<details>\n<summary>Held-out loss in figures</summary>\n<table>\n");
            page.push_str("<tr><th>step</th><th>loss</th><th>perplexity</th></tr>\n");
            for point in &self.eval {
                let perplexity = point.loss.exp();
                let _ = writeln!(
                    page,
                    "<tr><td>{}</td><td>{:.4}</td><td>{perplexity:.2}</td></tr>",
                    point.step, point.loss
                );
            }
            page.push_str("</table>\n</details>\n");
        }
        page.push_str("</section>\n");
    }

    fn write_memory(&self, page: &mut String) {
        let Some(largest) = self.memory.iter().map(|(_, held)| *held).max().filter(|held| *held > 0) else {
            return;
        };
        let _ = write!(
            page,
            "<section>\n<h2>Memory</h2>\n<p class=\"note\">Measured peak: {} in all. Each account's own peak is below; \
             they do not all fall at one moment.</p>\n<table class=\"bars\">\n",
            bytes(self.memory_total)
        );
        for (account, held) in &self.memory {
            let _ = writeln!(
                page,
                "<tr><th>{}</th><td class=\"bar\"><span style=\"width:{:.1}%\"></span></td><td>{}</td></tr>",
                escape(account),
                *held as f64 / largest as f64 * 100.0,
                bytes(*held)
            );
        }
        page.push_str("</table>\n</section>\n");
    }

    fn write_samples(&self, page: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        page.push_str("<section>\n<h2>Samples</h2>\n");
        for sample in &self.samples {
            let _ = write!(
                page,
                "<article>\n<p class=\"prompt\">{}</p>\n<div class=\"pair\">\n\
                 <div><h3>before</h3><p>{}</p></div>\n<div><h3>after</h3><p>{}</p></div>\n</div>\n</article>\n",
                escape(&sample.prompt),
                escape(&sample.before),
                escape(&sample.after)
            );
        }
        page.push_str("</section>\n");
    }
}

const STYLE: &str = "\
:root { --page: #fbfaf8; --card: #ffffff; --ink: #1c1b19; --soft: #6a675f; --line: #dcd8d0; --train: #2c6cb0; --eval: #b3530a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #171614; --card: #201f1c; --ink: #eceae5; --soft: #a19d93; --line: #3a3832; --train: #79b3ec; --eval: #f0a35e; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .25rem; }
h3 { font-size: .8rem; font-weight: 600; color: var(--soft); margin: 0 0 .25rem; }
.note, footer, summary { color: var(--soft); font-size: .9rem; margin: 0 0 .75rem; }
footer { margin-top: 3rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 0; }
.figures div, article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem 1rem; }
.figures dt { color: var(--soft); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg .raw { fill: none; stroke: var(--train); stroke-width: 1; opacity: .35; }
svg .train { fill: none; stroke: var(--train); stroke-width: 2; }
svg .eval { fill: none; stroke: var(--eval); stroke-width: 2; }
svg .dot { fill: var(--eval); }
svg .train-name { fill: var(--train); font-weight: 600; }
svg .eval-name { fill: var(--eval); font-weight: 600; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .75rem .2rem 0; font-weight: 400; }
.bars { width: 100%; }
.bars th { text-align: left; color: var(--soft); width: 1%; }
.bars td:last-child { white-space: nowrap; width: 1%; padding-right: 0; }
.bar span { display: block; height: .8rem; background: var(--train); border-radius: 2px; min-width: 1px; }
article { margin: 0 0 .75rem; }
article p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.prompt { color: var(--soft); padding-bottom: .6rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.25rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem 1rem; overflow-x: auto;
  font: 13px/1.5 ui-monospace, monospace; }
@media (max-width: 34rem) {
  .pair { grid-template-columns: 1fr; gap: .75rem; }
  svg text { font-size: 20px; }
}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Report {
        Report {
            title: "lora on <base> & \"co\"".to_owned(),
            figures: vec![("held-out loss".to_owned(), "2.3 -> 1.4".to_owned())],
            train: (1..=50).map(|step| Point { step, loss: 3.0 / step as f64 + 1.0 }).collect(),
            eval: vec![Point { step: 0, loss: 2.3 }, Point { step: 50, loss: 1.4 }],
            memory: vec![("base".to_owned(), 270_000_000), ("adapter".to_owned(), 2_000_000)],
            memory_total: 271_000_000,
            samples: vec![Sample {
                prompt: "Say <script>alert(1)</script>".to_owned(),
                before: "no".to_owned(),
                after: "</p><img src=x onerror='y'>\u{1b}[31m".to_owned(),
            }],
            settings: "base = \"a<b\"\n".to_owned(),
        }
    }

    #[test]
    fn text_of_the_run_is_never_markup() {
        let page = full().to_html();
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\u{1b}'));
        assert!(page.contains("<title>lora on &lt;base&gt; &amp; &quot;co&quot;</title>"));
        assert!(page.contains("base = &quot;a&lt;b&quot;"));
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = full().to_html();
        for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.replace("&lt;img src=x", "").contains(outside), "{outside}");
        }
        assert!(page.contains("width=device-width") && page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn every_part_is_there_and_every_tag_is_closed() {
        let page = full().to_html();
        for part in [
            "<h2>Loss",
            "<h2>Memory",
            "<h2>Samples",
            "<h2>Settings",
            "271 MB",
            "width:100.0%",
            "<td>1.4000</td><td>4.06</td>",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for tag in ["section", "table", "div", "svg", "article", "details", "dl", "p", "pre", "main", "text"]
        {
            let opened =
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn what_a_run_does_not_have_is_left_out() {
        let page = Report { title: "nothing yet".to_owned(), ..Report::default() }.to_html();
        for part in ["<svg", "<h2>", "<dl"] {
            assert!(!page.contains(part), "{part}");
        }
    }
}
