//! What a voter's or leader's own messages prove against it (M7, S6). Input: messages whose signatures hold. Output:
//! evidence that names the key which signed both. Never: a judgement; the ledger judges.

use crate::types::ids::MasternodeId;
use crate::types::masternode::{Evidence, Offence};
use crate::types::validators::ValidatorSet;
use crate::types::vote::{SignedProposal, Vote, VoteStep};

fn against(set: &ValidatorSet, offender: MasternodeId, offence: Offence) -> Option<Evidence> {
    let key = set.get(&offender)?.operator;
    Some(Evidence {
        offender,
        key,
        offence,
    })
}

/// Two votes of one round and step.
pub fn votes(set: &ValidatorSet, a: Vote, b: Vote) -> Option<Evidence> {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    against(set, first.voter, Offence::Votes(first, second))
}

/// Two proposals of one round.
pub fn proposals(set: &ValidatorSet, a: SignedProposal, b: SignedProposal) -> Option<Evidence> {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    against(set, first.proposer, Offence::Proposals(first, second))
}

/// S6: whether `vote` and another one that is held of its voter at this height are amnesia, no matter which came first: a
/// precommit for X in r, and a prevote for Y != X in s > r with a valid round below r.
pub fn amnesia<'a>(
    set: &ValidatorSet,
    mut held: impl Iterator<Item = &'a Vote>,
    vote: &Vote,
) -> Option<Evidence> {
    let pair = held.find_map(|held| {
        let (precommit, prevote) = match vote.body.step {
            VoteStep::Precommit => (vote, held),
            VoteStep::Prevote => (held, vote),
        };
        let steps = (precommit.body.step, prevote.body.step);
        let (x, y) = precommit.body.block.zip(prevote.body.block)?;
        let proves = steps == (VoteStep::Precommit, VoteStep::Prevote)
            && x != y
            && prevote.body.at() > precommit.body.at()
            && prevote.body.valid_round < Some(precommit.body.at());
        proves.then(|| (precommit.clone(), prevote.clone()))
    });
    let (precommit, prevote) = pair?;
    against(set, vote.voter, Offence::Amnesia(precommit, prevote))
}
