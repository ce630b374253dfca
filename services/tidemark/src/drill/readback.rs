//! After the saves: which of their texts are there, as any user would look.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    record::{Save, Span},
    writer::Writer,
};
use crate::list::{ListError, Lister};

/// How often each text of a drill was found.
#[derive(Debug, Default)]
pub struct Found(HashMap<u64, u64>);

impl Found {
    /// Reads the texts, newest first, until the one that was the newest before the drill; without one, all of them.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub async fn read(lister: &Lister, writer: &Writer, newest_before: Option<Uuid>) -> Result<Self, ListError> {
        let (mut found, mut before) = (Self::default(), None);
        loop {
            let page = lister.page(before.as_deref()).await?;
            let new = page.texts.iter().take_while(|text| Some(text.id) != newest_before);
            let new = found.take(new.map(|text| writer.number(&text.text)));
            if page.next.is_none() || new < page.texts.len() {
                return Ok(found);
            }
            before = page.next;
        }
    }

    /// Counts the texts of the drill, and gives how many there were with those of others.
    fn take(&mut self, numbers: impl Iterator<Item = Option<u64>>) -> usize {
        numbers.inspect(|number| number.iter().for_each(|number| *self.0.entry(*number).or_default() += 1)).count()
    }

    /// Of the saves that ended in a span: acknowledged and not there, and there more than once.
    pub fn lost_and_doubled(&self, saves: &[Save], span: Span) -> (u64, u64) {
        let times = |save: &&Save| self.0.get(&save.number).copied().unwrap_or(0);
        let within = || saves.iter().filter(|save| span.holds(save.ended));
        let lost = within().filter(|save| save.stored && times(save) == 0).count();
        let doubled = within().filter(|save| times(save) > 1).count();
        (lost as u64, doubled as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_lost_and_what_is_there_twice_is_doubled() {
        let mut found = Found::default();
        assert_eq!(found.take([Some(0), Some(1), None, Some(1), Some(3), Some(4)].into_iter()), 6);
        let save = |(number, stored)| Save { number, sent: 0, ended: 10, stored, failures: Vec::new() };
        let saves: Vec<_> = [(0, true), (1, true), (2, true), (3, false), (5, false)].map(save).into();
        assert_eq!(found.lost_and_doubled(&saves, Span { from: 0, to: 11 }), (1, 1), "2 is lost, 1 is doubled");
        assert_eq!(found.lost_and_doubled(&saves, Span { from: 11, to: 20 }), (0, 0));
    }
}
