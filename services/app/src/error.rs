//! Everything that can go wrong with a request, and how it is answered: `{"error":{"code","message"}}`.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use store::{ReadError, SaveError};

/// A request that is not answered as it wished. The text of each is meant for the person who made the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing but white space.
    #[error("the text is empty")]
    TextEmpty,
    /// Longer than [`crate::save::MAX_CHARACTERS`].
    #[error("the text has more than 10,000 characters")]
    TextTooLong,
    /// Postgres cannot store it.
    #[error("the text contains a NUL character")]
    TextNul,
    /// The database refuses it, for a reason not foreseen here.
    #[error("the database refuses this text")]
    TextRefused,
    /// The body is not JSON, or not of the right form.
    #[error("the body must be JSON of the form {{\"text\": \"...\", \"id\": \"optional UUID\"}}")]
    BodyMalformed,
    /// The body ended early.
    #[error("the body could not be read")]
    BodyIncomplete,
    /// Larger than [`crate::save::MAX_BODY`].
    #[error("the body is larger than 64 KiB")]
    BodyTooLarge,
    /// Somebody stored another text under this id.
    #[error("this id belongs to another text")]
    IdTaken,
    /// `limit` is wrong.
    #[error("limit must be a whole number from 1 to 500")]
    LimitInvalid,
    /// `before` was not made by this service.
    #[error("before must be the value of next of an earlier answer")]
    BeforeInvalid,
    /// The query has a part twice.
    #[error("the query must have limit and before at most once each")]
    QueryMalformed,
    /// No such path.
    #[error("there is nothing at this path")]
    NotFound,
    /// The path exists, for other methods.
    #[error("this path does not answer this method")]
    MethodNotAllowed,
    /// Too many texts wait.
    #[error("too many texts wait to be stored, try again")]
    Busy,
    /// The database does not answer.
    #[error("the database cannot be reached, try again")]
    Unavailable,
    /// A mistake of ours.
    #[error("something went wrong here")]
    Internal,
}

impl Error {
    /// The status and the code for programs. Codes do not change.
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::TextEmpty => (StatusCode::UNPROCESSABLE_ENTITY, "text_empty"),
            Self::TextTooLong => (StatusCode::UNPROCESSABLE_ENTITY, "text_too_long"),
            Self::TextNul => (StatusCode::UNPROCESSABLE_ENTITY, "text_nul"),
            Self::TextRefused => (StatusCode::UNPROCESSABLE_ENTITY, "text_refused"),
            Self::BodyMalformed => (StatusCode::BAD_REQUEST, "body_malformed"),
            Self::BodyIncomplete => (StatusCode::BAD_REQUEST, "body_incomplete"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::IdTaken => (StatusCode::CONFLICT, "id_taken"),
            Self::LimitInvalid => (StatusCode::BAD_REQUEST, "limit_invalid"),
            Self::BeforeInvalid => (StatusCode::BAD_REQUEST, "before_invalid"),
            Self::QueryMalformed => (StatusCode::BAD_REQUEST, "query_malformed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "database_unavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = self.parts();
        runtime::error_answer(status, code, &self.to_string())
    }
}

impl From<SaveError> for Error {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::Conflict => Self::IdTaken,
            SaveError::Rejected { code } => {
                tracing::warn!(sqlstate = code, "the database refused a text that was thought to be fine");
                Self::TextRefused
            }
            SaveError::Busy => Self::Busy,
            // The writer has logged it, once for all callers.
            SaveError::Unavailable { .. } => Self::Unavailable,
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "the list cannot be read");
        Self::Unavailable
    }
}
