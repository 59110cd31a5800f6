//! Reads JSON as Go does: the names of fields count without their case.
//!
//! Clients rely on that, docker-py among them: `{"replicated": {"Replicas": 5}}` of a service's mode
//! is what it sends. Keys that users choose, as those of labels, stay as they are.

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, IntoDeserializer, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Value};

/// Reads a document.
///
/// # Errors
///
/// It is no JSON, or not of this type.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    T::deserialize(Folded(serde_json::from_slice(bytes)?))
}

/// A value whose fields are found without regard to case.
struct Folded(Value);

/// Gives the fields of an object the names that its type has for them. One that is spelled as the
/// type spells it counts before others.
fn renamed(object: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    let known = |key: &String| fields.contains(&key.as_str());
    let (mut renamed, others): (Map<_, _>, Map<_, _>) =
        object.into_iter().partition(|(key, _)| known(key));
    for (key, value) in others {
        let field = fields.iter().find(|field| field.eq_ignore_ascii_case(&key));
        let key = field.map_or(key, |field| (*field).to_owned());
        renamed.entry(key).or_insert(value);
    }
    renamed
}

fn entry((key, value): (String, Value)) -> (String, Folded) {
    (key, Folded(value))
}

fn visit_map<'de, V: Visitor<'de>>(
    object: Map<String, Value>,
    visitor: V,
) -> Result<V::Value, Error> {
    let entry: fn(_) -> _ = entry;
    let mut entries = MapDeserializer::new(object.into_iter().map(entry));
    let value = visitor.visit_map(&mut entries)?;
    entries.end()?;
    Ok(value)
}

impl IntoDeserializer<'_, Error> for Folded {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Folded {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(object) => visit_map(object, visitor),
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Folded));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(object) => visit_map(renamed(object, fields), visitor),
            other => Self(other).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            some => visitor.visit_some(Self(some)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{dto, tests::recorded::exchanges};
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Outer {
        #[serde(rename = "ID")]
        id: Option<String>,
        inner: Vec<Inner>,
        labels: std::collections::BTreeMap<String, Inner>,
        size: Option<[u16; 2]>,
    }

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        ratio: f64,
    }

    fn read(text: &str) -> Result<Outer, String> {
        from_slice(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_known_in_any_case_and_keys_are_kept() {
        let inner = |ratio| Inner { ratio };
        let expected = Outer {
            id: Some("x".to_owned()),
            inner: vec![inner(1.0)],
            labels: [("a".to_owned(), inner(2.0)), ("A".to_owned(), inner(0.5))].into(),
            size: Some([1, 2]),
        };
        let text = r#"{"id": "x", "INNER": [{"rATIO": 1}], "unknown": {"Ratio": "?"},
                       "labels": {"a": {"ratio": 2}, "A": {"Ratio": 0.5}}, "siZe": [1, 2]}"#;
        assert_eq!(read(text), Ok(expected));
        let twice = read(r#"{"ID": "exact", "Id": "other", "id": null}"#).unwrap();
        assert_eq!(twice.id.as_deref(), Some("exact"));
        for wrong in [r#"{"Size": [1, 2, 3]}"#, r#"{"size": [1]}"#, r#"{"inner": 1}"#, "7", "{"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    /// Spells every field of an object otherwise, but not the keys that users choose.
    fn spelled(value: &Value, spell: fn(&str) -> String) -> Value {
        match value {
            Value::Object(object) => {
                let field = |(key, value): (&String, &Value)| {
                    let chosen = ["Labels", "Options", "Sysctls", "DriverOpts"];
                    let is_chosen = chosen.contains(&key.as_str()) && value.is_object();
                    let value = if is_chosen { value.clone() } else { spelled(value, spell) };
                    (spell(key), value)
                };
                object.iter().map(field).collect()
            }
            Value::Array(items) => items.iter().map(|item| spelled(item, spell)).collect(),
            plain => plain.clone(),
        }
    }

    #[test]
    fn recorded_bodies_mean_the_same_in_any_case() {
        fn check<T: DeserializeOwned + PartialEq + std::fmt::Debug>(body: &Value) {
            let expected: T = serde_json::from_value(body.clone()).unwrap();
            let mixed = |key: &str| {
                let raised = |(at, c): (usize, char)| match at % 2 {
                    0 => c.to_ascii_lowercase(),
                    _ => c.to_ascii_uppercase(),
                };
                key.chars().enumerate().map(raised).collect()
            };
            for spell in [str::to_owned, str::to_lowercase, str::to_uppercase, mixed] {
                let body = spelled(body, spell).to_string();
                assert_eq!(from_slice::<T>(body.as_bytes()).unwrap(), expected, "{body}");
            }
        }
        for exchange in exchanges().iter().filter(|exchange| !exchange.body.is_empty()) {
            let body: Value = serde_json::from_str(&exchange.body).unwrap();
            let path: Vec<&str> = exchange.request.split(['/', '?']).skip(2).collect();
            match path.as_slice() {
                ["services", ..] => check::<dto::ServiceSpec>(&body),
                ["nodes", ..] => check::<dto::NodeSpec>(&body),
                ["swarm", "update", ..] => check::<dto::SwarmSpec>(&body),
                ["swarm", "init", ..] => check::<dto::InitRequest>(&body),
                ["swarm", "join", ..] => check::<dto::JoinRequest>(&body),
                other => panic!("{other:?}"),
            }
        }
    }
}
