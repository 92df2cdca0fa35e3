//! What comes of a request: an answer, or a refusal of one of the protocol's kinds.

use expert_placement::Error;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An answer, or why there is none.
pub(crate) type Answer = Result<Value, Failure>;

/// Why a request was refused.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `value`, `index` or `type`.
    pub(crate) kind: &'static str,
    /// What is wrong, for people.
    pub(crate) message: String,
}

impl Failure {
    /// A wrong value.
    pub(crate) fn of_value(message: impl Into<String>) -> Self {
        Self { kind: "value", message: message.into() }
    }

    /// A request that is none.
    pub(crate) fn of_type(message: impl Into<String>) -> Self {
        Self { kind: "type", message: message.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = if error.is_no_such_id() { "index" } else { "value" };
        Self { kind, message: error.to_string() }
    }
}

/// The fields of a request.
pub(crate) fn read<Fields: DeserializeOwned>(request: Value) -> Result<Fields, Failure> {
    serde_json::from_value(request).map_err(|error| Failure::of_type(error.to_string()))
}

/// A flat table as rows of this width.
pub(crate) fn rows<T: serde::Serialize>(table: &[T], number: usize, width: usize) -> Value {
    let row = |place: usize| table.get(place * width..(place + 1) * width).unwrap_or_default();
    Value::Array((0..number).map(|place| json!(row(place))).collect())
}
