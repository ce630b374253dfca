//! Texts that the server cannot send as UTF-8. It then refuses the whole result: a database with the encoding `SQL_ASCII` stores any bytes; one with `WIN1252` stores
//! the byte 0x81, and has no character for it. So what fails is read again as the bytes that are stored.

use std::sync::Arc;

use sqlx::{
    Decode, Postgres, Type,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueRef},
};

/// How a column of texts is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    Text,
    /// As the bytes that are stored.
    Bytes,
}

impl Form {
    /// The expression of a column.
    pub(crate) fn column(self, name: &str) -> String {
        match self {
            Self::Text => name.to_owned(),
            Self::Bytes => format!("convert_to({name}, 'SQL_ASCII') AS {name}"),
        }
    }
}

/// A column of type text or bytea, with U+FFFD in place of bytes that are not UTF-8.
pub(crate) struct Lossy(String);

impl From<Lossy> for String {
    fn from(Lossy(text): Lossy) -> Self {
        text
    }
}

impl From<Lossy> for Arc<str> {
    fn from(Lossy(text): Lossy) -> Self {
        text.into()
    }
}

impl Type<Postgres> for Lossy {
    fn type_info() -> PgTypeInfo {
        <String as Type<Postgres>>::type_info()
    }
    fn compatible(info: &PgTypeInfo) -> bool {
        <String as Type<Postgres>>::compatible(info) || <Vec<u8> as Type<Postgres>>::compatible(info)
    }
}

impl Decode<'_, Postgres> for Lossy {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(String::from_utf8_lossy(value.as_bytes()?).into_owned()))
    }
}
