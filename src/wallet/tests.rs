//! Stories of a wallet on a chain in memory.

use super::files::tests::Scratch;
use super::source::{CoinSource, SourceCoin, SourceError};
use super::*;
use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::time::{MonoUs, Now, WallMs};
use crate::crypto::hash::Hash;
use crate::crypto::keys::SecretKey;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::block::{Block, Commit, HEADER_VERSION, Header};
use crate::types::ids::*;
use crate::types::masternode::SlotPart;
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

const NET: Network = Network::Dev;

/// A chain that believes every block.
#[derive(Default)]
struct Chain {
    genesis: Vec<(OutPoint, TxOutput)>,
    blocks: Vec<Arc<Block>>,
    pruned: bool,
}

fn chain_id() -> ChainId {
    ChainId(Hash([7; 32]))
}
fn terms() -> Terms {
    Terms::new(
        chain_id(),
        Branch(0),
        &Params::of(NET),
        &ConsensusLimits::of(NET),
    )
}
fn at(seconds: u64) -> Now {
    Now {
        wall: WallMs(1_000_000 + seconds * 1_000),
        mono: MonoUs(seconds * 1_000_000),
    }
}
fn stranger() -> Program {
    Program::Key(SecretKey::from_seed(&[200; 32]).public())
}
fn pay(value: u64, program: Program) -> TxOutput {
    TxOutput {
        value: Amount(value),
        program,
    }
}

impl Chain {
    fn funded(program: Program, values: &[u64]) -> Chain {
        let coin = |(vout, value): (u32, &u64)| {
            let txid = Txid(Hash([1; 32]));
            (OutPoint { txid, vout }, pay(*value, program))
        };
        Chain {
            genesis: (0..).zip(values).map(coin).collect(),
            ..Chain::default()
        }
    }
    fn decide(&mut self, transactions: Vec<Tx>) -> (Arc<Block>, Height) {
        let height = Height(self.blocks.len() as u64 + 1);
        let header = Header {
            version: HEADER_VERSION,
            branch: Branch(0),
            era: Era(0),
            recovery_hash: Hash::ZERO,
            height,
            round: Round(0),
            time: WallMs(height.0 * 1_000),
            parent: BlockId::default(),
            proposer: MasternodeId::default(),
            last_commit_hash: Hash::ZERO,
            // Other transactions, another block.
            tx_root: transactions.last().map_or(Hash::ZERO, |tx| tx.wtxid.0),
            slot_root: Hash::ZERO,
            validators_hash: Hash::ZERO,
            next_validators_hash: Hash::ZERO,
            state_root: Hash::ZERO,
            prev_slot_block: BlockId::default(),
            history_root: Hash::ZERO,
        };
        let block = Arc::new(Block {
            header,
            last_commit: Commit::default(),
            slot_part: SlotPart::default(),
            transactions: BoundedVec::take_from(transactions),
        });
        self.blocks.push(block.clone());
        (block, height)
    }
    fn coins(&self) -> BTreeMap<OutPoint, (TxOutput, Height)> {
        let genesis = self.genesis.iter().map(|(o, t)| (*o, (*t, Height(0))));
        let mut coins: BTreeMap<_, _> = genesis.collect();
        for (block, height) in self.blocks.iter().zip(1..) {
            for tx in &block.transactions {
                for input in &tx.body().inputs {
                    coins.remove(input);
                }
                for (output, vout) in tx.body().outputs.iter().zip(0..) {
                    coins.insert(tx.outpoint(vout), (*output, Height(height)));
                }
            }
        }
        coins
    }
}

impl CoinSource for Chain {
    fn block_id(&self, height: Height) -> Result<Option<BlockId>, SourceError> {
        let block = (height.0 as usize).checked_sub(1);
        let block = block.and_then(|at| self.blocks.get(at));
        Ok(block.map(|block| block.id()))
    }
    fn is_unspent(&self, outpoint: &OutPoint) -> Result<bool, SourceError> {
        let spent = |tx: &Tx| tx.body().inputs.contains(outpoint);
        let mut all = self.blocks.iter().flat_map(|b| b.transactions.iter());
        // Gifts come from nowhere: what nobody has spent is there.
        Ok(!all.any(spent))
    }
    fn reorg_max(&self) -> u64 {
        1_000
    }
    fn tip(&self) -> Result<Height, SourceError> {
        Ok(Height(self.blocks.len() as u64))
    }
    fn coins_of(
        &self,
        program: &Program,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<SourceCoin>, SourceError> {
        let coins = self.coins().into_iter();
        let theirs =
            coins.filter(|(o, (t, _))| t.program == *program && after.is_none_or(|a| *o > a));
        let coin = |(outpoint, (output, height))| SourceCoin {
            outpoint,
            output,
            coinbase: false,
            height: Some(height),
        };
        Ok(theirs.take(limit).map(coin).collect())
    }
    fn block(&self, height: Height) -> Result<Option<Arc<Block>>, SourceError> {
        let found = self.blocks.get((height.0 as usize).wrapping_sub(1));
        Ok(found.filter(|_| !self.pruned).cloned())
    }
    fn height_of(&self, txid: &Txid) -> Result<Option<Height>, SourceError> {
        let has = |block: &Arc<Block>| block.transactions.iter().any(|tx| tx.txid == *txid);
        let found = self.blocks.iter().position(has);
        Ok(found.map(|i| Height(i as u64 + 1)))
    }
    fn genesis_coins(&self) -> Vec<(OutPoint, TxOutput)> {
        self.genesis.clone()
    }
}

fn seed() -> Seed {
    Seed::from_entropy(&[5; 32]).unwrap()
}
fn fresh(scratch: &Scratch, passphrase: &str) -> (Wallet, PathBuf, Program) {
    let dir = directory(&scratch.0, "").unwrap();
    let mut wallet = Wallet::create(&dir, &seed(), passphrase, NET, chain_id()).unwrap();
    let address = wallet.new_address("first").unwrap();
    let program = Program::from_address(&address, NET).unwrap();
    (wallet, dir, program)
}
fn reopen(dir: &std::path::Path, chain: &Chain) -> Wallet {
    let mut wallet = Wallet::open(dir, NET, chain_id()).unwrap();
    wallet.attach(chain).unwrap();
    wallet
}
fn send(wallet: &mut Wallet, value: u64) -> Tx {
    let outputs = [pay(value, stranger())];
    let made = wallet.send(&outputs, b"", &FeePolicy::default(), &terms(), at(1));
    made.unwrap().tx
}
/// A payment to `program` from nowhere.
fn gift(value: u64, program: Program, number: u8) -> Tx {
    let outpoint = OutPoint {
        txid: Txid(Hash([number; 32])),
        vout: 99,
    };
    Tx::new(sign::unsigned(TxBody {
        version: TX_VERSION,
        kind: TxKind::Transfer,
        inputs: BoundedVec::take_from([outpoint]),
        outputs: BoundedVec::take_from([pay(value, program)]),
        payload: BoundedBytes::default(),
    }))
}

#[test]
fn a_payment_goes_out_and_its_change_comes_back() {
    let scratch = Scratch::new();
    let (mut wallet, _, program) = fresh(&scratch, "");
    let mut chain = Chain::funded(program, &[1_000_000]);
    wallet.attach(&chain).unwrap();
    assert_eq!(wallet.balance().confirmed, Amount(1_000_000));
    let tx = send(&mut wallet, 300_000);
    let spent = [pay(1_000_000, program)];
    let message = tx.body().signature_hash(chain_id(), Branch(0), &spent);
    let (Program::Key(key), Witness::Key(signature)) = (program, &tx.transaction.witnesses[0])
    else {
        panic!("a key signs");
    };
    let check = crate::crypto::verify::Check {
        key,
        message,
        signature: *signature,
    };
    assert!(
        check.verify(),
        "L5: signed for this network and these outputs"
    );
    let change = Amount(1_000_000 - 300_000 - 238);
    let balance = wallet.balance();
    assert_eq!(
        (balance.confirmed, balance.unconfirmed),
        (Amount(0), change)
    );
    let (block, height) = chain.decide(vec![gift(5_000, stranger(), 9), tx.clone()]);
    assert_eq!(wallet.observe(&block, height), [tx.txid]);
    assert!(
        wallet.observe(&block, height).is_empty(),
        "each height counts once"
    );
    let balance = wallet.balance();
    assert_eq!(
        (balance.confirmed, balance.unconfirmed),
        (change, Amount(0))
    );
    let entry = *wallet.history().get(&tx.txid).unwrap();
    assert_eq!(
        (entry.debit, entry.credit, entry.fee),
        (Amount(1_000_000), change, Some(Amount(238)))
    );
    assert!(wallet.pending().is_empty(), "final is not pending");
}

#[test]
fn a_killed_wallet_remembers_what_it_sent() {
    let scratch = Scratch::new();
    let (mut wallet, dir, program) = fresh(&scratch, "");
    let mut chain = Chain::funded(program, &[1_000_000, 500_000]);
    wallet.attach(&chain).unwrap();
    wallet.flush().unwrap();
    let (first, second) = (send(&mut wallet, 400_000), send(&mut wallet, 400_000));
    let balance = wallet.balance();
    drop(wallet); // no flush: as killed
    let mut wallet = reopen(&dir, &chain);
    assert_eq!(wallet.balance(), balance, "reserved coins stay reserved");
    let mut due: Vec<Txid> = wallet.tick(at(2)).iter().map(|tx| tx.txid).collect();
    due.sort();
    let mut sent = [first.txid, second.txid];
    sent.sort();
    assert_eq!(due, sent, "sent again at the start");
    assert!(
        wallet.tick(at(3)).is_empty() && wallet.tick(at(33)).len() == 2,
        "and from time to time"
    );
    chain.decide(vec![first.clone()]);
    drop(wallet);
    let mut wallet = reopen(&dir, &chain);
    assert_eq!(
        wallet.pending().len(),
        1,
        "decided while the wallet was away"
    );
    assert_eq!(wallet.history().get(&first.txid).unwrap().height, Height(1));
    chain.decide(vec![second.clone()]);
    chain.pruned = true;
    wallet.flush().unwrap();
    drop(wallet);
    let wallet = reopen(&dir, &chain);
    assert!(
        wallet.pending().is_empty(),
        "also when the blocks are pruned"
    );
    let expected = 1_500_000 - 2 * (400_000 + 238);
    assert_eq!(wallet.balance().confirmed, Amount(expected));
    assert!(wallet.history().get(&second.txid).is_some());
}

#[test]
fn unconfirmed_change_is_spent_only_as_deep_as_the_network_takes_it() {
    let scratch = Scratch::new();
    let (mut wallet, _, program) = fresh(&scratch, "");
    let mut chain = Chain::funded(program, &[100_000_000]);
    wallet.attach(&chain).unwrap();
    let mut sent = Vec::new();
    let refused = loop {
        let outputs = [pay(10_000, stranger())];
        match wallet.send(&outputs, b"", &FeePolicy::default(), &terms(), at(1)) {
            Ok(made) => sent.push(made.tx),
            Err(error) => break error,
        }
    };
    assert_eq!(sent.len(), 26, "25 ancestors (table B2)");
    assert!(
        matches!(refused, WalletError::Insufficient { .. }),
        "{refused}"
    );
    let (block, height) = chain.decide(sent);
    assert_eq!(wallet.observe(&block, height).len(), 26);
    send(&mut wallet, 10_000);
}

#[test]
fn a_conflict_voids_a_payment_and_what_builds_on_it() {
    let scratch = Scratch::new();
    let (mut wallet, dir, program) = fresh(&scratch, "");
    let mut chain = Chain::funded(program, &[1_000_000]);
    wallet.attach(&chain).unwrap();
    wallet.flush().unwrap();
    let terms = terms();
    let outputs = [pay(600_000, stranger())];
    let other = wallet.create_transaction(&outputs, b"other", &FeePolicy::default(), &terms);
    let other = other.unwrap().tx;
    let (parent, child) = (send(&mut wallet, 100_000), send(&mut wallet, 100_000));
    let (block, height) = chain.decide(vec![other.clone()]);
    assert_eq!(wallet.observe(&block, height), [other.txid]);
    assert!(wallet.pending().is_empty());
    for gone in [&parent, &child] {
        let void = wallet.void(&gone.txid).unwrap();
        assert_eq!((void.by, void.height), (other.txid, height));
    }
    let left = 1_000_000 - 600_000 - 238 - 5;
    assert_eq!(wallet.balance().confirmed, Amount(left));
    assert_eq!(
        wallet.balance().unconfirmed,
        Amount(0),
        "change of a void payment is void"
    );
    drop(wallet);
    assert_eq!(reopen(&dir, &chain).balance().confirmed, Amount(left));
}

#[test]
fn collateral_of_a_registration_is_no_coin() {
    let scratch = Scratch::new();
    let (mut wallet, _, program) = fresh(&scratch, "");
    let mut chain = Chain::funded(program, &[1_000_000]);
    wallet.attach(&chain).unwrap();
    let outputs = [pay(600_000, program), pay(399_000, program)];
    let policy = FeePolicy::default();
    let made = wallet.create_transaction(&outputs, b"", &policy, &terms());
    let mut registration = made.unwrap().tx.transaction.clone();
    registration.body.kind = TxKind::Register;
    let (block, height) = chain.decide(vec![Tx::new(registration)]);
    assert_eq!(wallet.observe(&block, height).len(), 1);
    let rest = wallet.balance().confirmed;
    assert!(
        rest < Amount(400_000),
        "M1: output 0 left the coins: {rest}"
    );
}

#[test]
fn a_refused_payment_is_abandoned() {
    let scratch = Scratch::new();
    let (mut wallet, dir, program) = fresh(&scratch, "");
    let chain = Chain::funded(program, &[1_000_000]);
    wallet.attach(&chain).unwrap();
    let tx = send(&mut wallet, 100_000);
    assert_eq!(wallet.abandon(&tx.txid), [tx.txid]);
    assert_eq!(wallet.balance().confirmed, Amount(1_000_000));
    drop(wallet);
    assert!(reopen(&dir, &chain).pending().is_empty());
}

#[test]
fn a_restored_seed_finds_its_money_and_history() {
    let scratch = Scratch::new();
    let (mut wallet, _, first) = fresh(&scratch, "");
    let mut chain = Chain::funded(first, &[1_000]);
    wallet.attach(&chain).unwrap();
    let mut programs = Vec::new();
    for _ in 0..250 {
        let address = wallet.new_address("").unwrap();
        programs.push(Program::from_address(&address, NET).unwrap());
    }
    for (number, index) in (20u8..).zip([90, 180, 249]) {
        chain.decide(vec![gift(7_000, programs[index], number)]);
    }
    let words = wallet.mnemonic("").unwrap();
    let dir = directory(&scratch.0, "restored").unwrap();
    let seed = Seed::from_mnemonic(&words).unwrap();
    let mut restored = Wallet::create(&dir, &seed, "", NET, chain_id()).unwrap();
    restored.attach(&chain).unwrap();
    assert_eq!(
        restored.balance().confirmed,
        Amount(22_000),
        "looking ahead of what was paid"
    );
    assert!(restored.history().is_empty());
    assert_eq!(restored.rescan(&chain).unwrap(), Height(3));
    assert_eq!(restored.history().len(), 3);
    assert_eq!(restored.balance().confirmed, Amount(22_000));
    let next = restored.new_address("").unwrap();
    assert!(
        !programs.contains(&Program::from_address(&next, NET).unwrap()),
        "no address twice"
    );
    assert_eq!(list(&scratch.0).unwrap(), ["default", "restored"]);
}

#[test]
fn a_locked_wallet_sees_and_receives_and_does_not_spend() {
    let scratch = Scratch::new();
    let (wallet, dir, program) = fresh(&scratch, "secret");
    assert!(wallet.is_encrypted() && !wallet.is_locked());
    drop(wallet);
    let chain = Chain::funded(program, &[1_000_000]);
    let mut wallet = reopen(&dir, &chain);
    assert!(wallet.is_locked());
    assert_eq!(wallet.balance().confirmed, Amount(1_000_000));
    wallet.new_address("second").unwrap();
    let outputs = [pay(10_000, stranger())];
    let policy = FeePolicy::default();
    let refused = wallet.create_transaction(&outputs, b"", &policy, &terms());
    assert_eq!(refused.unwrap_err().code(), -13);
    assert_eq!(wallet.unlock("wrong", None).unwrap_err().code(), -14);
    wallet.unlock("secret", Some(at(10).wall)).unwrap();
    wallet
        .create_transaction(&outputs, b"", &policy, &terms())
        .unwrap();
    wallet.tick(at(9));
    assert!(!wallet.is_locked());
    wallet.tick(at(10));
    assert!(wallet.is_locked(), "locked again when the time is over");
    wallet.set_passphrase("secret", "").unwrap();
    assert!(!wallet.is_locked() && !wallet.is_encrypted());
    drop(wallet);
    assert!(
        !reopen(&dir, &chain).is_locked(),
        "opens unattended without a passphrase"
    );
}

#[test]
fn another_network_drops_what_belongs_to_the_old_one() {
    let scratch = Scratch::new();
    let (mut wallet, dir, program) = fresh(&scratch, "");
    let mut chain = Chain::funded(program, &[1_000_000]);
    wallet.attach(&chain).unwrap();
    let tx = send(&mut wallet, 100_000);
    let (block, height) = chain.decide(vec![tx]);
    wallet.observe(&block, height);
    send(&mut wallet, 100_000);
    wallet.flush().unwrap();
    drop(wallet);
    let mut wallet = Wallet::open(&dir, NET, ChainId(Hash([8; 32]))).unwrap();
    let empty = Chain::default();
    wallet.attach(&empty).unwrap();
    assert_eq!(wallet.balance().confirmed, Amount(0));
    assert!(wallet.history().is_empty() && wallet.pending().is_empty());
    assert_eq!(wallet.label(&program), "first", "keys and labels stay");
}

#[test]
fn outputs_may_bear_the_fee_and_requests_are_checked() {
    let scratch = Scratch::new();
    let (mut wallet, _, program) = fresh(&scratch, "");
    let chain = Chain::funded(program, &[1_000_000]);
    wallet.attach(&chain).unwrap();
    let policy = FeePolicy {
        rate_per_kb: None,
        subtract_from: vec![0],
    };
    let all = [pay(1_000_000, stranger())];
    let made = wallet
        .create_transaction(&all, b"", &policy, &terms())
        .unwrap();
    assert_eq!(made.tx.body().outputs[0].value, Amount(1_000_000 - 194));
    assert_eq!(made.change, None);
    let try_with = |outputs: &[TxOutput], memo: &[u8], from: Vec<usize>| {
        let policy = FeePolicy {
            rate_per_kb: None,
            subtract_from: from,
        };
        let made = wallet.create_transaction(outputs, memo, &policy, &terms());
        made.unwrap_err().code()
    };
    assert_eq!(try_with(&[], b"", vec![]), -8, "an output is needed");
    assert_eq!(
        try_with(&[pay(999, stranger())], b"", vec![]),
        -8,
        "L8: dust"
    );
    assert_eq!(try_with(&all, &[0; 81], vec![]), -8, "L5: memo");
    assert_eq!(try_with(&all, b"", vec![1]), -8, "no such output");
    assert_eq!(try_with(&all, b"", vec![0, 0]), -8, "twice");
    assert_eq!(try_with(&all, b"", vec![]), -6, "not enough for the fee");
    let coin = wallet.unspent()[0].outpoint;
    wallet.hold(coin, true).unwrap();
    let held = wallet.create_transaction(&all, b"", &policy, &terms());
    assert!(held.is_err(), "held coins are not spent");
    assert!(wallet.hold(OutPoint::default(), true).is_err());
}

#[test]
fn wallets_have_plain_names_and_are_never_overwritten() {
    let scratch = Scratch::new();
    let (mut wallet, dir, _) = fresh(&scratch, "");
    let again = Wallet::create(&dir, &seed(), "", NET, chain_id());
    assert!(matches!(again.err(), Some(WalletError::Exists(_))));
    for bad in ["..", "a/b", ".hidden", "ü", &"x".repeat(65)] {
        assert!(directory(&scratch.0, bad).is_err(), "{bad}");
    }
    let to = scratch.0.join("copy");
    wallet.backup(&to).unwrap();
    let copy = Wallet::open(&to, NET, chain_id()).unwrap();
    assert_eq!(copy.addresses(), wallet.addresses());
    assert!(wallet.backup(&to).is_err());
    let missing = Wallet::open(&scratch.0.join("none"), NET, chain_id());
    assert_eq!(missing.err().unwrap().code(), -18);
}

#[test]
fn what_a_fork_takes_back_waits_again_until_it_is_decided_or_void() {
    let scratch = Scratch::new();
    let (mut wallet, dir, program) = fresh(&scratch, "");
    let mut chain = Chain::funded(program, &[1_000_000, 700_000]);
    wallet.attach(&chain).unwrap();
    let kept = send(&mut wallet, 600_000);
    let (block, height) = chain.decide(vec![kept.clone()]);
    wallet.observe(&block, height);
    wallet.flush().unwrap();
    let before = scratch.0.join("kept");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&dir, &before])
        .status();
    assert!(copied.unwrap().success());
    // The branch that is lost: a payment of ours, one to us that holds on both branches, one to us that does not.
    let own = send(&mut wallet, 500_000);
    let (good, bad) = (gift(5_000, program, 8), gift(9_000, program, 9));
    let lost = vec![own.clone(), good.clone(), bad.clone()];
    let common = chain.blocks.clone();
    let (block, height) = chain.decide(lost.clone());
    wallet.observe(&block, height);
    wallet.flush().unwrap();
    let balance = wallet.balance();
    drop(wallet);
    // Twice: the first start is killed before it has written anything.
    chain.blocks = common;
    for _ in 0..2 {
        let mut wallet = Wallet::open(&dir, NET, chain_id()).unwrap();
        wallet.attach_after_fork(&chain, &lost).unwrap();
        assert!(wallet.history().get(&kept.txid).is_some(), "still final");
        for tx in &lost {
            assert!(wallet.history().get(&tx.txid).is_none(), "final no more");
            assert!(
                wallet.pending_entry(&tx.txid).is_some(),
                "and not forgotten"
            );
        }
        let now = wallet.balance();
        assert!(
            now.confirmed.0 + now.unconfirmed.0 + 14_000 == balance.confirmed.0,
            "what others pay us is no money until it is final: {now:?} {balance:?}"
        );
    }
    // A kill before the wallet had written anything of the lost branch: it finds its own in what was returned.
    let dir_before = scratch.0.join("again");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&before, &dir_before])
        .status();
    assert!(copied.unwrap().success());
    let mut unaware = Wallet::open(&dir_before, NET, chain_id()).unwrap();
    unaware.attach_after_fork(&chain, &lost).unwrap();
    let credits = [&own, &good, &bad].map(|tx| unaware.pending_entry(&tx.txid).unwrap().credit.0);
    assert_eq!(credits[1..], [5_000, 9_000]);
    assert_eq!(
        unaware.pending_entry(&good.txid).unwrap().debit,
        Amount::ZERO
    );
    // The branch that stays spends what `bad` spends.
    let mut wallet = Wallet::open(&dir, NET, chain_id()).unwrap();
    wallet.attach_after_fork(&chain, &lost).unwrap();
    let theft = gift(9_000, stranger(), 9);
    let decided = vec![theft.clone(), own.clone(), good.clone()];
    let (block, height) = chain.decide(decided);
    assert_eq!(wallet.observe(&block, height), [own.txid, good.txid]);
    wallet.flush().unwrap();
    drop(wallet);
    let mut wallet = Wallet::open(&dir, NET, chain_id()).unwrap();
    wallet.attach_after_fork(&chain, &lost).unwrap();
    assert!(wallet.pending().is_empty());
    assert_eq!(wallet.history().get(&own.txid).unwrap().height, height);
    let void = wallet.void(&bad.txid).expect("remembered over restarts");
    assert_eq!((void.by, void.entry.credit), (theft.txid, Amount(9_000)));
    assert_eq!(wallet.balance().confirmed.0, balance.confirmed.0 - 9_000);
    // A wallet that was off during the fork: its last block is not on the chain.
    let behind = Chain {
        blocks: chain.blocks[..1].to_vec(),
        genesis: chain.genesis.clone(),
        pruned: false,
    };
    let mut longer = behind;
    longer.decide(vec![gift(1, stranger(), 7)]);
    longer.decide(vec![own.clone()]);
    let mut wallet = Wallet::open(&dir, NET, chain_id()).unwrap();
    wallet.attach_after_fork(&longer, &lost).unwrap();
    assert_eq!(wallet.history().get(&own.txid).unwrap().height, Height(3));
    assert!(wallet.history().get(&good.txid).is_none());
}
