//! One document's text to a JSON tree, within bounds.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Location;

/// What is wrong with a document, and at which of its lines and columns, counted from 1.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) column: Option<usize>,
    pub(super) problem: String,
}

/// How deep a document may be nested. The deepest known resource has 14 levels.
const MAX_DEPTH: usize = 64;

/// How much a document may hold once its aliases are followed: each node is counted as 16 bytes and its text.
const MAX_WEIGHT: usize = 16 * 1024 * 1024;

/// How many nodes aliases may add.
const MAX_REPLAYED: usize = 50_000;

/// Reads one YAML document; JSON is YAML too.
pub(super) fn read(text: &str) -> Result<Value, Mistake> {
    let left = Cell::new(MAX_WEIGHT);
    let seed = Tree { left: &left, depth: 0 };
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 2 * MAX_DEPTH,
            // The scanner looks as far ahead as a key may be long, and would say less of it than we do.
            flow_nesting_limit: 4096,
            max_documents: 2,
            max_nodes: MAX_WEIGHT / 16,
            max_events: MAX_WEIGHT / 8,
            max_total_scalar_bytes: MAX_WEIGHT,
            max_aliases: 10_000,
            max_anchors: 10_000,
        },
        // What an anchor stands for is kept whole, so this bounds the memory of a bomb.
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        with_snippet: false,
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |document| {
        seed.deserialize(document)
    })
    .map_err(|error| mistake(&error))
}

fn mistake(error: &serde_saphyr::Error) -> Mistake {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let location = error.location().filter(|location| *location != Location::UNKNOWN);
    Mistake {
        line: location.map_or(1, |location| number(location.line())),
        column: location.map(|location| number(location.column())),
        problem: problem(error),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the parser words all its other errors for users itself")]
fn problem(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as Yaml;
    match error.without_snippet() {
        Yaml::AliasError { error, .. } => problem(error),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} is given twice"),
        Yaml::DuplicateMappingKey { key: None, .. } => "a key is given twice".to_owned(),
        Yaml::Budget { .. }
        | Yaml::AliasReplayLimitExceeded { .. }
        | Yaml::AliasReplayStackDepthExceeded { .. }
        | Yaml::AliasReplayCounterOverflow { .. } => {
            "the document, with all that its aliases stand for, is larger than any resource may be".to_owned()
        }
        other => {
            let formatter = serde_saphyr::DefaultMessageFormatter.with_localizer(&WithoutLocation);
            other.render_with_formatter(&formatter)
        }
    }
}

/// The parser's own words, without the location that every [`Mistake`] has.
struct WithoutLocation;

impl serde_saphyr::Localizer for WithoutLocation {
    fn attach_location<'t>(&self, text: Cow<'t, str>, _: Location) -> Cow<'t, str> {
        text
    }
}

/// A JSON value being read, at a depth, with what is left of the document's weight.
#[derive(Clone, Copy)]
struct Tree<'l> {
    left: &'l Cell<usize>,
    depth: usize,
}

impl Tree<'_> {
    fn weigh<E: Error>(self, bytes: usize) -> Result<(), E> {
        match self.left.get().checked_sub(bytes.saturating_add(16)) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(E::custom(format_args!("the document is larger than {MAX_WEIGHT} bytes"))),
        }
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("the document is nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn text<E: Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            return Err(E::custom("the text has a NUL character"));
        }
        self.weigh(text.len())
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML or JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.weigh(0).map(|()| Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.deserialize(from)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.weigh(0).map(|()| Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.weigh(0).map(|()| Value::Number(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.weigh(0).map(|()| Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // A whole number is an integer, however it is written: what is read is written back as `100`, not `100.0`.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        self.weigh(0)?;
        if value.fract() == 0.0 && value.abs() <= EXACT {
            return Ok(Value::Number(Number::from(value as i64)));
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.text(text).map(|()| Value::String(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        self.text(&text).map(|()| Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        self.weigh(0)?;
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        self.weigh(0)?;
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            self.text(&key)?;
            object.insert(key, from.next_value_seed(inner)?);
        }
        Ok(Value::Object(object))
    }
}
