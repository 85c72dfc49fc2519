//! Two messages that no honest key signs both (M7, S6): whether a pair is one, judged by the registry and the slot_index
//! table alone, so that a node that began from a snapshot judges alike. The two signatures are returned as checks.

use crate::crypto::hash::Hash;
use crate::crypto::keys::Signature;
use crate::crypto::verify::Check;
use crate::ledger::registry::Registry;
use crate::ledger::slots::SlotTable;
use crate::ledger::state::State;
use crate::types::ids::*;
use crate::types::masternode::{Evidence, Offence, Statement};
use crate::types::vote::{SignedProposal, Vote, VoteStep};

/// What evidence is judged against.
pub(crate) struct Bench<'a> {
    pub chain: ChainId,
    pub registry: &'a Registry,
    /// After step 1 of the block that holds the evidence.
    pub slots: &'a SlotTable,
    /// Height of that block.
    pub height: Height,
}

/// The two signed messages, and the height that they are about; statements tell none that can be believed.
pub(crate) struct Pair {
    pub height: Option<Height>,
    pub signed: [(Hash, Signature); 2],
}

/// Judges one piece of evidence; the error says what is wrong with it.
pub(crate) fn judge(evidence: &Evidence, bench: &Bench<'_>) -> Result<[Check; 2], &'static str> {
    let entry = bench.registry.get(&evidence.offender);
    let entry = entry.ok_or("nobody of this id is registered")?;
    if entry.slashed.is_some() {
        return Err("it was already punished, which happens once in its life");
    }
    let pair = pair(evidence, bench.chain)?;
    let key = evidence.key;
    let fits = match pair.height {
        Some(height) if height < bench.slots.oldest() => {
            return Err("it is older than unbonding");
        }
        Some(height) if height > bench.height => {
            return Err("it is about a height that is not reached");
        }
        Some(height) => entry.operator_at(height) == key,
        // Any key of the entry that can still be punished: who may choose the heights would choose the key.
        None => entry.is_operator(&key),
    };
    if !fits {
        return Err("it names a key that did not sign for the offender then");
    }
    Ok(pair.signed.map(|(message, signature)| Check {
        key,
        message,
        signature,
    }))
}

/// The offence by form alone: two messages of the offender that no honest key signs both, if the signatures hold.
pub(crate) fn pair(evidence: &Evidence, chain: ChainId) -> Result<Pair, &'static str> {
    let offender = evidence.offender;
    match &evidence.offence {
        Offence::Proposals(a, b) => proposals(a, b, offender, chain),
        Offence::Votes(a, b) => votes(a, b, offender, chain),
        Offence::Amnesia(precommit, prevote) => amnesia(precommit, prevote, offender, chain),
        Offence::Statements(a, b) => statements(a, b, offender, chain),
    }
}

/// Judges one piece of evidence for a slot block right above `state`: the two checks that remain, or what is wrong with it.
pub fn judge_next(state: &State, evidence: &Evidence) -> Result<[Check; 2], &'static str> {
    let mut slots = SlotTable::clone(&state.slots);
    let height = state.height().next();
    slots.open(height, state.params());
    let bench = Bench {
        chain: state.chain_id(),
        registry: state.registry(),
        slots: &slots,
        height,
    };
    judge(evidence, &bench)
}

const ORDER: &str = "the two messages are equal or not in ascending order";
const POSITION: &str = "the two messages are not of one branch, era, height, round and step";
const SIGNER: &str = "a message is not the offender's";

fn proposals(
    a: &SignedProposal,
    b: &SignedProposal,
    offender: MasternodeId,
    chain: ChainId,
) -> Result<Pair, &'static str> {
    let position = |p: &SignedProposal| (p.body.branch, p.body.at(), p.body.height);
    if a.body >= b.body {
        return Err(ORDER);
    }
    if position(a) != position(b) {
        return Err(POSITION);
    }
    if [a.proposer, b.proposer] != [offender; 2] {
        return Err(SIGNER);
    }
    Ok(Pair {
        height: Some(a.body.height),
        signed: [a, b].map(|p| (p.body.signing_hash(chain), p.signature)),
    })
}

fn votes(a: &Vote, b: &Vote, offender: MasternodeId, chain: ChainId) -> Result<Pair, &'static str> {
    let position = |v: &Vote| (v.body.branch, v.body.at(), v.body.height, v.body.step);
    if a.body >= b.body {
        return Err(ORDER);
    }
    if position(a) != position(b) {
        return Err(POSITION);
    }
    vote_pair(a, b, offender, chain)
}

fn vote_pair(
    a: &Vote,
    b: &Vote,
    offender: MasternodeId,
    chain: ChainId,
) -> Result<Pair, &'static str> {
    if [a.voter, b.voter] != [offender; 2] {
        return Err(SIGNER);
    }
    Ok(Pair {
        height: Some(a.body.height),
        signed: [a, b].map(|v| (v.body.signing_hash(chain), v.signature)),
    })
}

/// S6: a precommit for X in r, a prevote for Y != X in s > r with a valid round below r, strictly; nil is never X or Y.
fn amnesia(
    precommit: &Vote,
    prevote: &Vote,
    offender: MasternodeId,
    chain: ChainId,
) -> Result<Pair, &'static str> {
    let (first, then) = (&precommit.body, &prevote.body);
    if (first.step, then.step) != (VoteStep::Precommit, VoteStep::Prevote) {
        return Err("amnesia is a precommit and a prevote");
    }
    if (first.branch, first.era, first.height) != (then.branch, then.era, then.height) {
        return Err("the two messages are not of one branch, era and height");
    }
    let blocks = first.block.zip(then.block);
    if blocks.is_none_or(|(x, y)| x == y) {
        return Err("amnesia is about two different blocks, never nil");
    }
    // `None` is valid round -1, below every round.
    if then.round <= first.round || then.valid_round >= Some(first.at()) {
        return Err("the prevote is not of a later round with a valid round below the precommit's");
    }
    vote_pair(precommit, prevote, offender, chain)
}

/// B6 step 3: one statement for each era and attempt.
fn statements(
    a: &Statement,
    b: &Statement,
    offender: MasternodeId,
    chain: ChainId,
) -> Result<Pair, &'static str> {
    if a.body >= b.body {
        return Err(ORDER);
    }
    if (a.body.era, a.body.attempt) != (b.body.era, b.body.attempt) {
        return Err("the two statements are not of one era and attempt");
    }
    if [a.masternode, b.masternode] != [offender; 2] {
        return Err(SIGNER);
    }
    Ok(Pair {
        height: None,
        signed: [a, b].map(|s| (s.body.signing_hash(chain), s.signature)),
    })
}
