//! Which visits have an open socket on this replica: the one place that knows, and what the database is made to agree with. Pure: time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

/// A visit and the number of its newest socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub visit: Uuid,
    pub n: i64,
}

#[derive(Debug, Clone, Copy)]
struct Visit {
    open: usize,
    n: i64,
    /// When the last socket was closed, if none is open.
    left: Option<Instant>,
}

/// The sockets of one replica.
#[derive(Debug)]
pub(super) struct Sockets {
    grace: Duration,
    visits: HashMap<Uuid, Visit>,
    /// Not told to the database yet.
    arrived: Vec<Uuid>,
    /// When a visit has to be looked at again, ascending.
    leaving: VecDeque<(Instant, Uuid)>,
}

impl Sockets {
    /// None yet. A visit without a socket still counts for `grace`.
    pub fn new(grace: Duration) -> Self {
        Self { grace, visits: HashMap::new(), arrived: Vec::new(), leaving: VecDeque::new() }
    }

    /// A socket was opened.
    pub fn connect(&mut self, visit: Uuid, n: i64) {
        let known = self.visits.entry(visit).or_insert(Visit { open: 0, n, left: None });
        (known.open, known.n, known.left) = (known.open + 1, known.n.max(n), None);
        self.arrived.push(visit);
    }

    /// A socket was closed.
    pub fn disconnect(&mut self, visit: Uuid, now: Instant) {
        let Some(known) = self.visits.get_mut(&visit) else { return };
        known.open = known.open.saturating_sub(1);
        if known.open == 0 {
            known.left = Some(now);
            self.leaving.push_back((now + self.grace, visit));
        }
    }

    /// Takes up to `most` visits that the database does not know yet, each once, in one order for all replicas.
    pub fn take_arrived(&mut self, most: usize) -> Vec<Row> {
        let rest = self.arrived.split_off(self.arrived.len().min(most));
        let taken = std::mem::replace(&mut self.arrived, rest);
        let mut rows: Vec<Row> =
            taken.into_iter().filter_map(|visit| Some(Row { visit, n: self.visits.get(&visit)?.n })).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    /// Takes the visits whose grace is over, and forgets them.
    pub fn take_left(&mut self, now: Instant) -> Vec<Uuid> {
        let mut gone = Vec::new();
        while let Some((due, visit)) = self.leaving.front().copied()
            && due <= now
        {
            self.leaving.pop_front();
            // Who came back in between, and may have left again since, has a later entry or none.
            let over =
                self.visits.get(&visit).and_then(|visit| visit.left).is_some_and(|left| left + self.grace <= now);
            if over {
                self.visits.remove(&visit);
                gone.push(visit);
            }
        }
        gone.sort_unstable();
        gone
    }

    /// When a grace ends next.
    pub fn next_left(&self) -> Option<Instant> {
        self.leaving.front().map(|(due, _)| *due)
    }

    /// Whether something waits to be told.
    pub fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// All visits that count, sorted. From here on nothing has to be told that came before.
    pub fn all(&mut self) -> Vec<Row> {
        self.arrived.clear();
        let mut rows: Vec<Row> = self.visits.iter().map(|(visit, known)| Row { visit: *visit, n: known.n }).collect();
        rows.sort_unstable();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3);

    fn visit(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn row(number: u128, n: i64) -> Row {
        Row { visit: visit(number), n }
    }

    #[test]
    fn arrivals_are_told_once_sorted_and_with_the_newest_number() {
        let mut sockets = Sockets::new(GRACE);
        for (number, n) in [(2, 1), (1, 1), (2, 5), (2, 3)] {
            sockets.connect(visit(number), n);
        }
        assert_eq!(sockets.take_arrived(10), [row(1, 1), row(2, 5)]);
        assert!(!sockets.has_arrived());
    }

    #[test]
    fn a_batch_has_a_limit_and_the_rest_waits() {
        let mut sockets = Sockets::new(GRACE);
        (0..5).for_each(|number| sockets.connect(visit(number), 1));
        assert_eq!(sockets.take_arrived(3).len(), 3);
        assert_eq!(sockets.take_arrived(3).len(), 2);
    }

    #[test]
    fn a_visit_leaves_after_its_grace_when_its_last_socket_has_gone() {
        let (mut sockets, now) = (Sockets::new(GRACE), Instant::now());
        sockets.connect(visit(1), 1);
        sockets.connect(visit(1), 2);
        sockets.disconnect(visit(1), now);
        assert_eq!(sockets.next_left(), None, "one is still open");
        sockets.disconnect(visit(1), now);
        assert!(sockets.take_left(now + GRACE - Duration::from_millis(1)).is_empty());
        assert_eq!(sockets.all(), [row(1, 2)], "within the grace it counts");
        assert_eq!(sockets.take_left(now + GRACE), [visit(1)]);
        assert!(sockets.all().is_empty());
    }

    #[test]
    fn who_comes_back_within_the_grace_has_never_left() {
        let (mut sockets, now) = (Sockets::new(GRACE), Instant::now());
        sockets.connect(visit(1), 1);
        sockets.disconnect(visit(1), now);
        sockets.connect(visit(1), 2);
        assert!(sockets.take_left(now + GRACE).is_empty());
        sockets.disconnect(visit(1), now + GRACE);
        assert!(sockets.take_left(now + GRACE).is_empty());
        assert_eq!(sockets.take_left(now + GRACE * 2), [visit(1)]);
    }

    #[test]
    fn closing_what_was_never_open_changes_nothing() {
        let mut sockets = Sockets::new(GRACE);
        sockets.disconnect(visit(1), Instant::now());
        assert_eq!((sockets.all(), sockets.next_left()), (Vec::new(), None));
    }
}
