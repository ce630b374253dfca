//! Everything that can go wrong with a request, and how it is answered.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use store::SamplesError;

/// A request that is not answered as it wished. The text of each is meant for the person who made the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `limit` is missing or wrong.
    #[error("limit must be a whole number from 1 to 1000")]
    LimitInvalid,
    /// The query has a part twice, or cannot be read.
    #[error("the query must have limit once and serverId at most once")]
    QueryMalformed,
    /// Nothing is stored of this server.
    #[error("there is no such server")]
    ServerUnknown,
    /// No such path.
    #[error("there is nothing at this path; the generator serves /servers and /metrics")]
    NotFound,
    /// The path exists, for other methods.
    #[error("this path does not answer this method")]
    MethodNotAllowed,
    /// The database does not answer.
    #[error("the database cannot be reached, try again")]
    Unavailable,
}

impl Error {
    /// The status and the code for programs. Codes do not change.
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::LimitInvalid => (StatusCode::BAD_REQUEST, "limit_invalid"),
            Self::QueryMalformed => (StatusCode::BAD_REQUEST, "query_malformed"),
            Self::ServerUnknown => (StatusCode::NOT_FOUND, "server_unknown"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "database_unavailable"),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = self.parts();
        runtime::error_answer(status, code, &self.to_string())
    }
}

impl From<SamplesError> for Error {
    fn from(error: SamplesError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "a list of samples cannot be read");
        Self::Unavailable
    }
}
