//! Every refusal: one enum, one table, the same for HTTP and gRPC.
//!
//! Guarantees: each message names the value, the limit and the remedy. Must not: be both logged and returned.

use crate::analysis::decode::DecodeError;

/// The closed list of error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // explained by the table below
pub enum Code {
    Malformed,
    WrongLength,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    Timeout,
    DimensionMismatch,
    WindowClosed,
    TooLarge,
    UnsupportedType,
    NotFinite,
    Overloaded,
    TooManyStreams,
    Internal,
    Draining,
    StorageFull,
}

/// One row: code, title, HTTP status, gRPC code, and after how many seconds to retry (if at all).
type Row = (Code, &'static str, &'static str, u16, tonic::Code, Option<u64>);

/// In the order of [`Code`].
const TABLE: [Row; 18] = {
    use tonic::Code as G;
    [
        (Code::Malformed, "malformed", "The request breaks the rules of the interface", 400, G::InvalidArgument, None),
        (Code::WrongLength, "wrong_length", "Sizes do not agree", 400, G::InvalidArgument, None),
        (Code::Unauthenticated, "unauthenticated", "No valid token", 401, G::Unauthenticated, None),
        (Code::Forbidden, "forbidden", "Not allowed", 403, G::PermissionDenied, None),
        (Code::NotFound, "not_found", "Not found", 404, G::NotFound, None),
        (Code::MethodNotAllowed, "method_not_allowed", "Method not allowed", 405, G::Unimplemented, None),
        (Code::NotAcceptable, "not_acceptable", "No such representation", 406, G::InvalidArgument, None),
        (Code::Timeout, "timeout", "The body arrived too slowly", 408, G::DeadlineExceeded, Some(1)),
        (
            Code::DimensionMismatch,
            "dimension_mismatch",
            "The layer has a different shape",
            409,
            G::FailedPrecondition,
            None,
        ),
        (Code::WindowClosed, "window_closed", "The window is closed", 409, G::FailedPrecondition, None),
        (Code::TooLarge, "too_large", "Over a limit", 413, G::OutOfRange, None),
        (Code::UnsupportedType, "unsupported_type", "The type is not accepted", 415, G::InvalidArgument, None),
        (Code::NotFinite, "not_finite", "Some values are not finite", 422, G::InvalidArgument, None),
        (Code::Overloaded, "overloaded", "No room at the moment", 429, G::ResourceExhausted, Some(1)),
        (Code::TooManyStreams, "too_many_streams", "Too many runs and layers", 429, G::ResourceExhausted, Some(60)),
        (Code::Internal, "internal", "Internal error", 500, G::Internal, None),
        (Code::Draining, "draining", "The service is stopping", 503, G::Unavailable, Some(5)),
        (Code::StorageFull, "storage_full", "The history cannot be written", 507, G::Unavailable, Some(10)),
    ]
};

impl Code {
    /// Every code.
    pub fn all() -> impl Iterator<Item = Code> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The code in problem documents, ErrorInfo and the `reason` label.
    pub fn word(self) -> &'static str {
        self.row().1
    }

    /// The title: its meaning in a few words.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().3
    }

    pub(crate) fn grpc(self) -> tonic::Code {
        self.row().4
    }

    /// After how many seconds the same request may succeed; `None` if it never can.
    pub fn retry_after(self) -> Option<u64> {
        self.row().5
    }
}

/// A request that is refused, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {detail}", code.word())]
pub struct Refusal {
    /// The kind of refusal.
    pub code: Code,
    /// The value, the limit and the remedy.
    pub detail: String,
    /// The limit that was exceeded.
    pub limit: Option<u64>,
}

impl Refusal {
    /// A refusal without a limit.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), limit: None }
    }

    pub(crate) fn over(code: Code, detail: impl Into<String>, limit: u64) -> Self {
        Self { code, detail: detail.into(), limit: Some(limit) }
    }

    /// A run, layer or window that does not exist.
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{what} does not exist; GET /v1/runs lists the runs"))
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        let detail = error.to_string();
        match error {
            DecodeError::Malformed(_) => Self::new(Code::Malformed, detail),
            DecodeError::WrongLength(_) => Self::new(Code::WrongLength, detail),
            DecodeError::UnsupportedType(_) => Self::new(Code::UnsupportedType, detail),
            DecodeError::TooLarge { limit, .. } => Self::over(Code::TooLarge, detail, limit),
            DecodeError::NotFinite { .. } => Self::new(Code::NotFinite, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index, "{}", row.1);
        }
    }
}
