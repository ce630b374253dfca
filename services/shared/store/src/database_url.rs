//! Where the database is, as a value that never shows its password.

use std::{fmt, str::FromStr};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Query parameters that are passed on. Others are refused here: the driver would log them with their value, and a password
/// with an unescaped `?` in it looks like one.
const PARAMETERS: [&str; 10] =
    ["application_name", "dbname", "host", "hostaddr", "options", "password", "port", "sslmode", "ssl-mode", "user"];

/// A checked `postgres://` address. `Debug` and `Display` show it without its password.
#[derive(Clone)]
pub struct DatabaseUrl {
    options: PgConnectOptions,
}

/// What is wrong with an address. The text never contains any part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("it must start with postgres:// or postgresql://")]
    Scheme,
    /// Not an address of the form that is expected.
    #[error("it must have the form postgres://user:password@host:port/database")]
    Malformed,
    /// A query parameter that has no meaning here.
    #[error("it has an unknown parameter after the question mark (write ? in a password as %3F)")]
    Parameter,
    /// It asks for TLS, which this build does not have.
    #[error("it asks for TLS (sslmode), which this build does not have")]
    Tls,
}

impl DatabaseUrl {
    /// Checks an address such as `postgres://user:password@host:5432/database`.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong, without repeating the value.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(UrlError::Scheme);
        }
        if let Some((_, query)) = url.split_once('?') {
            let known = |pair: &str| PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
            if !query.split('&').all(known) {
                return Err(UrlError::Parameter);
            }
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| UrlError::Malformed)?;
        if !matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer) {
            return Err(UrlError::Tls);
        }
        Ok(Self { options })
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}

impl From<PgConnectOptions> for DatabaseUrl {
    /// For tests, whose databases are made by the driver.
    fn from(options: PgConnectOptions) -> Self {
        Self { options }
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options } = self;
        let (user, host, port) = (options.get_username(), options.get_host(), options.get_port());
        write!(formatter, "postgres://{user}:***@{host}:{port}/{}", options.get_database().unwrap_or(user))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_everything_but_the_password() {
        let url = DatabaseUrl::parse("postgres://ann:s3cret@db.example:5433/board?application_name=x").unwrap();
        assert_eq!(url.to_string(), "postgres://ann:***@db.example:5433/board");
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgres://ann:***@db.example:5433/board)");
    }

    #[test]
    fn refuses_what_it_cannot_use_without_repeating_it() {
        for (url, error) in [
            ("", UrlError::Scheme),
            ("mysql://ann:s3cret@db/board", UrlError::Scheme),
            ("postgres://ann:s3cret@db:port/board", UrlError::Malformed),
            ("postgres://ann:s3c?ret@db/board", UrlError::Parameter),
            ("postgres://ann:s3cret@db/board?passwrod=s3cret", UrlError::Parameter),
            ("postgres://ann:s3cret@db/board?sslmode=require", UrlError::Tls),
        ] {
            assert_eq!(DatabaseUrl::parse(url).unwrap_err(), error, "{url}");
            assert!(!error.to_string().contains("s3c"));
        }
    }
}
