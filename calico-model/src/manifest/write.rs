//! YAML as we write it.

use serde_json::Value;

/// Writes a value as one YAML document, ended by a line break.
///
/// Text that a reader of YAML 1.1 would take for something else (`yes`, `1:30`, `2024-01-01`) is quoted, so that every
/// YAML reader gets back what was written.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = serde_saphyr::to_string_with_options(value, options)
        .expect("a JSON value has text keys and finite numbers, and writing to memory does not fail");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
