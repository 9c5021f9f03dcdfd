//! A refusal as a gRPC status: its code in ErrorInfo and, if the same call may succeed later, RetryInfo.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::Refusal;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut details = ErrorDetails::new();
        let limit = refusal.limit.map(|limit| ("limit".to_string(), limit.to_string()));
        details.set_error_info(refusal.code.word(), "fullrank", limit.into_iter().collect::<HashMap<_, _>>());
        if let Some(seconds) = refusal.code.retry_after() {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
        }
        Status::with_error_details(refusal.code.grpc(), refusal.detail, details)
    }
}
