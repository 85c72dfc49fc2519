//! Passes transactions on with witnesses that do not hold: same txid, another wtxid (L4).

use super::{Adversary, Outgoing, Tools};
use crate::base::bounded::BoundedVec;
use crate::crypto::keys::Signature;
use crate::p2p::messages::{BodiesFound, Message, PeerId};
use crate::types::transaction::{Tx, Witness};
use std::sync::Arc;

/// See the module.
pub struct Mutator;

fn mutate(tx: &Tx) -> Tx {
    let mut transaction = tx.transaction.clone();
    let count = transaction.witnesses.len();
    transaction.witnesses =
        BoundedVec::take_from((0..count).map(|_| Witness::Key(Signature([3; 64]))));
    Tx::new(transaction)
}

impl Adversary for Mutator {
    fn name(&self) -> &'static str {
        "a mutator of witnesses"
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        if !tools.rng.chance(1, 2) {
            return vec![(to, message)];
        }
        let bent = match &*message {
            Message::Txs(txs) => Message::Txs(BoundedVec::take_from(txs.iter().map(mutate))),
            Message::Bodies(bodies) => {
                let mut bodies = bodies.clone();
                if let BodiesFound::Transactions(found) = &bodies.found {
                    let bent = found.iter().map(|(i, tx)| (*i, mutate(tx)));
                    bodies.found = BodiesFound::Transactions(BoundedVec::take_from(bent));
                }
                Message::Bodies(bodies)
            }
            _ => return vec![(to, message)],
        };
        vec![(to, Arc::new(bent))]
    }
}
