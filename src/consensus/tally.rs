//! The votes of a height, counted. Input: votes whose signatures hold. Output: what became of a vote, and edges: each
//! threshold is told once, when the vote that crosses it is added. Never: changes what a node does by itself.
//!
//! A vote is asked in this order: is it of this height? is its voter in the set? is its round within the bound? duplicate,
//! equivocation or new? Only then power is added. Memory (B2, "rounds kept"): full votes of the rounds valid, locked,
//! r-1, r and r+1; of older rounds only precommits for blocks; of rounds beyond r+1 only each signer's highest vote;
//! polkas of every round with one. So a voter costs at most two votes per step of a kept round, whatever it signs: the
//! second vote of an equivocator counts as well (others may have seen only that one), a third does not.

use crate::base::bounded::BoundedVec;
use crate::base::limits::{ROUNDS_AHEAD, Size};
use crate::consensus::rules::Rules;
use crate::types::bitmap::Bitmap;
use crate::types::block::Commit;
use crate::types::ids::*;
use crate::types::polka::Polka;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{Vote, VoteBody, VoteStep};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Polkas kept of one round. More than one takes equivocation by more than a third of the power.
pub const POLKAS_PER_ROUND_MAX: usize = 4;

/// What became of a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// Of another height, era or branch.
    Foreign,
    /// Its voter has no power here.
    NotInSet,
    /// Breaks the form of S1.
    Malformed,
    /// Of a round too old to matter, beyond r+1 and not its voter's highest, or the third of an equivocator.
    Dropped,
    /// Already there.
    Duplicate,
    /// Counted, or kept as its voter's highest.
    New,
    /// Contradicts this earlier vote of the same voter, round and step.
    Equivocation(Vote),
}

/// A threshold that was crossed just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edge {
    /// More than a third has voted in this height (S3).
    Voters,
    /// A new polka.
    Polka(Arc<Polka>),
    /// A quorum of precommits of one round for one block (line 49).
    Decided(Round, BlockId),
}

/// What a vote counts for: block and valid round.
type Value = (Option<BlockId>, Option<EraRound>);

/// Prevotes or precommits of one round.
#[derive(Debug, Clone, Default)]
struct StepVotes {
    /// First vote of each voter, by position in the set.
    first: BTreeMap<usize, Vote>,
    /// Second, different vote of an equivocator.
    second: BTreeMap<usize, Vote>,
    /// Power of all voters, each once.
    any: Power,
    /// Power by value; an equivocator counts for both of its values.
    by_value: BTreeMap<Value, Power>,
}

impl StepVotes {
    fn value(body: &VoteBody, rules: &Rules) -> Value {
        (
            body.block,
            body.valid_round.filter(|_| rules.one_valid_round),
        )
    }

    /// Adds a vote; the power its value has now, if it is counted.
    fn add(
        &mut self,
        i: usize,
        power: Power,
        vote: &Vote,
        rules: &Rules,
    ) -> (Added, Option<Power>) {
        let added = match self.first.get(&i) {
            Some(first) if first.body == vote.body => return (Added::Duplicate, None),
            Some(first) => {
                let first = first.clone();
                match self.second.get(&i) {
                    Some(second) if second.body == vote.body => return (Added::Duplicate, None),
                    Some(_) => return (Added::Dropped, None),
                    None => self.second.insert(i, vote.clone()),
                };
                Added::Equivocation(first)
            }
            None => {
                self.first.insert(i, vote.clone());
                self.any.0 += power.0;
                Added::New
            }
        };
        let value = Self::value(&vote.body, rules);
        if let Added::Equivocation(first) = &added
            && Self::value(&first.body, rules) == value
        {
            return (added, None);
        }
        let sum = self.by_value.entry(value).or_default();
        sum.0 += power.0;
        (added, Some(*sum))
    }

    fn power_for(&self, value: Value) -> Power {
        self.by_value.get(&value).copied().unwrap_or_default()
    }

    /// Each voter's vote for `value`, by position.
    fn votes_for(&self, value: Value, rules: &Rules) -> BTreeMap<usize, &Vote> {
        let all = self.second.iter().chain(self.first.iter());
        all.filter(|(_, vote)| Self::value(&vote.body, rules) == value)
            .map(|(i, vote)| (*i, vote))
            .collect()
    }

    fn commit_for(&self, value: Value, at: EraRound, members: usize, rules: &Rules) -> Commit {
        let votes = self.votes_for(value, rules);
        Commit {
            at,
            signers: Bitmap::from_ones(members, votes.keys().copied()),
            signatures: BoundedVec::take_from(votes.values().map(|vote| vote.signature)),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Vote> {
        self.first.values().chain(self.second.values())
    }

    /// Keeps only votes for blocks (old precommits).
    fn drop_nil(&mut self) {
        self.first.retain(|_, vote| vote.body.block.is_some());
        self.second.retain(|_, vote| vote.body.block.is_some());
        self.by_value.retain(|(block, _), _| block.is_some());
    }
}

/// Both steps of one round.
#[derive(Debug, Clone, Default)]
struct RoundVotes {
    prevotes: StepVotes,
    precommits: StepVotes,
}

/// The votes of one height.
#[derive(Debug, Clone)]
pub struct Tally {
    set: Arc<ValidatorSet>,
    branch: Branch,
    era: Era,
    height: Height,
    rules: Rules,
    round: Round,
    pinned: BTreeSet<Round>,
    rounds: BTreeMap<Round, RoundVotes>,
    /// Each voter's vote of its highest round and step (S1(c), B7 step 2).
    highest: BTreeMap<usize, Vote>,
    /// The highest round in `highest`.
    top: Round,
    voters: Power,
    polkas: BTreeMap<(EraRound, BlockId, Option<EraRound>), Arc<Polka>>,
}

impl Tally {
    /// No votes yet, round 0.
    pub fn new(
        set: Arc<ValidatorSet>,
        branch: Branch,
        era: Era,
        height: Height,
        rules: Rules,
    ) -> Tally {
        Tally {
            set,
            branch,
            era,
            height,
            rules,
            round: Round(0),
            pinned: BTreeSet::new(),
            rounds: BTreeMap::new(),
            highest: BTreeMap::new(),
            top: Round(0),
            voters: Power(0),
            polkas: BTreeMap::new(),
        }
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        let rounds = self.last_round().0 as usize + 1;
        vec![
            Size::new("rounds with votes", self.rounds.len(), rounds),
            Size::new("rounds kept for their polkas", self.pinned.len(), rounds),
            Size::new("highest votes", self.highest.len(), self.set.len()),
            Size::new("polkas", self.polkas.len(), POLKAS_PER_ROUND_MAX * rounds),
        ]
    }

    fn at(&self, round: Round) -> EraRound {
        EraRound {
            era: self.era,
            round,
        }
    }

    fn last_round(&self) -> Round {
        Round(self.round.0.saturating_add(ROUNDS_AHEAD))
    }

    /// Whether all votes of a round are kept (B2).
    fn keeps_fully(&self, round: Round) -> bool {
        let recent = round.0.saturating_add(1) >= self.round.0 && round <= self.last_round();
        recent || self.pinned.contains(&round)
    }

    /// Counts a vote whose signature holds.
    pub fn add(&mut self, vote: &Vote) -> (Added, Vec<Edge>) {
        let body = &vote.body;
        if (body.height, body.era, body.branch) != (self.height, self.era, self.branch) {
            return (Added::Foreign, Vec::new());
        }
        let Some(i) = self.set.index_of(&vote.voter) else {
            return (Added::NotInSet, Vec::new());
        };
        if !body.is_well_formed() {
            return (Added::Malformed, Vec::new());
        }
        let mut edges = Vec::new();
        let raised = self.raise(i, vote, &mut edges);
        let kept = body.round <= self.last_round()
            && (self.keeps_fully(body.round)
                || (body.step == VoteStep::Precommit && body.block.is_some()));
        if !kept {
            let added = if raised { Added::New } else { Added::Dropped };
            return (added, edges);
        }
        let added = self.count(i, vote, &mut edges);
        (added, edges)
    }

    /// Remembers the voter's highest vote; whether this one is it.
    fn raise(&mut self, i: usize, vote: &Vote, edges: &mut Vec<Edge>) -> bool {
        let position = |vote: &Vote| (vote.body.round, vote.body.step);
        self.top = self.top.max(vote.body.round);
        match self.highest.get(&i) {
            Some(held) if position(held) >= position(vote) => false,
            Some(_) => {
                self.highest.insert(i, vote.clone());
                true
            }
            None => {
                let total = self.set.total();
                let before = self.rules.is_over_third(self.voters, total);
                self.voters.0 += self.set.members()[i].power.0;
                if !before && self.rules.is_over_third(self.voters, total) {
                    edges.push(Edge::Voters);
                }
                self.highest.insert(i, vote.clone());
                true
            }
        }
    }

    /// Adds a vote of a kept round and tells which threshold it crossed.
    fn count(&mut self, i: usize, vote: &Vote, edges: &mut Vec<Edge>) -> Added {
        let (power, total, rules) = (self.set.members()[i].power, self.set.total(), self.rules);
        let body = &vote.body;
        let round = self.rounds.entry(body.round).or_default();
        let votes = match body.step {
            VoteStep::Prevote => &mut round.prevotes,
            VoteStep::Precommit => &mut round.precommits,
        };
        let (added, sum) = votes.add(i, power, vote, &rules);
        let (Some(sum), Some(block)) = (sum, body.block) else {
            return added;
        };
        let before = Power(sum.0 - power.0);
        if rules.is_quorum(sum, total) && !rules.is_quorum(before, total) {
            match body.step {
                VoteStep::Precommit => edges.push(Edge::Decided(body.round, block)),
                VoteStep::Prevote => {
                    let value = StepVotes::value(body, &rules);
                    let polka = Polka {
                        height: self.height,
                        block,
                        valid_round: body.valid_round,
                        votes: votes.commit_for(value, body.at(), self.set.len(), &rules),
                    };
                    edges.extend(self.keep_polka(polka).map(Edge::Polka));
                }
            }
        }
        added
    }

    /// Keeps a polka unless it is known or its round has too many.
    fn keep_polka(&mut self, polka: Polka) -> Option<Arc<Polka>> {
        let key = (polka.at(), polka.block, polka.valid_round);
        let of_round = self.polkas.keys().filter(|(at, _, _)| *at == key.0).count();
        if self.polkas.contains_key(&key) || of_round >= POLKAS_PER_ROUND_MAX {
            return None;
        }
        let polka = Arc::new(polka);
        self.polkas.insert(key, polka.clone());
        Some(polka)
    }

    /// Adds a polka whose signatures hold (in an old era: under the set of that era) and the prevotes in it.
    pub fn add_polka(&mut self, polka: &Polka) -> (Vec<Vote>, Vec<Edge>) {
        let mut edges = Vec::new();
        let fits = polka.height == self.height && polka.at().era <= self.era;
        if !fits || !polka.body(self.branch).is_well_formed() {
            return (Vec::new(), edges);
        }
        let mut equivocations = Vec::new();
        edges.extend(self.keep_polka(polka.clone()).map(Edge::Polka));
        if polka.at().era == self.era {
            for vote in polka.prevotes(self.branch, &self.set) {
                let (added, more) = self.add(&vote);
                edges.extend(more);
                if let Added::Equivocation(first) = added {
                    equivocations.extend([first, vote]);
                }
            }
        }
        (equivocations, edges)
    }

    /// Moves the window to the node's round and the rounds of its lock and valid value; what leaves it is dropped, what
    /// was kept as somebody's highest vote and is now within it is counted.
    pub fn set_round(
        &mut self,
        round: Round,
        pinned: impl IntoIterator<Item = EraRound>,
    ) -> Vec<Edge> {
        let era = self.era;
        self.round = round;
        self.pinned = pinned
            .into_iter()
            .filter(|at| at.era == era)
            .map(|at| at.round)
            .collect();
        let old: Vec<Round> = self.rounds.keys().copied().collect();
        for round in old {
            if !self.keeps_fully(round)
                && let Some(votes) = self.rounds.get_mut(&round)
            {
                votes.prevotes = StepVotes::default();
                votes.precommits.drop_nil();
            }
        }
        self.rounds.retain(|_, votes| {
            !votes.prevotes.first.is_empty() || !votes.precommits.first.is_empty()
        });
        let mut edges = Vec::new();
        let adopted: Vec<(usize, Vote)> = self
            .highest
            .iter()
            .filter(|(_, vote)| vote.body.round <= self.last_round())
            .filter(|(_, vote)| self.keeps_fully(vote.body.round))
            .map(|(i, vote)| (*i, vote.clone()))
            .collect();
        for (i, vote) in adopted {
            self.count(i, &vote, &mut edges);
        }
        edges
    }

    fn any(&self, round: Round, step: VoteStep) -> Power {
        let votes = self.rounds.get(&round);
        votes.map_or(Power(0), |votes| match step {
            VoteStep::Prevote => votes.prevotes.any,
            VoteStep::Precommit => votes.precommits.any,
        })
    }

    /// Power that has voted anything in a round: (prevotes, precommits).
    pub fn powers(&self, round: Round) -> (Power, Power) {
        (
            self.any(round, VoteStep::Prevote),
            self.any(round, VoteStep::Precommit),
        )
    }

    /// Line 34: a quorum has prevoted anything.
    pub fn prevotes_any(&self, round: Round) -> bool {
        let any = self.any(round, VoteStep::Prevote);
        self.rules.is_quorum(any, self.set.total())
    }

    /// Line 47: a quorum has precommitted anything.
    pub fn precommits_any(&self, round: Round) -> bool {
        let any = self.any(round, VoteStep::Precommit);
        self.rules.is_quorum(any, self.set.total())
    }

    /// Line 44: a quorum has prevoted nil.
    pub fn prevotes_nil(&self, round: Round) -> bool {
        let nil = self.rounds.get(&round);
        let nil = nil.map_or(Power(0), |votes| votes.prevotes.power_for((None, None)));
        self.rules.is_quorum(nil, self.set.total())
    }

    /// A polka for a block in a round, whatever its valid round.
    pub fn polka(&self, at: EraRound, block: BlockId) -> Option<&Arc<Polka>> {
        let mut of_round = self.polkas.range((at, block, None)..);
        of_round
            .next()
            .filter(|((a, b, _), _)| *a == at && *b == block)
            .map(|(_, polka)| polka)
    }

    /// Every known polka, by round.
    pub fn polkas(&self) -> impl DoubleEndedIterator<Item = &Arc<Polka>> {
        self.polkas.values()
    }

    /// The precommits of a round for a block, as a certificate needs them.
    pub fn commit(&self, round: Round, block: BlockId) -> Commit {
        let votes = self.rounds.get(&round).map(|votes| &votes.precommits);
        votes.map_or_else(Commit::default, |votes| {
            votes.commit_for(
                (Some(block), None),
                self.at(round),
                self.set.len(),
                &self.rules,
            )
        })
    }

    /// Line 55 with S1(c): the highest round above the current one in which, or later, more than a third has voted.
    pub fn ahead(&self) -> Option<Round> {
        if !self.rules.round_skip || self.top <= self.round {
            return None;
        }
        let mut by_round: BTreeMap<Round, Power> = BTreeMap::new();
        for (i, vote) in &self.highest {
            if vote.body.round > self.round {
                by_round.entry(vote.body.round).or_default().0 += self.set.members()[*i].power.0;
            }
        }
        let mut sum = Power(0);
        for (round, power) in by_round.into_iter().rev() {
            sum = if self.rules.skip_counts_later {
                Power(sum.0 + power.0)
            } else {
                power
            };
            if self.rules.is_over_third(sum, self.set.total()) {
                return Some(round);
            }
        }
        None
    }

    /// What lets a node into `round` by line 55: votes of this round or later from more than a third, no more than needed.
    pub fn skip_evidence(&self, round: Round) -> Vec<Vote> {
        let later = self.highest.iter();
        let later = later.filter(|(_, vote)| vote.body.round >= round);
        self.enough(later, |power| {
            self.rules.is_over_third(power, self.set.total())
        })
    }

    /// What lets a node into the round after `round` by line 65: precommits of a quorum, no more than needed.
    pub fn precommit_evidence(&self, round: Round) -> Vec<Vote> {
        let votes = self.rounds.get(&round).into_iter();
        let votes = votes.flat_map(|votes| &votes.precommits.first);
        self.enough(votes, |power| self.rules.is_quorum(power, self.set.total()))
    }

    fn enough<'a>(
        &self,
        votes: impl Iterator<Item = (&'a usize, &'a Vote)>,
        done: impl Fn(Power) -> bool,
    ) -> Vec<Vote> {
        let (mut sum, mut out) = (Power(0), Vec::new());
        for (i, vote) in votes {
            if done(sum) {
                break;
            }
            sum.0 += self.set.members()[*i].power.0;
            out.push(vote.clone());
        }
        out
    }

    /// The highest vote held of a masternode (B7 step 2).
    pub fn highest_of(&self, voter: &MasternodeId) -> Option<&Vote> {
        self.highest.get(&self.set.index_of(voter)?)
    }

    /// Every vote kept of one voter.
    pub fn of_voter(&self, voter: &MasternodeId) -> impl Iterator<Item = &Vote> {
        let i = self.set.index_of(voter);
        let steps = self
            .rounds
            .values()
            .flat_map(|r| [&r.prevotes, &r.precommits]);
        steps.flat_map(move |votes| {
            let first = i.and_then(|i| votes.first.get(&i));
            first
                .into_iter()
                .chain(i.and_then(|i| votes.second.get(&i)))
        })
    }

    /// Rounds of which votes are kept, ascending.
    pub fn rounds(&self) -> impl DoubleEndedIterator<Item = Round> {
        self.rounds.keys().copied()
    }

    /// Every vote kept of a round and step.
    pub fn votes(&self, round: Round, step: VoteStep) -> impl Iterator<Item = &Vote> {
        let votes = self.rounds.get(&round).into_iter();
        votes.flat_map(move |votes| match step {
            VoteStep::Prevote => votes.prevotes.all(),
            VoteStep::Precommit => votes.precommits.all(),
        })
    }

    /// Who has a vote kept of a round and step.
    pub fn signers(&self, round: Round, step: VoteStep) -> Bitmap {
        let voters = self.votes(round, step);
        let voters = voters.filter_map(|vote| self.set.index_of(&vote.voter));
        Bitmap::from_ones(self.set.len(), voters)
    }
}
