//! Weak subjectivity (F2): a certificate is worth something only while the keys behind it have something to lose. A node
//! trusts what it reaches by set steps from a root younger than `trusting_period`; without one it is unanchored: it syncs
//! and serves, and signs nothing.
//!
//! Input: parameters, the node's own newest slot header at the start, a root that the operator named, decided blocks. Output:
//! anchored or why not. It never lets a chain that was followed unanchored become a root of itself.

use crate::base::time::WallMs;
use crate::types::block::Header;
use crate::types::ids::{BlockId, Height};
use crate::types::params::Params;

/// A block that the operator vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Its height.
    pub height: Height,
    /// Its id.
    pub id: BlockId,
    /// When the operator said so; without it the block's own time counts as its age.
    pub said: Option<WallMs>,
}

/// Reads `HEIGHT:ID`.
pub fn block_of(text: &str) -> Option<(Height, BlockId)> {
    let (height, id) = text.split_once(':')?;
    Some((Height(height.parse().ok()?), id.parse().ok()?))
}

/// The newest slot header that was reached while the one before it was young.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Its height; 0 is the genesis.
    pub height: Height,
    /// Its age counts from here.
    pub time: WallMs,
}

/// What a decided block is to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its height.
    pub height: Height,
    /// Its id.
    pub id: BlockId,
    /// Its time.
    pub time: WallMs,
    /// Whether it is a slot block.
    pub slot: bool,
}

impl Step {
    /// Of a block with this header.
    pub fn of(header: &Header) -> Step {
        Step {
            height: header.height,
            id: header.id(),
            time: header.time,
            slot: !header.slot_root.is_zero(),
        }
    }
}

/// Whether this node may believe what it follows.
#[derive(Debug, Clone)]
pub struct Trust {
    /// 0: off.
    period_ms: u64,
    root: Option<Root>,
    /// The root was met on the chain.
    met: bool,
    anchor: Anchor,
}

impl Trust {
    /// Of a node whose own newest slot header, or what it was anchored at when it last ran, is `anchor`. `met`: the ledger
    /// holds the root.
    pub fn new(params: &Params, anchor: Anchor, root: Option<Root>, met: Option<WallMs>) -> Trust {
        let mut trust = Trust {
            period_ms: params.trusting_period.saturating_mul(params.slot_ms),
            root,
            met: false,
            anchor,
        };
        if let (Some(root), Some(time)) = (root, met) {
            trust.meet(root, time);
        }
        trust
    }

    fn meet(&mut self, root: Root, time: WallMs) {
        self.met = true;
        let time = root.said.unwrap_or(time);
        if time >= self.anchor.time || root.height > self.anchor.height {
            let height = root.height.max(self.anchor.height);
            self.anchor = Anchor { height, time };
        }
    }

    fn is_young(&self, now: WallMs) -> bool {
        self.period_ms == 0 || now.0 < self.anchor.time.0.saturating_add(self.period_ms)
    }

    /// Whether this node is anchored. Genesis is a root of any age for height 1.
    pub fn is_anchored(&self, now: WallMs, tip: Height) -> bool {
        self.is_young(now) || tip == Height(0)
    }

    /// Why not, in words.
    pub fn doubt(&self, now: WallMs, tip: Height) -> Option<String> {
        (!self.is_anchored(now, tip)).then(|| {
            format!(
                "unanchored: nothing this node trusts is younger than the trusting period (the newest is of height {}); \
                 compare the tip with other operators, then 'timed trust HEIGHT:ID'",
                self.anchor.height
            )
        })
    }

    /// A block was decided.
    pub fn decided(&mut self, now: WallMs, step: Step) {
        let believed = self.is_anchored(now, Height(step.height.0.saturating_sub(1)));
        if let Some(root) = self.root.filter(|r| !self.met && r.height == step.height)
            && root.id == step.id
        {
            self.meet(root, step.time);
        }
        if believed && step.slot && step.height > self.anchor.height {
            self.anchor = Anchor {
                height: step.height,
                time: step.time.max(self.anchor.time),
            };
        }
    }

    /// Whether a block contradicts what the operator vouches for.
    pub fn contradicts(&self, height: Height, id: BlockId) -> bool {
        let root = self.root.filter(|root| root.height == height);
        root.is_some_and(|root| root.id != id)
    }

    /// The newest believed slot header.
    pub fn anchor(&self) -> Anchor {
        self.anchor
    }
    /// What the operator vouches for.
    pub fn root(&self) -> Option<Root> {
        self.root
    }
    /// The root, once it is on this node's chain.
    pub fn vouched(&self) -> Option<Root> {
        self.root.filter(|_| self.met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash::Hash;
    use crate::types::address::Network;

    const DAY: u64 = 86_400_000;

    fn params() -> Params {
        Params::of(Network::Main)
    }

    fn period() -> u64 {
        params().trusting_period * params().slot_ms
    }

    fn step(height: u64, time: u64) -> Step {
        Step {
            height: Height(height),
            id: BlockId(Hash([height as u8; 32])),
            time: WallMs(time),
            slot: true,
        }
    }

    fn at(height: u64, time: u64) -> Anchor {
        Anchor {
            height: Height(height),
            time: WallMs(time),
        }
    }

    #[test]
    fn who_was_away_too_long_is_unanchored_and_stays_so_however_far_it_syncs() {
        let mut trust = Trust::new(&params(), at(10, DAY), None, None);
        let late = WallMs(DAY + period());
        assert!(!trust.is_anchored(late, Height(10)), "F2");
        trust.decided(late, step(11, late.0 - 1));
        assert!(
            !trust.is_anchored(late, Height(11)),
            "F2: a chain of bought keys does not vouch for itself"
        );
        assert_eq!(trust.anchor(), at(10, DAY), "what a restart begins with");
        let early = WallMs(late.0 - 1);
        let mut trust = Trust::new(&params(), at(10, DAY), None, None);
        trust.decided(early, step(11, early.0));
        assert!(
            trust.is_anchored(late, Height(11)),
            "in time: each slot header renews"
        );
    }

    #[test]
    fn genesis_is_a_root_of_any_age_for_height_one_only() {
        let late = WallMs(3 * period());
        let mut trust = Trust::new(&params(), at(0, 0), None, None);
        assert!(
            trust.is_anchored(late, Height(0)),
            "a network may start late"
        );
        trust.decided(late, step(1, DAY));
        assert!(
            !trust.is_anchored(late, Height(1)),
            "an old block 1 proves nothing"
        );
        let mut trust = Trust::new(&params(), at(0, 0), None, None);
        trust.decided(late, step(1, late.0));
        assert!(trust.is_anchored(late, Height(1)));
    }

    #[test]
    fn a_named_root_anchors_when_it_is_met_and_a_lie_about_it_is_seen() {
        let late = WallMs(3 * period());
        let root = Root {
            height: Height(20),
            id: step(20, 0).id,
            said: None,
        };
        let mut trust = Trust::new(&params(), at(10, DAY), Some(root), None);
        trust.decided(late, step(19, late.0 - DAY));
        assert!(!trust.is_anchored(late, Height(19)));
        assert!(
            trust.contradicts(Height(20), step(21, 0).id)
                && !trust.contradicts(Height(20), root.id)
        );
        trust.decided(late, step(20, late.0 - DAY));
        assert!(
            trust.is_anchored(late, Height(20)),
            "F2: trusted = height:id"
        );
        let mut trust = Trust::new(&params(), at(10, DAY), Some(root), None);
        trust.decided(late, step(20, DAY));
        assert!(
            !trust.is_anchored(late, Height(20)),
            "an old root is no root"
        );
        let said = Root {
            said: Some(late),
            ..root
        };
        let trust = Trust::new(&params(), at(30, DAY), Some(said), Some(WallMs(DAY)));
        assert!(
            trust.is_anchored(late, Height(30)),
            "F2: a network that stood still: operators compared tips just now"
        );
    }

    #[test]
    fn a_devnet_needs_no_root() {
        let trust = Trust::new(&Params::of(Network::Dev), at(10, 0), None, None);
        assert!(trust.is_anchored(WallMs(u64::MAX), Height(10)));
    }
}
