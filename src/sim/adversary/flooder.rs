//! Floods its peers with transactions: names of some that do not exist, children without parents, signatures that do not
//! hold. A share of what it sends is honest, so that peers keep it for a while.

use super::{Adversary, Outgoing, Tools};
use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::rng::Rng;
use crate::crypto::hash::Hash;
use crate::p2p::messages::{Message, PeerId};
use crate::sim::kit::{Role, key, program};
use crate::types::amount::Amount;
use crate::types::ids::*;
use crate::types::transaction::*;
use std::sync::Arc;

/// Transactions or names in one frame of its flood.
const FLOOD_COUNT: usize = 40;

/// See the module.
pub struct Flooder;

fn noise(rng: &mut Rng) -> Hash {
    let mut hash = Hash::ZERO;
    hash.0[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    hash
}

/// A transfer of a coin that nobody ever saw.
fn orphan(rng: &mut Rng) -> Tx {
    let body = TxBody {
        version: TX_VERSION,
        kind: TxKind::Transfer,
        inputs: BoundedVec::take_from([OutPoint {
            txid: Txid(noise(rng)),
            vout: 0,
        }]),
        outputs: BoundedVec::take_from([TxOutput {
            value: Amount(1_000_000),
            program: program(Role::Holder, 0),
        }]),
        payload: BoundedBytes::default(),
    };
    let witness = Witness::Key(key(Role::Holder, 0).sign(&noise(rng)));
    Tx::new(Transaction {
        body,
        witnesses: BoundedVec::take_from([witness]),
        auth: Auth::new(),
    })
}

impl Adversary for Flooder {
    fn name(&self) -> &'static str {
        "a flooder"
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        // Nothing before the greeting is over, and not an answer to every frame.
        if message.code() <= 2 || !tools.rng.chance(1, 20) {
            return vec![(to, message)];
        }
        let rng = tools.rng;
        let flood = match rng.below(2) {
            0 => Message::TxInv(BoundedVec::take_from(
                (0..5 * FLOOD_COUNT).map(|_| Wtxid(noise(rng))),
            )),
            _ => Message::Txs(BoundedVec::take_from((0..FLOOD_COUNT).map(|_| orphan(rng)))),
        };
        vec![(to.clone(), Arc::new(flood)), (to, message)]
    }
}
