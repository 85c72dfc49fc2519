//! Which votes of the height a node holds, and what a peer lacks (S8: exchanged on connect and on entering a round > 0).
//! Rounds told: the current one, the previous one, and the latest rounds with a known polka.

use crate::consensus::machine::Machine;
use crate::types::bitmap::Bitmap;
use crate::types::ids::*;
use crate::types::polka::Polka;
use crate::types::vote::{Vote, VoteStep};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rounds that one exchange covers.
pub const ROUNDS_TOLD_MAX: usize = 16;

/// What a node holds of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRound {
    /// Which round.
    pub at: EraRound,
    /// Whether its proposal is there.
    pub proposal: bool,
    /// Prevotes held, also those of its polka, over the validator set.
    pub prevotes: Bitmap,
    /// Precommits held, over the validator set.
    pub precommits: Bitmap,
}

/// What a peer lacks of this height.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Votes, oldest round first.
    pub votes: Vec<Vote>,
    /// Polkas of rounds whose votes are not kept one by one, or that the peer does not tell of.
    pub polkas: Vec<Arc<Polka>>,
    /// Rounds whose proposal it lacks and this node may hold.
    pub proposals: Vec<Round>,
}

impl Machine {
    /// What this node holds, ascending, at most [`ROUNDS_TOLD_MAX`] rounds.
    pub fn held(&self) -> Vec<HeldRound> {
        let (now, era) = (self.at().round, self.at().era);
        let mut rounds: BTreeSet<Round> = [now, Round(now.0.saturating_sub(1))].into();
        for polka in self.tally().polkas().rev().filter(|p| p.at().era == era) {
            if rounds.len() < ROUNDS_TOLD_MAX {
                rounds.insert(polka.at().round);
            }
        }
        rounds
            .into_iter()
            .map(|round| self.held_of(round))
            .collect()
    }

    fn held_of(&self, round: Round) -> HeldRound {
        let at = EraRound {
            era: self.at().era,
            round,
        };
        let votes = self.tally().signers(round, VoteStep::Prevote);
        let polkas = self.tally().polkas().filter(|polka| polka.at() == at);
        let signers = polkas.flat_map(|polka| polka.votes.signers.ones());
        HeldRound {
            at,
            proposal: self.proposal(round).is_some(),
            prevotes: Bitmap::from_ones(votes.len(), votes.ones().chain(signers)),
            precommits: self.tally().signers(round, VoteStep::Precommit),
        }
    }

    /// What a peer in round `peer_round` lacks, given what it holds. Nothing is told of rounds before its previous one but
    /// polkas; nothing of a peer in another era.
    pub fn lacking(&self, peer_round: EraRound, peer: &[HeldRound]) -> Lacking {
        let mut lacking = Lacking::default();
        if peer_round.era != self.at().era {
            return lacking;
        }
        let told = |round: Round| peer.iter().find(|held| held.at.round == round);
        let since = Round(peer_round.round.0.saturating_sub(1));
        for round in self.tally().rounds().filter(|round| *round >= since) {
            for step in [VoteStep::Prevote, VoteStep::Precommit] {
                let has = |vote: &&Vote| {
                    let bits = told(round).map(|held| match step {
                        VoteStep::Prevote => &held.prevotes,
                        VoteStep::Precommit => &held.precommits,
                    });
                    let voter = self.set().index_of(&vote.voter);
                    bits.zip(voter).is_some_and(|(bits, i)| bits.get(i))
                };
                let votes = self.tally().votes(round, step);
                lacking
                    .votes
                    .extend(votes.filter(|vote| !has(vote)).cloned());
            }
            if self.proposal(round).is_some() && !told(round).is_some_and(|held| held.proposal) {
                lacking.proposals.push(round);
            }
        }
        // A polka that came whole is told whole; so is one of a round whose votes are gone here or there.
        let polkas = self.tally().polkas().rev().take(ROUNDS_TOLD_MAX);
        for polka in polkas {
            let has = told(polka.at().round)
                .is_some_and(|held| polka.votes.signers.ones().all(|i| held.prevotes.get(i)));
            let old = polka.at().round < since || polka.at().era != peer_round.era;
            if !has && (old || self.is_incomplete(polka)) {
                lacking.polkas.push(polka.clone());
            }
        }
        lacking.polkas.reverse();
        lacking
    }

    /// Whether the votes kept one by one do not make up the polka.
    fn is_incomplete(&self, polka: &Polka) -> bool {
        let votes = self.tally().signers(polka.at().round, VoteStep::Prevote);
        polka.votes.signers.ones().any(|i| !votes.get(i))
    }
}
