//! Checks selectors against a file of vectors: what must match, be refused, and print canonically.
//!
//! `cargo run --example selector_vectors -- FOLDER` reads `FOLDER/vectors.json`, names each failure, prints
//! `N passed, N failed` and exits with 1 when something failed.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use calico_model::{Labels, Selector};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    evaluate: Vec<Evaluate>,
    reject: Vec<String>,
    canonical: Vec<Canonical>,
}

#[derive(Deserialize)]
struct Evaluate {
    selector: String,
    #[serde(rename = "match")]
    matching: Vec<BTreeMap<String, String>>,
    no_match: Vec<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Canonical {
    input: String,
    canonical: String,
    uid: Option<String>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(folder) = std::env::args_os().nth(1) else {
        return Err("name the folder that holds vectors.json".into());
    };
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(Path::new(&folder).join("vectors.json"))?)?;

    let checks: Vec<_> = vectors
        .evaluate
        .iter()
        .flat_map(evaluate)
        .chain(vectors.reject.iter().map(|text| reject(text)))
        .chain(vectors.canonical.iter().flat_map(canonical))
        .collect();
    let failures: Vec<_> = checks.iter().filter_map(|check| check.as_ref().err()).collect();
    for failure in &failures {
        eprintln!("{failure}");
    }
    println!("{} passed, {} failed", checks.len() - failures.len(), failures.len());
    Ok(if failures.is_empty() && !checks.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Check = Result<(), String>;

fn evaluate(case: &Evaluate) -> Vec<Check> {
    let expected = case.matching.iter().map(|l| (l, true)).chain(case.no_match.iter().map(|l| (l, false)));
    expected
        .map(|(labels, expected)| {
            let selector: Selector = case.selector.parse().map_err(|e| format!("{}: {e}", case.selector))?;
            let matches = selector.matches(&labels.clone().into_iter().collect::<Labels>());
            equal(&case.selector, &format!("{matches} for {labels:?}"), &format!("{expected} for {labels:?}"))
        })
        .collect()
}

fn reject(text: &str) -> Check {
    match text.parse::<Selector>() {
        Ok(selector) => Err(format!("{text}: must be refused, was read as {selector}")),
        Err(_) => Ok(()),
    }
}

fn canonical(case: &Canonical) -> Vec<Check> {
    let selector: Selector = match case.input.parse() {
        Ok(selector) => selector,
        Err(error) => return vec![Err(format!("{}: {error}", case.input))],
    };
    let text = equal(&case.input, &selector.to_string(), &case.canonical);
    let id = case.uid.as_ref().map(|uid| equal(&case.input, &selector.id(), uid));
    std::iter::once(text).chain(id).collect()
}

fn equal(input: &str, got: &str, expected: &str) -> Check {
    if got == expected { Ok(()) } else { Err(format!("{input}: got {got}, expected {expected}")) }
}
