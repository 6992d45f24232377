//! Reading a configuration key by key, so that what cannot be used is named.

use std::str::FromStr;

use calico_model::ParseError;
use serde_json::{Map, Value};

use crate::cni::CniError;

/// One object of the configuration, read key by key. Null and empty text count as absent.
#[derive(Clone, Copy)]
pub(super) struct Section<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Section<'a> {
    fn present(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    pub(super) fn section(&self, key: &'static str) -> Result<Option<Section<'a>>, CniError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_object().map(|object| Some(Section(object))).ok_or_else(|| must_be(key, value, "an object"))
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<String>, CniError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| must_be(key, value, "text"))
    }

    /// Reads a text whose value no message may show.
    pub(super) fn hidden_text(&self, key: &'static str) -> Result<Option<String>, CniError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        let problem = || CniError::Config { key, problem: "must be text".to_owned() };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(problem)
    }

    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<String>, CniError> {
        let Some(value) = self.present(key) else { return Ok(Vec::new()) };
        let texts = value.as_array().and_then(|list| {
            list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.ok_or_else(|| must_be(key, value, "a list of texts"))
    }

    pub(super) fn number(&self, key: &'static str) -> Result<Option<u32>, CniError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| must_be(key, value, "a number from 0 to 4294967295"))
    }

    /// Calico's configurations write flags as text, too.
    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>, CniError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match (value, value.as_str()) {
            (Value::Bool(flag), _) => Ok(Some(*flag)),
            (_, Some("true")) => Ok(Some(true)),
            (_, Some("false")) => Ok(Some(false)),
            _ => Err(must_be(key, value, "true or false")),
        }
    }

    pub(super) fn parsed<T: FromStr<Err = ParseError>>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, CniError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        text.parse().map(Some).map_err(|error: ParseError| must_be(key, &text.into(), error.expected))
    }

    pub(super) fn parsed_list<T: FromStr<Err = ParseError>>(
        &self,
        key: &'static str,
    ) -> Result<Vec<T>, CniError> {
        let parse = |text: &String| {
            text.parse().map_err(|error: ParseError| must_be(key, &text.as_str().into(), error.expected))
        };
        self.texts(key)?.iter().map(parse).collect()
    }
}

pub(super) fn must_be(key: &'static str, value: &Value, expected: &str) -> CniError {
    let text: String = value.to_string().chars().take(80).collect();
    CniError::Config { key, problem: format!("is {text}, but must be {expected}") }
}
