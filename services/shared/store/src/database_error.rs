//! The driver's error as one line.

use std::{error::Error, fmt, ops::Deref};

use sqlx::{migrate::MigrateError, postgres::PgDatabaseError};

/// An error of the driver or of the server. Its text is complete and has each message once, so it has no source.
///
/// [`sqlx::Error`] prints its cause and returns the same cause as its source: a printed chain has the server's message
/// twice, each time with the line of the server's source code. Every error that wraps one wraps this type instead.
#[derive(Debug)]
pub struct DatabaseError {
    error: sqlx::Error,
    /// The migration that was applied when it failed.
    migration: Option<i64>,
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Migrate(error) => Self::from(*error),
            error => Self { error, migration: None },
        }
    }
}

impl From<MigrateError> for DatabaseError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) => Self { error, migration: None },
            MigrateError::ExecuteMigration(error, version) => Self { error, migration: Some(version) },
            error => Self { error: sqlx::Error::Migrate(Box::new(error)), migration: None },
        }
    }
}

/// The functions of [`crate::connection`] that classify an error take the driver's.
impl Deref for DatabaseError {
    type Target = sqlx::Error;
    fn deref(&self) -> &sqlx::Error {
        &self.error
    }
}

impl Error for DatabaseError {}

impl fmt::Display for DatabaseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.error {
            sqlx::Error::Database(error) => from_server(&**error),
            sqlx::Error::Io(error) => error.to_string(),
            error => with_sources(error),
        };
        if let Some(version) = self.migration {
            write!(formatter, "migration {version}: ")?;
        }
        // A name or a raised message may have line breaks.
        formatter.write_str(&text.replace(char::is_control, " "))
    }
}

/// The server's message, its SQLSTATE, and its hint. The detail is left out because it quotes rows.
fn from_server(error: &dyn sqlx::error::DatabaseError) -> String {
    let message = error.message();
    let code = error.code().unwrap_or_default();
    match error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::hint) {
        Some(hint) => format!("{message} (SQLSTATE {code}; hint: {hint})"),
        None => format!("{message} (SQLSTATE {code})"),
    }
}

/// An error of the driver's own, with the sources that it does not print itself.
fn with_sources(error: &sqlx::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_without_a_server_has_its_cause_once_and_no_source() {
        let refused = || sqlx::Error::Io(io::Error::other("connection refused"));
        let unreadable = sqlx::Error::Decode("not a number".into());
        for (error, text) in [
            (DatabaseError::from(refused()), "connection refused"),
            (DatabaseError::from(unreadable), "error occurred while decoding: not a number"),
            (DatabaseError::from(MigrateError::Execute(refused())), "connection refused"),
            (DatabaseError::from(MigrateError::ExecuteMigration(refused(), 3)), "migration 3: connection refused"),
            (
                DatabaseError::from(MigrateError::VersionMismatch(3)),
                "migration 3 was previously applied but has been modified",
            ),
        ] {
            assert_eq!((error.to_string().as_str(), error.source().is_none()), (text, true), "{error:?}");
        }
    }
}
