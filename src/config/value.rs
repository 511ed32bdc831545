//! Values of settings: as they stand in a file or in a text, and the kinds
//! that they are checked against.

use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// Several.
    List(Vec<Raw>),
    /// Several with names.
    Map(BTreeMap<String, Raw>),
}

/// What a setting's value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Not empty, at most this many bytes, no control characters.
    Text(usize),
    /// Whole, between these two.
    Whole(u64, u64),
    /// One of these.
    WholeOf(&'static [u64]),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// At most this many texts.
    List(usize),
    /// At most this many texts with names.
    Texts(usize),
    /// At most this many numbers from 0 with names.
    Amounts(usize),
}

impl Kind {
    /// What is allowed, for people: follows "must be".
    #[must_use]
    pub fn range(&self) -> String {
        match self {
            Kind::Text(max) => format!("a text of 1 to {max} bytes"),
            Kind::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Kind::WholeOf(these) => {
                format!("one of {}", these.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Kind::Flag => "true or false".to_owned(),
            Kind::OneOf(these) => {
                format!("one of {}", these.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(", "))
            }
            Kind::List(max) => format!("a list of at most {max} texts"),
            Kind::Texts(max) => format!("a table of at most {max} names with texts"),
            Kind::Amounts(max) => format!("a table of at most {max} names with numbers from 0"),
        }
    }

    /// Reads a value from the environment or a flag: TOML, where texts need no
    /// quotes, lists no brackets (`a,b`) and tables no braces (`a=1,b=2`).
    pub(super) fn read(&self, text: &str) -> Result<Raw, String> {
        let text = text.trim();
        let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
        match self {
            Kind::Text(_) | Kind::OneOf(_) => Ok(Raw::Text(unquoted(text))),
            Kind::Whole(..) | Kind::WholeOf(_) | Kind::Flag => toml_value(text).map_err(|()| self.not(text)),
            Kind::List(_) if text.starts_with('[') => toml_value(text).map_err(|()| self.not(text)),
            Kind::List(_) => Ok(Raw::List(parts().map(|part| Raw::Text(unquoted(part))).collect())),
            Kind::Texts(_) | Kind::Amounts(_) if text.starts_with('{') => toml_value(text).map_err(|()| self.not(text)),
            Kind::Texts(_) | Kind::Amounts(_) => {
                let mut map = BTreeMap::new();
                for part in parts() {
                    let (name, value) = part.split_once('=').ok_or_else(|| self.not(text))?;
                    let value = match self {
                        Kind::Amounts(_) => toml_value(value.trim()).map_err(|()| self.not(text))?,
                        _ => Raw::Text(unquoted(value.trim())),
                    };
                    map.insert(name.trim().to_owned(), value);
                }
                Ok(Raw::Map(map))
            }
        }
    }

    /// Whether `raw` is of this kind; gives it back.
    pub(super) fn check(&self, raw: &Raw) -> Result<Raw, String> {
        let right = match (self, raw) {
            (Kind::Text(max), Raw::Text(text)) => is_text(text, *max),
            (Kind::Whole(min, max), Raw::Whole(n)) => u64::try_from(*n).is_ok_and(|n| (*min..=*max).contains(&n)),
            (Kind::WholeOf(these), Raw::Whole(n)) => u64::try_from(*n).is_ok_and(|n| these.contains(&n)),
            (Kind::Flag, Raw::Flag(_)) => true,
            (Kind::OneOf(these), Raw::Text(text)) => these.contains(&text.as_str()),
            (Kind::List(max), Raw::List(items)) => {
                items.len() <= *max && items.iter().all(|i| matches!(i, Raw::Text(text) if is_text(text, TEXT_BYTES)))
            }
            (Kind::Texts(max), Raw::Map(map)) => {
                map.len() <= *max
                    && map.iter().all(|(name, value)| {
                        is_text(name, TEXT_BYTES) && matches!(value, Raw::Text(text) if is_text(text, TEXT_BYTES))
                    })
            }
            (Kind::Amounts(max), Raw::Map(map)) => {
                map.len() <= *max && map.iter().all(|(name, value)| is_text(name, TEXT_BYTES) && is_amount(value))
            }
            _ => false,
        };
        if right { Ok(raw.clone()) } else { Err(self.not(&raw.shown())) }
    }

    fn not(&self, got: &str) -> String {
        format!("is {got}; it must be {}", self.range())
    }
}

/// Long enough for any multiaddress, path pattern or label.
const TEXT_BYTES: usize = 1024;

fn is_text(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control)
}

/// Amounts are kept in thousandths: 10¹² of anything is far from overflow.
fn is_amount(value: &Raw) -> bool {
    value.number().is_some_and(|n| (0.0..=1e12).contains(&n))
}

impl Raw {
    /// The text, if it is one.
    pub(super) fn text(&self) -> &str {
        match self {
            Raw::Text(text) => text,
            Raw::Whole(_) | Raw::Number(_) | Raw::Flag(_) | Raw::List(_) | Raw::Map(_) => "",
        }
    }

    /// The whole number from 0, if it is one.
    pub(super) fn whole(&self) -> u64 {
        match self {
            Raw::Whole(n) => u64::try_from(*n).unwrap_or_default(),
            Raw::Text(_) | Raw::Number(_) | Raw::Flag(_) | Raw::List(_) | Raw::Map(_) => 0,
        }
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> Vec<String> {
        match self {
            Raw::List(items) => items.iter().map(|i| i.text().to_owned()).collect(),
            Raw::Text(_) | Raw::Whole(_) | Raw::Number(_) | Raw::Flag(_) | Raw::Map(_) => Vec::new(),
        }
    }

    /// The number, whole or not.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Raw::Whole(n) => Some(*n as f64),
            Raw::Number(n) => Some(*n),
            Raw::Text(_) | Raw::Flag(_) | Raw::List(_) | Raw::Map(_) => None,
        }
    }

    /// The entries of a table.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &Raw)> {
        let map = match self {
            Raw::Map(map) => Some(map),
            Raw::Text(_) | Raw::Whole(_) | Raw::Number(_) | Raw::Flag(_) | Raw::List(_) => None,
        };
        map.into_iter().flatten()
    }

    /// As it stands in a message: cut where it is long.
    fn shown(&self) -> String {
        let text = self.to_toml().to_string();
        if text.len() <= 60 {
            return text;
        }
        format!("{}…", text.chars().take(60).collect::<String>())
    }

    fn to_toml(&self) -> toml::Value {
        match self {
            Raw::Text(text) => toml::Value::String(text.clone()),
            Raw::Whole(n) => toml::Value::Integer(*n),
            Raw::Number(n) => toml::Value::Float(*n),
            Raw::Flag(flag) => toml::Value::Boolean(*flag),
            Raw::List(items) => toml::Value::Array(items.iter().map(Raw::to_toml).collect()),
            Raw::Map(map) => toml::Value::Table(map.iter().map(|(k, v)| (k.clone(), v.to_toml())).collect()),
        }
    }
}

fn unquoted(text: &str) -> String {
    match toml_value(text) {
        Ok(Raw::Text(inner)) => inner,
        _ => text.to_owned(),
    }
}

fn toml_value(text: &str) -> Result<Raw, ()> {
    let value = DeValue::parse(text).map_err(|_| ())?;
    raw(value.get_ref()).ok_or(())
}

/// One `key = value` of a file, as `section.key`.
pub(super) struct Entry {
    /// From 1.
    pub(super) line: usize,
    /// With its section.
    pub(super) key: String,
    /// What it is set to.
    pub(super) value: Raw,
}

/// The entries of a settings file, in order of their lines; or the line and
/// the reason for which it is no TOML.
pub(super) fn read_toml(text: &str) -> Result<Vec<Entry>, (usize, String)> {
    let line = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
    let table =
        DeTable::parse(text).map_err(|e| (e.span().map_or(1, |span| line(span.start)), e.message().to_owned()))?;
    let mut entries = Vec::new();
    for (section, value) in table.get_ref() {
        let name = section.get_ref();
        let DeValue::Table(keys) = value.get_ref() else {
            // Outside of any section: reported as the unknown key that it is.
            let value = raw(value.get_ref()).unwrap_or(Raw::Flag(false));
            entries.push(Entry { line: line(section.span().start), key: name.to_string(), value });
            continue;
        };
        for (key, value) in keys {
            let at = line(key.span().start);
            let key = format!("{name}.{}", key.get_ref());
            let value =
                raw(value.get_ref()).ok_or_else(|| (at, format!("{key} is a date or a number that is too large")))?;
            entries.push(Entry { line: at, key, value });
        }
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

/// `None`: a date, or a number beyond 64 bits.
fn raw(value: &DeValue<'_>) -> Option<Raw> {
    Some(match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(n) => Raw::Whole(i64::from_str_radix(n.as_str(), n.radix()).ok()?),
        DeValue::Float(n) => Raw::Number(n.as_str().parse().ok()?),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => Raw::List(items.iter().map(|i| raw(i.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(table) => Raw::Map(
            table.iter().map(|(k, v)| Some((k.get_ref().to_string(), raw(v.get_ref())?))).collect::<Option<_>>()?,
        ),
    })
}
