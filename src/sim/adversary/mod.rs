//! Byzantine nodes: a real node whose words are bent on their way out. Each file is one way of being wrong.

mod amnesiac;
pub mod coalition;
mod equivocator;
mod flooder;
mod impostor;
mod liar;
mod mutator;
mod pretender;
mod replayer;
mod splitter;
mod twin;
mod withholder;

use crate::base::rng::Rng;
use crate::crypto::keys::SecretKey;
use crate::p2p::messages::{Message, PeerId};
use crate::types::ids::{ChainId, MasternodeId};
use std::sync::Arc;

/// What an adversary may use.
pub struct Tools<'a> {
    /// Its masternode and key.
    pub operator: Option<&'a (MasternodeId, SecretKey)>,
    /// Its network.
    pub chain: ChainId,
    /// Its randomness.
    pub rng: &'a mut Rng,
}

/// What leaves: to whom, what.
pub type Outgoing = Vec<(Vec<PeerId>, Arc<Message>)>;

/// One way of being wrong.
pub trait Adversary {
    /// For logs and reports.
    fn name(&self) -> &'static str;
    /// What it lets itself hear instead of `message`.
    fn incoming(&mut self, _tools: Tools<'_>, message: Message) -> Option<Message> {
        Some(message)
    }
    /// What leaves instead of `message` to `to`.
    fn outgoing(&mut self, tools: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing;
}

/// How many kinds there are.
pub const KINDS: usize = 13;

/// An adversary of kind `kind` (modulo [`KINDS`]).
pub fn make(kind: usize, seed: u64) -> Box<dyn Adversary> {
    match kind % KINDS {
        0 => Box::new(equivocator::Equivocator::default()),
        1 => Box::new(splitter::Splitter::default()),
        2 => Box::new(withholder::Withholder::new(seed)),
        3 => Box::new(liar::Liar),
        4 => Box::new(replayer::Replayer::default()),
        5 => Box::new(impostor::Impostor),
        6 => Box::new(mutator::Mutator),
        7 => Box::new(withholder::Withholder::silent()),
        8 => Box::new(amnesiac::Amnesiac::default()),
        9 => Box::new(pretender::Pretender::new(pretender::Wrong::Invalid)),
        10 => Box::new(pretender::Pretender::new(pretender::Wrong::Stale)),
        11 => Box::new(pretender::Pretender::new(pretender::Wrong::Huge)),
        _ => Box::new(flooder::Flooder),
    }
}

/// What each of two nodes with one key is; see [`crate::sim::world::Options::twins`].
pub fn twin() -> Box<dyn Adversary> {
    Box::new(twin::Twin)
}

/// Splits recipients by a fixed property of the connection, so that the same peers always hear the same story.
fn halves(to: Vec<PeerId>) -> (Vec<PeerId>, Vec<PeerId>) {
    to.into_iter().partition(|peer| (peer.0 / 2) % 2 == 0)
}
