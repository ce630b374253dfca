//! `POST /save`: stores a text.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use store::Text;
use tracing::Span;
use uuid::Uuid;

use crate::{error::Error, routes::App};

/// The longest text, in Unicode characters. The schema says the same.
pub const MAX_CHARACTERS: usize = 10_000;

/// The largest body, in bytes. The longest text takes 40,000 bytes as UTF-8, which is how browsers send it.
pub const MAX_BODY: usize = 64 * 1024;

#[derive(Deserialize)]
struct Request {
    text: String,
    /// Made by the client before its first attempt, so that repeating an attempt is safe.
    id: Option<Uuid>,
}

/// A text as clients see it.
#[derive(Serialize)]
pub struct Item {
    id: Uuid,
    text: String,
    created_at: DateTime<Utc>,
}

impl From<Text> for Item {
    fn from(Text { seq: _, id, text, created_at }: Text) -> Self {
        Self { id, text, created_at }
    }
}

/// Answers 201 with the stored text, also if it was stored before.
///
/// # Errors
/// [`Error`]; after [`Error::Unavailable`] the same request may be sent again.
pub async fn save(State(app): State<App>, body: Result<Bytes, BytesRejection>) -> Result<impl IntoResponse, Error> {
    let body = body.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::BodyTooLarge,
        _ => Error::BodyIncomplete,
    })?;
    let Request { text, id } = serde_json::from_slice(&body).map_err(|_| Error::BodyMalformed)?;
    let text = checked(&text)?;
    let (id, traceparent) = (id.unwrap_or_else(Uuid::new_v4), runtime::traceparent(&Span::current()));
    let stored = app.writer.save(id, text.to_owned(), traceparent).await?;
    Ok((StatusCode::CREATED, Json(Item::from(stored))))
}

/// The text without the white space around it, if it can be stored.
fn checked(text: &str) -> Result<&str, Error> {
    let text = text.trim();
    if text.is_empty() {
        Err(Error::TextEmpty)
    } else if text.contains('\0') {
        Err(Error::TextNul)
    } else if text.chars().count() > MAX_CHARACTERS {
        Err(Error::TextTooLong)
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_1_to_10000_characters_after_trimming() {
        let longest = "ü".repeat(MAX_CHARACTERS);
        assert_eq!(checked(" \n a b \u{a0}"), Ok("a b"));
        assert_eq!(checked(&format!("  {longest}  ")), Ok(longest.as_str()));
        assert_eq!(checked(&format!("{longest}x")), Err(Error::TextTooLong));
        assert_eq!(checked(""), Err(Error::TextEmpty));
        assert_eq!(checked(" \t\u{2003}\n"), Err(Error::TextEmpty));
        assert_eq!(checked("a\0b"), Err(Error::TextNul));
    }
}
