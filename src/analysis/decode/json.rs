//! The JSON body, for curl: `{"z": [[...]], ...}` with tensors as nested arrays and parameters as plain values.
//!
//! Guarantees: at most `MAX_JSON_BYTES`; ragged arrays are refused. Must not: guess a type: every number is
//! f64, or an integer if the tensor holds indices.

use serde_json::Value;

use super::{DecodeError, Decoded, Element, MAX_JSON_BYTES, Tensor};
use crate::analysis::companions;
use crate::analysis::parameters::Parameters;
use crate::analysis::text::shorten;
use kernels::rows::Float;

/// Decodes a whole body; plain values are parameters and join `parameters`.
pub fn decode(body: &[u8], mut parameters: Parameters) -> Result<Decoded, DecodeError> {
    if body.len() > MAX_JSON_BYTES {
        return Err(DecodeError::TooLarge {
            what: format!("a JSON body of {} bytes; send application/x-safetensors instead", body.len()),
            limit: MAX_JSON_BYTES as u64,
        });
    }
    let parsed: Value = serde_json::from_slice(body).map_err(|e| DecodeError::Malformed(format!("not JSON: {e}")))?;
    let Value::Object(fields) = parsed else {
        return Err(DecodeError::Malformed("the JSON body must be an object such as {\"z\": [[1, 2], [3, 4]]}".into()));
    };
    let mut tensors = Vec::new();
    for (name, value) in &fields {
        match value {
            Value::Array(_) => tensors.push(tensor(name, value)?),
            Value::String(text) => parameters.set(name, text)?,
            Value::Number(number) => parameters.set(name, &number.to_string())?,
            Value::Bool(flag) => parameters.set(name, &flag.to_string())?,
            Value::Null => {} // the same as leaving the parameter out
            Value::Object(_) => {
                return Err(DecodeError::Malformed(format!(
                    "'{}' is an object: it must be a tensor or a value",
                    shorten(name)
                )));
            }
        }
    }
    Ok((tensors, parameters))
}

fn tensor(name: &str, value: &Value) -> Result<Tensor, DecodeError> {
    let mut shape = Vec::new();
    let mut level = value;
    while let Value::Array(items) = level {
        shape.push(items.len());
        match items.first() {
            Some(first) => level = first,
            None => break,
        }
    }
    if shape.len() > 2 {
        return Err(DecodeError::Malformed(format!(
            "tensor {} is nested {} deep: at most 2",
            shorten(name),
            shape.len()
        )));
    }
    let mut bytes = Vec::new();
    let integers = companions::holds_indices(name);
    append(name, value, &shape, integers, &mut bytes)?;
    let element = if integers { Element::I64 } else { Element::Float(Float::F64) };
    Tensor::new(name, element, shape, bytes.into())
}

fn append(name: &str, value: &Value, shape: &[usize], integers: bool, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let wrong = |found: &Value| {
        let wanted = if integers { "a whole number" } else { "a number" };
        DecodeError::Malformed(format!(
            "tensor {} holds {}: it must be {wanted}",
            shorten(name),
            shorten(&found.to_string())
        ))
    };
    match (value, shape) {
        (Value::Array(items), [length, inner @ ..]) if items.len() == *length => {
            for item in items {
                append(name, item, inner, integers, out)?;
            }
            Ok(())
        }
        (Value::Array(items), [length, ..]) => Err(DecodeError::WrongLength(format!(
            "tensor {} is ragged: one of its rows has {} values, its first has {length}",
            shorten(name),
            items.len()
        ))),
        (Value::Number(number), []) if integers => {
            out.extend(number.as_i64().ok_or_else(|| wrong(value))?.to_le_bytes());
            Ok(())
        }
        (Value::Number(number), []) => {
            out.extend(number.as_f64().ok_or_else(|| wrong(value))?.to_le_bytes());
            Ok(())
        }
        _ => Err(wrong(value)),
    }
}
