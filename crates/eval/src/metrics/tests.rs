use super::*;
use crate::statistics::mcnemar;
use serde_json::Value;

const GOLDEN: &str = include_str!("../../golden/metrics.json");
/// Both sides sum at most a few hundred terms in f64, in other orders.
const NEAR: f64 = 1e-12;

fn golden(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(GOLDEN).unwrap();
    all[kind].as_array().unwrap().clone()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn near(got: f64, case: &Value, key: &str) {
    let want = case[key].as_f64().unwrap();
    assert!((got - want).abs() < NEAR, "{key}: {got}, expected {want} in {case}");
}

fn same(got: &ClassScore, want: &Value) {
    let want = list(want);
    let got = [got.precision, got.recall, got.f1, got.support as f64];
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < NEAR), "{got:?}, expected {want:?}");
}

fn largest(scores: &[f64]) -> usize {
    (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
}

#[test]
fn classes_as_scikit_learn() {
    for case in golden("classes") {
        let gold = list(&case["gold"]);
        let logits = case["logits"].as_array().unwrap().iter().map(list).collect::<Vec<_>>();
        let labels = logits[0].len();
        let pairs = gold.iter().zip(&logits).map(|(g, z)| (*g as u32, largest(z) as u32));
        let confusion = Confusion::of(labels, pairs);
        assert_eq!(serde_json::to_value(&confusion.counts).unwrap(), case["confusion"]);
        near(confusion.accuracy(), &case, "accuracy");
        near(confusion.accuracy(), &case, "micro");
        near(confusion.macro_f1(), &case, "macro");
        near(confusion.matthews(), &case, "matthews");
        if labels == 2 {
            near(confusion.f1(1), &case, "binary");
        }
        let names = (0..labels).map(|k| k.to_string()).collect::<Vec<_>>();
        let each = confusion.each(&names);
        each.iter().zip(case["each"].as_array().unwrap()).for_each(|(got, want)| same(got, want));
        let answers = gold.iter().zip(&logits).map(|(g, z)| {
            let best = largest(z);
            (softmax(z)[best], best == *g as usize)
        });
        near(calibration_error(answers), &case, "calibration");
    }
}

#[test]
fn numbers_as_scipy() {
    for case in golden("numbers") {
        let (gold, predicted) = (list(&case["gold"]), list(&case["predicted"]));
        near(pearson(&gold, &predicted), &case, "pearson");
        near(spearman(&gold, &predicted), &case, "spearman");
    }
    assert!(pearson(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
}

#[test]
fn entities_as_seqeval() {
    for case in golden("tags") {
        let rows = |key: &str| -> Vec<Vec<String>> { serde_json::from_value(case[key].clone()).unwrap() };
        let mut all = EntityCounts::default();
        for (gold, predicted) in rows("gold").iter().zip(&rows("predicted")) {
            let gold = gold.iter().map(String::as_str).collect::<Vec<_>>();
            let predicted = predicted.iter().map(String::as_str).collect::<Vec<_>>();
            all.add(&EntityCounts::of(&gold, &predicted));
        }
        let [precision, recall, f1] = all.scores();
        near(precision, &case, "precision");
        near(recall, &case, "recall");
        near(f1, &case, "f1");
        let (each, want) = (all.each(), case["each"].as_object().unwrap());
        let there = each.iter().filter(|e| want.contains_key(&e.label)).collect::<Vec<_>>();
        assert_eq!(there.len(), want.len());
        there.iter().for_each(|e| same(e, &want[&e.label]));
    }
    assert_eq!(entities(&["B-a", "I-a", "O", "I-b"]), [("a", 0, 1), ("b", 3, 3)]);
}

#[test]
fn mcnemar_as_scipy_s_binomial_test() {
    for case in golden("mcnemar") {
        let count = |key: &str| case[key].as_u64().unwrap();
        let (got, want) = (mcnemar(count("only_a"), count("only_b")), case["p"].as_f64().unwrap());
        // Sums of hundreds of terms through logarithms of factorials.
        assert!((got - want).abs() <= 1e-9 * want.max(1e-300), "{got}, expected {want} in {case}");
    }
}
