//! The JSON Schema of each kind.

use serde_json::{Value, json};

use super::{API_VERSION, Kind, Metadata, Resource};
use crate::wire::{FromWire, Schemas};

impl Kind {
    /// Returns the JSON Schema (draft 2020-12) of a resource of this kind, as a user writes it.
    ///
    /// It is made of the tables that read the resource: types, enumerations, defaults, limits and meanings are theirs. A
    /// resource that is accepted also keeps the schema, null aside, which counts as an absent field. A resource that
    /// keeps the schema can still break rules between its fields, or those of a text's own grammar.
    ///
    /// # Examples
    /// ```
    /// use calico_model::resource::Kind;
    /// let schema = Kind::IpPool.json_schema();
    /// assert_eq!(schema["$defs"]["IpPool"]["properties"]["vxlanMode"]["default"], "Never");
    /// ```
    #[must_use]
    pub fn json_schema(self) -> Value {
        let mut schemas = Schemas::default();
        let metadata = Metadata::schema(&mut schemas);
        let spec = Resource::spec_schema(self, &mut schemas);
        let status = super::status::status_schema(self, &mut schemas);
        let defs = schemas.into_defs();
        let needs_spec = spec["$ref"]
            .as_str()
            .and_then(|path| path.rsplit('/').next())
            .is_some_and(|name| defs[name].get("required").is_some());
        let mut required = vec!["apiVersion", "kind", "metadata"];
        if needs_spec {
            required.push("spec");
        }
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.as_str(),
            "type": "object",
            "properties": {
                "apiVersion": {"const": API_VERSION},
                "kind": {"const": self.as_str()},
                "metadata": metadata,
                "spec": spec,
                "status": status,
            },
            "required": required,
            "additionalProperties": false,
            "$defs": defs,
        })
    }
}
