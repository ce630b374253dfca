//! What a handshake and its end mean for the number of visitors. The gateway routes both here; nothing else writes visitors, and nothing reads or
//! sets their number but the feed.

use store::Visitors;
use uuid::Uuid;

/// A page that says who it is: a visit, and which of its sockets this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// Made by the page when it is loaded.
    pub id: Uuid,
    /// The page's own counter of its sockets; greater is newer.
    pub n: i64,
}

/// Why a visit cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VisitError {
    /// The id.
    #[error("visit must be a UUID")]
    Id,
    /// The counter.
    #[error("n must be a whole number from 0 to 9007199254740991")]
    Number,
    /// One without the other.
    #[error("visit and n belong together")]
    Half,
}

/// The largest whole number that JavaScript can tell from its neighbours (ECMAScript, `Number.MAX_SAFE_INTEGER`).
const MAX_N: i64 = (1 << 53) - 1;

impl Visit {
    /// Reads what a query says. Neither is fine: such a connection is served and not counted.
    ///
    /// # Errors
    /// [`VisitError`] if it is malformed.
    pub fn parse(visit: Option<&str>, n: Option<&str>) -> Result<Option<Self>, VisitError> {
        let (id, n) = match (visit, n) {
            (None, None) => return Ok(None),
            (Some(id), Some(n)) => (id, n),
            _ => return Err(VisitError::Half),
        };
        // Only the usual way to write it, so that one visit has one name.
        let id = Uuid::try_parse(id).ok().filter(|uuid| uuid.hyphenated().to_string() == id.to_ascii_lowercase());
        let n = n.parse().ok().filter(|n| (0..=MAX_N).contains(n));
        Ok(Some(Self { id: id.ok_or(VisitError::Id)?, n: n.ok_or(VisitError::Number)? }))
    }
}

/// Writes what the gateway tells.
#[derive(Clone)]
pub struct DbUpdater {
    visitors: Visitors,
}

impl DbUpdater {
    /// Writes through this handle.
    pub fn new(visitors: Visitors) -> Self {
        Self { visitors }
    }

    /// `$connect`: the socket is stored, and the visit counted if it is new, in one transaction.
    pub fn connect(&self, visit: Visit) {
        self.visitors.connect(visit.id, visit.n);
    }

    /// `$disconnect`: the socket is removed; the total stays.
    pub fn disconnect(&self, visit: Visit) {
        self.visitors.disconnect(visit.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0af76519-16cd-43dd-8448-eb211c80319c";

    #[test]
    fn a_visit_is_a_uuid_and_a_number() {
        let visit = Visit::parse(Some(ID), Some("7")).unwrap().unwrap();
        assert_eq!((visit.id.to_string().as_str(), visit.n), (ID, 7));
        assert_eq!(Visit::parse(Some(&ID.to_uppercase()), Some("7")), Ok(Some(visit)));
        assert_eq!(Visit::parse(None, None), Ok(None));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for id in [
            "",
            "7",
            "0af7651916cd43dd8448eb211c80319c",
            "{0af76519-16cd-43dd-8448-eb211c80319c}",
            "urn:uuid:0af76519-16cd-43dd-8448-eb211c80319c",
        ] {
            assert_eq!(Visit::parse(Some(id), Some("1")), Err(VisitError::Id), "{id}");
        }
        for n in ["", "-1", "1.5", "x", "9007199254740992", "99999999999999999999"] {
            assert_eq!(Visit::parse(Some(ID), Some(n)), Err(VisitError::Number), "{n}");
        }
        assert_eq!(Visit::parse(Some(ID), None), Err(VisitError::Half));
        assert_eq!(Visit::parse(None, Some("1")), Err(VisitError::Half));
    }
}
