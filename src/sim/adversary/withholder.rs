//! Keeps back what others need: its proposals and votes reach one peer, or some, or nobody. With luck a lock stays hidden.

use super::{Adversary, Outgoing, Tools};
use crate::base::rng::Rng;
use crate::p2p::messages::{Message, PeerId};
use std::sync::Arc;

/// See the module.
pub struct Withholder {
    silent: bool,
    permille: u64,
}

impl Withholder {
    /// One that speaks to some.
    pub fn new(seed: u64) -> Withholder {
        let permille = [100, 400, 700][Rng::new(seed).below(3) as usize];
        Withholder {
            silent: false,
            permille,
        }
    }
    /// One that never says anything about consensus.
    pub fn silent() -> Withholder {
        Withholder {
            silent: true,
            permille: 0,
        }
    }
}

impl Adversary for Withholder {
    fn name(&self) -> &'static str {
        if self.silent {
            "silent in consensus"
        } else {
            "a withholder"
        }
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let consensus = matches!(
            &*message,
            Message::Proposal(_) | Message::Polka(_) | Message::VoteBitmap(_) | Message::Bodies(_)
        ) || matches!(&*message, Message::Votes(votes) if !votes.is_empty());
        if !consensus {
            return vec![(to, message)];
        }
        let to: Vec<PeerId> = to
            .into_iter()
            .filter(|_| tools.rng.chance(self.permille, 1_000))
            .collect();
        vec![(to, message)]
    }
}
