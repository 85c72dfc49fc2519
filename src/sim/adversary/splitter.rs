//! As leader offers two valid blocks, each to one half of its peers, and votes for both.

use super::{Adversary, Outgoing, Tools, halves};
use crate::base::bounded::BoundedVec;
use crate::p2p::messages::{Message, PeerId};
use crate::types::ids::BlockId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Default)]
pub struct Splitter {
    twins: BTreeMap<BlockId, BlockId>,
}

impl Adversary for Splitter {
    fn name(&self) -> &'static str {
        "an equivocating leader"
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let Some((me, secret)) = tools.operator else {
            return vec![(to, message)];
        };
        let second = match &*message {
            Message::Proposal(proposal) if proposal.signed.proposer == *me => {
                let mut twin = proposal.clone();
                twin.header.time = twin.header.time.plus(1);
                let block = twin.header.id();
                twin.signed.body.block = block;
                twin.signed.signature = secret.sign(&twin.signed.body.signing_hash(tools.chain));
                if self.twins.len() > 64 {
                    self.twins.clear();
                }
                self.twins.insert(proposal.signed.body.block, block);
                Message::Proposal(twin)
            }
            Message::Votes(votes) if votes.iter().any(|v| v.voter == *me) => {
                let bend = |vote: &crate::types::vote::Vote| {
                    let mut vote = vote.clone();
                    let twin = vote.body.block.and_then(|b| self.twins.get(&b));
                    if let Some(twin) = twin.filter(|_| vote.voter == *me) {
                        vote.body.block = Some(*twin);
                        vote.signature = secret.sign(&vote.body.signing_hash(tools.chain));
                    }
                    vote
                };
                Message::Votes(BoundedVec::take_from(votes.iter().map(bend)))
            }
            _ => return vec![(to, message)],
        };
        let (first, rest) = halves(to);
        vec![(first, message), (rest, Arc::new(second))]
    }
}
