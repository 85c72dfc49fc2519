//! Directed networks: which words of whom reach whom, word by word, so that an execution can be staged exactly.
//!
//! Input: rules made of [`Pick`]s; the newest rule that fits a word decides its fate. Output: what passes; what is held
//! waits for [`World::allow`]. A frame of votes is taken apart: a vote relayed by a third node is held like one that its
//! author sent. The votes that a node is shown of its own key (B7 step 2) always pass. Without rules nothing is looked at.

use crate::p2p::messages::{Message, PeerId};
use crate::sim::network::Frame;
use crate::sim::world::{Event, World};
use crate::types::ids::*;
use crate::types::vote::{Vote, VoteStep};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What kind of word it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A proposal; by its proposer.
    Proposal,
    /// A prevote; by its voter.
    Prevote,
    /// A precommit; by its voter.
    Precommit,
    /// A polka; by whoever sends it, as all that follow.
    Polka,
    /// Which votes are held, or a question for a proposal or polka: what repairs lost words (S8).
    Repair,
    /// A certificate, or a question for one.
    Certificate,
    /// Transactions, their names, and questions for them.
    Payment,
    /// Blocks that were decided, and questions for them.
    Block,
}

/// Everything that consensus says of a height, and what repairs it.
pub const CONSENSUS: &[Kind] = &[
    Kind::Proposal,
    Kind::Prevote,
    Kind::Precommit,
    Kind::Polka,
    Kind::Repair,
    Kind::Certificate,
];

/// Which words a rule is about. Nothing said is everything meant.
#[derive(Debug, Clone, Default)]
pub struct Pick {
    kinds: Vec<Kind>,
    by: Option<Vec<usize>>,
    to: Option<Vec<usize>>,
    height: Option<Height>,
    round: Option<u32>,
}

impl Pick {
    /// Words of these kinds.
    pub fn of(kinds: &[Kind]) -> Pick {
        let kinds = kinds.to_vec();
        Pick {
            kinds,
            ..Pick::default()
        }
    }
    /// Said by these nodes, whoever passes it on.
    pub fn by(self, nodes: &[usize]) -> Pick {
        let by = Some(nodes.to_vec());
        Pick { by, ..self }
    }
    /// On the way to these nodes.
    pub fn to(self, nodes: &[usize]) -> Pick {
        let to = Some(nodes.to_vec());
        Pick { to, ..self }
    }
    /// About this height.
    pub fn height(self, height: Height) -> Pick {
        let height = Some(height);
        Pick { height, ..self }
    }
    /// About this round.
    pub fn round(self, round: u32) -> Pick {
        let round = Some(round);
        Pick { round, ..self }
    }

    fn fits(&self, word: &Word) -> bool {
        let among =
            |list: &Option<Vec<usize>>, node| list.as_ref().is_none_or(|l| l.contains(&node));
        (self.kinds.is_empty() || self.kinds.contains(&word.kind))
            && among(&self.by, word.by)
            && among(&self.to, word.to)
            && (self.height.is_none() || self.height == word.height)
            && (self.round.is_none() || self.round == word.round)
    }
}

/// What becomes of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Hold,
    Lose,
}

/// One word on its way.
struct Word {
    kind: Kind,
    by: usize,
    to: usize,
    height: Option<Height>,
    round: Option<u32>,
}

/// The rules in force and what they hold.
#[derive(Debug, Default)]
pub struct Stage {
    rules: Vec<(Pick, Fate)>,
    /// By which connection of the sender, what.
    held: Vec<(PeerId, Arc<Message>)>,
}

impl Stage {
    fn fate(&self, word: &Word) -> Fate {
        let rule = self.rules.iter().rev().find(|(pick, _)| pick.fits(word));
        rule.map_or(Fate::Pass, |(_, fate)| *fate)
    }
}

/// Kind, author if it is not the sender, height and round.
type About = (Kind, Option<MasternodeId>, Option<Height>, Option<u32>);

/// What a frame that is no vote is about.
fn about(message: &Message) -> Option<About> {
    let of = |kind, height, at: EraRound| Some((kind, None, Some(height), Some(at.round.0)));
    match message {
        Message::Proposal(p) => {
            let body = p.signed.body;
            let round = Some(body.round.0);
            Some((
                Kind::Proposal,
                Some(p.signed.proposer),
                Some(body.height),
                round,
            ))
        }
        Message::Polka(p) => of(Kind::Polka, p.height, p.at()),
        Message::VoteBitmap(b) => of(Kind::Repair, b.height, b.round),
        Message::GetProposal((height, at)) | Message::GetPolka((height, at, _)) => {
            of(Kind::Repair, *height, *at)
        }
        Message::GetCertificate(height) => Some((Kind::Certificate, None, Some(*height), None)),
        Message::Certificate(c) => of(Kind::Certificate, c.height, c.commit.at),
        Message::TxInv(_) | Message::GetTx(_) | Message::Txs(_) => {
            Some((Kind::Payment, None, None, None))
        }
        Message::GetBlocks((from, _)) => Some((Kind::Block, None, Some(*from), None)),
        Message::Block(b) => Some((Kind::Block, None, Some(b.certificate.height), None)),
        _ => None,
    }
}

impl World {
    /// Holds such words back from now on.
    pub fn hold(&mut self, pick: Pick) {
        self.network.stage.rules.push((pick, Fate::Hold));
    }

    /// Loses such words from now on.
    pub fn lose(&mut self, pick: Pick) {
        self.network.stage.rules.push((pick, Fate::Lose));
    }

    /// Lets such words through from now on, also those that were held.
    pub fn allow(&mut self, pick: Pick) {
        self.network.stage.rules.push((pick, Fate::Pass));
        let held = std::mem::take(&mut self.network.stage.held);
        held.into_iter()
            .for_each(|(peer, message)| self.put(peer, &message));
    }

    /// Ends all rules; what was held goes on.
    pub fn allow_all(&mut self) {
        self.network.stage.rules.clear();
        self.allow(Pick::default());
        self.network.stage.rules.clear();
    }

    /// Sends a message by a connection as far as the rules let it.
    fn put(&mut self, peer: PeerId, message: &Arc<Message>) {
        if self.network.ends(peer).is_none() {
            // Whoever said it has left the connection since, perhaps without power.
            return;
        }
        if let Some(rest) = self.staged(peer, message) {
            self.transmit(peer, &frame_of(&rest), false);
        }
    }

    /// Sends a frame by a connection.
    pub(super) fn transmit(&mut self, peer: PeerId, frame: &Frame, exempt: bool) {
        let (number, side, times) = self.network.send(self.now, peer, frame, exempt);
        for at in times {
            self.at(at, Event::Frame(number, side, frame.clone()));
        }
    }

    /// What of a message passes now; what a rule holds back is kept.
    pub(super) fn staged(&mut self, peer: PeerId, message: &Arc<Message>) -> Option<Arc<Message>> {
        if self.network.stage.rules.is_empty() {
            return Some(message.clone());
        }
        let Some((from, to)) = self.network.ends(peer) else {
            return Some(message.clone());
        };
        let owner = |n: &crate::sim::node::Node| n.operator.as_ref().map(|(id, _)| (*id, n.index));
        let names: BTreeMap<MasternodeId, usize> = self.nodes.iter().filter_map(owner).collect();
        if let Message::Votes(votes) = &**message {
            return self.staged_votes(peer, votes, to, &names);
        }
        let Some((kind, author, height, round)) = about(message) else {
            return Some(message.clone());
        };
        let by = author
            .and_then(|id| names.get(&id).copied())
            .unwrap_or(from);
        let word = Word {
            kind,
            by,
            to,
            height,
            round,
        };
        match self.network.stage.fate(&word) {
            Fate::Pass => return Some(message.clone()),
            Fate::Hold => self.network.stage.held.push((peer, message.clone())),
            Fate::Lose => {}
        }
        None
    }

    fn staged_votes(
        &mut self,
        peer: PeerId,
        votes: &[Vote],
        to: usize,
        names: &BTreeMap<MasternodeId, usize>,
    ) -> Option<Arc<Message>> {
        let (mut pass, mut hold) = (Vec::new(), Vec::new());
        for vote in votes {
            let kind = match vote.body.step {
                VoteStep::Prevote => Kind::Prevote,
                VoteStep::Precommit => Kind::Precommit,
            };
            let (height, round) = (Some(vote.body.height), Some(vote.body.round.0));
            let fate = match names.get(&vote.voter) {
                Some(by) if *by != to => {
                    let by = *by;
                    self.network.stage.fate(&Word {
                        kind,
                        by,
                        to,
                        height,
                        round,
                    })
                }
                _ => Fate::Pass,
            };
            match fate {
                Fate::Pass => pass.push(vote.clone()),
                Fate::Hold => hold.push(vote.clone()),
                Fate::Lose => {}
            }
        }
        let frame = |votes| {
            Arc::new(Message::Votes(crate::base::bounded::BoundedVec::take_from(
                votes,
            )))
        };
        if !hold.is_empty() {
            self.network.stage.held.push((peer, frame(hold)));
        }
        // An empty frame means something (B7 step 2); one that lost all its votes does not.
        (!pass.is_empty() || votes.is_empty()).then(|| frame(pass))
    }

    /// A node says something to others of its own accord, past its machines and all rules: the voice of a puppet.
    pub fn speak(&mut self, from: usize, to: &[usize], message: &Message) {
        let frame = frame_of(message);
        for to in to {
            let link = self.network.links.values().find_map(|link| {
                let side =
                    (0..2).find(|s| link.ends[*s].node == from && link.ends[1 - s].node == *to)?;
                let open = link.ends.iter().all(|end| end.open);
                open.then_some(link.ends[side].peer)
            });
            match link {
                Some(peer) => self.transmit(peer, &frame, false),
                None => self.note(&format!("node {from} has no connection to node {to}")),
            }
        }
    }
}

/// A message as bytes.
pub(super) fn frame_of(message: &Message) -> Frame {
    Frame {
        code: message.code(),
        body: Arc::new(message.encode()),
    }
}
