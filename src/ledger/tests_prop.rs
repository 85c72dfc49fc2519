//! Random networks, random blocks: what must hold whatever happens. And garbage, which must never do more than be refused.

use crate::base::bounded::BoundedVec;
use crate::base::limits::FRAME_BLOCK_BYTES;
use crate::ledger::apply::*;
use crate::ledger::testkit::*;
use crate::ledger::utxo::Utxo;
use crate::types::amount::Amount;
use crate::types::block::{Block, slot_root};
use crate::types::codec;
use crate::types::ids::*;
use crate::types::masternode::SlotPart;
use crate::types::transaction::Tx;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// One block's worth of choices.
#[derive(Debug, Clone)]
struct Choice {
    is_slot: bool,
    round: u8,
    skipped_slots: u8,
    payments: u8,
    registry: u8,
    evidence: u8,
    attesters: u64,
    absent: u64,
    pick: u64,
}

fn choice() -> impl Strategy<Value = Choice> {
    let flags = (any::<bool>(), 0u8..3, 0u8..3, 0u8..4, 0u8..8, 0u8..12);
    // Most attest and most are present, or nothing would ever be attested.
    let mostly = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, c)| a | b | c);
    (flags, mostly, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(f, attesters, a, b, pick)| Choice {
            is_slot: f.0,
            round: f.1,
            skipped_slots: f.2,
            payments: f.3,
            registry: f.4,
            evidence: f.5,
            attesters,
            absent: a & b,
            pick,
        },
    )
}

struct Walk {
    net: Net,
    registered: u64,
}

impl Walk {
    fn new(size: usize) -> Walk {
        let collaterals: Vec<u64> = (0..size as u64).map(|i| 1_000 + 700 * (i % 5)).collect();
        let mut genesis = genesis(&collaterals, 8);
        genesis.params.unbonding = 5;
        genesis.params.expel_after = 4;
        genesis.params.jail_after = 2;
        genesis.params.max_validators = (size as u64 + 2).min(64);
        genesis.params.upgrade_window = 1_000;
        Walk {
            net: Net::new(genesis),
            registered: 100,
        }
    }

    fn transactions(&mut self, choice: &Choice) -> Vec<Tx> {
        let mut txs = vec![];
        for i in 0..u64::from(choice.payments) {
            let from = HOLDER + (choice.pick + i) % 8;
            let rich = self
                .net
                .coins_of(from)
                .iter()
                .any(|(_, o)| o.value.0 > 200_000_000_000);
            if rich {
                txs.push(
                    self.net
                        .pay(from, HOLDER + (choice.pick >> 8) % 8, 10_000_000 + i),
                );
            }
        }
        let payer = HOLDER + (choice.pick >> 16) % 8;
        let rich = |net: &Net| {
            net.coins_of(payer)
                .iter()
                .any(|(_, o)| o.value.0 > 400_000_000_000)
        };
        if !rich(&self.net) || self.net.state.registry().is_empty() {
            return txs;
        }
        let entries = self.net.state.registry().entries();
        let victim = entries[(choice.pick >> 24) as usize % entries.len()].clone();
        let genesis =
            (0..self.net.genesis.masternodes.len()).find(|i| self.net.id(*i) == victim.id);
        let made = (100..self.registered).find(|n| key(OWNER + n).public() == victim.owner);
        let owner = genesis.map_or(made, |i| Some(i as u64));
        match (choice.registry, owner) {
            (0, _) => {
                self.registered += 1;
                txs.push(self.net.register(
                    self.registered - 1,
                    payer,
                    1_000 + choice.pick % 1_500,
                ));
            }
            (1, Some(n)) => txs.push(self.net.unregister(n, payer, victim.id)),
            (2, Some(n)) => {
                let operator = OPERATOR + 500 + choice.pick % 400;
                txs.push(self.net.update(n, payer, victim.id, Some(operator)));
            }
            _ => {}
        }
        txs
    }

    fn slot_part(&self, choice: &Choice, time: crate::base::time::WallMs) -> SlotPart {
        let net = &self.net;
        let entries = net.state.registry().entries();
        let absent: Vec<MasternodeId> = (0..entries.len())
            .filter(|i| choice.absent >> (i % 64) & 1 == 1)
            .map(|i| entries[i].id)
            .collect();
        let members = net.state.validators.members().iter().enumerate();
        let attesters = members.filter(|(i, _)| choice.attesters >> (i % 64) & 1 == 1);
        let mut part = SlotPart {
            attestations: BoundedVec::take_from(
                attesters.map(|(_, m)| net.attestation(&m.id, time, &absent)),
            ),
            ..SlotPart::default()
        };
        if choice.evidence == 0 && !entries.is_empty() {
            let offender = entries[(choice.pick >> 40) as usize % entries.len()].id;
            let height = Height(choice.pick % (net.state.height().0 + 2));
            part.evidence = BoundedVec::take_from([net.double_vote(offender, OPERATOR, height)]);
        }
        part
    }

    /// One block; `None` if there was nothing to build or nobody is left to decide.
    fn step(&mut self, choice: &Choice) -> Option<(Block, Delta)> {
        if self.net.state.validators.is_empty() {
            return None;
        }
        let candidates = self.transactions(choice);
        let slot_ms = self.net.state.params().slot_ms;
        let time = if choice.is_slot {
            self.net
                .next_slot()
                .plus(slot_ms * u64::from(choice.skipped_slots))
        } else {
            self.net.state.earliest()
        };
        let mut input = self.net.input(time, u32::from(choice.round), candidates);
        input.slot_part = self.slot_part(choice, time);
        match build(&self.net.coins, &self.net.state, input) {
            Ok(built) => Some(built),
            Err(error) => {
                assert_eq!(
                    error,
                    BuildError::Invalid(Invalid::Empty),
                    "only for want of a reason"
                );
                None
            }
        }
    }

    fn check_state(&self) {
        let state = &self.net.state;
        let coins = Amount::sum(self.net.coins.0.values().map(|c| c.output.value)).unwrap();
        let held = state.registry().held().unwrap();
        let supply = &state.tip.supply;
        assert_eq!(
            supply.issued.0 - supply.burned.0,
            coins.0 + supply.pot.0 + held.0,
            "L10: to the unit"
        );
        assert_eq!(state.tip.coin_count, self.net.coins.0.len() as u64);
        let entries = state.registry().entries();
        let mut keys = BTreeSet::new();
        let all = entries.iter().flat_map(|e| {
            let formers = e.former_operators.iter().map(|f| f.key);
            [e.owner, e.operator].into_iter().chain(formers)
        });
        for key in all {
            assert!(keys.insert(key), "M1: a key is in one entry, once");
        }
        let voting = entries.iter().filter(|e| e.is_voting()).count() as u64;
        assert!(voting <= state.params().max_validators);
        assert_eq!(*state.validators, state.registry().validators());
        assert_eq!(state.validators_hash, state.validators.hash());
        assert!(state.slots.records.len() as u64 <= state.params().unbonding + 1);
        let bytes = codec::encode(state.registry());
        let again: crate::ledger::registry::Registry = codec::decode(&bytes, bytes.len()).unwrap();
        assert_eq!(
            again.hash(),
            state.registry.hash,
            "M3: a function of the entries"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_keeps_its_promises(size in 1usize..=64, choices in proptest::collection::vec(choice(), 1..50)) {
        let mut walk = Walk::new(size);
        for choice in choices {
            let before = walk.net.state.clone();
            let root = before.root();
            let whole = crate::crypto::merkle::STATE_TREE.root(&before.leaves());
            prop_assert_eq!(root, whole, "L11: what is kept of the tree is what the leaves give");
            let Some((block, built)) = walk.step(&choice) else { continue };
            let bytes = codec::encode(&block);
            let read: Block = codec::decode(&bytes, FRAME_BLOCK_BYTES).unwrap();
            let applied = apply(&walk.net.coins, &walk.net.state, &read);
            let applied = applied.expect("L12: what build makes apply accepts");
            prop_assert_eq!(&applied.delta.after, &built.after);
            prop_assert_eq!(walk.net.state.root(), root, "L12: judging changes nothing");
            prop_assert_eq!(&walk.net.state, &before);
            let restored = built.undo.restore(&built.after).unwrap();
            prop_assert_eq!(&restored, &before, "undo restores the state");
            prop_assert_eq!(restored.root(), root);
            walk.net.commit(&block, &built);
            walk.check_state();
        }
        let all: Vec<_> = walk.net.coins.0.iter().map(|(o, c)| (*o, *c)).collect();
        prop_assert_eq!(Utxo::default().changed(&all, &[]).0, walk.net.state.utxo.clone(), "L11: incremental as from scratch");
    }

    #[test]
    fn garbage_is_refused_and_never_panics(
        choices in proptest::collection::vec(choice(), 1..12),
        flips in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..6),
        reseal in any::<bool>(),
    ) {
        let mut walk = Walk::new(7);
        for choice in choices {
            let Some((block, built)) = walk.step(&choice) else { continue };
            let mut bytes = codec::encode(&block);
            for (at, value) in &flips {
                let at = *at as usize % bytes.len();
                bytes[at] ^= value;
            }
            if let Ok(mut garbage) = codec::decode::<Block>(&bytes, FRAME_BLOCK_BYTES) {
                // The caller bounds rounds: B4.
                garbage.header.round.0 %= 8;
                if reseal {
                    garbage.header.tx_root = garbage.tx_root();
                    garbage.header.slot_root = slot_root(&garbage.slot_part);
                    garbage.header.last_commit_hash = garbage.last_commit.hash();
                }
                if apply(&walk.net.coins, &walk.net.state, &garbage).is_ok() && !reseal {
                    prop_assert_eq!(&garbage, &block, "a block is one string of bytes");
                }
            }
            walk.net.commit(&block, &built);
        }
    }
}
