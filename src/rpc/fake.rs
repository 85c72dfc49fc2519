//! A node for tests: a real ledger of `ledger::testkit`, kept in memory, with whatever state a test wants to see.

use crate::base::time::{MonoUs, Now, WallMs};
use crate::crypto::hash::Hash;
use crate::crypto::keys::Signature;
use crate::ledger::apply::Delta;
use crate::ledger::decided::DecidedBlock;
use crate::ledger::report::SlotOutcome;
use crate::ledger::testkit::{self, HOLDER, Net};
use crate::p2p::reputation::Ban;
use crate::rpc::node::*;
use crate::rpc::published;
use crate::types::block::{Block, Certificate, Header};
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::transaction::{Tx, TxOutput, possession_hash};
use crate::types::validators::ValidatorSet;
use crate::wallet::{CoinSource, Seed, SourceCoin, SourceError, Wallet};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Blocks that count as durable.
#[derive(Default)]
pub struct Disk {
    blocks: Vec<Arc<RecentBlock>>,
    coins: BTreeMap<OutPoint, StoredCoin>,
}

/// The in-memory stand-in of the ledger store.
#[derive(Default)]
pub struct FakeLedger(Mutex<Disk>);

impl FakeLedger {
    fn at(&self, height: Height) -> Option<Arc<RecentBlock>> {
        let index = usize::try_from(height.0.checked_sub(1)?).ok()?;
        self.0.lock().blocks.get(index).cloned()
    }
}

impl LedgerRead for FakeLedger {
    fn header(&self, height: Height) -> Result<Option<Header>, ReadError> {
        Ok(self.at(height).map(|b| b.block.header.clone()))
    }
    fn block(&self, height: Height) -> Result<Option<Arc<Block>>, ReadError> {
        Ok(self.at(height).map(|b| b.block.clone()))
    }
    fn certificate(&self, height: Height) -> Result<Option<Certificate>, ReadError> {
        Ok(self.at(height).map(|b| b.certificate.clone()))
    }
    fn height_of(&self, id: &BlockId) -> Result<Option<Height>, ReadError> {
        let disk = self.0.lock();
        let found = disk.blocks.iter().find(|b| b.id == *id);
        Ok(found.map(|b| b.block.header.height))
    }
    fn position_of(&self, txid: &Txid) -> Result<Option<(Height, u32)>, ReadError> {
        for b in &self.0.lock().blocks {
            if let Some(i) = b.block.transactions.iter().position(|tx| tx.txid == *txid) {
                return Ok(Some((b.block.header.height, i as u32)));
            }
        }
        Ok(None)
    }
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<StoredCoin>, ReadError> {
        Ok(self.0.lock().coins.get(outpoint).copied())
    }
    fn spent_by(&self, height: Height) -> Result<Vec<(OutPoint, TxOutput)>, ReadError> {
        Ok(self.at(height).map(|b| b.spent.clone()).unwrap_or_default())
    }
    fn slots(&self, from: SlotIndex, limit: usize) -> Result<Vec<SlotOutcome>, ReadError> {
        let disk = self.0.lock();
        let all = disk.blocks.iter().filter_map(|b| b.slot.as_deref());
        let found = all.filter(|slot| slot.figures.index >= from);
        Ok(found.take(limit).cloned().collect())
    }
    fn validator_set(&self, _: &Hash) -> Result<Option<Arc<ValidatorSet>>, ReadError> {
        Ok(None)
    }
}

/// What a test may change.
pub struct Knobs {
    pub phase: Phase,
    pub view: NodeView,
    pub now: Now,
    pub vitals: Vitals,
    pub tracks: BTreeMap<Txid, Track>,
    pub verdict: Result<Acceptance, SubmitError>,
    pub mempool: Vec<MempoolEntry>,
    pub filter: String,
    pub bans: Vec<Ban>,
}

/// The node.
pub struct FakeNode {
    pub facts: NodeFacts,
    pub ledger: FakeLedger,
    pub net: Mutex<Net>,
    pub knobs: Mutex<Knobs>,
    pub wallets: Mutex<BTreeMap<String, Arc<Mutex<Wallet>>>>,
    pub submitted: Mutex<Vec<Tx>>,
    pub stopped: AtomicBool,
    pub looks: AtomicU64,
}

fn first_view(net: &Net) -> NodeView {
    let state = &net.state;
    let total = state.validators.total();
    NodeView {
        own_standing: None,
        tip: Tip::of(state),
        durable: Height(0),
        slot_height: Height(0),
        slot_index: state.slot_index(),
        era: Era(0),
        branch: Branch(0),
        validators: state.validators.clone(),
        masternodes: Arc::new(published::masternodes(state, |_| true)),
        supply: SupplyView::of(state),
        consensus: ConsensusView {
            height: Height(1),
            at: EraRound::default(),
            step: Step::Idle,
            proposer: Some(state.leader(Round(0))),
            quorum: Power(total.0 * 2 / 3 + 1),
            total,
            connected: total,
            prevotes: Power(0),
            precommits: Power(0),
            waiting_for: "a payment".into(),
            due_since: None,
            no_quorum_since: None,
        },
        own: None,
        mempool: MempoolView {
            max_size: 64_000_000,
            max_count: 50_000,
            ..MempoolView::default()
        },
        peers: Arc::new(Vec::new()),
        sync: SyncView::default(),
        trust: TrustView::default(),
        clock: ClockView::default(),
        recent: Vec::new(),
        warnings: Vec::new(),
        contested: None,
    }
}

impl FakeNode {
    /// A node of a network of four with ten funded holders.
    pub fn new() -> Arc<FakeNode> {
        let genesis = testkit::genesis(&[1_000; 4], 10);
        let net = Net::new(genesis.clone());
        let coins = genesis.coins().into_iter();
        let coin = |output| StoredCoin {
            output,
            coinbase: false,
        };
        let disk = Disk {
            blocks: Vec::new(),
            coins: coins.map(|(o, output)| (o, coin(output))).collect(),
        };
        let view = first_view(&net);
        Arc::new(FakeNode {
            facts: NodeFacts {
                chain: genesis.chain_id(),
                genesis: Arc::new(genesis),
                node_key: testkit::key(1).public(),
                operator: Some(testkit::key(testkit::OPERATOR + 9).public()),
                p2p_addresses: vec!["127.0.0.1:24300".parse().unwrap()],
                log_path: String::new(),
                has_tx_index: true,
            },
            ledger: FakeLedger(Mutex::new(disk)),
            knobs: Mutex::new(Knobs {
                phase: Phase::Running,
                now: Now {
                    wall: view.tip.time.plus(1_000),
                    mono: MonoUs(1_000_000_000),
                },
                view,
                vitals: Vitals::default(),
                tracks: BTreeMap::new(),
                verdict: Ok(Acceptance {
                    fee: crate::types::amount::Amount(testkit::FEE),
                }),
                mempool: Vec::new(),
                bans: Vec::new(),
                filter: "info".into(),
            }),
            net: Mutex::new(net),
            wallets: Mutex::new(BTreeMap::new()),
            submitted: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
            looks: AtomicU64::new(0),
        })
    }

    /// A payment of holder `from` (0-9) to holder `to`, not yet sent.
    pub fn payment(&self, from: u64, to: u64) -> Tx {
        self.net.lock().pay(HOLDER + from, HOLDER + to, 5_000_000)
    }

    /// Decides a block with these transactions; it is not durable yet.
    pub fn decide(&self, txs: Vec<Tx>) -> Arc<RecentBlock> {
        let mut net = self.net.lock();
        let made = net.block(txs);
        self.show(&net, made)
    }

    /// Decides a slot block that all members attested, where everybody but `absent` was there.
    pub fn decide_slot(&self, absent: &[MasternodeId], txs: Vec<Tx>) -> Arc<RecentBlock> {
        let mut net = self.net.lock();
        let made = net.attested(absent, txs);
        self.show(&net, made)
    }

    /// Shows a block that a test made by hand.
    pub fn show_made(&self, made: (Block, Delta)) -> Arc<RecentBlock> {
        self.show(&self.net.lock(), made)
    }

    fn show(&self, net: &Net, (block, delta): (Block, Delta)) -> Arc<RecentBlock> {
        let decided = DecidedBlock {
            certificate: Certificate {
                height: block.header.height,
                block: block.id(),
                commit: net.last_commit(),
            },
            block: Arc::new(block),
            delta: Arc::new(delta),
        };
        let recent = Arc::new(RecentBlock::of(&decided));
        let mut knobs = self.knobs.lock();
        knobs.view.tip = Tip::of(&net.state);
        knobs.view.supply = SupplyView::of(&net.state);
        knobs.view.slot_index = net.state.slot_index();
        knobs.view.validators = net.state.validators.clone();
        knobs.view.masternodes = Arc::new(published::masternodes(&net.state, |_| true));
        knobs.view.recent.push(recent.clone());
        knobs.now.wall = knobs.view.tip.time.plus(1_000);
        recent
    }

    /// All decided blocks become durable; the view forgets them if `forget`.
    pub fn flush(&self, forget: bool) {
        let mut knobs = self.knobs.lock();
        let mut disk = self.ledger.0.lock();
        for recent in knobs.view.recent.clone() {
            if recent.block.header.height.0 <= disk.blocks.len() as u64 {
                continue;
            }
            for tx in recent.block.transactions.iter() {
                for input in tx.body().inputs.iter() {
                    disk.coins.remove(input);
                }
                for (output, vout) in tx.body().outputs.iter().zip(0..) {
                    let coin = StoredCoin {
                        output: *output,
                        coinbase: false,
                    };
                    disk.coins.insert(tx.outpoint(vout), coin);
                }
            }
            disk.blocks.push(recent);
        }
        knobs.view.durable = knobs.view.tip.height;
        if forget {
            knobs.view.recent.clear();
        }
    }

    /// Lets time pass.
    pub fn pass_ms(&self, ms: u64) {
        let mut knobs = self.knobs.lock();
        knobs.now.mono = knobs.now.mono.plus_ms(ms);
        knobs.now.wall = knobs.now.wall.plus(ms);
    }

    /// Changes what the node shows.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.knobs.lock());
    }

    /// Loads a new wallet whose directory is `dir`.
    pub fn add_wallet(&self, name: &str, dir: &std::path::Path) -> Arc<Mutex<Wallet>> {
        let network = self.facts.network();
        let seed = Seed::from_entropy(&[7; 16]).unwrap();
        let mut wallet =
            Wallet::create(&dir.join(name), &seed, "", network, self.facts.chain).unwrap();
        wallet
            .attach(&EmptySource(self.facts.genesis.clone()))
            .unwrap();
        let wallet = Arc::new(Mutex::new(wallet));
        self.wallets.lock().insert(name.into(), wallet.clone());
        wallet
    }
}

/// A chain at its genesis, for wallets.
struct EmptySource(Arc<Genesis>);

impl CoinSource for EmptySource {
    fn block_id(&self, _: Height) -> Result<Option<BlockId>, SourceError> {
        Ok(None)
    }
    fn is_unspent(&self, _: &OutPoint) -> Result<bool, SourceError> {
        Ok(false)
    }
    fn reorg_max(&self) -> u64 {
        1_000
    }
    fn tip(&self) -> Result<Height, SourceError> {
        Ok(Height(0))
    }
    fn coins_of(
        &self,
        _: &crate::types::address::Program,
        _: Option<OutPoint>,
        _: usize,
    ) -> Result<Vec<SourceCoin>, SourceError> {
        Ok(Vec::new())
    }
    fn block(&self, _: Height) -> Result<Option<Arc<Block>>, SourceError> {
        Ok(None)
    }
    fn height_of(&self, _: &Txid) -> Result<Option<Height>, SourceError> {
        Ok(None)
    }
    fn genesis_coins(&self) -> Vec<(OutPoint, TxOutput)> {
        self.0.coins()
    }
}

impl Node for FakeNode {
    fn phase(&self) -> Phase {
        self.knobs.lock().phase.clone()
    }
    fn facts(&self) -> &NodeFacts {
        &self.facts
    }
    fn view(&self) -> Arc<NodeView> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.knobs.lock().view.clone())
    }
    fn ledger(&self) -> &dyn LedgerRead {
        &self.ledger
    }
    fn now(&self) -> Now {
        self.knobs.lock().now
    }
    fn uptime(&self) -> Duration {
        Duration::from_secs(42)
    }
    fn submit(&self, tx: Tx, _: Duration) -> Result<Txid, SubmitError> {
        self.knobs.lock().verdict.clone()?;
        let txid = tx.txid;
        self.submitted.lock().push(tx);
        Ok(txid)
    }
    fn check(&self, _: Tx, _: Duration) -> Result<Acceptance, SubmitError> {
        self.knobs.lock().verdict.clone()
    }
    fn mempool_entry(&self, txid: &Txid) -> Option<MempoolEntry> {
        let knobs = self.knobs.lock();
        knobs.mempool.iter().find(|e| e.tx.txid == *txid).cloned()
    }
    fn mempool_entries(&self, limit: usize) -> Vec<MempoolEntry> {
        let knobs = self.knobs.lock();
        knobs.mempool.iter().take(limit).cloned().collect()
    }
    fn mempool_spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        let knobs = self.knobs.lock();
        let spends = |e: &&MempoolEntry| e.tx.body().inputs.contains(outpoint);
        knobs.mempool.iter().find(spends).map(|e| e.tx.txid)
    }
    fn track(&self, txid: &Txid) -> Option<Track> {
        self.knobs.lock().tracks.get(txid).cloned()
    }
    fn finality_ms(&self, _: &Txid) -> Option<u64> {
        Some(12)
    }
    fn peer_command(&self, command: PeerCommand) -> Result<(), PeerRefusal> {
        let mut knobs = self.knobs.lock();
        match command {
            PeerCommand::Ban(subject, ms) => {
                if knobs.bans.iter().any(|ban| ban.subject == subject) {
                    return Err(PeerRefusal::AlreadyBanned);
                }
                let created = knobs.now.wall;
                knobs.bans.push(Ban {
                    subject,
                    created,
                    until: created.plus(ms),
                    why: "by hand".into(),
                    by_hand: true,
                });
            }
            PeerCommand::Unban(subject) => {
                let before = knobs.bans.len();
                knobs.bans.retain(|ban| ban.subject != subject);
                if knobs.bans.len() == before {
                    return Err(PeerRefusal::NotBanned);
                }
            }
            PeerCommand::ClearBans => knobs.bans.clear(),
            PeerCommand::Disconnect(_) => return Err(PeerRefusal::NotConnected),
            PeerCommand::Remove(_) => return Err(PeerRefusal::NotAdded),
            PeerCommand::Add(_) | PeerCommand::Try(_) => {}
        }
        Ok(())
    }
    fn bans(&self) -> Arc<Vec<Ban>> {
        Arc::new(self.knobs.lock().bans.clone())
    }
    fn fork(&self) -> Option<crate::replica::fork::ForkInfo> {
        None
    }
    fn recoveries(&self) -> Vec<crate::types::fork::RecoveryCert> {
        Vec::new()
    }
    fn recover(&self, _: BlockId) -> Result<u32, String> {
        Err("there is no open fork: nothing to recover from".into())
    }
    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        if filter.contains(' ') {
            return Err(format!("'{filter}' is no log filter"));
        }
        self.knobs.lock().filter = filter.into();
        Ok(())
    }
    fn log_filter(&self) -> String {
        self.knobs.lock().filter.clone()
    }
    fn vitals(&self) -> Vitals {
        self.knobs.lock().vitals.clone()
    }
    fn wallet_names(&self) -> Vec<String> {
        self.wallets.lock().keys().cloned().collect()
    }
    fn wallet(&self, name: &str) -> Option<Arc<Mutex<Wallet>>> {
        self.wallets.lock().get(name).cloned()
    }
    fn possession(&self, message: &Hash) -> Option<Signature> {
        let key = testkit::key(testkit::OPERATOR + 9);
        Some(key.sign(&possession_hash(message)))
    }
}

/// A wall clock far from any slot of the test chain.
pub const LATER: WallMs = WallMs(1_800_000_000_000);
