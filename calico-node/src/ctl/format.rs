//! How resources are printed.

use std::str::FromStr;

use calico_model::manifest;
use calico_model::resource::{API_VERSION, Document, Kind, Scope};
use serde_json::{Value, json};

use super::columns::{Column, Context, NAMESPACE, Width, columns, custom};
use super::table;

/// A format that `-o` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// A table of a few columns.
    Ps,
    /// A table of more columns.
    Wide,
    /// A table of the columns with these headings.
    Custom(Vec<String>),
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// `kind/name`, one to a line.
    Name,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ps" => Ok(Self::Ps),
            "wide" => Ok(Self::Wide),
            "yaml" | "yml" => Ok(Self::Yaml),
            "json" => Ok(Self::Json),
            "name" => Ok(Self::Name),
            _ => match text.strip_prefix("custom-columns=") {
                Some(list) if !list.is_empty() => {
                    Ok(Self::Custom(list.split(',').map(|heading| heading.trim().to_owned()).collect()))
                }
                _ if text.starts_with("go-template") => {
                    Err("go-template needs Go; use json, or custom-columns=HEADING,...".to_owned())
                }
                _ => Err("use ps, wide, yaml, json, name or custom-columns=HEADING,...".to_owned()),
            },
        }
    }
}

impl Format {
    /// The columns of a kind's table.
    ///
    /// # Errors
    /// A sentence, when a custom heading is not one of the kind's.
    pub(super) fn columns(&self, kind: Kind, namespaces: Namespaces) -> Result<Vec<Column>, String> {
        let mut chosen = match self {
            Self::Custom(headings) => custom(kind, headings).map_err(|known| {
                format!("{kind} has no column {}: it has {}", headings.join(" or "), known.join(", "))
            })?,
            Self::Wide => columns(kind, Width::Wide),
            Self::Ps | Self::Yaml | Self::Json | Self::Name => columns(kind, Width::Normal),
        };
        let named = chosen.iter().any(|column| column.heading == NAMESPACE.heading);
        if kind.scope() == Scope::Namespaced && namespaces == Namespaces::Shown && !named {
            chosen.insert(0, NAMESPACE);
        }
        Ok(chosen)
    }
}

/// What was asked for, which decides whether one object or a list is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// One resource by its name.
    Single,
    /// All resources of a kind, at a revision.
    AllOf(Kind, String),
    /// Some resources, of any kinds.
    Several,
}

/// Whether the namespace is a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// It is.
    Shown,
    /// It is not.
    Hidden,
}

/// Writes resources in a format.
///
/// # Errors
/// A sentence, when a custom heading is not one of the kind's.
pub fn render(
    documents: &[Document],
    format: &Format,
    shape: &Shape,
    namespaces: Namespaces,
    context: &Context,
) -> Result<String, String> {
    match format {
        Format::Ps | Format::Wide | Format::Custom(_) => {
            let mut text = String::new();
            for (kind, group) in groups(documents, shape) {
                let chosen = format.columns(kind, namespaces)?;
                let headings: Vec<String> = chosen.iter().map(|column| column.heading.to_owned()).collect();
                let rows: Vec<_> = group.iter().map(|document| cells(&chosen, document, context)).collect();
                text.push_str(&table::plain(&headings, &rows));
            }
            Ok(text)
        }
        Format::Yaml => Ok(manifest::to_yaml(&as_value(documents, shape))),
        Format::Json => Ok(format!("{:#}\n", as_value(documents, shape))),
        Format::Name => Ok(documents.iter().map(|document| format!("{}\n", short_name(document))).collect()),
    }
}

/// Takes away what belongs to this cluster, so that the resource can be created in another.
pub fn strip_for_export(document: &mut Document) {
    for key in ["uid", "resourceVersion", "creationTimestamp", "generation", "selfLink", "managedFields"] {
        document.remove_metadata(key);
    }
}

/// The documents by kind, in the order in which the kinds first come; the kind that was asked for is there even when it
/// has none.
fn groups<'d>(documents: &'d [Document], shape: &Shape) -> Vec<(Kind, Vec<&'d Document>)> {
    let mut groups: Vec<(Kind, Vec<&Document>)> = Vec::new();
    if let Shape::AllOf(kind, _) = shape {
        groups.push((*kind, Vec::new()));
    }
    for document in documents {
        match groups.iter_mut().find(|(kind, _)| *kind == document.kind()) {
            Some((_, group)) => group.push(document),
            None => groups.push((document.kind(), vec![document])),
        }
    }
    for (kind, group) in &mut groups {
        if *kind == Kind::Tier {
            let order = |tier: &Document| tier.value()["spec"]["order"].as_f64().unwrap_or(f64::INFINITY);
            group.sort_by(|a, b| order(a).total_cmp(&order(b)));
        }
    }
    groups
}

/// A resource's row.
pub(super) fn cells(columns: &[Column], document: &Document, context: &Context) -> Vec<String> {
    columns.iter().map(|column| column.cell(document, context)).collect()
}

fn as_value(documents: &[Document], shape: &Shape) -> Value {
    let items: Vec<Value> = documents.iter().map(|document| document.value().clone()).collect();
    match shape {
        Shape::Single if items.len() == 1 => items.into_iter().next().unwrap_or(Value::Null),
        Shape::AllOf(kind, revision) => json!({
            "apiVersion": API_VERSION,
            "kind": format!("{kind}List"),
            "metadata": {"resourceVersion": revision},
            "items": items,
        }),
        Shape::Single | Shape::Several => Value::Array(items),
    }
}

pub(super) fn short_name(document: &Document) -> String {
    format!("{}/{}", document.kind().as_str().to_lowercase(), document.metadata("name").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(kind: &str, name: &str, spec: Value) -> Document {
        let value =
            json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec});
        Document::from_value(value).unwrap()
    }

    fn show(documents: &[Document], format: &str, shape: &Shape) -> Result<String, String> {
        let context = Context { cluster_as: "64512".to_owned() };
        render(documents, &format.parse().unwrap(), shape, Namespaces::Shown, &context)
    }

    #[test]
    fn mixed_kinds_are_one_table_each_and_tiers_are_in_order() {
        let documents = [
            document("Tier", "late", json!({})),
            document("IPPool", "p", json!({"cidr": "10.0.0.0/8"})),
            document("Tier", "early", json!({"order": 1})),
        ];
        let text = show(&documents, "ps", &Shape::Several).unwrap();
        assert_eq!(
            text,
            "NAME    ORDER\nearly   1\nlate    -\n\nNAME   CIDR         SELECTOR\np      10.0.0.0/8   all()\n\n"
        );
    }

    #[test]
    fn the_namespace_is_the_first_column_of_kinds_that_have_one() {
        let shape = Shape::AllOf(Kind::NetworkPolicy, "7".to_owned());
        assert_eq!(show(&[], "ps", &shape).unwrap(), "NAMESPACE   NAME   TIER\n\n");
        assert_eq!(show(&[], "ps", &Shape::AllOf(Kind::Tier, "7".to_owned())).unwrap(), "NAME   ORDER\n\n");
    }

    #[test]
    fn one_by_name_is_an_object_and_all_of_a_kind_are_a_list_of_that_kind() {
        let tier = [document("Tier", "t", json!({"order": 100}))];
        assert!(
            show(&tier, "yaml", &Shape::Single)
                .unwrap()
                .starts_with("apiVersion: projectcalico.org/v3\nkind: Tier\n")
        );
        let list = show(&tier, "yaml", &Shape::AllOf(Kind::Tier, "7".to_owned())).unwrap();
        assert!(list.contains("kind: TierList\n") && list.contains("order: 100\n"), "{list}");
        let again = manifest::parse(list.as_bytes());
        assert_eq!(again, [Ok(tier[0].clone())]);
        assert_eq!(show(&tier, "name", &Shape::Several).unwrap(), "tier/t\n");
    }

    #[test]
    fn a_format_that_is_none_says_which_there_are() {
        assert!("xml".parse::<Format>().unwrap_err().contains("custom-columns"));
        assert!("go-template={{.}}".parse::<Format>().unwrap_err().contains("needs Go"));
        let unknown = show(&[document("Tier", "t", json!({}))], "custom-columns=NAME,FOO", &Shape::Several)
            .unwrap_err();
        assert_eq!(unknown, "Tier has no column NAME or FOO: it has NAMESPACE, NAME, ORDER");
    }
}
