//! What follows from the conduct of peers (P3): faults cost their score, and at -50 their node key and the address they came
//! from are banned.
//!
//! Inputs: faults, bans by hand. Outputs: effects in the machine's list. Must never ban an address that others may share with
//! the culprit by this node's own configuration: configured peers, registered endpoints, this host itself.

use super::{Effect, Machine};
use crate::base::time::Now;
use crate::p2p::address::{Range, is_this_host};
use crate::p2p::messages::PeerId;
use crate::p2p::reputation::{Reputation, Subject, Verdict};
use core::net::IpAddr;

impl Machine {
    /// Scores and bans.
    pub fn reputation(&self) -> &Reputation {
        &self.reputation
    }

    /// The score of a peer: the lowest of those that concern it.
    pub fn score(&self, now: Now, peer: PeerId) -> i64 {
        let subjects = self.subjects(peer);
        let scores = subjects.iter().map(|s| self.reputation.score(now.mono, s));
        scores.min().unwrap_or(0)
    }

    /// Who is held responsible for what a peer does. A masternode is known by its id, so that a new node key changes
    /// nothing; anybody else by the node key, and by the address if it came from there.
    fn subjects(&self, id: PeerId) -> Vec<Subject> {
        let Some(peer) = self.peers.get(&id) else {
            return Vec::new();
        };
        if let Some(masternode) = peer.masternode {
            return vec![Subject::Masternode(masternode)];
        }
        let address = peer.link.remote.map(|remote| remote.ip());
        let own = address.filter(|ip| peer.link.target.is_none() && self.may_be_banned(*ip));
        let range = own.map(|ip| Subject::Range(Range::of_stranger(ip)));
        let key = Subject::Key(peer.link.key);
        range.into_iter().chain([key]).collect()
    }

    fn may_be_banned(&self, ip: IpAddr) -> bool {
        !is_this_host(ip) && !self.exempt.contains(&ip.to_canonical())
    }

    /// A peer broke a rule provably: its connection ends, and it may be banned.
    pub(super) fn blame(&mut self, now: Now, id: PeerId, fault: &'static str) {
        let subjects = self.subjects(id);
        self.close(id, fault, true);
        for subject in subjects {
            let verdict = self.reputation.blame((now.mono, now.wall), subject, fault);
            match verdict {
                Verdict::Noted => {}
                Verdict::Banned => self.enforce(now, Some(id), fault),
                Verdict::Slowed => {
                    if let Subject::Masternode(masternode) = subject {
                        let factor = self.reputation.slowed(now.mono, &masternode);
                        self.out.push(Effect::Slow(id, factor));
                    }
                }
            }
        }
    }

    /// Closes what is banned now, `but` the one that is closed already.
    fn enforce(&mut self, now: Now, but: Option<PeerId>, why: &str) {
        let banned = |id: &PeerId| Some(*id) != but && self.ban_on(now, *id).is_some();
        let gone: Vec<PeerId> = self.peers.keys().copied().filter(banned).collect();
        for id in gone {
            self.close(id, format!("banned: {why}"), false);
        }
    }

    /// Why a peer may not be here: a ban of its key, its address, or the masternode it is.
    pub(super) fn ban_on(&self, now: Now, id: PeerId) -> Option<String> {
        let peer = self.peers.get(&id)?;
        let bans = &self.reputation;
        let address = peer.link.remote.and_then(|r| bans.ban_of(now.wall, r.ip()));
        if let Some(ban) = address {
            return Some(ban.why.clone());
        }
        let key = Some(Subject::Key(peer.link.key));
        let masternode = peer.masternode.map(Subject::Masternode);
        let all = key.into_iter().chain(masternode);
        let banned = |subject: &Subject| bans.is_banned(now.wall, subject);
        all.filter(banned).map(|s| s.to_string()).next()
    }

    /// Sends a peer away that is banned, with a word; true if it was.
    pub(super) fn refuse_banned(&mut self, now: Now, id: PeerId) -> bool {
        if self.ban_on(now, id).is_none() {
            return false;
        }
        self.reject(id, "banned");
        true
    }

    pub(super) fn ban(&mut self, now: Now, subject: Subject, ms: u64) {
        self.reputation.ban(now.wall, subject, ms, "by hand", true);
        self.enforce(now, None, "by hand");
    }

    /// Tells of bans that came or ended.
    pub(super) fn tell_bans(&mut self, now: Now) {
        self.reputation.expire(now.wall);
        let changes = self.reputation.changes();
        if std::mem::replace(&mut self.bans_told, changes) != changes {
            self.out.push(Effect::BansChanged);
        }
    }
}
