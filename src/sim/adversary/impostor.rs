//! Votes in the name of others, without their keys.

use super::{Adversary, Outgoing, Tools};
use crate::base::bounded::BoundedVec;
use crate::crypto::hash::Hash;
use crate::p2p::messages::{Message, PeerId};
use crate::types::ids::{BlockId, MasternodeId};
use std::sync::Arc;

/// See the module.
pub struct Impostor;

impl Adversary for Impostor {
    fn name(&self) -> &'static str {
        "an impostor"
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let (Message::Votes(votes), Some((me, secret))) = (&*message, tools.operator) else {
            return vec![(to, message)];
        };
        let forge = |vote: &crate::types::vote::Vote| {
            let mut vote = vote.clone();
            if vote.voter == *me {
                vote.voter = MasternodeId(Hash([7; 32]));
            } else {
                vote.body.block = vote.body.block.map(|_| BlockId(Hash([9; 32])));
            }
            vote.signature = secret.sign(&vote.body.signing_hash(tools.chain));
            vote
        };
        let forged: Vec<_> = votes.iter().map(forge).collect();
        let forged = Message::Votes(BoundedVec::take_from(forged));
        if votes.is_empty() {
            return vec![(to, message)];
        }
        vec![(to.clone(), message), (to, Arc::new(forged))]
    }
}
