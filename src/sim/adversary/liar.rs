//! Lies about where it stands, what it holds and what was decided: heights far ahead, bent certificates, empty bitmaps.

use super::{Adversary, Outgoing, Tools};
use crate::p2p::messages::{Message, PeerId, Status};
use crate::types::ids::Height;
use std::sync::Arc;

/// See the module.
pub struct Liar;

fn bend(status: &Status, ahead: u64) -> Status {
    Status {
        height: Height(status.height.0 + ahead),
        clock: status.clock.plus(ahead * 1_000),
        ..*status
    }
}

impl Adversary for Liar {
    fn name(&self) -> &'static str {
        "a liar about heights and certificates"
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let ahead = [0, 1, 5, 1_000_000][tools.rng.below(4) as usize];
        let lie = match &*message {
            Message::Ping(status) => Message::Ping(bend(status, ahead)),
            Message::Status(status) => Message::Status(bend(status, ahead)),
            Message::Block(found) if tools.rng.chance(1, 2) => {
                let mut found = found.clone();
                found.certificate.height = found.certificate.height.next();
                Message::Block(found)
            }
            Message::Block(found) if tools.rng.chance(1, 2) => {
                let mut found = found.clone();
                let signers: Vec<_> = found
                    .certificate
                    .commit
                    .signatures
                    .iter()
                    .rev()
                    .copied()
                    .collect();
                found.certificate.commit.signatures =
                    crate::base::bounded::BoundedVec::take_from(signers);
                Message::Block(found)
            }
            Message::VoteBitmap(bitmap) => {
                let mut bitmap = bitmap.clone();
                bitmap.rounds = Default::default();
                Message::VoteBitmap(bitmap)
            }
            _ => return vec![(to, message)],
        };
        vec![(to, Arc::new(lie))]
    }
}
