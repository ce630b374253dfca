//! Parts that only tests use: a TCP proxy that can be cut or frozen, a PgBouncer, servers, services
//! as processes with their output, and a way to wait for a condition.
#![expect(clippy::panic, reason = "a test fails by panicking, and these parts run only in tests")]

mod output;
mod pgbouncer;
mod port;
mod program;
mod proxy;
mod server;

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

pub use output::{Lines, Output};
pub use pgbouncer::{PgBouncer, PoolMode};
pub use port::ReservedPort;
pub use program::{Answer, Program, command, get, listening};
pub use proxy::Proxy;
pub use server::{Server, ServerFiles};

/// Waits until the condition gives a value, and returns it with the time that it took.
///
/// # Panics
/// With `what` if the deadline passes first.
pub async fn wait_for<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> (T, Duration) {
    let began = Instant::now();
    let looking = async {
        loop {
            if let Some(value) = condition().await {
                return (value, began.elapsed());
            }
            // Short against every time that a test measures.
            sleep(Duration::from_millis(2)).await;
        }
    };
    match timeout_at(began + deadline, looking).await {
        Ok(found) => found,
        Err(_) => panic!("waited {deadline:?} in vain: {what}"),
    }
}

/// Waits until the condition holds, and returns the time that it took.
///
/// # Panics
/// With `what` if the deadline passes first.
pub async fn wait_until(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    wait_for(deadline, what, async || condition().await.then_some(())).await.1
}

/// The same address with another host and port, for example those of a [`Proxy`].
///
/// # Panics
/// If `url` has no `scheme://host` part.
#[must_use]
pub fn through(url: &str, addr: SocketAddr) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { panic!("an address without a scheme") };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let user = authority.rsplit_once('@').map(|(user, _)| format!("{user}@")).unwrap_or_default();
    format!("{scheme}://{user}{addr}{path}")
}

/// The same address with another database name.
///
/// # Panics
/// If `url` has no `scheme://host` part.
#[must_use]
pub fn with_database(url: &str, database: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { panic!("an address without a scheme") };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let query = rest.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{database}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_everything_else() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(through("postgres://a:b@h:5432/d?x=1", addr), "postgres://a:b@127.0.0.1:9/d?x=1");
        assert_eq!(through("postgres://h", addr), "postgres://127.0.0.1:9");
        assert_eq!(with_database("postgres://a:b@h:5432/d?x=1", "e"), "postgres://a:b@h:5432/e?x=1");
    }
}
