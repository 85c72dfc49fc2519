//! Completes a proposed block from short ids (S8): from the mempool, then by position from a peer, and if the result does
//! not hash to tx_root, from the list of names. Nothing is cached or blamed by short id; a body that does not hash to the
//! wtxid it was asked for costs its sender.
//!
//! Input: the proposal, what the mempool holds, answers. Output: what to ask, or the whole block.

use crate::p2p::messages::{BodiesFound, BodiesWanted, Proposal};
use crate::types::block::{Block, tx_root};
use crate::types::ids::*;
use crate::types::transaction::Tx;
use std::sync::Arc;

/// A block whose transactions are being collected.
#[derive(Debug)]
pub struct Assembly {
    proposal: Arc<Proposal>,
    slots: Vec<Option<Tx>>,
    names: Option<Vec<(Txid, Wtxid)>>,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Ask a peer that holds the block.
    Ask(BodiesWanted),
    /// The block is whole.
    Whole(Box<Block>),
}

/// An answer that proves its sender wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// A list whose root is not the header's tx_root.
    #[error("a list of transactions that does not hash to tx_root")]
    List,
    /// A body with another wtxid than was asked for.
    #[error("a transaction that does not hash to the wanted wtxid")]
    Body,
}

impl Assembly {
    /// Starts from what `held` finds for a short id; it finds nothing where two transactions share one.
    pub fn new(proposal: Arc<Proposal>, held: impl Fn(&[u8; 8]) -> Option<Tx>) -> Assembly {
        let slots = proposal.short_ids.iter().map(held).collect();
        Assembly {
            proposal,
            slots,
            names: None,
        }
    }

    /// The proposal that is completed.
    pub fn proposal(&self) -> &Arc<Proposal> {
        &self.proposal
    }

    /// What is missing, or the whole block.
    pub fn step(&mut self) -> Next {
        let missing: Vec<usize> = (0..self.slots.len())
            .filter(|i| self.slots[*i].is_none())
            .collect();
        if let Some(names) = &self.names {
            if missing.is_empty() {
                return self
                    .whole()
                    .map_or(Next::Ask(BodiesWanted::List), Next::Whole);
            }
            let wanted = missing
                .iter()
                .filter_map(|i| names.get(*i).map(|(_, wtxid)| *wtxid));
            return Next::Ask(BodiesWanted::Wtxids(
                crate::base::bounded::BoundedVec::take_from(wanted),
            ));
        }
        if !missing.is_empty() {
            let positions = missing.into_iter().map(|i| i as u16);
            return Next::Ask(BodiesWanted::Positions(
                crate::base::bounded::BoundedVec::take_from(positions),
            ));
        }
        self.whole()
            .map_or(Next::Ask(BodiesWanted::List), Next::Whole)
    }

    fn whole(&self) -> Option<Box<Block>> {
        let transactions: Vec<Tx> = self.slots.iter().cloned().collect::<Option<_>>()?;
        let block = Block {
            header: self.proposal.header.clone(),
            last_commit: self.proposal.last_commit.clone(),
            slot_part: self.proposal.slot_part.clone(),
            transactions: transactions.try_into().ok()?,
        };
        (block.tx_root() == block.header.tx_root).then(|| Box::new(block))
    }

    /// Takes an answer in. Transactions for slots that are filled, or that were not asked for, are ignored.
    pub fn answer(&mut self, found: BodiesFound) -> Result<(), AnswerFault> {
        match found {
            BodiesFound::List(list) => {
                let names = list.into_vec();
                let root = tx_root(names.iter().map(|(txid, wtxid)| (txid, wtxid)));
                if names.len() != self.slots.len() || root != self.proposal.header.tx_root {
                    return Err(AnswerFault::List);
                }
                for (slot, (_, wtxid)) in self.slots.iter_mut().zip(&names) {
                    if slot.as_ref().is_some_and(|tx| tx.wtxid != *wtxid) {
                        *slot = None;
                    }
                }
                self.names = Some(names);
            }
            BodiesFound::Transactions(transactions) => {
                for (position, tx) in transactions {
                    let i = usize::from(position);
                    let Some(slot) = self.slots.get_mut(i).filter(|slot| slot.is_none()) else {
                        continue;
                    };
                    match &self.names {
                        Some(names) if names[i].1 != tx.wtxid => return Err(AnswerFault::Body),
                        // By position a short id says too little to blame: the root will tell.
                        _ => *slot = Some(tx),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The answer to a request for transactions of `block`, at most what one frame holds.
pub fn serve(block: &Block, wanted: &BodiesWanted) -> BodiesFound {
    use crate::base::bounded::BoundedVec;
    let numbered = || (0u16..).zip(block.transactions.iter());
    let pick = |keep: &dyn Fn(u16, &Tx) -> bool| {
        let kept = numbered()
            .filter(|(i, tx)| keep(*i, tx))
            .map(|(i, tx)| (i, tx.clone()));
        BodiesFound::Transactions(BoundedVec::take_from(kept))
    };
    match wanted {
        BodiesWanted::List => BodiesFound::List(BoundedVec::take_from(
            block.transactions.iter().map(|tx| (tx.txid, tx.wtxid)),
        )),
        BodiesWanted::Positions(positions) => {
            let set: std::collections::BTreeSet<u16> = positions.iter().copied().collect();
            pick(&|i, _| set.contains(&i))
        }
        BodiesWanted::Wtxids(wtxids) => {
            let set: std::collections::BTreeSet<Wtxid> = wtxids.iter().copied().collect();
            pick(&|_, tx| set.contains(&tx.wtxid))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bounded::BoundedVec;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::{PublicKey, Signature};
    use crate::types::address::Program;
    use crate::types::amount::Amount;
    use crate::types::block::{Commit, Header, short_id};
    use crate::types::masternode::SlotPart;
    use crate::types::transaction::{Auth, Transaction, TxBody, TxKind, TxOutput, Witness};
    use crate::types::vote::{ProposalBody, SignedProposal};

    fn tx(n: u64, witness: u8) -> Tx {
        let output = TxOutput {
            value: Amount(n),
            program: Program::Key(PublicKey([1; 32])),
        };
        let body = TxBody {
            version: 1,
            kind: TxKind::Transfer,
            inputs: BoundedVec::take_from([OutPoint {
                txid: Txid(Hash([n as u8; 32])),
                vout: 0,
            }]),
            outputs: BoundedVec::take_from([output]),
            payload: Default::default(),
        };
        let witnesses = BoundedVec::take_from([Witness::Key(Signature([witness; 64]))]);
        Tx::new(Transaction {
            body,
            witnesses,
            auth: Auth::new(),
        })
    }

    fn block(txs: Vec<Tx>) -> Block {
        let header = Header {
            version: 1,
            branch: Branch(0),
            era: Era(0),
            recovery_hash: Hash::ZERO,
            height: Height(1),
            round: Round(0),
            time: Default::default(),
            parent: BlockId::default(),
            proposer: MasternodeId::default(),
            last_commit_hash: Hash::ZERO,
            tx_root: tx_root(txs.iter().map(|t| (&t.txid, &t.wtxid))),
            slot_root: Hash::ZERO,
            validators_hash: Hash::ZERO,
            next_validators_hash: Hash::ZERO,
            state_root: Hash::ZERO,
            prev_slot_block: BlockId::default(),
            history_root: Hash::ZERO,
        };
        let (last_commit, slot_part) = (Commit::default(), SlotPart::default());
        Block {
            header,
            last_commit,
            slot_part,
            transactions: txs.try_into().unwrap(),
        }
    }

    fn proposal(block: &Block) -> Arc<Proposal> {
        let h = &block.header;
        let body = ProposalBody {
            branch: h.branch,
            era: h.era,
            height: h.height,
            round: h.round,
            valid_round: None,
            block: block.id(),
        };
        let shorts = block
            .transactions
            .iter()
            .map(|t| short_id(&h.parent, h.height, h.round, &t.wtxid));
        Arc::new(Proposal {
            signed: SignedProposal {
                body,
                proposer: h.proposer,
                signature: Signature([0; 64]),
            },
            header: h.clone(),
            last_commit: block.last_commit.clone(),
            slot_part: block.slot_part.clone(),
            short_ids: BoundedVec::take_from(shorts),
        })
    }

    fn start(block: &Block, pool: &[Tx]) -> Assembly {
        let h = &block.header;
        let short = |tx: &&Tx| short_id(&h.parent, h.height, h.round, &tx.wtxid);
        Assembly::new(proposal(block), |wanted| {
            pool.iter().find(|tx| short(tx) == *wanted).cloned()
        })
    }

    /// Answers what is asked from `block` until it is whole; counts the questions.
    fn finish(assembly: &mut Assembly, block: &Block) -> usize {
        for questions in 0..5 {
            match assembly.step() {
                Next::Whole(found) => {
                    assert_eq!(*found, *block);
                    return questions;
                }
                Next::Ask(wanted) => assembly.answer(serve(block, &wanted)).unwrap(),
            }
        }
        panic!("S8: a block that a peer holds is completed");
    }

    #[test]
    fn a_full_mempool_needs_no_question_and_an_empty_one_needs_one() {
        let txs: Vec<Tx> = (1..9).map(|n| tx(n, 0)).collect();
        let block = block(txs.clone());
        assert_eq!(finish(&mut start(&block, &txs), &block), 0);
        assert_eq!(finish(&mut start(&block, &txs[..3]), &block), 1);
        assert_eq!(finish(&mut start(&block, &[]), &block), 1);
    }

    #[test]
    fn mutated_witnesses_are_found_out_by_the_list() {
        let txs: Vec<Tx> = (1..9).map(|n| tx(n, 0)).collect();
        let block = block(txs);
        let mut assembly = start(&block, &[]);
        let lies = (0u16..).zip((1..9).map(|n| tx(n, 9)));
        assembly
            .answer(BodiesFound::Transactions(BoundedVec::take_from(
                lies.clone(),
            )))
            .unwrap();
        assert_eq!(
            assembly.step(),
            Next::Ask(BodiesWanted::List),
            "S8: tx_root differs: ask for the list"
        );
        assembly.answer(serve(&block, &BodiesWanted::List)).unwrap();
        assert!(matches!(
            assembly.step(),
            Next::Ask(BodiesWanted::Wtxids(_))
        ));
        let blamed = assembly.answer(BodiesFound::Transactions(BoundedVec::take_from(lies)));
        assert_eq!(
            blamed,
            Err(AnswerFault::Body),
            "L4: such a body costs its sender"
        );
        finish(&mut assembly, &block);
    }

    #[test]
    fn a_list_that_does_not_hash_is_a_fault() {
        let block = block(vec![tx(1, 0), tx(2, 0)]);
        let mut assembly = start(&block, &[]);
        let list = BodiesFound::List(BoundedVec::take_from(
            [(Txid::default(), Wtxid::default()); 2],
        ));
        assert_eq!(assembly.answer(list), Err(AnswerFault::List));
    }
}
