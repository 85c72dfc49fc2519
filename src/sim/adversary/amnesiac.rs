//! Forgets its locks: prevotes whatever the leader of a later round proposes, though it has precommitted another block.

use super::{Adversary, Outgoing, Tools};
use crate::base::bounded::BoundedVec;
use crate::p2p::messages::{Message, PeerId};
use crate::types::ids::{EraRound, Height};
use crate::types::vote::{ProposalBody, Vote, VoteStep};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Proposals it remembers.
const MEMORY: usize = 64;

/// See the module.
#[derive(Default)]
pub struct Amnesiac {
    proposed: BTreeMap<(Height, EraRound), ProposalBody>,
}

impl Amnesiac {
    fn hear(&mut self, message: &Message) {
        if let Message::Proposal(proposal) = message {
            let body = proposal.signed.body;
            self.proposed.insert((body.height, body.at()), body);
            if self.proposed.len() > MEMORY {
                self.proposed.pop_first();
            }
        }
    }
}

impl Adversary for Amnesiac {
    fn name(&self) -> &'static str {
        "an amnesiac"
    }

    fn incoming(&mut self, _: Tools<'_>, message: Message) -> Option<Message> {
        self.hear(&message);
        Some(message)
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        self.hear(&message);
        let (Message::Votes(votes), Some((me, secret))) = (&*message, tools.operator) else {
            return vec![(to, message)];
        };
        let yes = |vote: &Vote| {
            let mut vote = vote.clone();
            let (body, mine) = (vote.body, vote.voter == *me);
            let proposed = self.proposed.get(&(body.height, body.at()));
            if mine
                && body.step == VoteStep::Prevote
                && body.block.is_none()
                && let Some(proposed) = proposed
            {
                vote.body.block = Some(proposed.block);
                vote.body.valid_round = proposed.valid_round;
                vote.signature = secret.sign(&vote.body.signing_hash(tools.chain));
            }
            vote
        };
        let votes = BoundedVec::take_from(votes.iter().map(yes));
        vec![(to, Arc::new(Message::Votes(votes)))]
    }
}
