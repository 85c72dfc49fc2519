//! As leader proposes what it should not: blocks that break a rule, blocks of long ago, blocks as large as a frame allows
//! that nobody can fill. It votes for each of them.

use super::{Adversary, Outgoing, Tools};
use crate::base::bounded::BoundedVec;
use crate::base::limits::{BLOCK_TX_COUNT_MAX, VALIDATOR_COUNT_MAX};
use crate::base::rng::Rng;
use crate::crypto::hash::Hash;
use crate::crypto::keys::Signature;
use crate::p2p::messages::{Message, PeerId, Proposal};
use crate::types::ids::*;
use crate::types::vote::Vote;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is wrong with its proposals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Against the rules of the ledger.
    Invalid,
    /// Of the past: an old header, an old time, an old or made-up valid round.
    Stale,
    /// At the limit of every list, and hollow.
    Huge,
}

/// See the module.
pub struct Pretender {
    wrong: Wrong,
    old: Option<Box<Proposal>>,
    /// What it proposed instead of the block that its machine made.
    instead: BTreeMap<BlockId, BlockId>,
}

fn noise(rng: &mut Rng) -> Hash {
    let mut hash = Hash::ZERO;
    hash.0[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    hash
}

fn invalid(proposal: &mut Proposal, rng: &mut Rng) {
    let bad = noise(rng);
    let header = &mut proposal.header;
    match rng.below(11) {
        0 => header.state_root = bad,
        1 => header.tx_root = bad,
        2 => header.validators_hash = bad,
        3 => header.next_validators_hash = bad,
        4 => header.history_root = bad,
        5 => header.prev_slot_block = BlockId(bad),
        6 => header.proposer = MasternodeId(bad),
        7 => header.recovery_hash = bad,
        8 => header.version += 1,
        9 => header.branch = Branch(header.branch.0 + 1),
        _ => header.slot_root = bad,
    }
}

fn stale(proposal: &mut Proposal, old: Option<&Proposal>, rng: &mut Rng) {
    let body = &mut proposal.signed.body;
    match (rng.below(5), old) {
        (0, Some(old)) => proposal.header = old.header.clone(),
        (1, _) => proposal.header.time = proposal.header.time.minus(1 + rng.below(3_600_000)),
        (2, _) => proposal.header.time = proposal.header.time.plus(1 + rng.below(3_600_000)),
        (3, _) => {
            let round = Round(rng.below(u64::from(body.round.0) + 1) as u32);
            body.valid_round = Some(EraRound {
                era: body.era,
                round,
            });
        }
        _ => proposal.header.round = Round(rng.below(4) as u32),
    }
}

fn huge(proposal: &mut Proposal, rng: &mut Rng) {
    let ids = (0..BLOCK_TX_COUNT_MAX).map(|_| rng.next_u64().to_le_bytes());
    proposal.short_ids = BoundedVec::take_from(ids);
    if rng.chance(1, 2) {
        let signatures = (0..VALIDATOR_COUNT_MAX).map(|i| Signature([i as u8; 64]));
        proposal.last_commit.signatures = BoundedVec::take_from(signatures);
        proposal.header.last_commit_hash = proposal.last_commit.hash();
    } else {
        proposal.header.tx_root = noise(rng);
    }
}

impl Pretender {
    /// One whose proposals are wrong in this way.
    pub fn new(wrong: Wrong) -> Pretender {
        Pretender {
            wrong,
            old: None,
            instead: BTreeMap::new(),
        }
    }

    fn propose(&mut self, mut proposal: Box<Proposal>, tools: Tools<'_>) -> Box<Proposal> {
        let Some((_, secret)) = tools.operator else {
            return proposal;
        };
        let before = proposal.clone();
        match self.wrong {
            Wrong::Invalid => invalid(&mut proposal, tools.rng),
            Wrong::Stale => stale(&mut proposal, self.old.as_deref(), tools.rng),
            Wrong::Huge => huge(&mut proposal, tools.rng),
        }
        let body = &mut proposal.signed.body;
        body.block = proposal.header.id();
        proposal.signed.signature = secret.sign(&body.signing_hash(tools.chain));
        if self.instead.len() > 64 {
            self.instead.clear();
        }
        self.instead.insert(before.signed.body.block, body.block);
        if tools.rng.chance(1, 4) {
            self.old = Some(before);
        }
        proposal
    }
}

impl Adversary for Pretender {
    fn name(&self) -> &'static str {
        match self.wrong {
            Wrong::Invalid => "a leader with invalid blocks",
            Wrong::Stale => "a leader with stale blocks",
            Wrong::Huge => "a leader with huge blocks",
        }
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let Some((me, secret)) = tools.operator else {
            return vec![(to, message)];
        };
        match &*message {
            Message::Proposal(p) if p.signed.proposer == *me && tools.rng.chance(2, 3) => {
                let proposal = self.propose(p.clone(), tools);
                vec![(to, Arc::new(Message::Proposal(proposal)))]
            }
            Message::Votes(votes) if votes.iter().any(|v| v.voter == *me) => {
                let bend = |vote: &Vote| {
                    let mut vote = vote.clone();
                    let instead = vote.body.block.and_then(|b| self.instead.get(&b));
                    if let Some(instead) = instead.filter(|_| vote.voter == *me) {
                        vote.body.block = Some(*instead);
                        vote.signature = secret.sign(&vote.body.signing_hash(tools.chain));
                    }
                    vote
                };
                let votes = BoundedVec::take_from(votes.iter().map(bend));
                vec![(to, Arc::new(Message::Votes(votes)))]
            }
            _ => vec![(to, message)],
        }
    }
}
