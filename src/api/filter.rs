//! Docker's list filters.

use super::{error::invalid, pattern::Pattern};
use crate::{cluster::Refusal, types::Labels};
use serde_json::Value;
use std::collections::BTreeMap;

/// The filters of one request: names with the values any of which must fit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the query parameter: a map of lists, or of maps from value to true.
    ///
    /// # Errors
    ///
    /// It is no such JSON, or names a filter that is not among `known`.
    pub fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let Some(text) = text else { return Ok(Self::default()) };
        let wrong = || invalid("invalid filters: a JSON map of names to values is expected");
        let parsed: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
        let mut filters = BTreeMap::new();
        for (name, values) in parsed {
            if !known.contains(&name.as_str()) {
                return Err(invalid(format!("Invalid filter '{name}'")));
            }
            let values: Vec<String> = match values {
                Value::Object(values) => values
                    .into_iter()
                    .filter(|(_, on)| *on != Value::Bool(false))
                    .map(|(value, _)| value)
                    .collect(),
                Value::Array(values) => values
                    .into_iter()
                    .map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong))
                    .collect::<Result<_, _>>()?,
                _ => return Err(wrong()),
            };
            if !values.is_empty() {
                filters.insert(name, values);
            }
        }
        Ok(Self(filters))
    }

    /// Returns the values of a filter; none where it is not set.
    #[must_use]
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Refuses, as Docker, a value that nothing could have.
    ///
    /// # Errors
    ///
    /// One of the filter's values is not among `known`.
    pub(crate) fn only(&self, name: &str, known: &[&str]) -> Result<(), Refusal> {
        match self.values(name).iter().find(|value| !known.contains(&value.as_str())) {
            Some(value) => Err(invalid(format!("Invalid {name} filter: '{value}'"))),
            None => Ok(()),
        }
    }

    /// Tells whether the filter is not set, or one of its values fits.
    pub fn fits(&self, name: &str, fit: impl Fn(&str) -> bool) -> bool {
        self.0.get(name).is_none_or(|values| values.iter().any(|value| fit(value)))
    }

    /// Returns the values of a filter as patterns.
    ///
    /// # Errors
    ///
    /// One of them is none.
    pub(crate) fn patterns(&self, name: &str) -> Result<Patterns, Refusal> {
        let patterns = self.values(name).iter().map(|text| Pattern::parse(text));
        Ok(Patterns(patterns.collect::<Result<_, _>>()?))
    }

    /// Tells whether every `name` or `name=value` of the filter is among the labels.
    #[must_use]
    pub fn labels(&self, name: &str, labels: &Labels) -> bool {
        self.values(name).iter().all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|actual| actual == value),
            None => labels.contains_key(wanted),
        })
    }
}

/// The patterns of a filter, any of which must fit.
#[derive(Debug)]
pub(crate) struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Tells whether there are none, or one of them occurs in one of the texts.
    pub(crate) fn fit(&self, texts: &[&str]) -> bool {
        let mut pairs = texts.iter().flat_map(|text| self.0.iter().map(move |p| (p, text)));
        self.0.is_empty() || pairs.any(|(pattern, text)| pattern.is_in(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_docker_are_read() {
        let known = ["name", "label"];
        let map = Filters::parse(Some(r#"{"name":{"a":true,"b":false}}"#), &known).unwrap();
        let list = Filters::parse(Some(r#"{"name":["a"]}"#), &known).unwrap();
        assert_eq!(map, list);
        assert!(map.fits("name", |value| value == "a") && !map.fits("name", |value| value == "b"));
        assert!(map.fits("label", |_| false), "an unset filter lets everything through");
        let refusal = Filters::parse(Some(r#"{"nope":["1"]}"#), &known).unwrap_err();
        assert_eq!(refusal.message, "Invalid filter 'nope'");
        for bad in ["", "[]", "1", r#"{"name":1}"#, r#"{"name":[1]}"#] {
            assert!(Filters::parse(Some(bad), &known).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_labels_must_be_there() {
        let labels: Labels = [("a".to_owned(), "1".to_owned())].into();
        let filters = |text| Filters::parse(Some(text), &["label"]).unwrap();
        assert!(filters(r#"{"label":["a","a=1"]}"#).labels("label", &labels));
        assert!(!filters(r#"{"label":["a","b"]}"#).labels("label", &labels));
        assert!(!filters(r#"{"label":["a=2"]}"#).labels("label", &labels));
    }
}
