//! Reading a payload field by field, so that every complaint names its field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The fields of a payload that nobody has taken yet.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads `payload`, which must be a JSON object.
    pub(super) fn read(payload: &[u8]) -> Result<Fields, String> {
        match serde_json::from_slice(payload) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err("payload: must be an object".into()),
            Err(e) => Err(format!("payload: is not JSON: {e}")),
        }
    }

    /// Takes `name`; `None` if it is missing or `null`.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, String> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|e| format!("{name}: {e}")),
        }
    }

    /// Nothing may be left: a misspelt field would be ignored in silence.
    pub(super) fn end(self, known: &str) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{}: unknown field, known are {known}", super::clip(name, 64))),
        }
    }
}
