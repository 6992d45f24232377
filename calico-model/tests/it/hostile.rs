//! Input that means harm: bounded memory, and one clear error that does not repeat it.

use calico_model::manifest;
use calico_model::resource::Document;

use crate::allocations::used_by;

const MIB: usize = 1024 * 1024;

fn pool(labels: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: p, labels: {{{labels}}}}}\nspec: {{cidr: 10.0.0.0/16}}\n"
    )
}

/// Each with a word of the error that a user gets.
fn hostile() -> Vec<(Vec<u8>, &'static str)> {
    let mut aliases = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..20 {
        aliases += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","));
    }
    let many: Vec<String> = (0..100_000).map(|n| format!("k{n}: v")).collect();
    let long = "x".repeat(MIB);
    let mut not_text = pool("").into_bytes();
    not_text.extend(b"# \xc3\x28");
    vec![
        ("{a: ".repeat(10_000).into(), "nested more than 64 levels"),
        ((0..10_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>().into(), "nested"),
        (aliases.into(), "larger"),
        (format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 5000].join(",")).into(), "larger"),
        (pool(&format!("a: {long}")).into(), "must be"),
        (pool(&format!("{long}: a")).into(), "did not find expected"),
        (pool(&many.join(", ")).replace(": v", ": '*'").into(), "must be"),
        (pool("a: \"b\\0\"").into(), "NUL"),
        (pool("a: \"b\\x07\"").into(), "must be"),
        (pool("").replace("name: p", &format!("name: {long}")).into(), "a name: lower-case"),
        (pool("").replace("spec: {", &format!("spec: {{{long}: 1, ")).into(), "did not find expected"),
        (pool("").replace("spec: {", &format!("spec: {{{}, ", many.join(", "))).into(), "and 99900 more"),
        (pool("a: b, a: c").into(), "given twice"),
        (not_text, "not UTF-8"),
        (vec![b'#'; manifest::MAX_BYTES + 1], "at most"),
    ]
}

#[test]
fn hostile_documents_take_little_memory_and_are_one_clear_error() {
    let mut faults = Vec::new();
    for (text, expected) in hostile() {
        let begin = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        let (errors, used) = used_by(|| -> Vec<String> {
            let error = |read: Result<Document, manifest::ManifestError>| match read {
                Ok(document) => document.check_input().unwrap_err().to_string(),
                Err(error) => error.to_string(),
            };
            manifest::parse(&text).into_iter().map(error).collect()
        });
        let peak = used.peak.unsigned_abs() / MIB;
        let error = errors.concat();
        let sound = errors.len() == 1
            && error.contains(expected)
            && error.len() < 64 * 1024
            && !error.chars().any(|c| c.is_control() && c != '\n')
            && peak < 64 + 4 * text.len() / MIB;
        if !sound {
            faults.push(format!(
                "{begin}: {} errors, {peak} MiB, {} bytes: {error:.200}",
                errors.len(),
                error.len()
            ));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
