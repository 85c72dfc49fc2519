//! Why a masternode earns or not, in plain words (M4, M5): what the registry tells of an entry, and what this node knows
//! of itself beside it. Reads pictures only; decides nothing.

use crate::ledger::registry::{Entry, Standing};
use crate::rpc::node::{MasternodeView, NodeView, OwnStanding};
use crate::types::ids::{SlotIndex, is_over_third};
use crate::types::params::Params;
use serde_json::{Value, json};

/// One reason why a masternode does not earn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub text: String,
}

impl Why {
    /// A reason.
    pub fn new(code: &'static str, text: impl Into<String>) -> Why {
        let text = text.into();
        Why { code, text }
    }
    /// As a method answers it.
    pub fn to_json(&self) -> Value {
        json!({"code": self.code, "text": self.text})
    }
}

/// Since when an entry has been jailed, if it is.
pub fn jailed_since(entry: &Entry) -> Option<SlotIndex> {
    match entry.standing {
        Standing::Jailed { since } => Some(since),
        _ => None,
    }
}

/// The slot block from which the collateral of an entry without power is paid back (B5 step 8).
pub fn released_at(entry: &Entry, params: &Params) -> Option<SlotIndex> {
    match entry.standing {
        Standing::Gone { exit } => Some(SlotIndex(exit.0.saturating_add(params.unbonding))),
        _ => None,
    }
}

fn released(entry: &Entry, now: SlotIndex, params: &Params) -> String {
    match released_at(entry, params) {
        None => String::new(),
        Some(at) => format!(
            "; {} TIME of collateral return at slot index {at}, {} slot blocks from now",
            entry.locked(),
            at.0.saturating_sub(now.0)
        ),
    }
}

/// Why an entry earns nothing, as far as the registry tells; empty if nothing is in its way. `now` is the newest slot block.
pub fn of_entry(entry: &Entry, now: SlotIndex, params: &Params) -> Vec<Why> {
    let back = released(entry, now, params);
    if let Some(at) = entry.slashed {
        let text = format!(
            "thrown out at slot index {at} for signing against the rules: {} TIME were burned{back}",
            entry.burned
        );
        return vec![Why::new("slashed", text)];
    }
    let needed = params.unjail_after;
    match entry.standing {
        Standing::Gone { exit } => {
            vec![Why::new("left", format!("left at slot index {exit}{back}"))]
        }
        _ if entry.leaving.is_some() => {
            let asked = entry.leaving.unwrap_or_default();
            let text = format!(
                "leaving since slot index {asked}: it still votes and earns until the set can let it go"
            );
            vec![Why::new("leaving", text)]
        }
        Standing::Jailed { since } if entry.present >= needed => {
            let queued = entry.queued.unwrap_or(since);
            let text = format!(
                "waiting in the queue since slot index {queued}: at most a third of the power may enter at a slot block"
            );
            vec![Why::new("queued", text)]
        }
        Standing::Jailed { since } => {
            let present = entry.present;
            let (code, what) = if since == entry.registered && entry.registered.0 > 0 {
                ("new", "new: registered at")
            } else {
                ("jailed", "jailed since")
            };
            let text = format!(
                "{what} slot index {since}, present in {present} of {needed} attested slots that it needs in a row"
            );
            vec![Why::new(code, text)]
        }
        Standing::StandBy => {
            let text = format!(
                "standing by: the {} places of the set are taken by masternodes with more power",
                params.max_validators
            );
            vec![Why::new("standby", text)]
        }
        Standing::Voting if entry.absent > 0 => {
            let text = format!(
                "absent in the last {} attested slots: jailed when they are {}",
                entry.absent, params.jail_after
            );
            vec![Why::new("absent", text)]
        }
        Standing::Voting if entry.present == 0 => {
            let text = "no slot has been attested yet since it is registered: nobody has earned";
            vec![Why::new("unattested", text)]
        }
        Standing::Voting => Vec::new(),
    }
}

/// What this node knows of itself that keeps its masternode from earning.
fn of_node(view: &NodeView) -> Vec<Why> {
    let mut out = Vec::new();
    if let Some(own) = &view.own {
        if let Some(why) = &own.unsure {
            let text = format!("the signer store is not trusted, so nothing is signed: {why}");
            out.push(Why::new("unsure", text));
        } else if !own.anchored {
            let text = "unanchored: no trust root is young enough (timed trust HEIGHT:ID)";
            out.push(Why::new("unanchored", text));
        } else if let Some(why) = &own.abstains {
            out.push(Why::new("abstains", format!("it does not sign: {why}")));
        }
    }
    let behind = view.own_standing.as_ref().is_some_and(|own| !own.synced);
    if view.sync.active || behind {
        let (at, to) = (view.tip.height, view.sync.target.max(view.tip.height));
        let text = format!(
            "not synced: at height {at} of {to}, heartbeats that name an old slot block do not count"
        );
        out.push(Why::new("syncing", text));
    }
    out
}

/// What the newest slot block shows of this node, beside what the registry tells: `known` are those reasons.
fn of_witness(own: &OwnStanding, known: &[Why]) -> Vec<Why> {
    let mut out = Vec::new();
    let is_known = |code: &str| known.iter().any(|why| why.code == code);
    if own.clock_alarm {
        let text =
            "the wall clock is not believed: it jumped, or differs from the other masternodes";
        out.push(Why::new("clock", text));
    }
    let (Some(entry), Some(seen)) = (&own.entry, &own.witness) else {
        return out;
    };
    if entry.is_leaving() {
        return out;
    }
    let (power, total) = (seen.seen_by, seen.total);
    if !seen.attested {
        if !is_known("unattested") {
            let text = format!(
                "the newest slot was not attested: attestations of power {} of {total} came, more than two thirds are needed",
                seen.attesting
            );
            out.push(Why::new("unattested", text));
        }
    } else if !is_over_third(power, total) {
        let endpoint = String::from_utf8_lossy(&entry.endpoint);
        if !own.has_power && own.probed.is_none() {
            let text = format!(
                "not reachable: no masternode has reached {endpoint} since this node started (firewall, port forwarding, address?)"
            );
            out.push(Why::new("unreachable", text));
        } else if !is_known("absent") {
            let text = format!(
                "not seen: power {power} of {total} saw enough of its heartbeats in slot index {}, more than a third is needed; {} of {} needed are sent in this slot",
                seen.slot_index, own.heartbeats_sent, own.heartbeats_required
            );
            out.push(Why::new("unseen", text));
        }
    }
    out
}

/// The entry of this node's operator key, if it has one in force.
pub fn own_entry<'a>(
    view: &'a NodeView,
    operator: &crate::crypto::keys::PublicKey,
) -> Option<&'a MasternodeView> {
    let mut all = view.masternodes.iter();
    all.find(|m| m.entry.operator == *operator)
}

/// All reasons why the masternode of this node's operator key does not earn; empty: it earns.
pub fn of_own(
    view: &NodeView,
    operator: &crate::crypto::keys::PublicKey,
    params: &Params,
) -> Vec<Why> {
    let Some(m) = own_entry(view, operator) else {
        let mut all = view.masternodes.iter();
        let former = |m: &&MasternodeView| m.entry.has_key(operator);
        let why = match all.find(former) {
            Some(m) => Why::new(
                "operator-key",
                format!(
                    "operator key mismatch: masternode {} is run with the key {} now, this node has {operator}",
                    m.entry.id, m.entry.operator
                ),
            ),
            None => Why::new(
                "unregistered",
                format!(
                    "not registered: no masternode has the operator key {operator} of this node (time-cli masternode register)"
                ),
            ),
        };
        let mut out = vec![why];
        out.extend(of_node(view));
        return out;
    };
    let mut out = of_entry(&m.entry, view.slot_index, params);
    if let Some(own) = &view.own_standing {
        let seen = of_witness(own, &out);
        out.extend(seen);
    }
    out.extend(of_node(view));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::registry::Registry;
    use crate::ledger::testkit::genesis;
    use crate::types::amount::Amount;

    fn why(change: impl FnOnce(&mut Entry)) -> Option<(&'static str, String)> {
        let genesis = genesis(&[1_000; 4], 0);
        let mut entry = Registry::genesis(&genesis).entries()[0].clone();
        entry.present = 5;
        change(&mut entry);
        let found = of_entry(&entry, SlotIndex(10), &genesis.params);
        assert!(found.len() <= 1, "one reason of the registry at a time");
        found.into_iter().next().map(|why| (why.code, why.text))
    }

    #[test]
    fn every_standing_has_its_reason_in_words() {
        assert_eq!(why(|_| {}), None, "M5: present and in the set: it earns");
        type Change = fn(&mut Entry);
        let cases: [(&str, &str, Change); 9] = [
            ("absent", "the last 2 attested", |e| {
                (e.present, e.absent) = (0, 2)
            }),
            ("unattested", "no slot", |e| e.present = 0),
            ("standby", "64 places", |e| e.standing = Standing::StandBy),
            ("jailed", "since slot index 7, present in 0 of 1", |e| {
                e.standing = Standing::Jailed {
                    since: SlotIndex(7),
                };
                e.present = 0;
            }),
            ("new", "registered at slot index 9", |e| {
                e.standing = Standing::Jailed {
                    since: SlotIndex(9),
                };
                (e.registered, e.present) = (SlotIndex(9), 0);
            }),
            ("queued", "since slot index 8", |e| {
                e.standing = Standing::Jailed {
                    since: SlotIndex(3),
                };
                e.queued = Some(SlotIndex(8));
            }),
            ("leaving", "since slot index 9", |e| {
                e.leaving = Some(SlotIndex(9))
            }),
            (
                "left",
                "1000.00000000 TIME of collateral return at slot index 29, 19 slot blocks",
                |e| {
                    e.standing = Standing::Gone { exit: SlotIndex(9) };
                    e.leaving = Some(SlotIndex(8));
                },
            ),
            (
                "slashed",
                "50.00000000 TIME were burned; 950.00000000",
                |e| {
                    e.standing = Standing::Gone { exit: SlotIndex(9) };
                    (e.slashed, e.burned) = (Some(SlotIndex(9)), Amount(5_000_000_000));
                },
            ),
        ];
        for (code, words, change) in cases {
            let (found, text) = why(change).unwrap_or_default();
            assert_eq!(found, code, "{text}");
            assert!(text.contains(words), "{code}: {text}");
        }
    }
}
