//! Why bytes are not a batch, or a batch cannot be used.

use kernels::rows::RowsError;

/// Why bytes are not a batch. Each message names the value, the limit and the remedy.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes break the rules of the format or of the interface.
    #[error("{0}")]
    Malformed(String),
    /// Sizes that contradict each other.
    #[error("{0}")]
    WrongLength(String),
    /// A type that is not accepted.
    #[error("{0}")]
    UnsupportedType(String),
    /// Over a limit.
    #[error("{what}: the limit is {limit}")]
    TooLarge {
        /// What is too large, with its size and the remedy.
        what: String,
        /// The limit it is over.
        limit: u64,
    },
    /// A value that is NaN, infinite, or too large to square.
    #[error(
        "tensor {tensor} holds {value} at row {row}, column {column}; {rows} of its rows hold values that are not finite or above 1e140 in magnitude: drop such rows before the push"
    )]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The first such row.
        row: usize,
        /// Its first such column.
        column: usize,
        /// The value there, as text.
        value: String,
        /// How many rows hold such values.
        rows: usize,
    },
}

impl From<RowsError> for DecodeError {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Empty(what) => Self::Malformed(what),
            RowsError::WrongLength(what) => Self::WrongLength(what),
        }
    }
}
