//! Votes of heights that are over, kept for evidence alone: a second, contradicting vote may come when its height is decided,
//! from its signer or in the last_commit of the next block. Input: what was counted when a height was decided, later votes.
//! Output: evidence, signatures of the later vote not checked. Never: counts anything.
//!
//! Memory: the newest [`LATE_HEIGHT_COUNT_MAX`] heights and [`LATE_VOTE_COUNT_MAX`] votes, oldest heights go first; a later
//! vote is compared and never kept.

use crate::base::limits::{LATE_HEIGHT_COUNT_MAX, LATE_VOTE_COUNT_MAX};
use crate::consensus::evidence;
use crate::consensus::tally::Tally;
use crate::types::block::{Certificate, Commit};
use crate::types::ids::*;
use crate::types::masternode::Evidence;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{Vote, VoteStep};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One height that is over.
#[derive(Debug)]
struct Over {
    certificate: Certificate,
    branch: Branch,
    era: Era,
    set: Arc<ValidatorSet>,
    votes: BTreeMap<MasternodeId, Vec<Vote>>,
    count: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Late {
    heights: VecDeque<Over>,
    count: usize,
}

impl Late {
    /// A height is decided under a rule set, in an era, by a set: its votes are kept. Whoever precommitted something else than the certificate shows is told.
    pub fn keep(
        &mut self,
        tally: &Tally,
        (branch, era, set): (Branch, Era, Arc<ValidatorSet>),
        certificate: Certificate,
    ) -> Vec<Evidence> {
        let rounds = tally.rounds().rev();
        let steps =
            rounds.flat_map(|round| [(round, VoteStep::Precommit), (round, VoteStep::Prevote)]);
        let votes = steps.flat_map(|(round, step)| tally.votes(round, step));
        let mut over = Over {
            certificate,
            branch,
            era,
            set,
            votes: BTreeMap::new(),
            count: 0,
        };
        for vote in votes.take(LATE_VOTE_COUNT_MAX) {
            over.add(vote.clone());
        }
        let decided = over.precommits(over.certificate.clone());
        let found = over.contradicted(&decided);
        for vote in decided {
            if over.count < LATE_VOTE_COUNT_MAX && !over.holds(&vote) {
                over.add(vote);
            }
        }
        self.count += over.count;
        self.heights.push_back(over);
        while self.heights.len() > LATE_HEIGHT_COUNT_MAX || self.count > LATE_VOTE_COUNT_MAX {
            let Some(gone) = self.heights.pop_front() else {
                break;
            };
            self.count -= gone.count;
        }
        found
    }

    /// What a vote of such a height proves together with one that is held.
    pub fn vote(&self, vote: &Vote) -> Option<Evidence> {
        self.of(vote.body.height)?.contradicts(vote)
    }

    /// What the last_commit of the next block proves: the precommits of `height` that its leader has seen.
    pub fn last_commit(&self, height: Height, commit: &Commit) -> Vec<Evidence> {
        let Some(over) = self.of(height) else {
            return Vec::new();
        };
        if over.certificate.commit == *commit {
            return Vec::new();
        }
        let commit = commit.clone();
        over.contradicted(&over.precommits(Certificate {
            commit,
            ..over.certificate
        }))
    }

    /// What is kept of a height.
    pub fn votes(&self, height: Height) -> impl Iterator<Item = &Vote> {
        let over = self.of(height).into_iter();
        over.flat_map(|over| over.votes.values().flatten())
    }

    fn of(&self, height: Height) -> Option<&Over> {
        let mut heights = self.heights.iter();
        heights.find(|over| over.certificate.height == height)
    }

    /// Heights and votes that are kept.
    pub fn sizes(&self) -> (usize, usize) {
        (self.heights.len(), self.count)
    }
}

impl Over {
    fn add(&mut self, vote: Vote) {
        self.count += 1;
        self.votes.entry(vote.voter).or_default().push(vote);
    }

    /// The precommits in a certificate. One of an older era is over another set.
    fn precommits(&self, certificate: Certificate) -> Vec<Vote> {
        match certificate.commit.at.era == self.era {
            true => certificate.precommits(self.branch, &self.set),
            false => Vec::new(),
        }
    }

    fn holds(&self, vote: &Vote) -> bool {
        let held = self.votes.get(&vote.voter);
        held.is_some_and(|held| held.iter().any(|held| held.body == vote.body))
    }

    fn contradicted(&self, votes: &[Vote]) -> Vec<Evidence> {
        votes.iter().filter_map(|v| self.contradicts(v)).collect()
    }

    /// M7, S6: two votes of one position, or amnesia, whichever came first.
    fn contradicts(&self, vote: &Vote) -> Option<Evidence> {
        let body = &vote.body;
        if (body.branch, body.era) != (self.branch, self.era) || !body.is_well_formed() {
            return None;
        }
        let held = self.votes.get(&vote.voter)?;
        let same = |held: &&Vote| (held.body.at(), held.body.step) == (body.at(), body.step);
        match held.iter().filter(same).find(|held| held.body != vote.body) {
            Some(first) => evidence::votes(&self.set, first.clone(), vote.clone()),
            None => evidence::amnesia(&self.set, held.iter(), vote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::rules::Rules;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::{PublicKey, Signature};
    use crate::types::masternode::Offence;
    use crate::types::validators::Validator;
    use crate::types::vote::VoteBody;

    fn id(i: u8) -> MasternodeId {
        MasternodeId(Hash([i; 32]))
    }

    fn block(i: u8) -> Option<BlockId> {
        Some(BlockId(Hash([i; 32])))
    }

    fn set() -> Arc<ValidatorSet> {
        let member = |i| Validator {
            id: id(i),
            operator: PublicKey([i; 32]),
            power: Power(1),
        };
        Arc::new(ValidatorSet::new((1..=4).map(member).collect()).unwrap())
    }

    fn vote(height: u64, round: u32, step: VoteStep, voter: u8, block: Option<BlockId>) -> Vote {
        let body = VoteBody {
            step,
            branch: Branch(0),
            era: Era(0),
            height: Height(height),
            round: Round(round),
            valid_round: None,
            block,
        };
        Vote {
            body,
            voter: id(voter),
            signature: Signature([voter; 64]),
        }
    }

    /// Height `height` decided block 7 in round 0; `votes` were counted before.
    fn decided(late: &mut Late, height: u64, signers: &[usize], votes: &[Vote]) -> Vec<Evidence> {
        let rules = Rules::default();
        let mut tally = Tally::new(set(), Branch(0), Era(0), Height(height), rules);
        for vote in votes {
            tally.add(vote);
        }
        late.keep(
            &tally,
            (Branch(0), Era(0), set()),
            certificate(height, signers),
        )
    }

    fn certificate(height: u64, signers: &[usize]) -> Certificate {
        let signatures = signers.iter().map(|i| Signature([*i as u8 + 1; 64]));
        Certificate {
            height: Height(height),
            block: BlockId(Hash([7; 32])),
            commit: Commit {
                at: EraRound::default(),
                signers: crate::types::bitmap::Bitmap::from_ones(4, signers.iter().copied()),
                signatures: crate::base::bounded::BoundedVec::take_from(signatures),
            },
        }
    }

    const PREVOTE: VoteStep = VoteStep::Prevote;
    const PRECOMMIT: VoteStep = VoteStep::Precommit;

    #[test]
    fn a_second_vote_after_the_decision_is_evidence() {
        let mut late = Late::default();
        let first = vote(5, 0, PREVOTE, 4, block(7));
        assert!(decided(&mut late, 5, &[0, 1, 2], std::slice::from_ref(&first)).is_empty());
        assert_eq!(late.vote(&first), None, "the same vote again");
        assert_eq!(
            late.vote(&vote(5, 1, PREVOTE, 4, block(8))),
            None,
            "another round"
        );
        assert_eq!(late.vote(&vote(5, 0, PREVOTE, 3, None)), None, "one vote");
        let second = vote(5, 0, PREVOTE, 4, None);
        let found = late.vote(&second).expect("M7: two prevotes of one round");
        assert_eq!((found.offender, found.key), (id(4), PublicKey([4; 32])));
        let lie = vote(5, 0, PRECOMMIT, 1, None);
        assert!(
            late.vote(&lie).is_some(),
            "M7: against a precommit that only the certificate shows"
        );
        assert_eq!(late.vote(&vote(6, 0, PREVOTE, 4, None)), None);
    }

    #[test]
    fn amnesia_after_the_decision_is_evidence() {
        let mut late = Late::default();
        decided(&mut late, 5, &[0, 1, 2], &[]);
        let found = late.vote(&vote(5, 1, PREVOTE, 2, block(8)));
        let offence = found
            .expect("S6: it precommitted block 7 in round 0")
            .offence;
        assert!(matches!(offence, Offence::Amnesia(..)));
        assert_eq!(late.vote(&vote(5, 1, PREVOTE, 2, block(7))), None);
        assert_eq!(
            late.vote(&vote(5, 1, PREVOTE, 2, None)),
            None,
            "nil is none"
        );
    }

    #[test]
    fn certificates_and_last_commits_show_who_said_something_else_here() {
        let mut late = Late::default();
        let nil = vote(5, 0, PRECOMMIT, 1, None);
        let found = decided(&mut late, 5, &[0, 1, 2], &[nil]);
        assert_eq!(found.len(), 1, "M7: the certificate shows the other one");
        assert_eq!(found[0].offender, id(1));
        let nil = vote(6, 0, PRECOMMIT, 4, None);
        assert!(decided(&mut late, 6, &[0, 1, 2], &[nil]).is_empty());
        let seen = |signers: &[usize]| late.last_commit(Height(6), &certificate(6, signers).commit);
        assert!(seen(&[0, 1, 2]).is_empty());
        let found = seen(&[1, 2, 3]);
        assert_eq!(found.len(), 1, "M7: the next leader saw another precommit");
        assert_eq!(found[0].offender, id(4));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut late = Late::default();
        for height in 1..=2 * LATE_HEIGHT_COUNT_MAX as u64 {
            decided(&mut late, height, &[0, 1, 2], &[]);
        }
        assert_eq!(
            late.sizes(),
            (LATE_HEIGHT_COUNT_MAX, 3 * LATE_HEIGHT_COUNT_MAX)
        );
        let oldest = LATE_HEIGHT_COUNT_MAX as u64 + 1;
        assert!(late.vote(&vote(oldest, 0, PRECOMMIT, 1, None)).is_some());
        assert!(
            late.vote(&vote(oldest - 1, 0, PRECOMMIT, 1, None))
                .is_none()
        );
    }
}
