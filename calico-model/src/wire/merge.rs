//! Read-modify-write that loses nothing it does not know.

use serde_json::{Map, Value};

/// Writes `after` over `stored`, where `before` is what was understood of `stored`.
///
/// A field of `after` is set; a field that was understood before and is gone now is removed; every other field of
/// `stored` stays. Objects are merged field by field, anything else is replaced whole.
pub(crate) fn merge(stored: &Value, before: &Value, after: &Value) -> Value {
    let (Value::Object(stored), Value::Object(after)) = (stored, after) else {
        return after.clone();
    };
    let nothing = Map::new();
    let before = before.as_object().unwrap_or(&nothing);
    let kept = stored.iter().filter(|(key, _)| after.contains_key(*key) || !before.contains_key(*key));
    let mut merged: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in after {
        let value = match merged.get(key) {
            Some(old) => merge(old, before.get(key).unwrap_or(&Value::Null), value),
            None => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_stay_and_known_ones_follow_the_change() {
        let stored =
            json!({"known": 1, "gone": 2, "future": 3, "deep": {"known": 1, "future": 4}, "list": [1, 2]});
        let before = json!({"known": 1, "gone": 2, "deep": {"known": 1}, "list": [1, 2]});
        let after = json!({"known": 5, "deep": {"known": 6}, "list": [7], "new": 8});
        let expected =
            json!({"known": 5, "future": 3, "deep": {"known": 6, "future": 4}, "list": [7], "new": 8});
        assert_eq!(merge(&stored, &before, &after), expected);
    }
}
