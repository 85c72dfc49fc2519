//! Says everything again, much later.

use super::{Adversary, Outgoing, Tools};
use crate::p2p::messages::{Message, PeerId};
use std::sync::Arc;

/// Frames it remembers.
const MEMORY: usize = 256;

/// See the module.
#[derive(Default)]
pub struct Replayer {
    heard: Vec<Arc<Message>>,
}

impl Adversary for Replayer {
    fn name(&self) -> &'static str {
        "a replayer"
    }

    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        if message.code() < 16 {
            return vec![(to, message)];
        }
        let mut out = vec![(to.clone(), message.clone())];
        if self.heard.len() < MEMORY {
            self.heard.push(message);
        } else {
            let i = tools.rng.below(MEMORY as u64) as usize;
            out.push((to, std::mem::replace(&mut self.heard[i], message)));
        }
        out
    }
}
