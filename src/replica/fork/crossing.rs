//! From one era into the next when nodes hold different RecoveryCerts (B6 steps 4 and 5): of one fork there may be several
//! that name other culprits, and each makes another set of who decides. All are kept and told, and nodes agree on one:
//!
//! 1. While a node is bound by nothing, it goes by the best: later attempt, greater power of culprits, lower hash.
//! 2. A polka of the new era for a block that names a certificate binds to it, whoever holds the polka; the latest round wins.
//! 3. A decided block of the new era settles it: decided is decided.
//!
//! Input: RecoveryCerts, polkas with the header of their block, peers' decisions. Output: records and a start in the same era by
//! another certificate, by the one way there is. Locks and the signer's high-water mark are kept over it. Never: goes by a
//! certificate that did not verify, signs twice at one position, or leaves an era whose first block stands in the own chain.

use crate::base::limits::Size;
use crate::base::time::{MonoUs, Now};
use crate::consensus::round::Pinned;
use crate::crypto::hash::Hash;
use crate::crypto::verify::Check;
use crate::ledger::coins::{CoinView, ViewError};
use crate::ledger::era::NextEra;
use crate::ledger::fork::power_of;
use crate::p2p::messages::{Message, PeerId, Status};
use crate::replica::fork::AGAIN_MS;
use crate::replica::gate::Held;
use crate::replica::height::Work;
use crate::replica::io::*;
use crate::replica::machine::Replica;
use crate::replica::record::{Record, height_of_key};
use crate::types::block::Header;
use crate::types::fork::{Decision, RecoveryCert, Tie};
use crate::types::ids::*;
use crate::types::polka::Polka;
use crate::types::validators::ValidatorSet;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// RecoveryCerts kept of one era, with the one that the node goes by; beyond it the least of them goes.
pub(super) const CERT_COUNT_MAX: usize = 8;

/// What is known of certificates that this node does not go by.
#[derive(Default)]
pub(in crate::replica) struct Others {
    /// By hash, all of one era.
    certs: BTreeMap<Hash, RecoveryCert>,
    /// The round of the new era to which records of this node bind it, when it started.
    tied: Option<EraRound>,
    /// When peers are told, and asked, again.
    pub(super) due: MonoUs,
    asked: MonoUs,
    /// The chain of a peer names this certificate, which is not held, or with which nothing can be judged.
    pub(super) lacking: Option<Hash>,
}

impl Others {
    /// Those that were kept before a start, of one era, and the round to which other records bind.
    pub(in crate::replica) fn new(certs: Vec<RecoveryCert>, tied: Option<EraRound>) -> Others {
        Others {
            certs: certs.into_iter().map(|c| (c.hash(), c)).collect(),
            tied,
            ..Others::default()
        }
    }

    pub(super) fn get(&self, hash: &Hash) -> Option<&RecoveryCert> {
        self.certs.get(hash)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RecoveryCert> {
        self.certs.values()
    }

    /// Whether one of `rank` finds a place among those that are held, and which gives way to it. One that a chain names is kept
    /// whatever its rank; those whose rank is not known, of an era before, go first.
    fn place(&self, held: &[(Option<Rank>, Hash)], rank: &Rank, hash: Hash) -> Place {
        let wanted = self.lacking == Some(hash);
        match held.iter().min() {
            Some((least, gone)) if held.len() >= CERT_COUNT_MAX - 1 => {
                let better = least.as_ref().is_none_or(|least| least < rank);
                match better || wanted {
                    true => Place::For(*gone),
                    false => Place::None,
                }
            }
            _ => Place::Free,
        }
    }

    /// A height is decided: what bound at it is over, and what a peer claimed there.
    pub(super) fn passed(&mut self) {
        (self.tied, self.lacking) = (None, None);
    }

    pub(super) fn sizes(&self) -> Size {
        let most = CERT_COUNT_MAX - 1;
        Size::new("other recovery certificates", self.certs.len(), most)
    }
}

/// Greater is better.
type Rank = (u32, Power, Reverse<Hash>);

/// Whether a certificate can be kept.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Free,
    /// In the place of this one.
    For(Hash),
    None,
}

impl Replica {
    /// The certificate that this node goes by while no header of the era that it begins stands in its chain.
    pub(super) fn crossing(&self) -> Option<&RecoveryCert> {
        self.forks.certs.get(&self.state.tip.era)
    }

    /// The certificate by which this node crossed last: its chain may be in the new era.
    fn crossed(&self) -> Option<&RecoveryCert> {
        let tip = self.state.tip.era;
        let before = Era(tip.0.saturating_sub(1));
        self.crossing().or_else(|| self.forks.certs.get(&before))
    }

    /// Who decides a height in the era that a certificate begins, in whose members only its culprits have no vote; `None` if
    /// they are not known. On another branch the members may be those of the fork's height still.
    fn set_by(
        &self,
        view: &dyn CoinView,
        header: &Header,
        cert: &RecoveryCert,
    ) -> Result<Option<Arc<ValidatorSet>>, ViewError> {
        let (fork, at) = (cert.fork.height(), cert.fork.first.certificate.commit.at);
        let culprits = || cert.culprits.iter().map(|e| &e.offender);
        let without = |set: Arc<ValidatorSet>| Arc::new(set.without(culprits()));
        let here = match self.crossing() {
            Some(_) => Some(self.state.set_by(&NextEra::of(cert))),
            None => self.set_at(view, header.height, header.era)?.map(without),
        };
        let fits = |set: &Arc<ValidatorSet>| set.hash() == header.validators_hash;
        match here.filter(fits) {
            Some(set) => Ok(Some(set)),
            None => Ok(self.set_at(view, fork, at.era)?.map(without).filter(fits)),
        }
    }

    fn rank(&self, view: &dyn CoinView, cert: &RecoveryCert) -> Result<Option<Rank>, ViewError> {
        let at = cert.fork.first.certificate.commit.at.era;
        let set = self.set_at(view, cert.fork.height(), at)?;
        let power = set.map(|set| power_of(&cert.culprits, &set));
        Ok(power.map(|power| (cert.attempt, power, Reverse(cert.hash()))))
    }

    /// Whether a certificate of an era that has ended for this node is news.
    pub(super) fn wants_other(&self, cert: &RecoveryCert) -> bool {
        let Some(by) = self.forks.certs.get(&cert.era) else {
            return false;
        };
        let newest = [cert.era, cert.era.next()].contains(&self.state.tip.era);
        let hash = cert.hash();
        newest && by.hash() != hash && self.forks.others.get(&hash).is_none()
    }

    /// Another certificate of the era that has ended, verified: kept, told, and gone by if it is better and nothing binds.
    pub(super) fn keep_other(
        &mut self,
        peer: Option<PeerId>,
        cert: RecoveryCert,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let Some(by) = self.forks.certs.get(&cert.era).cloned() else {
            return Ok(());
        };
        let hash = cert.hash();
        let Some(rank) = self.rank(view, &cert)?.filter(|_| self.wants_other(&cert)) else {
            return Ok(());
        };
        let mut ranks = Vec::new();
        for (hash, held) in &self.forks.others.certs {
            let rank = (held.era == cert.era).then_some(self.rank(view, held)?);
            ranks.push((rank.flatten(), *hash));
        }
        match self.forks.others.place(&ranks, &rank, hash) {
            Place::Free => {}
            Place::None => return Ok(()),
            Place::For(gone) => {
                let gone = self.forks.others.certs.remove(&gone);
                gone.into_iter()
                    .for_each(|gone| self.gate.forget(&Record::Other(Box::new(gone))));
            }
        }
        self.forks.others.lacking.take_if(|named| *named == hash);
        self.gate.write(&Record::Other(Box::new(cert.clone())));
        self.forks.others.certs.insert(hash, cert.clone());
        let to = self.peers.ids().into_iter();
        let to = to.filter(|id| Some(*id) != peer).collect();
        let told = Arc::new(Message::RecoveryCert(Box::new(cert.clone())));
        self.out.push(Effect::Send(to, told));
        for evidence in cert.culprits.iter().cloned() {
            self.accuse(Box::new(evidence));
        }
        let same = (by.fork.hash(), by.block) == (cert.fork.hash(), cert.block);
        let free = cert.era == self.state.tip.era && self.tied_at().is_none();
        if same && free && Some(rank) > self.rank(view, &by)? {
            self.go_by(hash);
        }
        Ok(())
    }

    /// From now on this node goes by another certificate: durable, then it starts again.
    fn go_by(&mut self, hash: Hash) {
        let Some(to) = self.forks.others.certs.remove(&hash) else {
            return;
        };
        let Some(from) = self.forks.certs.insert(to.era, to.clone()) else {
            return;
        };
        if from.block != to.block || from.fork.height() != to.fork.height() {
            // The branch that this node went on is gone with all that it signed there.
            let first = from.fork.height().min(to.fork.height());
            let gone = |key: &[u8]| height_of_key(key).is_some_and(|height| height >= first);
            self.gate.forget_all(gone);
        }
        self.gate.forget(&Record::Other(Box::new(to.clone())));
        self.gate.write(&Record::Other(Box::new(from.clone())));
        self.forks.others.certs.insert(from.hash(), from);
        self.begin_era(to);
    }

    /// B6 step 5: durable, then the node starts again in the next era, by this certificate.
    pub(super) fn begin_era(&mut self, cert: RecoveryCert) {
        self.event(Event::ForkEnded {
            height: cert.fork.height(),
            block: cert.block,
            culprits: cert.culprits.iter().map(|e| e.offender).collect(),
        });
        self.guard
            .fork(Some("a fork has ended, the next era begins".into()));
        self.gate.write(&Record::Recovery(Box::new(cert.clone())));
        self.gate.drop_held();
        self.gate.hold(Held::Recovered);
        self.forks.pin = Some((cert.fork.height(), cert.block));
        self.forks.certs.insert(cert.era, cert);
        self.forks.case = None;
    }

    /// What of the height under way is locked or valid in the new era, for a block that may name a certificate: one whose
    /// header is of the old era names none, and is as good by any.
    fn ties(&self) -> impl Iterator<Item = Pinned> {
        let era = self.crossing().map(|by| by.era.next());
        let pinned = [self.height.lock, self.height.engine.state().valid];
        let names = move |pinned: &Pinned| match self.height.blocks.get(&pinned.block) {
            Some(Work::Valid(block, _)) => Some(block.header.era) == era,
            _ => true,
        };
        let pinned = pinned.into_iter().flatten();
        pinned.filter(move |p| Some(p.at.era) == era && names(p))
    }

    /// The latest round of the new era to which a polka binds this node.
    fn tied_at(&self) -> Option<EraRound> {
        let ties = self.ties().map(|pinned| pinned.at);
        ties.chain(self.forks.others.tied).max()
    }

    /// The polka that binds this node to its certificate, for those that go by another.
    fn own_tie(&self) -> Option<Tie> {
        let by = self.crossing()?.hash();
        let last = self.ties().max_by_key(|pinned| pinned.at)?;
        let Some(Work::Valid(block, _)) = self.height.blocks.get(&last.block) else {
            return None;
        };
        let polka = self.height.engine.polka(last.at, last.block)?;
        let names = block.header.recovery_hash == by;
        names.then(|| Tie {
            header: block.header.clone(),
            polka: Polka::clone(polka),
        })
    }

    /// While certificates differ, what binds is said every while.
    pub(super) fn tend_crossing(&mut self, now: Now) {
        if self.crossing_due().is_none_or(|due| due > now.mono) {
            return;
        }
        self.forks.others.due = now.mono.plus_ms(AGAIN_MS);
        if let Some(tie) = self.own_tie() {
            let told = Arc::new(Message::Tie(Box::new(tie)));
            self.out.push(Effect::Send(self.peers.ids(), told));
        }
    }

    /// When [`Replica::tend_crossing`] is due.
    pub(in crate::replica) fn crossing_due(&self) -> Deadline {
        let differ = self.crossing().is_some() && self.forks.others.iter().next().is_some();
        differ.then_some(self.forks.others.due)
    }

    /// The certificate that a polka of a peer binds to, if it is another one, the polka later than what binds this node, and
    /// about the height under way.
    fn tie_to(&self, tie: &Tie) -> Option<&RecoveryCert> {
        let (header, polka) = (&tie.header, &tie.polka);
        let era = self.crossing()?.era.next();
        let one = polka.block == header.id() && polka.height == header.height;
        let here = header.height == self.height.height()
            && header.parent == self.state.block()
            && header.validators_hash == self.state.validators_hash;
        let later = self.tied_at().is_none_or(|at| at < polka.at());
        let fits = one && here && later && (header.era, polka.at().era) == (era, era);
        let other = self.forks.others.get(&header.recovery_hash);
        other.filter(|other| fits && other.era.next() == era)
    }

    /// A peer shows what binds it.
    pub(super) fn judge_tie(&mut self, peer: PeerId, tie: Tie) {
        let Some(other) = self.tie_to(&tie) else {
            return;
        };
        let set = self.state.set_by(&NextEra::of(other));
        let (chain, branch) = (self.state.chain_id(), self.state.tip.branch);
        if let Ok(checks) = tie.polka.checks(chain, branch, &set) {
            self.check(Item::Tie(peer, Box::new(tie)), checks);
        }
    }

    /// Its signatures hold: this node goes by that certificate too. The block may be locked by others, and is proposed again.
    pub(in crate::replica) fn tie_proven(&mut self, tie: Tie) {
        let Some(hash) = self.tie_to(&tie).map(RecoveryCert::hash) else {
            return;
        };
        let (height, block, at) = (tie.header.height, tie.polka.block, tie.polka.at());
        self.gate.write(&Record::Polka(tie.polka));
        self.gate.write(&Record::Valid(height, block, at));
        self.forks.others.tied = Some(at);
        self.go_by(hash);
    }

    /// A peer stands in the era that this node has yet to enter, on a block that this node does not hold: what did it decide?
    pub(super) fn ask_entered(&mut self, now: Now, peer: PeerId, status: &Status) {
        let Some(by) = self.crossing() else {
            return;
        };
        let tip = self.state.height();
        let other = self.forks.decided_id(status.height) != Some(status.block);
        let height = status.height.min(tip.next());
        let asks = status.era >= by.era.next() && height > by.fork.height();
        if asks && (status.height > tip || other) && self.forks.others.asked <= now.mono {
            self.forks.others.asked = now.mono.plus_ms(AGAIN_MS);
            self.send(peer, Message::GetDecision(height));
        }
    }

    /// A peer's chain leaves this one's at a fork that has ended: by which certificate did it go on?
    pub(super) fn ask_split(&mut self, peer: PeerId) {
        let entered = self.crossing().is_none() && self.crossed().is_some();
        let height = self.peers.get(peer).map(|known| known.status.height);
        if let Some(height) = height.filter(|_| entered) {
            let height = height.min(self.state.height());
            self.send(peer, Message::GetDecision(height));
        }
    }

    /// A decision of the new era. If another certificate than this node's gives the set that made it, that one is right; but
    /// where a block of the era stands in the own chain too, two chains are decided, and nobody goes from one to the other.
    pub(in crate::replica) fn weigh_decision(
        &mut self,
        peer: Option<PeerId>,
        decision: &Decision,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        let Some(by) = self.crossed() else {
            return Ok(());
        };
        let (header, certificate) = (&decision.header, &decision.certificate);
        let (era, first) = (by.era.next(), by.fork.height().next());
        let bound = header.id() == certificate.block && header.height == certificate.height;
        if !bound || certificate.commit.at.era != era || header.height < first {
            return Ok(());
        }
        let hash = header.recovery_hash;
        if header.era == era && hash.is_zero() {
            // The first header of the era is further down.
            if let Some(peer) = peer.filter(|_| header.height > first) {
                let below = Height(header.height.0 - 1);
                self.send(peer, Message::GetDecision(below));
            }
            return Ok(());
        }
        let holds = |cert: &RecoveryCert| -> Result<Option<Vec<Check>>, ViewError> {
            let set = self.set_by(view, header, cert)?;
            let (chain, branch) = (self.state.chain_id(), header.branch);
            Ok(set.and_then(|set| certificate.checks(chain, branch, &set).ok()))
        };
        let others = &self.forks.others.certs;
        let next = header.parent == self.state.block();
        let candidates: Vec<&RecoveryCert> = match hash.is_zero() {
            _ if hash == by.hash() => return Ok(()),
            // A block of the old era, decided in the new one, names none: whichever certificate makes it decided.
            true if next && holds(by)?.is_none() => others.values().collect(),
            true => return Ok(()),
            false => others.get(&hash).into_iter().collect(),
        };
        let mut found = None;
        for cert in candidates {
            if found.is_none() {
                found = holds(cert)?.map(|checks| (cert.hash(), checks));
            }
        }
        let entered = self.crossing().is_none();
        match (found, peer) {
            (Some((_, checks)), Some(peer)) if entered => {
                self.check(Item::Deep(peer, Box::new(decision.clone())), checks);
            }
            _ if entered => {}
            (Some((hash, checks)), _) => {
                let item = Item::Entered(peer, hash, Box::new(decision.clone()));
                self.check(item, checks);
            }
            (None, _) => {
                self.forks.others.lacking = Some(hash);
                let why = "its chain names a recovery certificate that this node does not hold, or cannot judge";
                self.refuse_fork(header.height, why);
            }
        }
        Ok(())
    }

    /// Decided is decided: this node goes by the certificate that the chain names.
    pub(in crate::replica) fn entered_proven(&mut self, hash: Hash, decision: &Decision) {
        let other = self.forks.others.get(&hash).map(|other| other.era);
        if other.is_none() || other != self.crossing().map(|by| by.era) {
            return;
        }
        self.go_by(hash);
        // It binds until the block is in the ledger, also over the start.
        self.gate
            .write(&Record::Certificate(decision.certificate.clone()));
        self.forks.others.tied = Some(EraRound {
            round: Round(u32::MAX),
            ..decision.certificate.commit.at
        });
    }

    /// Whether a header names another RecoveryCert than the one that this node goes by: no fault of its block.
    pub(in crate::replica) fn names_other(&self, header: &Header) -> bool {
        let by = self.crossing();
        by.is_some_and(|by| {
            let hash = header.recovery_hash;
            header.era == by.era.next() && !hash.is_zero() && hash != by.hash()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(power: u64, hash: u8) -> Rank {
        (0, Power(power), Reverse(Hash([hash; 32])))
    }

    #[test]
    fn greater_power_then_a_lower_hash_is_better_unless_an_attempt_is_later() {
        assert!(rank(4, 9) > rank(3, 1), "B6.4: more culprits");
        assert!(rank(4, 1) > rank(4, 2), "B6.4: the lower hash");
        let later = (1, Power(0), Reverse(Hash([9; 32])));
        assert!(later > rank(4, 1), "B6.7: operators have agreed since");
    }

    #[test]
    fn the_least_gives_way_and_what_a_chain_names_is_kept() {
        let mut others = Others::default();
        let entry = |i: u8| (Some(rank(u64::from(i), i)), Hash([i; 32]));
        let mut held: Vec<_> = (2..CERT_COUNT_MAX as u8).map(entry).collect();
        let new = Hash([99; 32]);
        assert_eq!(others.place(&held, &rank(1, 99), new), Place::Free);
        held.push(entry(CERT_COUNT_MAX as u8));
        assert_eq!(others.place(&held, &rank(1, 99), new), Place::None);
        let least = Place::For(Hash([2; 32]));
        assert_eq!(others.place(&held, &rank(50, 99), new), least);
        others.lacking = Some(new);
        assert_eq!(
            others.place(&held, &rank(1, 99), new),
            least,
            "B6.5: whoever shows many cannot keep a node from the chain"
        );
        held[3].0 = None;
        let old = Place::For(held[3].1);
        assert_eq!(others.place(&held, &rank(1, 98), Hash([98; 32])), old);
    }
}
