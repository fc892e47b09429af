use super::*;
use crate::read::read_as;

/// Rows of our own in the published form, and what must come out: texts and label.
fn read(name: &str, file: &str, content: &str) -> Vec<(Vec<String>, String)> {
    let benchmark = Benchmark::find(name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    std::fs::write(&path, content).unwrap();
    let rows = read_as(&path, None, benchmark.layout).unwrap();
    assert!(rows.problems.is_empty(), "{name}: {:?}", rows.problems);
    let records = rows.rows.iter().filter_map(|row| benchmark.record(row).unwrap());
    records
        .map(|record| match record {
            Record::Labelled { texts, label } => (texts, label.text()),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn row(texts: &[&str], label: &str) -> (Vec<String>, String) {
    (texts.iter().map(|t| (*t).to_owned()).collect(), label.to_owned())
}

#[test]
fn glue_single_sentences() {
    // No header; the third column holds the author's star.
    let cola = "cj99\t1\t\tThe maker carved it.\ncj99\t0\t*\tThe maker \"carved.\n";
    assert_eq!(
        read("glue-cola", "dev.tsv", cola),
        [row(&["The maker carved it."], "acceptable"), row(&["The maker \"carved."], "unacceptable")]
    );
    let sst = "sentence\tlabel\na dull plate of wood \t0\nit 's \"warm \t1\n";
    assert_eq!(
        read("glue-sst2", "train.tsv", sst),
        [row(&["a dull plate of wood "], "negative"), row(&["it 's \"warm "], "positive")]
    );
}

#[test]
fn glue_pairs() {
    let mrpc =
        "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t70\t71\tHe said \"yes.\tYes, he said.\r\n";
    assert_eq!(
        read("glue-mrpc", "msr_paraphrase_train.txt", mrpc),
        [row(&["He said \"yes.", "Yes, he said."], "equivalent")]
    );
    let stsb = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n\
                0\tmain\tf\t2012\t1\tnone\tnone\tA man planes wood.\tA man works.\t3.250\n";
    assert_eq!(read("glue-stsb", "dev.tsv", stsb), [row(&["A man planes wood.", "A man works."], "3.25")]);
    let qqp = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWhy wood?\tWhy maple?\t0\n1\tbroken\n\
               2\t3\t4\tWhat is a bow?\tWhat are bows?\t1\n";
    assert_eq!(
        read("glue-qqp", "train.tsv", qqp),
        [
            row(&["Why wood?", "Why maple?"], "not_duplicate"),
            row(&["What is a bow?", "What are bows?"], "duplicate")
        ]
    );
    let qnli = "index\tquestion\tsentence\tlabel\n0\tWhat is carved?\tThe plate is.\tentailment\n";
    assert_eq!(
        read("glue-qnli", "dev.tsv", qnli),
        [row(&["What is carved?", "The plate is."], "entailment")]
    );
    let rte = "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n";
    assert_eq!(read("glue-rte", "dev.tsv", rte), [row(&["A.", "B."], "not_entailment")]);
    let wnli = "index\tsentence1\tsentence2\tlabel\n0\tIt fell.\tThe bow fell.\t1\n";
    assert_eq!(read("glue-wnli", "dev.tsv", wnli), [row(&["It fell.", "The bow fell."], "entailment")]);
}

#[test]
fn glue_mnli_takes_the_gold_label_of_either_split() {
    let head = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t\
                sentence2_parse\tsentence1\tsentence2\tlabel1";
    let cells = "0\t1\t1n\tfiction\t( a )\t( b )\t(R a)\t(R b)\tThe wood rests.\tIt is wood.";
    let train = format!("{head}\tgold_label\n{cells}\tneutral\tneutral\n");
    let dev = format!(
        "{head}\tlabel2\tgold_label\n{cells}\tneutral\tneutral\tentailment\n{cells}\tneutral\tx\t-\n"
    );
    let texts = ["The wood rests.", "It is wood."];
    assert_eq!(read("glue-mnli", "train.tsv", &train), [row(&texts, "neutral")]);
    assert_eq!(read("glue-mnli", "dev_matched.tsv", &dev), [row(&texts, "entailment")]);
}

#[test]
fn clue_lines() {
    let afqmc = r#"{"sentence1": "怎么还款", "sentence2": "如何还钱", "label": "1"}"#;
    assert_eq!(read("clue-afqmc", "dev.json", afqmc), [row(&["怎么还款", "如何还钱"], "same")]);
    let tnews = r#"{"label": "108", "label_desc": "news_edu", "sentence": "考试时间", "keywords": "考试"}"#;
    assert_eq!(read("clue-tnews", "train.json", tnews), [row(&["考试时间"], "news_edu")]);
    let iflytek = r#"{"label": "0", "label_des": "打车", "sentence": "出行软件"}"#;
    assert_eq!(read("clue-iflytek", "dev.json", iflytek), [row(&["出行软件"], "打车")]);
    let cmnli = "{\"sentence1\": \"甲\", \"sentence2\": \"乙\", \"label\": \"neutral\"}\n\
                 {\"sentence1\": \"甲\", \"sentence2\": \"丙\", \"label\": \"-\"}";
    assert_eq!(read("clue-cmnli", "dev.json", cmnli), [row(&["甲", "乙"], "neutral")]);
    let ocnli = r#"{"level":"medium","sentence1":"甲","sentence2":"乙","label":"contradiction","label0":"neutral","id":0}"#;
    assert_eq!(read("clue-ocnli", "dev.json", ocnli), [row(&["甲", "乙"], "contradiction")]);
    let csl = r#"{"id": 1, "abst": "摘要", "keyword": ["水听器", "降噪"], "label": "0"}"#;
    assert_eq!(read("clue-csl", "dev.json", csl), [row(&["水听器 降噪", "摘要"], "wrong")]);
}

#[test]
fn clue_wsc_marks_noun_and_pronoun_in_either_order() {
    let line = |one: (&str, u32), two: (&str, u32)| {
        format!(
            r#"{{"target": {{"span1_text": "{}", "span1_index": {}, "span2_text": "{}", "span2_index": {}}}, "idx": 0, "label": "true", "text": "琴匠拿起刀，他笑了"}}"#,
            one.0, one.1, two.0, two.1
        )
    };
    let read = |line: &str| read("clue-wsc", "dev.json", line).remove(0);
    assert_eq!(read(&line(("琴匠", 0), ("他", 6))), row(&["_琴匠_拿起刀，[他]笑了"], "true"));
    assert_eq!(read(&line(("刀", 4), ("琴匠", 0))), row(&["[琴匠]拿起_刀_，他笑了"], "true"));
    assert_eq!(read(&line(("他笑了", 6), ("刀，", 4))), row(&["琴匠拿起[刀，]_他笑了_"], "true"));
}

#[test]
fn labels_of_another_set_and_spans_beyond_the_text_are_refused() {
    let refuse = |name: &str, line: &str| {
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else { panic!("a row is an object") };
        Benchmark::find(name).unwrap().record(&Row { line: 1, fields }).unwrap_err()
    };
    let (field, kind) = refuse("clue-afqmc", r#"{"sentence1": "a", "sentence2": "b", "label": "2"}"#);
    assert_eq!(field.as_deref(), Some("label"));
    assert_eq!(kind, ProblemKind::Label { got: "2".into(), known: "0, 1".into() });
    let far = r#"{"label": "true", "text": "ab", "target": {"span1_text": "a", "span1_index": 9, "span2_text": "b", "span2_index": 1}}"#;
    assert_eq!(refuse("clue-wsc", far).0.as_deref(), Some("target"));
}

#[test]
fn every_name_is_here_once() {
    let names = BENCHMARKS.iter().map(|b| b.name).collect::<std::collections::BTreeSet<_>>();
    assert_eq!((names.len(), BENCHMARKS.len()), (16, 16));
    assert!(Benchmark::find("glue-stsb").unwrap().fits(Task::Regression));
    assert!(!Benchmark::find("glue-stsb").unwrap().fits(Task::Classification { multi_label: false }));
}
