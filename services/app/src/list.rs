//! `GET /all?limit=&before=`: texts, newest first.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};

use crate::{cursor::Cursor, error::Error, routes::App, save::Item};

/// A page that fills a screen.
const DEFAULT_LIMIT: u32 = 50;

/// At 10,000 characters each, some megabytes.
const MAX_LIMIT: u32 = 500;

/// Strings, so that each wrong part gets its own message.
#[derive(Deserialize)]
pub struct Request {
    limit: Option<String>,
    before: Option<String>,
}

/// One page.
#[derive(Serialize)]
pub struct Page {
    texts: Vec<Item>,
    /// What to send as `before` for the next page; null on the last one.
    next: Option<String>,
}

/// Answers one page of texts.
///
/// # Errors
/// [`Error`] if the query is wrong or the database does not answer.
pub async fn list(State(app): State<App>, query: Result<Query<Request>, QueryRejection>) -> Result<Json<Page>, Error> {
    let Query(Request { limit, before }) = query.map_err(|_| Error::QueryMalformed)?;
    let limit =
        limit.map_or(Ok(DEFAULT_LIMIT), |text| runtime::parse_limit(&text, MAX_LIMIT).ok_or(Error::LimitInvalid))?;
    let before = before.map(|text| Cursor::decode(&text).ok_or(Error::BeforeInvalid)).transpose()?;

    // One more than wanted shows whether there is another page.
    let mut texts = app.texts.page(limit + 1, before.map(|cursor| cursor.seq)).await?;
    let more = texts.len() > limit as usize;
    texts.truncate(limit as usize);
    let next = texts.last().filter(|_| more).map(|last| Cursor { seq: last.seq }.encode());
    Ok(Json(Page { texts: texts.into_iter().map(Item::from).collect(), next }))
}
