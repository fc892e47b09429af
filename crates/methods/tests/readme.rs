//! The README's method table is made from the cards.
use luthier_methods::METHODS;
use std::fmt::Write;
use std::path::Path;

#[test]
fn the_readme_lists_the_methods() {
    let mut table = String::from(
        "| id | method | class | trains | parameters a site | merges | paper |\n|---|---|---|---|---|---|---|\n",
    );
    for row in METHODS {
        let c = row.card;
        let merges = if c.mergeable { "yes" } else { "no" };
        let paper = format!("{}, [{}](https://arxiv.org/abs/{})", c.paper.cite, c.paper.arxiv, c.paper.arxiv);
        writeln!(
            table,
            "| `{}` | {} | {} | {} | `{}` | {merges} | {paper} |",
            c.id,
            c.name,
            c.class.as_str(),
            c.principle,
            c.parameters
        )
        .expect("a string takes everything");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    assert!(readme.contains(&table), "put this table between the markers of README.md:\n{table}");
}
