//! The messages between a compute worker and the service: frames of a checked length that hold JSON.
//!
//! Guarantees: a frame over `LONGEST` is refused before it is read. Must not: carry the numbers of a matrix; those
//! are in the shared memory, and a frame holds their shapes.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The most bytes in a frame. A request takes a few hundred; error texts are the longest.
pub(crate) const LONGEST: usize = 16 << 10;

/// Version of these messages and of the layout of the shared memory.
pub const PROTOCOL: u32 = 1;

/// The worker's first frame.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The device that was opened.
    pub device: String,
    /// Why the device could not be opened.
    pub complaint: Option<String>,
}

/// A job. Its operands are in the shared memory, back to back from the first byte.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The job's number, which the reply repeats.
    pub job: u64,
    /// The kernel to run.
    pub kernel: KernelName,
    /// The shapes of the operands.
    pub operands: Vec<Layout>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // named as the methods
pub enum KernelName {
    Moments { precision: PrecisionWord },
    Cross,
    Gram { outer: bool },
    Inner,
    Eigenvalues,
    Eigenvectors,
    Whiten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum PrecisionWord {
    Auto,
    F64,
    Fast,
}

/// The type and shape of an operand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Layout {
    /// Rows in their own type.
    Rows {
        /// `f64`, `f32`, `f16`, `bf16`.
        float: String,
        /// Row-major, otherwise column-major.
        row_major: bool,
        /// N.
        rows: usize,
        /// d.
        dim: usize,
    },
    /// f64, column-major.
    Matrix {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
}

/// The result of a job.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerReply {
    /// The job's number.
    pub job: u64,
    /// How the job ended.
    pub outcome: ReplyBody,
}

/// How a job ended.
#[derive(Debug, Serialize, Deserialize)]
pub enum ReplyBody {
    /// Success. The results are in the shared memory, back to back from the first byte, as f64.
    Done {
        /// The arithmetic or the solver.
        kernel: String,
        /// How many values each result has.
        results: Vec<usize>,
    },
    /// Failure.
    Failed {
        /// What kind of failure.
        what: Failure,
        /// In words.
        detail: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Failure {
    NoResult,
    OutOfMemory,
    Device,
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the stream.
    #[error("the stream ended")]
    Closed,
    /// The stream ended within a frame.
    #[error("the stream ended within a frame of {length} bytes")]
    Short {
        /// The frame's announced length.
        length: usize,
    },
    /// Longer than `LONGEST`.
    #[error("a frame of {length} bytes was announced; the limit is {LONGEST}")]
    TooLong {
        /// The length announced.
        length: usize,
    },
    /// Not one of the messages here.
    #[error("a frame could not be read: {0}")]
    Unreadable(serde_json::Error),
    /// The deadline passed.
    #[error("nothing arrived in time")]
    Late,
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Stream(io::Error),
}

/// Writes one frame: its length in four bytes, little-endian, then JSON.
///
/// # Errors
/// If the stream fails, or the frame is too long.
pub fn write(stream: &mut impl Write, message: &impl Serialize) -> Result<(), FrameError> {
    let text = serde_json::to_vec(message).map_err(FrameError::Unreadable)?;
    let length = text.len();
    if length > LONGEST {
        return Err(FrameError::TooLong { length });
    }
    let mut frame = (length as u32).to_le_bytes().to_vec();
    frame.extend(text);
    stream.write_all(&frame).map_err(of_stream)
}

/// Reads one frame.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, FrameError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(of_stream)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(FrameError::TooLong { length });
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text).map_err(|error| match of_stream(error) {
        FrameError::Closed => FrameError::Short { length },
        other => other,
    })?;
    serde_json::from_slice(&text).map_err(FrameError::Unreadable)
}

fn of_stream(error: io::Error) -> FrameError {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error.kind() {
        UnexpectedEof | BrokenPipe | ConnectionReset => FrameError::Closed,
        WouldBlock | TimedOut => FrameError::Late,
        _ => FrameError::Stream(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back() {
        let mut bytes = Vec::new();
        let request = Request {
            job: 7,
            kernel: KernelName::Moments { precision: PrecisionWord::Fast },
            operands: vec![Layout::Rows { float: "bf16".to_string(), row_major: true, rows: 3, dim: 2 }],
        };
        write(&mut bytes, &request).unwrap();
        let read: Request = read(&mut bytes.as_slice()).unwrap();
        assert_eq!((read.job, read.kernel, &read.operands), (7, request.kernel, &request.operands));
    }

    #[test]
    fn a_frame_that_is_none_is_refused() {
        let of = |bytes: &[u8]| read::<WorkerReply>(&mut &*bytes).unwrap_err();
        assert!(matches!(of(&[]), FrameError::Closed));
        assert!(matches!(of(&[1, 0]), FrameError::Closed));
        assert!(matches!(of(&[9, 0, 0, 0, b'{']), FrameError::Short { length: 9 }));
        assert!(matches!(of(&[255, 255, 255, 255]), FrameError::TooLong { length: 0xffff_ffff }));
        assert!(matches!(of(&[2, 0, 0, 0, b'{', b'}']), FrameError::Unreadable(_)));
    }
}
