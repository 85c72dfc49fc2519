//! Durable before said (S5): what must be on disk before a message leaves waits here, not in a thread.
//!
//! Input: records to write and what is held back until they are durable. Output: numbered write batches, and, when the
//! store reports a number durable, what may now leave. Writes are one ordered stream, so whatever was written before a
//! record is durable when the record is (I6 follows from that).

use crate::crypto::verify::Verified;
use crate::p2p::messages::Proposal;
use crate::replica::io::SignerBatch;
use crate::replica::record::{Record, is_obsolete};
use crate::types::ids::Height;
use crate::types::masternode::Statement;
use crate::types::vote::{SignedProposal, Vote};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// What waits for its records.
#[derive(Debug, Clone)]
pub enum Held {
    /// A vote of this node.
    Vote(Verified<Vote>),
    /// A proposal of this node.
    Proposal(Arc<Proposal>, Verified<SignedProposal>),
    /// A statement of this node about a fork.
    Statement(Statement),
    /// The start in the next era.
    Recovered,
    /// The word that this node has halted at a fork too deep to go back from.
    Deep,
}

/// The gate of one node.
#[derive(Debug, Default)]
pub struct Gate {
    next: u64,
    durable: u64,
    held: VecDeque<(u64, Held)>,
    batch: SignerBatch,
    batch_held: Vec<Held>,
    keys: BTreeSet<Vec<u8>>,
    renew: bool,
}

impl Gate {
    /// A gate over a store that holds `keys`.
    pub fn new(keys: BTreeSet<Vec<u8>>) -> Gate {
        Gate {
            keys,
            ..Gate::default()
        }
    }

    /// Own messages that wait for the disk.
    pub fn waiting(&self) -> usize {
        self.held.len() + self.batch_held.len()
    }

    /// Adds a record to the next batch.
    pub fn write(&mut self, record: &Record) {
        let put = record.put();
        self.keys.insert(put.0.clone());
        self.batch.push(put);
    }

    /// Takes a record out of the store, if it is there.
    pub fn forget(&mut self, record: &Record) {
        let key = record.key();
        if self.keys.remove(&key) {
            self.batch.push((key, None));
        }
    }

    /// Whether a record is on disk or on its way.
    pub fn holds(&self, record_key: &[u8]) -> bool {
        self.keys.contains(record_key)
    }

    /// Holds something back until all that was written so far is durable.
    pub fn hold(&mut self, held: Held) {
        self.batch_held.push(held);
    }

    /// Drops what is obsolete once heights up to `durable` are durable in the ledger.
    pub fn prune(&mut self, durable: Height, max_reorg: u64) {
        let polkas_below = Height(durable.0.saturating_sub(max_reorg));
        let gone: Vec<Vec<u8>> = self
            .keys
            .iter()
            .filter(|key| is_obsolete(key, durable, polkas_below))
            .cloned()
            .collect();
        for key in gone {
            self.keys.remove(&key);
            self.batch.push((key, None));
        }
    }

    /// The next batch makes the store a trusted one (B7 step 5).
    pub fn renew(&mut self) {
        self.renew = true;
    }

    /// Whether the batch just flushed does so; asked once.
    pub fn take_renew(&mut self) -> bool {
        std::mem::take(&mut self.renew)
    }

    /// The next batch, if there is anything to write or to let out.
    pub fn flush(&mut self) -> Option<(u64, SignerBatch)> {
        if self.batch.is_empty() && self.batch_held.is_empty() {
            return None;
        }
        self.next += 1;
        let number = self.next;
        self.held
            .extend(self.batch_held.drain(..).map(|held| (number, held)));
        Some((number, std::mem::take(&mut self.batch)))
    }

    /// The store is durable up to `number`: what may leave now, in order.
    pub fn durable(&mut self, number: u64) -> Vec<Held> {
        self.durable = self.durable.max(number);
        let mut free = Vec::new();
        while self.held.front().is_some_and(|(n, _)| *n <= self.durable) {
            free.extend(self.held.pop_front().map(|(_, held)| held));
        }
        free
    }

    /// Records on disk or on their way.
    pub fn len(&self) -> usize {
        self.keys.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
    /// Whether something waits to become durable before it may be said.
    pub fn holds_back(&self) -> bool {
        !self.held.is_empty() || !self.batch_held.is_empty()
    }

    /// Batches written and not yet durable.
    pub fn behind(&self) -> u64 {
        self.next - self.durable
    }

    /// Forgets votes and proposals that were held back: their height is decided or signing stopped.
    pub fn drop_held(&mut self) {
        let stays = |held: &Held| matches!(held, Held::Statement(_) | Held::Recovered | Held::Deep);
        self.held.retain(|(_, held)| stays(held));
        self.batch_held.retain(stays);
    }

    /// Deletes records of a branch that is gone.
    pub fn forget_all(&mut self, gone: impl Fn(&[u8]) -> bool) {
        let gone: Vec<Vec<u8>> = self.keys.iter().filter(|key| gone(key)).cloned().collect();
        for key in gone {
            self.keys.remove(&key);
            self.batch.push((key, None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::SecretKey;
    use crate::replica::record::{Position, Step};
    use crate::types::ids::*;
    use crate::types::vote::{VoteBody, VoteStep};

    fn vote(round: u32) -> Verified<Vote> {
        let body = VoteBody {
            step: VoteStep::Prevote,
            branch: Branch(0),
            era: Era(0),
            height: Height(1),
            round: Round(round),
            valid_round: None,
            block: None,
        };
        let key = SecretKey::from_seed(&[1; 32]);
        Verified::sign(&key, &Hash::ZERO, |signature| Vote {
            body,
            voter: MasternodeId::default(),
            signature,
        })
    }

    #[test]
    fn nothing_leaves_before_its_records_are_durable() {
        let mut gate = Gate::default();
        gate.write(&Record::Vote(vote(0).into_inner()));
        gate.hold(Held::Vote(vote(0)));
        let (first, batch) = gate.flush().unwrap();
        assert_eq!(batch.len(), 1);
        gate.hold(Held::Vote(vote(1)));
        let (second, _) = gate.flush().unwrap();
        assert!(
            gate.durable(first - 1).is_empty(),
            "S5: not durable, not said"
        );
        assert_eq!(gate.durable(first).len(), 1);
        assert_eq!(gate.durable(second).len(), 1);
        assert!(gate.flush().is_none());
        gate.prune(Height(1), 0);
        assert_eq!(
            gate.flush().unwrap().1,
            vec![(Record::Vote(vote(0).into_inner()).key(), None)]
        );
    }

    #[test]
    fn pruning_keeps_the_high_water_mark() {
        let mut gate = Gate::default();
        let position = Position {
            era: Era(0),
            height: Height(1),
            round: Round(0),
            step: Step::Prevote,
        };
        gate.write(&Record::HighWater(position));
        gate.flush();
        gate.prune(Height(100), 1);
        assert!(gate.flush().is_none());
    }
}
