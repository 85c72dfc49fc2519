//! A network's past made in a hurry: a directory as `timed testnet` makes it, and a ledger of as many blocks as wanted,
//! built by the ledger itself and certified by every masternode, without a process running.
//!
//! Inputs: how many blocks, payments and coins. Outputs: data directories ready for `timed`. Never: cuts a corner that a
//! node would notice; every signature and root is real.

pub mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use timecoin::base::bounded::{BoundedBytes, BoundedVec};
use timecoin::base::time::WallMs;
use timecoin::crypto::keys::SecretKey;
use timecoin::ledger::apply::{BuildInput, Delta, build};
use timecoin::ledger::coins::{Coin, MemoryCoins};
use timecoin::ledger::decided::DecidedBlock;
use timecoin::ledger::state::State;
use timecoin::node::config::Endpoint;
use timecoin::node::datadir::DataDir;
use timecoin::node::files;
use timecoin::node::keys::{self, KeyKind};
use timecoin::node::provision::{Plan, make_network, node_dir};
use timecoin::replica::record::{Position, Record, Step};
use timecoin::storage::{KvStore, LedgerStore};
use timecoin::types::address::{Network, Program};
use timecoin::types::amount::Amount;
use timecoin::types::bitmap::Bitmap;
use timecoin::types::block::{Block, Certificate, Commit};
use timecoin::types::ids::{BlockId, Branch, Era, EraRound, Height, MasternodeId, OutPoint, Round};
use timecoin::types::masternode::{Evidence, Offence, SlotPart};
use timecoin::types::transaction::{
    TX_VERSION, Transaction, Tx, TxBody, TxKind, TxOutput, Witness,
};
use timecoin::types::validators::ValidatorSet;
use timecoin::types::vote::{Vote, VoteBody, VoteStep};

/// Blocks committed in one transaction.
const GROUP: usize = 64;
/// Coins that pay, one of them in each payment; beside them those of which many are made.
const PAYING_COINS: usize = 1_000;
/// Value of each, in units of 10^-8 TIME.
const VALUE: u64 = 10_000_000_000_000;
/// Fee of a payment.
const FEE: u64 = 100_000;
/// Outputs of a payment that makes many coins of one.
const FAN_OUT: u64 = 900;

/// What is to be made.
pub struct Wanted {
    /// Blocks beside those that make coins.
    pub blocks: u64,
    /// Payments in each.
    pub payments: usize,
    /// Coins at the end, or a few more.
    pub coins: u64,
    /// Directories, each with a masternode.
    pub nodes: u16,
    /// Port of the first node.
    pub base_port: u16,
    /// Milliseconds between blocks.
    pub spacing_ms: u64,
    /// Slots for which a root is trusted (F2); 0: for ever.
    pub trusting_period: u64,
    /// Whether the last masternode is slashed in the first slot block.
    pub slashed: bool,
}

/// A network with a past.
pub struct Made {
    /// Data directory of each node.
    pub nodes: Vec<PathBuf>,
    /// Height of the chain.
    pub height: u64,
    /// Payments in it.
    pub payments: u64,
    /// Coins at its tip.
    pub coins: u64,
}

struct Maker {
    state: State,
    coins: MemoryCoins,
    last: Option<Commit>,
    operators: Vec<(MasternodeId, SecretKey)>,
    payer: SecretKey,
    store: LedgerStore,
    group: Vec<DecidedBlock>,
    spacing_ms: u64,
    payments: u64,
    /// Who has signed twice at height 1, until a slot block says so.
    guilty: Option<(MasternodeId, SecretKey)>,
}

/// Makes a network below `dir`; nodes `0..with_chain` hold the chain, the others nothing.
pub fn make(dir: &Path, wanted: &Wanted, with_chain: usize, now_ms: u64) -> Made {
    let fans = wanted.coins.div_ceil(FAN_OUT);
    let span = (wanted.blocks + fans + 100) * wanted.spacing_ms + 60_000;
    let endpoint = |i: u16| Endpoint {
        host: "127.0.0.1".into(),
        port: wanted.base_port + 10 * i,
    };
    let plan = Plan {
        network: Network::Dev,
        dir: dir.to_path_buf(),
        nodes: (0..wanted.nodes).map(endpoint).collect(),
        slot_interval_s: None,
        seed: None,
        now_ms: now_ms - span,
    };
    let mut genesis = make_network(&plan).expect("a network");
    let payer = SecretKey::from_seed(&[77; 32]);
    let output = TxOutput {
        value: Amount(VALUE),
        program: Program::Key(payer.public()),
    };
    genesis.balances = vec![output; PAYING_COINS + fans as usize];
    genesis.params.trusting_period = wanted.trusting_period;
    let nodes: Vec<PathBuf> = (0..usize::from(wanted.nodes))
        .map(|i| node_dir(dir, i))
        .collect();
    for node in &nodes {
        let text = genesis.to_toml();
        files::write_private(&DataDir::new(node).genesis(), text.as_bytes()).expect("a genesis");
    }
    let operator = |node: &PathBuf| {
        let file = DataDir::new(node).operator_key();
        SecretKey::from_seed(&keys::load(&file, KeyKind::Operator).expect("an operator key"))
    };
    let ids = genesis.masternodes.iter().map(|m| m.id());
    let guilty = ids.clone().zip(nodes.iter().map(operator)).next_back();
    // Those that hold the chain have decided it; the others were away from the beginning.
    let operators = ids
        .zip(nodes.iter().map(operator))
        .take(with_chain)
        .collect();
    let ledger = DataDir::new(&nodes[0]).ledger();
    let mut maker = Maker {
        state: State::genesis(&genesis),
        coins: MemoryCoins::genesis(&genesis),
        last: None,
        operators,
        payer,
        store: LedgerStore::open(&ledger, 64 << 30, &genesis).expect("a ledger"),
        group: Vec::new(),
        spacing_ms: wanted.spacing_ms,
        payments: 0,
        guilty: guilty.filter(|_| wanted.slashed),
    };
    maker.fan_out(fans);
    maker.pay(wanted);
    maker.flush();
    let made = Made {
        height: maker.state.height().0,
        payments: maker.payments,
        coins: maker.state.tip.coin_count,
        nodes,
    };
    drop(maker);
    for node in &made.nodes[..with_chain] {
        signed_up_to(&DataDir::new(node), made.height);
    }
    for node in &made.nodes[1..with_chain] {
        let to = DataDir::new(node).ledger();
        std::fs::create_dir_all(&to).expect("a directory");
        std::fs::copy(ledger.join("data.mdb"), to.join("data.mdb")).expect("a copy");
    }
    made
}

/// A signer store that remembers having signed all of the chain.
fn signed_up_to(datadir: &DataDir, height: u64) {
    std::fs::remove_dir_all(datadir.signer()).expect("a signer store");
    let (store, _) = {
        let seed = keys::load(&datadir.operator_key(), KeyKind::Operator).expect("an operator key");
        KvStore::open(&datadir.signer(), keys::operator_name(&seed)).expect("a new signer store")
    };
    let mark = Record::HighWater(Position {
        era: Era(0),
        height: Height(height),
        round: Round(u32::MAX),
        step: Step::Precommit,
    });
    let renewed = store.renew(&[(mark.key(), mark.value())]);
    renewed.expect("a store that is trusted");
}

impl Maker {
    /// Blocks of one payment each that make many coins of one.
    fn fan_out(&mut self, fans: u64) {
        let made: Vec<_> = self.genesis_coins();
        for (i, (outpoint, coin)) in made.into_iter().rev().take(fans as usize).enumerate() {
            let share = (coin.output.value.0 - 100 * FEE) / FAN_OUT;
            let to = |j: u64| TxOutput {
                value: Amount(share),
                program: Program::Key(timecoin::crypto::keys::PublicKey(
                    *blake3::hash(&((i as u64) << 32 | j).to_le_bytes()).as_bytes(),
                )),
            };
            let tx = self.payment((outpoint, coin), (0..FAN_OUT).map(to).collect());
            self.block(vec![tx]);
        }
    }

    /// Blocks of payments, each of one coin to its owner again.
    fn pay(&mut self, wanted: &Wanted) {
        let mut purse: std::collections::VecDeque<_> = self.genesis_coins().into();
        for _ in 0..wanted.blocks {
            let mut payments = Vec::new();
            for _ in 0..wanted.payments {
                let (outpoint, coin) = purse.pop_front().expect("a coin");
                let back = TxOutput {
                    value: Amount(coin.output.value.0 - FEE),
                    program: coin.output.program,
                };
                let tx = self.payment((outpoint, coin), vec![back]);
                let coin = Coin {
                    output: back,
                    flags: 0,
                };
                purse.push_back((tx.outpoint(0), coin));
                payments.push(tx);
            }
            self.block(payments);
        }
    }

    fn genesis_coins(&self) -> Vec<(OutPoint, Coin)> {
        let mine = Program::Key(self.payer.public());
        let all = self
            .coins
            .0
            .iter()
            .filter(|(_, c)| c.output.program == mine);
        all.map(|(o, c)| (*o, *c)).collect()
    }

    fn payment(&self, (outpoint, coin): (OutPoint, Coin), outputs: Vec<TxOutput>) -> Tx {
        let body = TxBody {
            version: TX_VERSION,
            kind: TxKind::Transfer,
            inputs: BoundedVec::take_from([outpoint]),
            outputs: BoundedVec::take_from(outputs),
            payload: BoundedBytes::default(),
        };
        let message =
            body.signature_hash(self.state.chain_id(), self.state.tip.branch, &[coin.output]);
        Tx::new(Transaction {
            witnesses: BoundedVec::take_from([Witness::Key(self.payer.sign(&message))]),
            auth: BoundedVec::new(),
            body,
        })
    }

    fn block(&mut self, candidates: Vec<Tx>) {
        let wanted = candidates.len();
        let round = Round(0);
        let time = self.state.tip.time.plus(self.spacing_ms);
        let time = WallMs(time.0.max(self.state.earliest().0));
        let slot_part = SlotPart {
            evidence: BoundedVec::take_from(self.evidence(time)),
            ..SlotPart::default()
        };
        let wanted_evidence = slot_part.evidence.len();
        let input = BuildInput {
            round,
            proposer: self.state.leader(round),
            time,
            last_commit: self.last.take().unwrap_or_default(),
            slot_part,
            candidates,
        };
        let (block, delta) = build(&self.coins, &self.state, input).expect("a block");
        assert_eq!(block.slot_part.evidence.len(), wanted_evidence);
        assert!(block.transactions.len() >= wanted, "every payment is in");
        self.payments += wanted as u64;
        self.decide(block, delta);
    }

    /// Two precommits of height 1 for the first slot block above it.
    fn evidence(&mut self, time: WallMs) -> Option<Evidence> {
        if self.state.height() < Height(1) || !self.state.is_slot_block(time) {
            return None;
        }
        let (offender, secret) = self.guilty.take()?;
        let chain = self.state.chain_id();
        let vote = |block| {
            let body = VoteBody {
                step: VoteStep::Precommit,
                branch: Branch(0),
                era: Era(0),
                height: Height(1),
                round: Round(0),
                valid_round: None,
                block,
            };
            Vote {
                body,
                voter: offender,
                signature: secret.sign(&body.signing_hash(chain)),
            }
        };
        let offence = Offence::Votes(vote(None), vote(Some(BlockId::default())));
        Some(Evidence {
            offender,
            key: secret.public(),
            offence,
        })
    }

    fn decide(&mut self, block: Block, delta: Delta) {
        self.coins.commit(&delta);
        let before = std::mem::replace(&mut self.state, delta.after.clone());
        let commit = self.commit(&block, &before.validators, before.tip.branch);
        self.last = Some(commit.clone());
        self.group.push(DecidedBlock {
            certificate: Certificate {
                height: block.header.height,
                block: block.id(),
                commit,
            },
            block: Arc::new(block),
            delta: Arc::new(delta),
        });
        if self.group.len() >= GROUP {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.store.commit(&self.group).expect("a commit");
        self.group.clear();
    }

    fn commit(&self, block: &Block, set: &ValidatorSet, branch: Branch) -> Commit {
        let header = &block.header;
        let at = EraRound {
            era: header.era,
            round: header.round,
        };
        let body = VoteBody {
            step: VoteStep::Precommit,
            branch,
            era: at.era,
            height: header.height,
            round: at.round,
            valid_round: None,
            block: Some(block.id()),
        };
        let message = body.signing_hash(self.state.chain_id());
        let secret = |id: &MasternodeId| self.operators.iter().find(|(i, _)| i == id);
        let members = set.members().iter().enumerate();
        let signing: Vec<_> = members
            .filter_map(|(i, m)| secret(&m.id).map(|(_, key)| (i, key.sign(&message))))
            .collect();
        Commit {
            at,
            signers: Bitmap::from_ones(set.len(), signing.iter().map(|(i, _)| *i)),
            signatures: BoundedVec::take_from(signing.into_iter().map(|(_, s)| s)),
        }
    }
}
