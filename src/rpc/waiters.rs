//! Calls that wait for the chain, kept as data: a caller that waits an hour costs an entry here and no thread.
//!
//! Input: what to wait for and until when; events. Output: which entries may be done. Bounded; each request (ticket) has at
//! most one entry. The entry carries whatever is needed to go on (`C`). Pure: time comes in as data.

use crate::base::time::MonoUs;
use crate::types::ids::{BlockId, Height, Txid};
use std::collections::{BTreeMap, BTreeSet};

/// Entries at once. HTTP connections are bounded lower (256, B2) and have one request each in flight.
pub const WAITER_COUNT_MAX: usize = 1_024;
/// The longest wait that is granted, ms: a day. Callers that want more ask again.
pub const WAIT_MS_MAX: u64 = 86_400_000;

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The transaction is final.
    Final(Txid),
    /// The tip is another block than this.
    TipIsNot(BlockId),
    /// The tip has this height or more.
    Height(Height),
    /// Nothing: only the time (delay of a refusal).
    Deadline,
}

/// A wait, as a method asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// For what.
    pub until: Until,
    /// How long, ms; cut to [`WAIT_MS_MAX`].
    pub timeout_ms: u64,
}

/// Names an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaiterId(u64);

/// An entry that was taken out.
#[derive(Debug)]
pub struct Taken<T, C> {
    /// Whose request.
    pub ticket: T,
    /// What it waited for.
    pub until: Until,
    /// How to go on.
    pub rest: C,
}

struct Entry<T, C> {
    taken: Taken<T, C>,
    deadline: MonoUs,
}

/// All entries.
pub struct Waiters<T, C> {
    next: u64,
    entries: BTreeMap<WaiterId, Entry<T, C>>,
    tickets: BTreeMap<T, WaiterId>,
    deadlines: BTreeSet<(MonoUs, WaiterId)>,
    by_txid: BTreeSet<(Txid, WaiterId)>,
    by_tip: BTreeSet<WaiterId>,
}

impl<T: Ord + Copy, C> Default for Waiters<T, C> {
    fn default() -> Self {
        Waiters {
            next: 0,
            entries: BTreeMap::new(),
            tickets: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            by_txid: BTreeSet::new(),
            by_tip: BTreeSet::new(),
        }
    }
}

impl<T: Ord + Copy, C> Waiters<T, C> {
    /// Keeps an entry until `deadline`. Full, or the ticket waits already: gives `rest` back.
    pub fn insert(
        &mut self,
        ticket: T,
        until: Until,
        deadline: MonoUs,
        rest: C,
    ) -> Result<WaiterId, C> {
        if self.entries.len() >= WAITER_COUNT_MAX || self.tickets.contains_key(&ticket) {
            return Err(rest);
        }
        let id = WaiterId(self.next);
        self.next += 1;
        match until {
            Until::Final(txid) => {
                self.by_txid.insert((txid, id));
            }
            Until::TipIsNot(_) | Until::Height(_) => {
                self.by_tip.insert(id);
            }
            Until::Deadline => {}
        }
        self.deadlines.insert((deadline, id));
        self.tickets.insert(ticket, id);
        let taken = Taken {
            ticket,
            until,
            rest,
        };
        self.entries.insert(id, Entry { taken, deadline });
        Ok(id)
    }

    /// Takes an entry out. Whoever gets it answers; everybody else gets `None`.
    pub fn take(&mut self, id: WaiterId) -> Option<Taken<T, C>> {
        let entry = self.entries.remove(&id)?;
        self.deadlines.remove(&(entry.deadline, id));
        self.tickets.remove(&entry.taken.ticket);
        if let Until::Final(txid) = entry.taken.until {
            self.by_txid.remove(&(txid, id));
        }
        self.by_tip.remove(&id);
        Some(entry.taken)
    }

    /// Drops the entry of a request whose client went away.
    pub fn forget(&mut self, ticket: &T) {
        if let Some(id) = self.tickets.get(ticket).copied() {
            self.take(id);
        }
    }

    /// Entries that wait for the tip to move.
    pub fn on_tip(&self) -> Vec<(WaiterId, Until)> {
        let entries = self.by_tip.iter();
        entries
            .filter_map(|id| Some((*id, self.entries.get(id)?.taken.until)))
            .collect()
    }

    /// Entries that wait for one of these transactions.
    pub fn on_transactions<'a>(
        &self,
        txids: impl IntoIterator<Item = &'a Txid>,
    ) -> Vec<(WaiterId, Until)> {
        if self.by_txid.is_empty() {
            return Vec::new();
        }
        let mut out = Vec::new();
        for txid in txids {
            let range = (*txid, WaiterId(0))..=(*txid, WaiterId(u64::MAX));
            let found = self.by_txid.range(range);
            out.extend(found.map(|(txid, id)| (*id, Until::Final(*txid))));
        }
        out
    }

    /// Takes out whatever is due.
    pub fn expired(&mut self, now: MonoUs) -> Vec<Taken<T, C>> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let ids: Vec<WaiterId> = due.map(|(_, id)| *id).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// When [`Waiters::expired`] will next have something.
    pub fn next_deadline(&self) -> Option<MonoUs> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes out everything (the node stops).
    pub fn drain(&mut self) -> Vec<Taken<T, C>> {
        let ids: Vec<WaiterId> = self.entries.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// Entries now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;

    fn txid(i: u8) -> Txid {
        Txid(Hash([i; 32]))
    }

    #[test]
    fn events_find_exactly_those_that_wait_for_them() {
        let mut waiters = Waiters::default();
        let final1 = waiters
            .insert(1, Until::Final(txid(1)), MonoUs(50), "a")
            .unwrap();
        waiters
            .insert(2, Until::Final(txid(2)), MonoUs(60), "b")
            .unwrap();
        waiters
            .insert(3, Until::Height(Height(5)), MonoUs(40), "c")
            .unwrap();
        assert!(
            waiters.insert(1, Until::Deadline, MonoUs(1), "x").is_err(),
            "one request waits once"
        );
        assert_eq!(
            waiters.on_transactions(&[txid(1), txid(9)]),
            [(final1, Until::Final(txid(1)))]
        );
        assert_eq!(waiters.on_tip().len(), 1);
        assert_eq!(waiters.next_deadline(), Some(MonoUs(40)));
        assert_eq!(waiters.take(final1).unwrap().rest, "a");
        assert!(waiters.take(final1).is_none(), "only one answers");
        let due = waiters.expired(MonoUs(40));
        assert_eq!(due.iter().map(|t| t.ticket).collect::<Vec<_>>(), [3]);
        waiters.forget(&2);
        assert!(waiters.is_empty() && waiters.next_deadline().is_none());
        assert!(waiters.on_transactions(&[txid(2)]).is_empty() && waiters.on_tip().is_empty());
    }

    #[test]
    fn the_number_of_waiters_is_bounded() {
        let mut waiters = Waiters::default();
        for ticket in 0..WAITER_COUNT_MAX {
            assert!(
                waiters
                    .insert(ticket, Until::Deadline, MonoUs(1), ())
                    .is_ok()
            );
        }
        assert!(
            waiters
                .insert(WAITER_COUNT_MAX, Until::Deadline, MonoUs(1), ())
                .is_err()
        );
        assert_eq!(waiters.drain().len(), WAITER_COUNT_MAX);
        assert_eq!(waiters.len(), 0);
    }
}
