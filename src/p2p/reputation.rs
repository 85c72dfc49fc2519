//! What is held against peers (P3): a table of provable, stateless faults with their weights, scores that recover with time,
//! and bans that expire.
//!
//! Inputs: faults, time, bans by hand. Outputs: scores, whether somebody is banned, the list to keep on disk. Must never
//! count slowness, silence, a restart, a conflict or being behind, and must never hold more than its bounds.

use crate::base::limits::{REGISTERED_COUNT_MAX, Size};
use crate::base::time::{MonoUs, WallMs};
use crate::crypto::keys::PublicKey;
use crate::p2p::address::Range;
use crate::types::ids::MasternodeId;
use core::net::IpAddr;
use std::collections::BTreeMap;

/// The score at which its owner is banned.
pub const BAN_SCORE: i64 = -50;
/// A point comes back after this time.
pub const RECOVERY_MS: u64 = 6 * 60_000;
/// How long a stranger stays banned.
pub const BAN_MS: u64 = 24 * 3_600_000;
/// How long a masternode of the registry stays banned: others may need its votes.
pub const MASTERNODE_BAN_MS: u64 = 60_000;
/// A masternode is not banned again within this time; it is slowed down instead.
pub const MASTERNODE_REST_MS: u64 = 10 * 60_000;
/// By how much a masternode is slowed down then.
pub const SLOWED: u64 = 10;
/// Scores that are remembered; the one nearest to 0 gives way.
pub const SCORE_COUNT_MAX: usize = 4_096;
/// Bans that are held; of those that nobody made by hand the one that ends first gives way.
pub const BAN_COUNT_MAX: usize = 4_096;
/// Longest reason kept with a ban, bytes.
const REASON_BYTES_MAX: usize = 100;

/// Faults by the words in which machines name them, and what each costs. Everything here can be shown to a third party from
/// the frame alone, or breaks the format inside an authenticated stream, where no network can have damaged it.
pub const FAULTS: &[(&str, i64)] = &[
    ("spoke before Hello", 10),
    ("second Hello", 10),
    ("the same OperatorProof again", 10),
    ("OperatorProof with a bad signature", 25),
    ("malformed frame", 25),
    ("a vote with a bad signature", 25),
    ("a proposal with a bad signature", 25),
    ("a polka with a bad signature", 25),
    ("a certificate with a bad signature", 25),
    ("a transaction with a bad signature", 25),
    ("a proposal whose parts do not hash to its block id", 25),
    ("transactions that do not hash to what was asked for", 25),
    ("wrong blocks", 25),
];
/// What a fault costs that is not in the table.
const OTHER_FAULT: i64 = 10;

/// What a fault of this name costs.
pub fn weight(fault: &str) -> i64 {
    let known = FAULTS.iter().find(|(name, _)| *name == fault);
    known.map_or(OTHER_FAULT, |(_, weight)| *weight)
}

/// Who is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A node key.
    Key(PublicKey),
    /// Addresses.
    Range(Range),
    /// A masternode of the registry, whatever its node key is.
    Masternode(MasternodeId),
}

impl Subject {
    /// Reads a node key (64 hex digits), `ADDRESS` or `ADDRESS/BITS`.
    pub fn parse(text: &str) -> Option<Subject> {
        if text.len() == 64 {
            return text.parse().ok().map(Subject::Key);
        }
        Range::parse(text).map(Subject::Range)
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Key(key) => write!(f, "{key}"),
            Subject::Range(range) => write!(f, "{range}"),
            Subject::Masternode(id) => write!(f, "{id}"),
        }
    }
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub subject: Subject,
    /// Since when.
    pub created: WallMs,
    /// When it ends.
    pub until: WallMs,
    /// Why, for people.
    pub why: String,
    /// Whether somebody made it by hand.
    pub by_hand: bool,
}

/// A score as it was last changed.
#[derive(Debug, Clone, Copy)]
struct Score {
    points: i64,
    at: MonoUs,
}

impl Score {
    fn now(&self, now: MonoUs) -> i64 {
        let back = now.since(self.at) / (RECOVERY_MS * 1_000);
        (self.points + i64::try_from(back).unwrap_or(i64::MAX)).min(0)
    }
}

/// What followed from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Noted.
    Noted,
    /// Banned.
    Banned,
    /// A masternode that was banned a short time ago: it is slowed down.
    Slowed,
}

/// All scores and bans.
#[derive(Debug, Default)]
pub struct Reputation {
    scores: BTreeMap<Subject, Score>,
    bans: BTreeMap<Subject, Ban>,
    /// When a masternode was banned last.
    masternodes: BTreeMap<MasternodeId, MonoUs>,
    slowed: BTreeMap<MasternodeId, MonoUs>,
    changes: u64,
}

impl Reputation {
    /// With bans that were kept on disk; those that have ended are left out.
    pub fn new(now: WallMs, kept: Vec<Ban>) -> Reputation {
        let live = kept.into_iter().filter(|ban| ban.until > now);
        let bans = live.take(BAN_COUNT_MAX).map(|ban| (ban.subject, ban));
        Reputation {
            bans: bans.collect(),
            ..Reputation::default()
        }
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        let members = REGISTERED_COUNT_MAX;
        vec![
            Size::new("scores", self.scores.len(), SCORE_COUNT_MAX),
            Size::new("bans", self.bans.len(), BAN_COUNT_MAX),
            Size::new("masternodes once banned", self.masternodes.len(), members),
            Size::new("masternodes slowed", self.slowed.len(), members),
        ]
    }

    /// The score of somebody, 0 or below.
    pub fn score(&self, now: MonoUs, subject: &Subject) -> i64 {
        self.scores.get(subject).map_or(0, |score| score.now(now))
    }

    /// Somebody committed a fault.
    pub fn blame(
        &mut self,
        (mono, wall): (MonoUs, WallMs),
        subject: Subject,
        fault: &str,
    ) -> Verdict {
        let points = self.score(mono, &subject) - weight(fault);
        self.note(mono, subject, points);
        if points > BAN_SCORE {
            return Verdict::Noted;
        }
        // Half of the way back: who goes on after a ban is soon banned again, who has mended is not.
        self.note(mono, subject, BAN_SCORE / 2);
        let time = match subject {
            Subject::Masternode(id) => {
                let banned = self.masternodes.get(&id);
                if banned.is_some_and(|at| mono.since(*at) < MASTERNODE_REST_MS * 1_000) {
                    self.slowed.insert(id, mono.plus_ms(MASTERNODE_REST_MS));
                    return Verdict::Slowed;
                }
                self.masternodes.insert(id, mono);
                MASTERNODE_BAN_MS
            }
            _ => BAN_MS,
        };
        self.ban(wall, subject, time, fault, false);
        Verdict::Banned
    }

    fn note(&mut self, now: MonoUs, subject: Subject, points: i64) {
        let full = self.scores.len() >= SCORE_COUNT_MAX && !self.scores.contains_key(&subject);
        if full {
            self.scores.retain(|_, score| score.now(now) < 0);
            let mildest = self.scores.iter().max_by_key(|(_, score)| score.now(now));
            if let Some(subject) = mildest.map(|(subject, _)| *subject)
                && self.scores.len() >= SCORE_COUNT_MAX
            {
                self.scores.remove(&subject);
            }
        }
        self.scores.insert(subject, Score { points, at: now });
    }

    /// Bans somebody for a time, in place of a ban that is there.
    pub fn ban(&mut self, now: WallMs, subject: Subject, ms: u64, why: &str, by_hand: bool) {
        self.expire(now);
        if self.bans.len() >= BAN_COUNT_MAX && !self.bans.contains_key(&subject) {
            let others = self.bans.values().filter(|ban| !ban.by_hand || by_hand);
            let first = others.min_by_key(|ban| (ban.by_hand, ban.until));
            match first.map(|ban| ban.subject) {
                Some(first) => self.bans.remove(&first),
                None => return,
            };
        }
        let readable = |c: &char| !c.is_control();
        let why = why.chars().filter(readable).take(REASON_BYTES_MAX);
        let ban = Ban {
            subject,
            created: now,
            until: now.plus(ms),
            why: why.collect(),
            by_hand,
        };
        self.bans.insert(subject, ban);
        self.changes += 1;
    }

    /// Ends a ban; false if there is none.
    pub fn unban(&mut self, subject: &Subject) -> bool {
        self.scores.remove(subject);
        let found = self.bans.remove(subject).is_some();
        self.changes += u64::from(found);
        found
    }

    /// Ends all bans and forgets all scores.
    pub fn clear(&mut self) {
        self.scores.clear();
        self.bans.clear();
        self.slowed.clear();
        self.changes += 1;
    }

    /// Forgets bans that have ended.
    pub fn expire(&mut self, now: WallMs) {
        let before = self.bans.len();
        self.bans.retain(|_, ban| ban.until > now);
        self.changes += u64::from(self.bans.len() != before);
    }

    /// Whether somebody is banned.
    pub fn is_banned(&self, now: WallMs, subject: &Subject) -> bool {
        self.bans.get(subject).is_some_and(|ban| ban.until > now)
    }

    /// The ban that covers an address.
    pub fn ban_of(&self, now: WallMs, ip: IpAddr) -> Option<&Ban> {
        let covers = |ban: &&Ban| match ban.subject {
            Subject::Range(range) => ban.until > now && range.contains(ip),
            _ => false,
        };
        self.bans.values().find(covers)
    }

    /// All bans in order.
    pub fn bans(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values()
    }

    /// Grows with every change of the bans.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// By how much a masternode is slowed down now; 1 = not at all.
    pub fn slowed(&self, now: MonoUs, id: &MasternodeId) -> u64 {
        match self.slowed.get(id).is_some_and(|until| now < *until) {
            true => SLOWED,
            false => 1,
        }
    }

    /// Forgets masternodes that the registry no longer knows, so that what is kept of them stays bounded.
    pub fn keep_masternodes(&mut self, is_known: impl Fn(&MasternodeId) -> bool) {
        self.masternodes.retain(|id, _| is_known(id));
        self.slowed.retain(|id, _| is_known(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;

    fn key(i: u8) -> Subject {
        Subject::Key(PublicKey([i; 32]))
    }

    fn at(ms: u64) -> (MonoUs, WallMs) {
        (MonoUs(ms * 1_000), WallMs(ms))
    }

    const BAD: &str = "a vote with a bad signature";

    #[test]
    fn faults_add_up_recover_with_time_and_ban_at_minus_50() {
        let mut all = Reputation::default();
        assert_eq!(all.blame(at(0), key(1), BAD), Verdict::Noted);
        assert_eq!(all.score(at(0).0, &key(1)), -25);
        assert_eq!(all.score(at(10 * RECOVERY_MS).0, &key(1)), -15);
        assert_eq!(
            all.score(at(100 * RECOVERY_MS).0, &key(1)),
            0,
            "never above 0"
        );
        assert_eq!(all.blame(at(1), key(1), BAD), Verdict::Banned, "P3: at -50");
        assert!(all.is_banned(WallMs(2), &key(1)) && !all.is_banned(WallMs(2), &key(2)));
        assert!(
            !all.is_banned(WallMs(2 + BAN_MS), &key(1)),
            "P3: with expiry"
        );
        assert!(all.unban(&key(1)) && !all.unban(&key(1)), "P3: reversible");
        assert_eq!(all.score(at(2).0, &key(1)), 0);
        // One fault now and then never bans: the network of an honest node with a bug stays whole.
        for day in 1..60 {
            let verdict = all.blame(at(day * 24 * 3_600_000), key(3), BAD);
            assert_eq!(verdict, Verdict::Noted, "day {day}");
        }
    }

    #[test]
    fn a_masternode_is_banned_briefly_and_then_slowed() {
        let id = MasternodeId(Hash([1; 32]));
        let masternode = Subject::Masternode(id);
        let mut all = Reputation::default();
        let mut verdicts = Vec::new();
        for minute in 0..10 {
            verdicts.push(all.blame(at(minute * 60_000), masternode, BAD));
        }
        let bans = verdicts.iter().filter(|v| **v == Verdict::Banned).count();
        assert_eq!(
            bans, 1,
            "P3: not more than once in 10 minutes: {verdicts:?}"
        );
        assert!(verdicts.contains(&Verdict::Slowed));
        assert_eq!(all.slowed(at(600_000).0, &id), SLOWED);
        assert_eq!(all.slowed(at(600_000 + MASTERNODE_REST_MS).0, &id), 1);
        assert!(!all.is_banned(WallMs(60_001 + MASTERNODE_BAN_MS), &masternode));
    }

    #[test]
    fn scores_and_bans_are_bounded_and_bans_by_hand_stay() {
        let mut all = Reputation::default();
        all.ban(WallMs(0), key(1), 1_000_000, "by hand", true);
        for i in 0..2 * BAN_COUNT_MAX as u32 {
            let range = Range::of_stranger(IpAddr::V4(core::net::Ipv4Addr::from(i + 1)));
            let subject = Subject::Range(range);
            all.blame(at(1), subject, BAD);
            all.blame(at(1), subject, BAD);
        }
        assert!(all.bans.len() <= BAN_COUNT_MAX && all.scores.len() <= SCORE_COUNT_MAX);
        assert!(
            all.is_banned(WallMs(2), &key(1)),
            "what a person asked for stays"
        );
    }

    #[test]
    fn every_fault_is_named_once_and_none_bans_at_once() {
        for (name, weight) in FAULTS {
            assert_eq!(
                FAULTS.iter().filter(|(n, _)| n == name).count(),
                1,
                "{name}"
            );
            assert!(
                (1..-BAN_SCORE).contains(weight),
                "{name}: one slip is no ban"
            );
        }
        assert_eq!(weight("something new"), OTHER_FAULT);
    }

    #[test]
    fn subjects_read_as_they_show() {
        for text in ["10.0.0.0/8", "2001:db8::/32", &"ab".repeat(32)] {
            assert_eq!(Subject::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Subject::parse("nobody"), None);
    }
}
