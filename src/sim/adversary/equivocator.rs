//! Signs a second, different vote for every vote: one half of its peers hears one, the other half the other.

use super::{Adversary, Outgoing, Tools, halves};
use crate::base::bounded::BoundedVec;
use crate::p2p::messages::{Message, PeerId};
use crate::types::ids::BlockId;
use crate::types::vote::Vote;
use std::sync::Arc;

/// See the module.
#[derive(Default)]
pub struct Equivocator {
    other: Option<BlockId>,
}

impl Adversary for Equivocator {
    fn name(&self) -> &'static str {
        "an equivocating voter"
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let (Message::Votes(votes), Some((me, secret))) = (&*message, tools.operator) else {
            return vec![(to, message)];
        };
        let (mut any, mut second) = (false, Vec::new());
        for vote in votes.iter() {
            if vote.voter != *me {
                second.push(vote.clone());
                continue;
            }
            any = true;
            let mut body = vote.body;
            body.valid_round = None;
            body.block = match body.block {
                Some(block) => {
                    let other = self.other.replace(block);
                    other.filter(|o| *o != block && tools.rng.chance(1, 2))
                }
                None => self.other,
            };
            let signature = secret.sign(&body.signing_hash(tools.chain));
            second.push(Vote {
                body,
                voter: *me,
                signature,
            });
        }
        if !any {
            return vec![(to, message)];
        }
        let (first, rest) = halves(to);
        let lie = Message::Votes(BoundedVec::take_from(second));
        vec![(first, message), (rest, Arc::new(lie))]
    }
}
