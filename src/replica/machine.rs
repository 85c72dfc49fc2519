//! The replica itself: state, dispatch, and when to act (S3). The parts of its behaviour stand in `height` (driving the
//! consensus core), `blocks` (proposals, judging, deciding), `frames` (peers), `transactions` (mempool) and `start`.

use crate::base::time::{MonoUs, Now};
use crate::consensus::late::Late;
use crate::consensus::rules::Rules;
use crate::crypto::keys::SecretKey;
use crate::crypto::verify::{Check, Verified};
use crate::ledger::coins::{Coin, CoinView, ViewError};
use crate::ledger::decided::DecidedBlock;
use crate::ledger::mempool::{Mempool, MempoolLimits, Selection};
use crate::ledger::state::State;
use crate::p2p::messages::{Message, PeerId, Status};
use crate::replica::catchup::Catchup;
use crate::replica::clock::ClockGuard;
use crate::replica::evidence::Accused;
use crate::replica::fork::Forks;
use crate::replica::gate::Gate;
use crate::replica::guard::{Guard, Refusal};
use crate::replica::height::HeightWork;
use crate::replica::io::*;
use crate::replica::liveness::Liveness;
use crate::replica::peers::Peers;
use crate::replica::requests::Requests;
use crate::sync::trust::Trust;
use crate::types::block::Certificate;
use crate::types::ids::*;
use crate::types::vote::Vote;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Blocks that may be decided and not yet durable in the ledger; beyond it no new height begins (back-pressure).
pub const LEDGER_BEHIND_MAX: usize = 64;
/// Frames of the next height that are kept until this one is decided; beyond it they are dropped and repaired by pull (S8).
pub(super) const AHEAD_FRAME_COUNT_MAX: usize = 512;
/// Bytes of those.
pub(super) const AHEAD_BYTES_MAX: usize = 4 << 20;
/// While a height takes long, peers are asked for missing votes at least this often, ms: no lost frame holds it up.
const REPAIR_MS: u64 = 1_000;
/// Signature checks given out and not answered; beyond it transactions of peers are shed.
pub(super) const CHECKS_OUT_MAX: usize = 16_384;

/// What one node is.
pub struct Config {
    /// This node's operator key; the registry says for which masternode it speaks, if any.
    pub operator: Option<SecretKey>,
    /// Bounds of the mempool.
    pub mempool: MempoolLimits,
    /// The protocol, [`Rules::default`]; anything else is a mutant that tests run to see it found.
    pub rules: Rules,
    /// What it believes (F2).
    pub trust: Trust,
}

/// Coins of decided blocks that the ledger environment does not show yet, over those that it shows.
pub(super) struct Layered<'a> {
    pub(super) pending: &'a BTreeMap<OutPoint, (Height, Option<Coin>)>,
    pub(super) base: &'a dyn CoinView,
}

impl CoinView for Layered<'_> {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, ViewError> {
        match self.pending.get(outpoint) {
            Some((_, coin)) => Ok(*coin),
            None => self.base.coin(outpoint),
        }
    }
}

/// The entry whose operator key `key` is.
pub(super) fn speaks_for(state: &State, key: &SecretKey) -> Option<MasternodeId> {
    let public = key.public();
    let mut entries = state.registry().entries().iter();
    entries.find(|e| e.operator == public).map(|e| e.id)
}

/// One node's brain.
pub struct Replica {
    pub(super) key: Option<SecretKey>,
    /// The masternode whose operator key that is now.
    pub(super) operator: Option<(MasternodeId, SecretKey)>,
    pub(super) rules: Rules,
    pub(super) state: State,
    /// Changes of blocks not yet durable in the ledger: `None` is spent.
    pub(super) pending: BTreeMap<OutPoint, (Height, Option<Coin>)>,
    pub(super) undurable: VecDeque<Arc<DecidedBlock>>,
    /// Bytes of their transactions.
    pub(super) undurable_bytes: usize,
    /// The newest decided block, for peers that are one height behind.
    pub(super) last: Option<Arc<DecidedBlock>>,
    /// The certificate of the newest decided block: last_commit of the next one.
    pub(super) last_certificate: Option<Certificate>,
    pub(super) mempool: Mempool,
    pub(super) first_seen: BTreeMap<Txid, MonoUs>,
    pub(super) peers: Peers,
    pub(super) guard: Guard,
    pub(super) trust: Trust,
    pub(super) clock: ClockGuard,
    pub(super) gate: Gate,
    pub(super) height: HeightWork,
    pub(super) liveness: Liveness,
    /// Greatest vote seen of each validator: shown to it when it connects (B7 step 2). Its signature holds, or it came late and
    /// from that validator itself.
    pub(super) seen: BTreeMap<MasternodeId, Vote>,
    pub(super) accused: Accused,
    /// Votes of the newest decided heights.
    pub(super) late: Late,
    pub(super) forks: Forks,
    pub(super) ahead: VecDeque<(PeerId, Message, ReadAt)>,
    pub(super) ahead_bytes: usize,
    /// Blocks above the tip that other nodes decided.
    pub(super) catchup: Catchup,
    pub(super) requests: Requests,
    pub(super) pushes: Vec<crate::types::transaction::Tx>,
    pub(super) verify: Vec<(Item, Vec<Check>)>,
    pub(super) checks_out: usize,
    /// Whether the disk of the signer store or ledger is full.
    pub(super) full: BTreeSet<&'static str>,
    pub(super) halted: Option<String>,
    pub(super) last_refusal: Option<Refusal>,
    /// What the core is to be fed, in order, and whether that is going on.
    pub(super) inputs: VecDeque<crate::consensus::messages::Input>,
    pub(super) feeding: bool,
    pub(super) out: Vec<Effect>,
}

impl Replica {
    pub(super) fn new(config: Config, state: State, guard: Guard, gate: Gate, now: Now) -> Replica {
        let guard = guard.under(config.rules);
        let height = HeightWork::new(&state, guard.me(), config.rules, now.mono);
        let patience_ms = state.params().timeout_prevote_ms / 4;
        let peers = Peers::new(state.deciders(), guard.me(), patience_ms);
        let me = guard.me();
        Replica {
            operator: me.zip(config.operator.clone()),
            key: config.operator,
            rules: config.rules,
            height,
            state,
            pending: BTreeMap::new(),
            undurable: VecDeque::new(),
            undurable_bytes: 0,
            last: None,
            last_certificate: None,
            mempool: Mempool::new(config.mempool),
            first_seen: BTreeMap::new(),
            peers,
            guard,
            trust: config.trust,
            clock: ClockGuard::default(),
            gate,
            liveness: Liveness::default(),
            seen: BTreeMap::new(),
            accused: Accused::default(),
            late: Late::default(),
            forks: Forks::default(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            catchup: Catchup::default(),
            requests: Requests::default(),
            pushes: Vec::new(),
            verify: Vec::new(),
            checks_out: 0,
            full: BTreeSet::new(),
            halted: None,
            last_refusal: None,
            inputs: VecDeque::new(),
            feeding: false,
            out: Vec::new(),
        }
    }

    /// The registry has changed: for whom does this node's key speak now? (M2: a key may come, change hands and go.)
    pub(super) fn find_operator(&mut self) {
        let me = self
            .key
            .as_ref()
            .and_then(|key| speaks_for(&self.state, key));
        if me != self.guard.me() {
            self.guard.assign(me);
            self.operator = me.zip(self.key.clone());
        }
    }

    /// Reacts to one input. An error means that this node's own disk cannot be read: the node stops.
    pub fn handle(
        &mut self,
        now: Now,
        input: Input,
        view: &dyn CoinView,
    ) -> Result<Vec<Effect>, ViewError> {
        match input {
            Input::PeerUp(peer, status) => self.peer_up(peer, status),
            Input::PeerMasternode(peer, id) => self.peer_masternode(now, peer, id, view)?,
            Input::PeerStatus(peer, status) => self.peer_status(now, peer, status, view)?,
            Input::Strayed(peer) => self.suspect(now, peer, self.state.height()),
            Input::PeerDown(peer) => {
                self.liveness.attestations.forget_peer(peer);
                self.forks.peer_down(peer);
                self.requests.peer_down(peer);
                if let Some(masternode) = self.peers.down(peer) {
                    self.clock.forget(&masternode);
                    self.guard.decided_by(masternode, None);
                }
            }
            Input::Frame(peer, message, read) => self.frame(now, peer, message, read, view)?,
            Input::Verdicts(verdicts) => self.verdicts(now, verdicts, view)?,
            Input::SignerDurable(number) => self.signer_durable(now, number, view)?,
            Input::LedgerDurable(height) => self.ledger_durable(height),
            Input::SignerFull => self.disk_full("signer store"),
            Input::LedgerFull => self.disk_full("ledger"),
            Input::Submit(token, tx) => self.offer(now, tx, Origin::Local(Some(token)), view)?,
            Input::Synced(synced) => self.synced(synced),
            Input::Reached(id, address) => self.reached(id, &address),
            Input::Probed => self.probed(now),
            Input::Tick => {}
        }
        self.progress(now, view)?;
        Ok(std::mem::take(&mut self.out))
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self, now: Now) -> Deadline {
        let timers = self.height.next_timer();
        let act = if self.height.begun {
            self.build_due(now)
        } else {
            Some(self.act_due(now))
        };
        let relay = self.peers.deadline();
        let expiry = self.mempool.next_expiry();
        let fetch = self.height.next_fetch();
        let fork = [self.forks.deadline(), self.crossing_due()];
        let (live, fork) = (self.live_due(now), fork.into_iter().flatten().min());
        let requests = self.requests.deadline();
        [
            timers,
            act,
            relay,
            expiry,
            fetch,
            self.height.repair,
            live,
            fork,
            requests,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What follows from the state whatever the input was.
    fn progress(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        self.clock.check(now, &self.state.validators);
        self.guard
            .doubt(self.trust.doubt(now.wall, self.state.height()));
        self.fire_timers(now, view)?;
        self.take_synced(now, view)?;
        self.revive(now, view)?;
        self.maybe_begin(now, view)?;
        self.live(now);
        self.maybe_build(now, view)?;
        self.fetch_again(now);
        self.tend_forks(now, view)?;
        if self.height.repair.is_some_and(|due| now.mono >= due) {
            self.repair_later(now);
            self.ask_for_votes(now);
        }
        let departed = self.mempool.expire(now);
        self.forget_departed(&departed);
        self.ask_others(now);
        self.push_transactions();
        let relayed = self.peers.flush(now.mono);
        self.out.extend(relayed);
        self.report_signing();
        if let Some((number, batch)) = self.gate.flush() {
            self.out.push(match self.gate.take_renew() {
                true => Effect::RenewSigner(number, batch),
                false => Effect::WriteSigner(number, batch),
            });
        }
        if !self.verify.is_empty() {
            let batch = std::mem::take(&mut self.verify);
            self.checks_out += batch.len();
            self.out.push(Effect::Verify(batch));
        }
        Ok(())
    }

    /// The coins as they are after the newest decided block.
    pub(super) fn with_view<R>(
        &mut self,
        base: &dyn CoinView,
        work: impl FnOnce(&mut Replica, &dyn CoinView) -> R,
    ) -> R {
        // The map is taken out so that it can be read while the rest of the replica changes; `work` never touches it.
        let pending = std::mem::take(&mut self.pending);
        let result = work(
            self,
            &Layered {
                pending: &pending,
                base,
            },
        );
        self.pending = pending;
        result
    }

    /// Whether a block made now would be a slot block.
    pub(super) fn slot_block_due(&self, now: Now) -> bool {
        self.state
            .is_slot_block(now.wall.max(self.state.earliest()))
    }

    fn has_reason(&self, now: Now) -> bool {
        self.height.reason || self.has_payment(now)
    }

    /// Whether this node itself knows something that the next block may hold, or a slot block is due.
    pub(super) fn has_payment(&self, now: Now) -> bool {
        let slot = self.slot_block_due(now);
        slot || self.mempool.has_candidate(slot)
    }

    /// S3: a node acts at the next height when it has a reason and min_block_interval is over.
    fn maybe_begin(&mut self, now: Now, view: &dyn CoinView) -> Result<(), ViewError> {
        let free = self.undurable.len() < LEDGER_BEHIND_MAX && self.halted.is_none();
        if !self.height.begun && free && now.wall >= self.state.earliest() && self.has_reason(now) {
            self.height.begun = true;
            self.repair_later(now);
            self.feed(now, crate::consensus::messages::Input::Begin, view)?;
        }
        Ok(())
    }

    /// The first question comes when a height that goes well is over; then less and less often.
    fn repair_later(&mut self, now: Now) {
        let first = (self.state.params().timeout_prevote_ms / 2).max(1);
        self.height.repair_ms = (2 * self.height.repair_ms).max(first).min(REPAIR_MS);
        self.height.repair = Some(now.mono.plus_ms(self.height.repair_ms));
    }

    /// When [`Replica::maybe_begin`] must be asked again if nothing else happens.
    fn act_due(&self, now: Now) -> MonoUs {
        let slot_ms = self.state.params().slot_ms;
        let boundary = crate::base::time::WallMs(
            (self.state.slot().0.saturating_add(1)).saturating_mul(slot_ms),
        );
        let wake = if self.has_reason(now) {
            self.state.earliest()
        } else {
            boundary.max(self.state.earliest())
        };
        if wake <= now.wall {
            // Back-pressure or a halt: durability reports wake the machine, not the clock.
            return now.mono.plus_ms(slot_ms);
        }
        now.mono_at(wake)
    }

    /// The room for candidates of the next block.
    pub(super) fn room(&self, slot_block: bool) -> Selection {
        let limits = self.state.limits();
        Selection {
            bytes: limits.block_bodies_bytes as usize,
            count: limits.block_tx_count as usize,
            sigchecks: limits.block_sigcheck_count as usize,
            registry: if slot_block {
                limits.registry_tx_count as usize
            } else {
                0
            },
        }
    }

    /// Where this node stands, as its peers are told.
    pub fn status(&self, now: Now) -> Status {
        Status {
            era: self.state.era(),
            height: self.state.height(),
            block: self.state.block(),
            voted: self.guard.voted(),
            slot: Slot(now.wall.0 / self.state.params().slot_ms),
            clock: now.wall,
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.out.push(Effect::Event(event));
    }

    pub(super) fn send(&mut self, peer: PeerId, message: Message) {
        self.out.push(Effect::Send(vec![peer], Arc::new(message)));
    }

    pub(super) fn check(&mut self, item: Item, checks: Vec<Check>) {
        self.verify.push((item, checks));
    }

    fn verdicts(
        &mut self,
        now: Now,
        verdicts: Vec<Result<Verified<Item>, Item>>,
        view: &dyn CoinView,
    ) -> Result<(), ViewError> {
        self.checks_out = self.checks_out.saturating_sub(verdicts.len());
        for verdict in verdicts {
            match verdict {
                Ok(item) => self.proven(now, item, view)?,
                Err(item) => self.refuted(now, item, view)?,
            }
        }
        Ok(())
    }

    fn ledger_durable(&mut self, height: Height) {
        self.disk_free("ledger");
        while self
            .undurable
            .front()
            .is_some_and(|d| d.block.header.height <= height)
        {
            let Some(decided) = self.undurable.pop_front() else {
                break;
            };
            self.undurable_bytes -= decided.block.bodies_size();
            let at = decided.block.header.height;
            let delta = &decided.delta;
            let outpoints = delta
                .created
                .iter()
                .chain(&delta.spent)
                .map(|(outpoint, _)| outpoint);
            for outpoint in outpoints {
                if self
                    .pending
                    .get(outpoint)
                    .is_some_and(|(changed, _)| *changed <= at)
                {
                    self.pending.remove(outpoint);
                }
            }
        }
        self.catchup.durable(height);
        self.gate.prune(height, self.state.params().max_reorg);
    }

    fn disk_full(&mut self, which: &'static str) {
        self.full.insert(which);
        self.guard.stop(format!(
            "no space left on the disk of the {which}; free some, signing goes on by itself"
        ));
    }

    pub(super) fn disk_free(&mut self, which: &'static str) {
        if self.full.remove(which) && self.full.is_empty() && self.halted.is_none() {
            self.guard.resume();
        }
    }

    /// A decided block breaks the rules (S10), or the chain is not what it should be: stop signing, go on serving.
    pub(super) fn halt(&mut self, why: String) {
        if self.halted.is_none() {
            self.guard.stop(why.clone());
            self.event(Event::Halted(why.clone()));
            self.halted = Some(why);
        }
    }

    fn report_signing(&mut self) {
        let height = self.state.height().next();
        let refusal = self.guard.ready(height, &self.state.deciders()).err();
        if refusal != self.last_refusal {
            // Catching up is one reason, not one for every height.
            let decided = |r: &Option<Refusal>| matches!(r, Some(Refusal::Decided(_)));
            let news = !(decided(&refusal) && decided(&self.last_refusal));
            let told = refusal.as_ref().map_or(Ok(()), |r| Err(r.to_string()));
            self.last_refusal = refusal;
            if news {
                self.event(Event::Signing(told));
            }
        }
    }
}
