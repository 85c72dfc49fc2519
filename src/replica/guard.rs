//! May this node sign? (B7, I2.) Refuses every position at or below the high-water mark, waits after a start until
//! validators that hold a quorum together with this one have shown the highest votes they hold by its key, and abstains
//! while the signer store is missing, foreign or stale until no vote of the past can be contradicted.
//!
//! Input: what the store said at start, peers' proofs, votes and tips, decided heights. Output: yes, or why not.

use crate::base::limits::{PEER_COUNT_MAX, REGISTERED_COUNT_MAX, Size};
use crate::consensus::rules::Rules;
use crate::replica::record::{Position, Step};
use crate::types::ids::*;
use crate::types::validators::ValidatorSet;
use std::collections::{BTreeMap, BTreeSet};

/// Why nothing is signed now, in words for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This node speaks for no masternode.
    #[error("this node has no operator key, or one that no masternode has now")]
    Observer,
    /// Its masternode is not in the validator set.
    #[error("this masternode is not in the validator set")]
    NotInSet,
    /// The position is not above the high-water mark (I2).
    #[error("a message at or after this position was signed before")]
    HighWater,
    /// The first message after a start waits for the exchange of B7 step 2.
    #[error(
        "waiting for validators with {missing} more power to say which votes of this key they hold"
    )]
    Exchange {
        /// Power still missing.
        missing: u64,
    },
    /// The first message after a start would be about a height that others have decided (B7 step 2).
    #[error(
        "masternodes with more than a third of the power have decided height {0}: it is fetched before anything is signed"
    )]
    Decided(Height),
    /// B7 step 3.
    #[error("signer state is unsure ({reason}): {progress}")]
    Unsure {
        /// Why.
        reason: String,
        /// What it waits for.
        progress: String,
    },
    /// F2: nothing that this node trusts is young enough.
    #[error("{0}")]
    Unanchored(String),
    /// B6 step 1.
    #[error("{0}")]
    Forked(String),
    /// Validation or a disk failed.
    #[error("signing stopped: {0}")]
    Stopped(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Trust {
    Sure,
    /// Asking validators for their tips (B7 step 4).
    Asking(String),
    /// Waiting until height L + 2 is decided; the set that was asked (B7 step 5).
    Waiting(String, Height, crate::crypto::hash::Hash),
}

/// The guard of one node.
#[derive(Debug)]
pub struct Guard {
    me: Option<MasternodeId>,
    high_water: Option<Position>,
    trust: Trust,
    exchanged: BTreeSet<MasternodeId>,
    cleared: bool,
    /// Masternodes that are connected, and the greatest height each says is decided.
    decided: BTreeMap<MasternodeId, Height>,
    tips: BTreeMap<MasternodeId, Height>,
    stopped: Option<String>,
    doubt: Option<String>,
    /// Two blocks are decided at one height: nothing of this era is signed.
    forked: Option<String>,
    rules: Rules,
}

impl Guard {
    /// A guard at start. `unsure`: why the store cannot be trusted, if it cannot.
    pub fn new(
        me: Option<MasternodeId>,
        high_water: Option<Position>,
        unsure: Option<String>,
    ) -> Guard {
        let trust = unsure.map_or(Trust::Sure, Trust::Asking);
        let (exchanged, tips) = (BTreeSet::new(), BTreeMap::new());
        Guard {
            me,
            high_water,
            trust,
            exchanged,
            cleared: false,
            decided: BTreeMap::new(),
            tips,
            stopped: None,
            doubt: None,
            forked: None,
            rules: Rules::default(),
        }
    }

    /// The same guard under these rules: the protocol's, or those of a mutant.
    pub fn under(self, rules: Rules) -> Guard {
        Guard { rules, ..self }
    }

    /// How full its containers are.
    pub fn sizes(&self) -> Vec<Size> {
        let members = REGISTERED_COUNT_MAX;
        vec![
            Size::new(
                "masternodes that showed votes",
                self.exchanged.len(),
                members,
            ),
            Size::new("tips of masternodes", self.tips.len(), members),
            Size::new("masternodes' heights", self.decided.len(), PEER_COUNT_MAX),
        ]
    }

    /// Forgets masternodes that the registry does not hold any more.
    pub fn keep(&mut self, registered: impl Fn(&MasternodeId) -> bool) {
        self.exchanged.retain(&registered);
        self.tips.retain(|id, _| registered(id));
    }

    /// The masternode this node speaks for.
    pub fn me(&self) -> Option<MasternodeId> {
        self.me
    }

    /// The registry names this node's key for another masternode, or for none any more. What was signed stays signed; the
    /// exchange of B7 step 2 begins anew, as peers may hold votes by the other name.
    pub fn assign(&mut self, me: Option<MasternodeId>) {
        self.me = me;
        self.exchanged.clear();
        self.cleared = false;
    }

    /// The greatest signed position.
    pub fn high_water(&self) -> Option<Position> {
        self.high_water
    }

    /// Greatest height at which this key is known to have signed, 0 if none.
    pub fn voted(&self) -> Height {
        self.high_water.map_or(Height(0), |mark| mark.height)
    }

    /// Whether the store knows of messages up to `position`.
    pub fn covers(&self, position: Position) -> bool {
        self.high_water.is_some_and(|mark| position <= mark)
    }

    /// Whether the signer store is trusted.
    pub fn is_sure(&self) -> bool {
        self.trust == Trust::Sure
    }

    /// Stops signing until the next start or [`Guard::resume`].
    pub fn stop(&mut self, why: impl Into<String>) {
        self.stopped.get_or_insert(why.into());
    }

    /// B6: why nothing of this era is signed.
    pub fn fork(&mut self, why: Option<String>) {
        self.forked = why;
    }

    /// B6: a new era begins above `height`: nothing of an older one, and nothing at or below it, is ever signed again. The
    /// new high-water mark.
    pub fn enter(&mut self, era: Era, height: Height) -> Position {
        let mark = Position {
            era,
            height,
            round: Round(u32::MAX),
            step: Step::Precommit,
        };
        let mark = self.high_water.map_or(mark, |held| held.max(mark));
        self.high_water = Some(mark);
        mark
    }

    /// Signing may go on after a stop that has passed (a disk that was full).
    pub fn resume(&mut self) {
        self.stopped = None;
    }

    /// F2: why what this node follows may be a lie, if it may.
    pub fn doubt(&mut self, why: Option<String>) {
        self.doubt = why;
    }

    /// Whether anything may be signed at the height that `set` decides.
    pub fn ready(&self, height: Height, set: &ValidatorSet) -> Result<(), Refusal> {
        let me = self.me.ok_or(Refusal::Observer)?;
        let own = set.get(&me).ok_or(Refusal::NotInSet)?.power;
        if let Some(why) = &self.forked {
            return Err(Refusal::Forked(why.clone()));
        }
        if let Some(why) = &self.stopped {
            return Err(Refusal::Stopped(why.clone()));
        }
        if let Some(why) = &self.doubt {
            return Err(Refusal::Unanchored(why.clone()));
        }
        match &self.trust {
            Trust::Sure if self.cleared => Ok(()),
            Trust::Sure => self.first_message(height, own, set),
            Trust::Asking(reason) => {
                let heard = self.power_of(self.tips.keys(), set);
                let progress = format!(
                    "tips of validators with power {heard} known, more than 2/3 of {} needed",
                    set.total()
                );
                Err(Refusal::Unsure {
                    reason: reason.clone(),
                    progress,
                })
            }
            Trust::Waiting(reason, tip, _) => {
                let progress = format!("signs again from height {}", tip.0.saturating_add(3));
                Err(Refusal::Unsure {
                    reason: reason.clone(),
                    progress,
                })
            }
        }
    }

    /// B7 step 2: after a start nothing is signed before validators that hold a quorum together with this one have said which
    /// votes of this key they hold, and nothing at a height that is over: votes of it may be held by nobody any more, so
    /// that the exchange could not show them. Of more than a third one is honest and has the block, and sync takes this
    /// node past it; fewer may lie, and could silence it for ever.
    fn first_message(&self, height: Height, own: Power, set: &ValidatorSet) -> Result<(), Refusal> {
        let heard = Power(own.0 + self.power_of(self.exchanged.iter(), set));
        if !is_quorum(heard, set.total()) {
            let wanted = 2 * set.total().0 / 3 + 1;
            let missing = wanted.saturating_sub(heard.0);
            return Err(Refusal::Exchange { missing });
        }
        let past = self.decided.iter().filter(|(_, tip)| **tip >= height);
        let past = Power(self.power_of(past.map(|(id, _)| id), set));
        match is_over_third(past, set.total()) {
            true => Err(Refusal::Decided(height)),
            false => Ok(()),
        }
    }

    fn power_of<'a>(&self, ids: impl Iterator<Item = &'a MasternodeId>, set: &ValidatorSet) -> u64 {
        let others = ids.filter(|id| Some(**id) != self.me);
        others.filter_map(|id| set.get(id)).map(|v| v.power.0).sum()
    }

    /// Whether a message at `position` may be signed; if so it becomes the high-water mark (I1, I2).
    pub fn take(&mut self, position: Position, set: &ValidatorSet) -> Result<(), Refusal> {
        self.ready(position.height, set)?;
        if self.high_water.is_some_and(|mark| position <= mark) {
            return Err(Refusal::HighWater);
        }
        self.cleared = true;
        self.high_water = Some(position);
        Ok(())
    }

    /// A masternode that is connected says up to which height everything is decided; `None`: it is gone, or stands in an
    /// older era, whose heights may be taken back.
    pub fn decided_by(&mut self, masternode: MasternodeId, height: Option<Height>) {
        match height {
            Some(height) => drop(self.decided.insert(masternode, height)),
            None => drop(self.decided.remove(&masternode)),
        }
    }

    /// A masternode has said which vote of this key it holds (B7 step 2).
    pub fn exchanged_with(&mut self, masternode: MasternodeId) {
        self.exchanged.insert(masternode);
    }

    /// A correctly signed message of this node's own key at a position of which `known` says whether the store holds
    /// exactly it (`None`: the height is no longer held). True: the key is in use elsewhere or the store is stale.
    pub fn own_message_seen(&mut self, position: Position, known: Option<bool>) -> bool {
        let above = self.high_water.is_none_or(|mark| position > mark);
        let alarm = self.is_sure() && (above || known == Some(false));
        if alarm {
            self.distrust("stale signer state or key in use elsewhere");
        }
        alarm
    }

    /// The store can no longer be trusted.
    pub fn distrust(&mut self, reason: &str) {
        self.trust = Trust::Asking(reason.to_string());
        self.tips.clear();
    }

    /// A masternode, proved by its operator key, told its decided height and the greatest height it voted at. It voted there
    /// because the height below was decided, even if it has lost that block since.
    pub fn tip_of(&mut self, masternode: MasternodeId, height: Height, voted: Height) {
        if matches!(self.trust, Trust::Asking(_)) {
            self.tips
                .entry(masternode)
                .or_insert(known_decided(height, voted));
        }
    }

    /// Where this node stands: `set` decides `height` + 1. Returns the new high-water mark when signing becomes safe
    /// (B7 steps 4 and 5); it must be durable before anything is signed.
    pub fn advance(&mut self, era: Era, height: Height, set: &ValidatorSet) -> Option<Position> {
        match self.trust.clone() {
            Trust::Sure => None,
            Trust::Asking(reason) => {
                let greatest = self
                    .tips
                    .values()
                    .copied()
                    .max()
                    .unwrap_or(height)
                    .max(height);
                let heard = Power(self.power_of(self.tips.keys(), set));
                if greatest == height && is_quorum(heard, set.total()) {
                    self.trust = Trust::Waiting(reason, height, set.hash());
                }
                None
            }
            Trust::Waiting(reason, tip, asked) => {
                let changed = set.hash() != asked && self.rules.asks_new_set;
                if height == tip.next() && changed {
                    // Block L + 1 changed the set: its members may hold certificates the old set knows nothing of (V5).
                    self.trust = Trust::Asking(reason);
                    self.tips.clear();
                    return None;
                }
                if height.0 < tip.0.saturating_add(2) {
                    return None;
                }
                // The tips of step 4 stand for the exchange of step 2: whoever showed a vote was no answer then.
                (self.trust, self.cleared) = (Trust::Sure, true);
                let mark = Position {
                    era,
                    height,
                    round: Round(u32::MAX),
                    step: Step::Precommit,
                };
                self.high_water = self.high_water.max(Some(mark));
                self.high_water
            }
        }
    }
}

/// The greatest height that a masternode knows is decided: it voted above it, even if it has lost that block since.
pub(super) fn known_decided(height: Height, voted: Height) -> Height {
    height.max(Height(voted.0.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::crypto::keys::PublicKey;
    use crate::types::validators::Validator;

    fn id(i: u8) -> MasternodeId {
        MasternodeId(Hash([i; 32]))
    }

    fn set(ids: &[u8]) -> ValidatorSet {
        let member = |i: &u8| Validator {
            id: id(*i),
            operator: PublicKey([*i; 32]),
            power: Power(1_000),
        };
        ValidatorSet::new(ids.iter().map(member).collect()).unwrap()
    }

    fn at(height: u64, round: u32, step: Step) -> Position {
        Position {
            era: Era(0),
            height: Height(height),
            round: Round(round),
            step,
        }
    }

    #[test]
    fn positions_never_decrease() {
        let mut guard = Guard::new(Some(id(1)), None, None);
        let alone = set(&[1]);
        assert_eq!(
            guard.take(at(1, 0, Step::Prevote), &alone),
            Ok(()),
            "B7.2: alone in V: at once"
        );
        assert_eq!(
            guard.take(at(1, 0, Step::Prevote), &alone),
            Err(Refusal::HighWater),
            "I1"
        );
        assert_eq!(
            guard.take(at(1, 0, Step::Propose), &alone),
            Err(Refusal::HighWater),
            "I2"
        );
        assert_eq!(guard.take(at(1, 0, Step::Precommit), &alone), Ok(()));
        assert_eq!(guard.take(at(2, 0, Step::Propose), &alone), Ok(()));
    }

    #[test]
    fn the_first_message_waits_for_a_quorum_of_exchanges() {
        let mut guard = Guard::new(Some(id(1)), None, None);
        let four = set(&[1, 2, 3, 4]);
        guard.exchanged_with(id(2));
        assert!(
            matches!(guard.ready(Height(1), &four), Err(Refusal::Exchange { .. })),
            "B7.2"
        );
        guard.exchanged_with(id(3));
        assert_eq!(guard.take(at(1, 0, Step::Prevote), &four), Ok(()));
    }

    #[test]
    fn the_first_message_is_not_about_a_height_that_is_over() {
        let four = set(&[1, 2, 3, 4]);
        let mut guard = Guard::new(Some(id(1)), Some(at(5, 0, Step::Precommit)), None);
        [2, 3].iter().for_each(|i| guard.exchanged_with(id(*i)));
        assert_eq!(guard.ready(Height(6), &four), Ok(()));
        guard.decided_by(id(2), Some(Height(5)));
        guard.decided_by(id(3), Some(Height(5)));
        assert_eq!(
            guard.ready(Height(6), &four),
            Ok(()),
            "everybody started again at the same height"
        );
        guard.decided_by(id(2), Some(Height(6)));
        assert_eq!(
            guard.ready(Height(6), &four),
            Ok(()),
            "B7.2: a quarter may lie"
        );
        guard.decided_by(id(3), Some(Height(9)));
        let over = Err(Refusal::Decided(Height(6)));
        assert_eq!(guard.ready(Height(6), &four), over, "B7.2");
        assert_eq!(
            guard.take(at(6, 0, Step::Prevote), &four),
            over,
            "B7.2: nothing is signed"
        );
        assert_eq!(
            guard.ready(Height(7), &four),
            Ok(()),
            "fetched, and past it"
        );
        guard.decided_by(id(3), None);
        assert_eq!(
            guard.ready(Height(6), &four),
            Ok(()),
            "who is gone says nothing"
        );
        guard.decided_by(id(3), Some(Height(9)));
        guard.decided_by(id(9), Some(Height(9)));
        assert_eq!(guard.take(at(7, 0, Step::Prevote), &four), Ok(()));
        guard.decided_by(id(2), Some(Height(7)));
        assert_eq!(
            guard.take(at(7, 0, Step::Precommit), &four),
            Ok(()),
            "who has signed since its start knows what it signed"
        );
    }

    #[test]
    fn a_lost_store_signs_again_two_heights_after_every_tip() {
        let mut guard = Guard::new(Some(id(1)), None, Some("store missing".into()));
        let four = set(&[1, 2, 3, 4]);
        guard.tip_of(id(2), Height(7), Height(0));
        guard.tip_of(id(3), Height(9), Height(0));
        guard.advance(Era(0), Height(9), &four);
        assert!(
            !guard.is_sure(),
            "B7.4: more than 2S/3 without the own power: all three others of four"
        );
        guard.tip_of(id(4), Height(8), Height(0));
        for height in 9..=10 {
            assert_eq!(guard.advance(Era(0), Height(height), &four), None);
        }
        let mark = guard.advance(Era(0), Height(11), &four).unwrap();
        assert_eq!(mark.height, Height(11), "B7.5: high-water L + 2");
        [2, 3, 4].iter().for_each(|i| guard.exchanged_with(id(*i)));
        assert_eq!(
            guard.take(at(11, 5, Step::Prevote), &four),
            Err(Refusal::HighWater)
        );
        assert_eq!(
            guard.take(at(12, 0, Step::Prevote), &four),
            Ok(()),
            "B7.5: from L + 3"
        );
    }

    #[test]
    fn a_node_that_rebuilds_its_ledger_does_not_lower_the_tip() {
        let mut guard = Guard::new(Some(id(1)), None, Some("lost".into()));
        let four = set(&[1, 2, 3, 4]);
        guard.tip_of(id(2), Height(0), Height(9));
        guard.tip_of(id(3), Height(0), Height(0));
        guard.tip_of(id(4), Height(0), Height(0));
        for height in 0..=9 {
            assert_eq!(
                guard.advance(Era(0), Height(height), &four),
                None,
                "B7.4: it voted at 9, so 8 was decided"
            );
        }
        assert!(guard.advance(Era(0), Height(10), &four).is_some());
    }

    #[test]
    fn a_change_of_the_set_asks_again() {
        let mut guard = Guard::new(Some(id(1)), None, Some("lost".into()));
        [2, 3, 4]
            .iter()
            .for_each(|i| guard.tip_of(id(*i), Height(5), Height(0)));
        guard.advance(Era(0), Height(5), &set(&[1, 2, 3, 4]));
        let other = set(&[1, 5, 6, 7]);
        guard.advance(Era(0), Height(6), &other);
        guard.advance(Era(0), Height(7), &other);
        assert_eq!(
            guard.advance(Era(0), Height(8), &other),
            None,
            "V5: the new set has not been asked"
        );
        [5, 6, 7]
            .iter()
            .for_each(|i| guard.tip_of(id(*i), Height(8), Height(0)));
        guard.advance(Era(0), Height(8), &other);
        guard.advance(Era(0), Height(9), &other);
        assert!(guard.advance(Era(0), Height(10), &other).is_some());
    }

    #[test]
    fn a_vote_of_the_own_key_from_elsewhere_stops_signing() {
        let mut guard = Guard::new(Some(id(1)), Some(at(5, 0, Step::Prevote)), None);
        assert!(
            !guard.own_message_seen(at(5, 0, Step::Prevote), Some(true)),
            "the stored message itself"
        );
        assert!(
            !guard.own_message_seen(at(3, 0, Step::Prevote), None),
            "records dropped with their height say nothing"
        );
        assert!(
            guard.own_message_seen(at(5, 0, Step::Precommit), None),
            "B7.2: above the high-water mark"
        );
        assert!(!guard.is_sure());
        let mut guard = Guard::new(Some(id(1)), Some(at(5, 0, Step::Precommit)), None);
        assert!(
            guard.own_message_seen(at(5, 0, Step::Prevote), Some(false)),
            "B7.2: not the stored message"
        );
    }
}
