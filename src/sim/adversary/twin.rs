//! One of two nodes with one key: two whole, lively nodes sign for the same masternode. Each closes its ears to what the
//! other said in their name, so that the guard of B7 step 2 does not stop them, as it would stop an honest mistake.

use super::{Adversary, Outgoing, Tools};
use crate::base::bounded::BoundedVec;
use crate::p2p::messages::{Message, PeerId};
use std::sync::Arc;

/// See the module.
pub struct Twin;

impl Adversary for Twin {
    fn name(&self) -> &'static str {
        "a twin"
    }

    fn incoming(&mut self, tools: Tools<'_>, message: Message) -> Option<Message> {
        let (Message::Votes(votes), Some((me, _))) = (&message, tools.operator) else {
            return Some(message);
        };
        // An empty frame remains one: it says that the peer holds no vote of this key.
        let others = votes.iter().filter(|vote| vote.voter != *me).cloned();
        Some(Message::Votes(BoundedVec::take_from(others)))
    }

    fn outgoing(&mut self, _: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        vec![(to, message)]
    }
}
