//! The order in which people count: server-2 before server-10.

use std::cmp::Ordering;

/// Compares what is before the number at the end, then the number. Different ids are never equal.
pub(super) fn natural(one: &str, other: &str) -> Ordering {
    key(one).cmp(&key(other))
}

/// A number without leading zeros is greater if it is longer, or else as text: so it may have any length.
fn key(id: &str) -> (&str, usize, &str, &str) {
    let name = id.trim_end_matches(|character: char| character.is_ascii_digit());
    let number = id[name.len()..].trim_start_matches('0');
    (name, number.len(), number, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_end_count_and_the_rest_is_text() {
        let sorted = ["", "7", "db-1", "server", "server-0", "server-1", "server-2", "server-010", "server-10", "web"];
        for (place, one) in sorted.iter().enumerate() {
            for (other_place, other) in sorted.iter().enumerate() {
                assert_eq!(natural(one, other), place.cmp(&other_place), "{one} {other}");
            }
        }
        assert_eq!(natural("a-99999999999999999999999", "a-100000000000000000000000"), Ordering::Less);
    }
}
