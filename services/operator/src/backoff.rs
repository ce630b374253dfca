//! How long a Board that failed waits: longer each time, each Board for itself.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait: somebody who mended the cause wants to see it soon.
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, by namespace and name.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<(String, String), u32>>);

impl Backoff {
    /// One more failure: how long to wait now.
    pub fn failed(&self, name: &str, namespace: Option<&str>) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = failures.entry(key(name, namespace)).or_default();
        *failures = failures.saturating_add(1);
        FIRST.saturating_mul(2_u32.saturating_pow(*failures - 1)).min(LONGEST)
    }

    /// It went well, or the Board is gone.
    pub fn forget(&self, name: &str, namespace: Option<&str>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(name, namespace));
    }
}

fn key(name: &str, namespace: Option<&str>) -> (String, String) {
    (namespace.unwrap_or_default().to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_board_waits_longer_each_time_up_to_a_minute() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.failed("harbor", Some("quay")).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.failed("harbor", Some("pier")).as_secs(), 1);
        backoff.forget("harbor", Some("quay"));
        assert_eq!(backoff.failed("harbor", Some("quay")).as_secs(), 1);
    }
}
