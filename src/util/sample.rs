//! Values of a type made from what the type tells serde of itself, for tests that keep the bytes of
//! a format.
//!
//! Nobody writes these by hand, so none is forgotten: every variant of every enum that a type
//! reaches is in one of its samples. A number depends on the name of its field and a text ends with that
//! name, so that two fields which change places change the bytes; where they hold no more than a
//! yes, the names of all fields, in order, show it. What is appended to an enum makes further samples
//! and leaves the others as they are.

use serde::{
    Deserializer, de,
    de::{DeserializeOwned, IntoDeserializer, value::U32Deserializer},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    env, fmt, fs,
    path::Path,
};

/// Makes samples; each enum that types share is gone through once.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// Enums by where they are: the struct or variant around them, and their name.
    known: BTreeSet<(String, String)>,
    /// Structs and variants by name, each with its fields.
    shapes: BTreeSet<(String, String)>,
}

/// Where a value is: the names of fields and variants on the way to it.
type Place = Vec<String>;

/// Which variant stands at a place; elsewhere it is the first.
type Choices = BTreeMap<Place, u32>;

impl Sampler {
    /// Returns samples of a type, each under a name of its own.
    pub(crate) fn samples<T: DeserializeOwned>(&mut self, name: &str) -> Vec<(String, T)> {
        let mut samples = Vec::new();
        let mut open = VecDeque::from([(Choices::new(), None)]);
        while let Some((choices, aim)) = open.pop_front() {
            let mut maker = Maker::new(name, &choices, aim);
            let value = T::deserialize(&mut maker).expect("every type of a format has a sample");
            samples.push((maker.label(name), value));
            self.shapes.append(&mut maker.shapes);
            for Found { around, name: found, place, variants } in maker.found {
                if (found == name && !place.is_empty()) || !self.known.insert((around, found)) {
                    continue;
                }
                for variant in 1..variants {
                    let mut choices = choices.clone();
                    choices.insert(place.clone(), variant);
                    open.push_back((choices, Some(place.clone())));
                }
            }
        }
        samples
    }

    /// Returns the structs and variants that were met, and the names of their fields in order.
    pub(crate) fn shapes(self) -> Vec<(String, String)> {
        let mut shapes: Vec<(String, String)> = Vec::new();
        for (name, fields) in self.shapes {
            let name = format!("fields of {name}");
            match shapes.last_mut() {
                // Another type of that name.
                Some((last, all)) if *last == name => *all = format!("{all} | {fields}"),
                _ => shapes.push((name, fields)),
            }
        }
        shapes
    }
}

struct Found {
    around: String,
    name: String,
    place: Place,
    variants: u32,
}

/// Makes one sample.
struct Maker<'a> {
    choices: &'a Choices,
    /// Lists and options off the way to this place, and not beyond it, are empty; with none, all
    /// hold something.
    aim: Option<Place>,
    place: Place,
    /// Structs and variants that are being made, the outermost first.
    around: Vec<String>,
    found: Vec<Found>,
    shapes: BTreeSet<(String, String)>,
    /// The variants that were chosen, by place.
    chosen: Vec<(Place, &'static str)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Unsampled(String);

impl fmt::Display for Unsampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsampled {}

impl de::Error for Unsampled {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl<'a> Maker<'a> {
    fn new(name: &str, choices: &'a Choices, aim: Option<Place>) -> Self {
        Self {
            choices,
            aim,
            place: Place::new(),
            around: vec![name.to_owned()],
            found: Vec::new(),
            shapes: BTreeSet::new(),
            chosen: Vec::new(),
        }
    }

    fn label(&self, name: &str) -> String {
        let mut label = name.to_owned();
        for (place, variant) in &self.chosen {
            if place.is_empty() {
                label = format!("{label}::{variant}");
            } else if self.choices.contains_key(place) {
                label = format!("{label} {}={variant}", place.join("."));
            }
        }
        label
    }

    fn is_filled(&self) -> bool {
        let Some(aim) = &self.aim else { return true };
        aim.starts_with(&self.place) || self.place.starts_with(aim)
    }

    fn field(&self) -> &str {
        self.place.last().map_or("value", String::as_str)
    }

    /// Takes two bytes in the encodings, and one below 251 where the type has no more.
    fn number(&self) -> u16 {
        let around = self.around.last().map_or("", String::as_str);
        let name = format!("{around}.{}", self.field());
        // FNV-1a.
        let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
        let hash = name.bytes().fold(2_166_136_261, mix);
        300 + u16::try_from(hash % 15_000).expect("it is below 15,000")
    }

    /// As long as an id, and one: some texts have to be.
    fn text(&self) -> String {
        let name: String = self.field().chars().filter(char::is_ascii_alphanumeric).collect();
        let name = name.to_ascii_lowercase();
        format!("{name:0>25.25}")
    }

    fn small(&self) -> u8 {
        u8::try_from(self.number() % 100).expect("it is below 100")
    }

    /// Takes down the fields of what is being made.
    fn shape(&mut self, fields: &[&str]) {
        let around = self.around.last().cloned().unwrap_or_default();
        self.shapes.insert((around, fields.join(" ")));
    }

    fn parts<'de, V: de::Visitor<'de>>(
        &mut self,
        names: &[&str],
        visitor: V,
    ) -> Result<V::Value, Unsampled> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        visitor.visit_seq(Parts { maker: self, names })
    }
}

/// The parts of one value, by their names; none is part of the same name.
struct Parts<'m, 'a> {
    maker: &'m mut Maker<'a>,
    names: VecDeque<String>,
}

impl Parts<'_, '_> {
    fn next<'de, S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unsampled> {
        let Some(name) = self.names.pop_front() else { return Ok(None) };
        let named = !name.is_empty();
        if named {
            self.maker.place.push(name);
        }
        let value = seed.deserialize(&mut *self.maker);
        if named {
            self.maker.place.pop();
        }
        value.map(Some)
    }
}

impl<'de> de::SeqAccess<'de> for Parts<'_, '_> {
    type Error = Unsampled;

    fn next_element_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unsampled> {
        self.next(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.names.len())
    }
}

impl<'de> de::MapAccess<'de> for Parts<'_, '_> {
    type Error = Unsampled;

    fn next_key_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unsampled> {
        self.next(seed)
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, Unsampled> {
        self.next(seed)?.ok_or_else(|| Unsampled("a map has no value".to_owned()))
    }
}

/// One variant of an enum.
struct Variant<'m, 'a> {
    maker: &'m mut Maker<'a>,
    index: u32,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = Unsampled;
    type Variant = Self;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), Unsampled> {
        let index: U32Deserializer<Unsampled> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = Unsampled;

    fn unit_variant(self) -> Result<(), Unsampled> {
        Ok(())
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, Unsampled> {
        seed.deserialize(self.maker)
    }

    fn tuple_variant<V: de::Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Unsampled> {
        self.maker.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: de::Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unsampled> {
        self.maker.shape(fields);
        self.maker.parts(fields, visitor)
    }
}

macro_rules! numbers {
    ($($method:ident: $visit:ident, $from:ident;)*) => {$(
        fn $method<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
            visitor.$visit(self.$from().into())
        }
    )*};
}

macro_rules! signed {
    ($($method:ident: $visit:ident, $number:ty;)*) => {$(
        fn $method<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
            visitor.$visit(-<$number>::from(self.small()))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Maker<'_> {
    type Error = Unsampled;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Unsampled> {
        Err(Unsampled("the format tells no types".to_owned()))
    }

    fn deserialize_bool<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
        visitor.visit_bool(true)
    }

    numbers! {
        deserialize_u8: visit_u8, small;
        deserialize_u16: visit_u16, number;
        deserialize_u32: visit_u32, number;
        deserialize_u64: visit_u64, number;
        deserialize_u128: visit_u128, number;
        deserialize_f32: visit_f32, small;
        deserialize_f64: visit_f64, small;
    }

    signed! {
        deserialize_i16: visit_i16, i16;
        deserialize_i32: visit_i32, i32;
        deserialize_i64: visit_i64, i64;
        deserialize_i128: visit_i128, i128;
    }

    fn deserialize_str<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
        visitor.visit_str(&self.text())
    }

    fn deserialize_string<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
        visitor.visit_str(&self.text())
    }

    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
        if self.is_filled() { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unsampled> {
        self.around.push(name.to_owned());
        let value = visitor.visit_newtype_struct(&mut *self);
        self.around.pop();
        value
    }

    fn deserialize_seq<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
        let one: &[&str] = if self.is_filled() { &[""] } else { &[] };
        self.parts(one, visitor)
    }

    fn deserialize_tuple<V: de::Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Unsampled> {
        let names: Vec<String> = (0..len).map(|at| at.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.parts(&names, visitor)
    }

    fn deserialize_tuple_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Unsampled> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unsampled> {
        let names = ["key", ""].map(str::to_owned);
        let names = if self.is_filled() { names.into() } else { VecDeque::new() };
        visitor.visit_map(Parts { maker: self, names })
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unsampled> {
        self.around.push(name.to_owned());
        self.shape(fields);
        let value = self.parts(fields, visitor);
        self.around.pop();
        value
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unsampled> {
        let index = self.choices.get(&self.place).copied().unwrap_or(0);
        let at = usize::try_from(index).expect("a variant's number is small");
        let around = self.around.last().cloned().unwrap_or_default();
        let count = u32::try_from(variants.len()).expect("a variant's number is small");
        let (place, found) = (self.place.clone(), name.to_owned());
        self.found.push(Found { around, name: found, place: place.clone(), variants: count });
        self.chosen.push((place, variants[at]));
        self.around.push(format!("{name}::{}", variants[at]));
        self.place.push(variants[at].to_owned());
        let value = visitor.visit_enum(Variant { maker: &mut *self, index });
        self.place.pop();
        self.around.pop();
        value
    }

    serde::forward_to_deserialize_any! {
        i8 char bytes byte_buf unit_struct identifier ignored_any
    }
}

/// Compares what is shown of bytes with what was recorded, each under its name. With
/// `UPDATE_EXPECT=1` what is new is recorded; what was recorded before is never changed.
///
/// # Panics
///
/// They differ, or something is not recorded, or recorded and no more.
pub(crate) fn check_recorded(path: &str, now: &[(String, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let mut recorded = read_record(&text);
    let mut added = String::new();
    for (name, now) in now {
        match recorded.remove(name.as_str()) {
            Some(before) => assert!(
                before == now,
                "{name} is not as {} says, which is what the version before writes and reads:\n\
                 was {before}\nis  {now}",
                path.display(),
            ),
            None => added.push_str(&format!("{name}\n    {now}\n")),
        }
    }
    let gone: Vec<_> = recorded.keys().collect();
    assert!(gone.is_empty(), "{} has what is no more there: {gone:#?}", path.display());
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, text + &added).expect("the record can be written");
    } else {
        assert!(added.is_empty(), "not in {}; UPDATE_EXPECT=1 adds:\n{added}", path.display());
    }
}

/// Reads a record: a line of the name, an indented one of what is shown; `#` begins a comment.
fn read_record(text: &str) -> BTreeMap<&str, &str> {
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut recorded = BTreeMap::new();
    while let (Some(name), Some(shown)) = (lines.next(), lines.next()) {
        assert!(recorded.insert(name, shown.trim()).is_none(), "{name} is there twice");
    }
    recorded
}

/// Shows bytes as hexadecimal digits, and words among them as such. Two that differ never look the
/// same.
pub(crate) fn show(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|one, other| {
        let in_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        in_word(one) && in_word(other)
    });
    let mut shown = Vec::new();
    for run in runs {
        if run.len() >= 4 {
            shown.push(format!("\"{}\"", String::from_utf8_lossy(run)));
        } else {
            shown.extend(run.iter().map(|byte| format!("{byte:02x}")));
        }
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Inner {
        One,
        Two { first: u64, second: u64 },
        Three(Option<Box<Outer>>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Outer {
        Here { inner: Vec<Inner>, name: String },
        There(BTreeMap<u8, Result<i32, String>>),
    }

    #[test]
    fn every_variant_is_in_a_sample() {
        let mut sampler = Sampler::default();
        let samples = sampler.samples::<Outer>("Outer");
        let names: Vec<&str> = samples.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "Outer::Here",
                "Outer::There",
                "Outer::Here Here.inner=Two",
                "Outer::Here Here.inner=Three",
                "Outer::There There=Err",
            ]
        );
        let name = format!("{:0>25}", "name");
        assert_eq!(samples[0].1, Outer::Here { inner: vec![Inner::One], name });
        let Outer::Here { inner, .. } = &samples[2].1 else { panic!() };
        let [Inner::Two { first, second }] = inner[..] else { panic!() };
        assert_ne!(first, second);
        let shapes = [("Inner::Two", "first second"), ("Outer::Here", "inner name")];
        let shapes = shapes.map(|(name, fields)| (format!("fields of {name}"), fields.to_owned()));
        assert_eq!(sampler.shapes(), shapes);
    }

    #[test]
    fn words_among_bytes_are_shown() {
        let bytes = b"\x00\xffname\x07abc\"0word_s";
        assert_eq!(show(bytes), "00 ff \"name\" 07 61 62 63 22 \"0word\" 5f 73");
    }
}
