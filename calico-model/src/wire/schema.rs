//! The wire form described: JSON Schema (draft 2020-12), made of the tables that read it.
//!
//! A schema accepts every value that the reader accepts, except null, which the reader takes for an absent field. It
//! refuses unknown fields, wrong types and broken limits; rules between fields are the reader's alone.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{FromWire, Limit, Others};

/// The schemas of all structs that one schema is made of, by name.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    named: BTreeMap<&'static str, Value>,
}

impl Schemas {
    /// Returns a reference to the schema of a struct, which is made when it is first referred to.
    pub(crate) fn of_struct(
        &mut self,
        name: &'static str,
        make: impl FnOnce(&mut Schemas) -> Value,
    ) -> Value {
        if !self.named.contains_key(name) {
            // A struct that holds itself is found here on the way down.
            self.named.insert(name, Value::Bool(true));
            let made = make(self);
            self.named.insert(name, made);
        }
        json!({"$ref": format!("#/$defs/{name}")})
    }

    /// Returns the schema of the type inside an optional field.
    pub(crate) fn of_optional<S, T: FromWire>(&mut self, _: fn(&S) -> &Option<T>) -> Value {
        T::schema(self)
    }

    /// Returns a reference to the schema of an object that two tables read together.
    pub(crate) fn of_two<A: FromWire, B: FromWire>(&mut self, name: &'static str) -> Value {
        self.of_struct(name, |schemas| {
            let [first, second] = [A::schema(schemas), B::schema(schemas)].map(|part| schemas.taken(&part));
            let fields = |schema: &Value| schema["properties"].as_object().cloned().unwrap_or_default();
            let required = |schema: &Value| schema["required"].as_array().cloned().unwrap_or_default();
            let mut joined = first.clone();
            let mut all = fields(&first);
            all.extend(fields(&second));
            joined["properties"] = Value::Object(all);
            let needed = [required(&first), required(&second)].concat();
            if !needed.is_empty() {
                joined["required"] = Value::Array(needed);
            }
            joined
        })
    }

    /// Takes out a schema that is part of another and referred to nowhere else.
    fn taken(&mut self, reference: &Value) -> Value {
        let name = reference["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        self.named.remove(name).unwrap_or_default()
    }

    /// Returns all schemas, as `$defs` has them.
    pub(crate) fn into_defs(self) -> Value {
        self.named.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
    }
}

/// The schema of a struct being made, field by field.
#[derive(Debug)]
pub(crate) struct StructSchema {
    description: String,
    properties: Map<String, Value>,
    required: Vec<Value>,
}

/// What a table says of a field beside its type.
pub(crate) struct FieldNotes<'n> {
    /// Whether it must be there.
    pub(crate) required: bool,
    /// What it means when it is absent.
    pub(crate) default: Option<Value>,
    /// Whether empty text stands for absence.
    pub(crate) or_empty: bool,
    /// What its type does not say.
    pub(crate) limits: &'n [Limit],
}

impl StructSchema {
    pub(crate) fn new(doc: &str) -> Self {
        Self { description: plain(doc), properties: Map::new(), required: Vec::new() }
    }

    /// Adds a field.
    pub(crate) fn field(&mut self, key: &str, doc: &str, mut schema: Value, notes: FieldNotes<'_>) {
        for limit in notes.limits {
            limit.describe(&mut schema);
        }
        if notes.or_empty {
            schema = json!({"anyOf": [schema, {"const": ""}]});
        }
        schema["description"] = json!(plain(doc));
        if let Some(default) = notes.default {
            schema["default"] = default;
        }
        self.properties.insert(key.to_owned(), schema);
        if notes.required {
            self.required.push(json!(key));
        }
    }

    /// Ends the table, with the fields that are known and not read.
    pub(crate) fn close(mut self, others: Others) -> Value {
        for (key, shape) in others {
            self.properties.insert((*key).to_owned(), shape.schema());
        }
        let mut schema = json!({
            "type": "object",
            "description": self.description,
            "properties": self.properties,
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema["required"] = Value::Array(self.required);
        }
        schema
    }
}

/// The text of a doc comment, without the marks of links.
fn plain(doc: &str) -> String {
    doc.replace("[`", "`").replace("`]", "`").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The schema of text, of this pattern when there is one.
pub(crate) fn text_schema(pattern: Option<&str>) -> Value {
    match pattern {
        Some(pattern) => json!({"type": "string", "pattern": pattern}),
        None => json!({"type": "string"}),
    }
}

/// A pattern of one of these words in any case. Patterns have no flags, so each letter is a choice of two.
pub(crate) fn any_case(words: &[&str]) -> String {
    let letter = |c: char| match c {
        c if c.is_ascii_alphabetic() => format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()),
        c => c.to_string(),
    };
    let words: Vec<String> = words.iter().map(|word| word.chars().map(letter).collect()).collect();
    format!("^({})$", words.join("|"))
}
