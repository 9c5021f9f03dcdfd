//! The safetensors body: an eight-byte length, a JSON header, then the tensors' bytes.
//!
//! Guarantees: the header's size is checked before it is parsed; the safetensors crate checks the offsets. Must not:
//! copy tensor data.

use bytes::Bytes;
use safetensors::SafeTensors;

use super::{DecodeError, Decoded, Element, MAX_HEADER_BYTES, Tensor};
use crate::analysis::parameters::Parameters;

/// Decodes a whole body; parameters in `__metadata__` join `parameters`.
pub fn decode(body: &Bytes, mut parameters: Parameters) -> Result<Decoded, DecodeError> {
    let header = header_length(body)?;
    let (length, metadata) = SafeTensors::read_metadata(body).map_err(|e| explain(&e))?;
    debug_assert_eq!(length, header);
    for (name, text) in metadata.metadata().iter().flatten() {
        // Hugging Face's writers add this key by themselves.
        if name != "format" {
            parameters.set(name, text)?;
        }
    }
    let data = body.slice(8 + length..);
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let element = Element::parse(&name, &info.dtype.to_string())?;
        let (start, end) = info.data_offsets;
        tensors.push(Tensor::new(&name, element, info.shape.clone(), data.slice(start..end))?);
    }
    Ok((tensors, parameters))
}

fn header_length(body: &[u8]) -> Result<usize, DecodeError> {
    let Some((length, rest)) = body.split_first_chunk::<8>() else {
        return Err(DecodeError::WrongLength(format!(
            "a safetensors body of {} bytes ends before its 8-byte header length",
            body.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES as u64 {
        return Err(DecodeError::TooLarge {
            what: format!("the safetensors header says it is {length} bytes long (is the body in safetensors format?)"),
            limit: MAX_HEADER_BYTES as u64,
        });
    }
    if length > rest.len() as u64 {
        return Err(DecodeError::WrongLength(format!(
            "the safetensors header says it is {length} bytes long, but only {} bytes follow",
            rest.len()
        )));
    }
    Ok(length as usize)
}

fn explain(error: &safetensors::SafeTensorError) -> DecodeError {
    use safetensors::SafeTensorError as E;
    let text = format!("not a valid safetensors body: {error}");
    match error {
        E::MetadataIncompleteBuffer | E::TensorInvalidInfo | E::InvalidOffset(_) | E::ValidationOverflow => {
            DecodeError::WrongLength(format!("{text}; the tensors must fill the body exactly, in order"))
        }
        _ => DecodeError::Malformed(text),
    }
}
