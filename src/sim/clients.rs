//! Clients: each holder spends its one coin again and again, paying itself, and sends a payment anew until it is final. A
//! thief spends a coin twice; a flood sends many payments at once, half of them invalid.

use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::rng::Rng;
use crate::crypto::keys::SecretKey;
use crate::sim::kit::{HOLDING, Role, key, program};
use crate::types::amount::Amount;
use crate::types::codec;
use crate::types::genesis::Genesis;
use crate::types::ids::*;
use crate::types::transaction::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Fee of each payment, 10^-8 TIME.
pub const FEE: u64 = 50_000;

/// One holder.
struct Holder {
    coin: (OutPoint, TxOutput),
    pending: Option<(Tx, u64)>,
    /// Its coin went into a registry transaction.
    retired: bool,
    /// Another payment of the same coin.
    rival: Option<Tx>,
}

/// A registry transaction that is not final.
struct Request {
    tx: Tx,
    /// Who gets the change of it, and which output that is.
    change: (usize, u32),
    /// Number of the masternode that it is about, and whether it lets that one go.
    about: (usize, bool),
}

/// Coins of the flood, and its payments that are not final.
struct Flood {
    holder: usize,
    pool: VecDeque<(OutPoint, TxOutput)>,
    waiting: BTreeMap<Txid, Tx>,
}

/// Coins that the flood makes of its first one.
const FLOOD_COIN_COUNT: u64 = 64;

/// All clients of a run.
pub struct Clients {
    chain: ChainId,
    holders: Vec<Holder>,
    registry: Vec<Request>,
    flood: Option<Flood>,
    rng: Rng,
    /// Payments made so far.
    pub made: u64,
    /// Payments that became final.
    pub settled: u64,
    /// Time from submission to the first finality, µs.
    pub finality: Vec<u64>,
    /// Time from submission to finality at the node that took the payment first, µs.
    pub finality_own: Vec<u64>,
    /// Payments by id: which node took them first, and when.
    taken: BTreeMap<Txid, (usize, u64)>,
}

/// A transfer of `coin`, held by holder `i`, that leaves `value` to holder `to`.
pub fn transfer(chain: ChainId, i: usize, coin: (OutPoint, TxOutput), to: usize, memo: u64) -> Tx {
    let output = TxOutput {
        value: Amount(coin.1.value.0.saturating_sub(FEE)),
        program: program(Role::Holder, to),
    };
    spend(chain, i, coin, vec![output], memo)
}

/// A transfer of `coin`, held by holder `i`, to `outputs`.
fn spend(
    chain: ChainId,
    i: usize,
    coin: (OutPoint, TxOutput),
    outputs: Vec<TxOutput>,
    memo: u64,
) -> Tx {
    let body = TxBody {
        version: TX_VERSION,
        kind: TxKind::Transfer,
        inputs: BoundedVec::take_from([coin.0]),
        outputs: BoundedVec::take_from(outputs),
        payload: BoundedBytes::try_from(memo.to_le_bytes().to_vec()).unwrap_or_default(),
    };
    let message = body.signature_hash(chain, Branch(0), &[coin.1]);
    let witness = Witness::Key(key(Role::Holder, i).sign(&message));
    Tx::new(Transaction {
        body,
        witnesses: BoundedVec::take_from([witness]),
        auth: Auth::new(),
    })
}

impl Clients {
    /// The holders of a genesis made by the kit.
    pub fn new(seed: u64, genesis: &Genesis) -> Clients {
        let mut coins: BTreeMap<u32, (OutPoint, TxOutput)> = BTreeMap::new();
        for (outpoint, output) in genesis.coins() {
            coins.insert(outpoint.vout, (outpoint, output));
        }
        let holders = coins.into_values().filter(|(_, o)| o.value.0 == HOLDING);
        Clients {
            chain: genesis.chain_id(),
            holders: holders
                .map(|coin| Holder {
                    coin,
                    pending: None,
                    retired: false,
                    rival: None,
                })
                .collect(),
            registry: Vec::new(),
            flood: None,
            rng: Rng::new(seed ^ 0x636c_6965_6e74_7300),
            made: 0,
            settled: 0,
            finality: Vec::new(),
            finality_own: Vec::new(),
            taken: BTreeMap::new(),
        }
    }

    /// A new payment, if a holder is free.
    pub fn pay(&mut self, now: u64) -> Option<Tx> {
        let count = self.holders.len() as u64;
        let first = self.rng.below(count) as usize;
        let free = (0..self.holders.len()).map(|i| (first + i) % self.holders.len());
        let i = free
            .into_iter()
            .find(|i| self.holders[*i].pending.is_none() && !self.holders[*i].retired)?;
        self.made += 1;
        let tx = transfer(self.chain, i, self.holders[i].coin, i, self.made);
        self.holders[i].pending = Some((tx.clone(), now));
        Some(tx)
    }

    /// A second payment of the coin that a waiting payment spends.
    pub fn rival(&mut self, of: &Txid) -> Option<Tx> {
        let waits = |h: &Holder| h.pending.as_ref().is_some_and(|(tx, _)| tx.txid == *of);
        let i = self.holders.iter().position(waits)?;
        let tx = transfer(self.chain, i, self.holders[i].coin, i, u64::MAX - self.made);
        self.holders[i].rival = Some(tx.clone());
        Some(tx)
    }

    /// A transaction of the flood: valid, or wrong in one of many ways.
    pub fn flood(&mut self) -> Option<Tx> {
        if self.flood.is_none() && self.holders.len() > 1 {
            let holder = self.holders.len() - 1;
            let coin = self.holders.pop()?.coin;
            let share = (coin.1.value.0 - FLOOD_COIN_COUNT * FEE) / FLOOD_COIN_COUNT;
            let output = TxOutput {
                value: Amount(share),
                program: coin.1.program,
            };
            let outputs = vec![output; FLOOD_COIN_COUNT as usize];
            let tx = spend(self.chain, holder, coin, outputs, 0);
            let (pool, waiting) = (VecDeque::new(), BTreeMap::from([(tx.txid, tx.clone())]));
            self.flood = Some(Flood {
                holder,
                pool,
                waiting,
            });
            return Some(tx);
        }
        let memo = self.rng.next_u64();
        let wrong = self.rng.below(8);
        let flood = self.flood.as_mut()?;
        if wrong >= 4 {
            let coin = flood.pool.pop_front()?;
            let tx = transfer(self.chain, flood.holder, coin, flood.holder, memo);
            flood.waiting.insert(tx.txid, tx.clone());
            return Some(tx);
        }
        let coin = *flood.pool.front()?;
        let too_much = TxOutput {
            value: Amount(coin.1.value.0 + 1),
            ..coin.1
        };
        let nowhere = OutPoint {
            txid: Txid(crate::crypto::hash::Hash([memo as u8; 32])),
            ..coin.0
        };
        Some(match wrong {
            0 => spend(self.chain, flood.holder, coin, vec![too_much], memo),
            1 => transfer(
                self.chain,
                flood.holder,
                (nowhere, coin.1),
                flood.holder,
                memo,
            ),
            // Somebody else's signature.
            2 => transfer(self.chain, 0, coin, 0, memo),
            // No fee.
            _ => spend(self.chain, flood.holder, coin, vec![coin.1], memo),
        })
    }

    /// Everything that is not final, for sending again.
    pub fn pending(&self) -> Vec<Tx> {
        let waiting = self.holders.iter().filter_map(|h| h.pending.as_ref());
        let payments = waiting.map(|(tx, _)| tx.clone());
        payments
            .chain(self.rivals_and_flood())
            .chain(self.registry.iter().map(|r| r.tx.clone()))
            .collect()
    }

    fn rivals_and_flood(&self) -> Vec<Tx> {
        let rivals = self.holders.iter().filter_map(|h| h.rival.clone());
        let flood = self.flood.iter().flat_map(|f| f.waiting.values().cloned());
        rivals.chain(flood).collect()
    }

    /// Coins that valid payments spend which are not final: each will be spent, by one of its payments. Registry
    /// transactions wait for a slot block and are not among them.
    pub fn waiting(&self) -> BTreeSet<OutPoint> {
        let coins = |tx: &Tx| tx.body().inputs.iter().copied().collect::<Vec<_>>();
        let payments = self.holders.iter().filter_map(|h| h.pending.as_ref());
        let payments = payments.flat_map(|(tx, _)| coins(tx));
        payments
            .chain(self.rivals_and_flood().iter().flat_map(coins))
            .collect()
    }

    /// A node takes a payment.
    pub fn take(&mut self, now: u64, node: usize, txid: Txid) {
        self.taken.entry(txid).or_insert((node, now));
    }

    /// A node says that a transaction is final.
    pub fn seen(&mut self, now: u64, node: usize, txid: &Txid) {
        if let Some((taken_by, since)) = self.taken.get(txid).copied()
            && taken_by == node
        {
            self.taken.remove(txid);
            self.finality_own.push(now - since);
        }
    }

    /// A transaction has become final.
    pub fn settle(&mut self, now: u64, txid: &Txid) {
        for done in self.registry.extract_if(.., |r| r.tx.txid == *txid) {
            let (holder, vout) = done.change;
            let output = done.tx.body().outputs.get(vout as usize).copied();
            if let (Some(holder), Some(output)) = (self.holders.get_mut(holder), output) {
                holder.coin = (done.tx.outpoint(vout), output);
                holder.retired = false;
            }
        }
        if let Some(flood) = &mut self.flood
            && let Some(tx) = flood.waiting.remove(txid)
        {
            let outputs = (0u32..).zip(tx.body().outputs.iter());
            let fresh = outputs.map(|(vout, output)| (tx.outpoint(vout), *output));
            flood.pool.extend(fresh);
        }
        for holder in &mut self.holders {
            if holder.rival.as_ref().is_some_and(|tx| tx.txid == *txid)
                && let Some((tx, _)) = &mut holder.pending
                && let Some(rival) = holder.rival.take()
            {
                *tx = rival;
            }
            if let Some((tx, since)) = holder.pending.take_if(|(tx, _)| tx.txid == *txid) {
                holder.rival = None;
                let output = tx.body().outputs.iter().next().copied();
                holder.coin = (tx.outpoint(0), output.unwrap_or(holder.coin.1));
                self.settled += 1;
                self.finality.push(now - since);
            }
        }
    }

    /// Holders that could pay for a registry transaction now.
    pub fn free(&self) -> usize {
        let free =
            |h: &&Holder| h.pending.is_none() && !h.retired && h.coin.1.value.0 > HOLDING / 2;
        self.holders.iter().filter(free).count()
    }

    /// Whether a registry transaction about masternode number `n` is not final yet.
    pub fn asks_about(&self, n: usize) -> bool {
        self.registry.iter().any(|r| r.about.0 == n)
    }

    /// Numbers of masternodes whose owners want to let them go, in transactions that are not final yet.
    pub fn leaving(&self) -> BTreeSet<usize> {
        let leaving = self.registry.iter().filter(|r| r.about.1);
        leaving.map(|r| r.about.0).collect()
    }

    /// Coins of registrations that are not final: the next slot block can hold them.
    pub fn registrations(&self) -> BTreeSet<OutPoint> {
        let joins = self.registry.iter().map(|r| r.tx.body());
        let joins = joins.filter(|body| body.kind == TxKind::Register);
        joins.flat_map(|body| body.inputs.iter().copied()).collect()
    }

    /// Takes coins of holders that are free: they pay nothing else until the change comes back, and those whose coins leave
    /// no change never again.
    fn take_coins(&mut self, count: usize) -> Vec<(usize, (OutPoint, TxOutput))> {
        let mut taken = Vec::new();
        for (i, holder) in self.holders.iter_mut().enumerate() {
            let free = holder.pending.is_none() && !holder.retired;
            if free && holder.coin.1.value.0 > HOLDING / 2 && taken.len() < count {
                holder.retired = true;
                taken.push((i, holder.coin));
            }
        }
        taken
    }

    fn registry_tx(
        &mut self,
        (kind, n): (TxKind, usize),
        coins: usize,
        locked: Option<TxOutput>,
        payload: Vec<u8>,
        (owner, operator): (Option<&SecretKey>, Option<&SecretKey>),
    ) -> Tx {
        let taken = self.take_coins(coins);
        let spent: Vec<TxOutput> = taken.iter().map(|(_, (_, output))| *output).collect();
        let have: u64 = spent.iter().map(|o| o.value.0).sum();
        let change = TxOutput {
            value: Amount(have - FEE - locked.map_or(0, |o| o.value.0)),
            program: spent[0].program,
        };
        let body = TxBody {
            version: TX_VERSION,
            kind,
            inputs: BoundedVec::take_from(taken.iter().map(|(_, (outpoint, _))| *outpoint)),
            outputs: BoundedVec::take_from(locked.into_iter().chain([change])),
            payload: BoundedBytes::try_from(payload).unwrap_or_default(),
        };
        let message = body.signature_hash(self.chain, Branch(0), &spent);
        let possession = possession_hash(&message);
        let consent = owner.map(|key| key.sign(&message));
        let consent = consent
            .into_iter()
            .chain(operator.map(|key| key.sign(&possession)));
        let keys = taken.iter().map(|(i, _)| key(Role::Holder, *i));
        let witnesses = keys.map(|key| Witness::Key(key.sign(&message)));
        let tx = Tx::new(Transaction {
            witnesses: BoundedVec::take_from(witnesses),
            auth: Auth::take_from(consent),
            body,
        });
        self.registry.push(Request {
            tx: tx.clone(),
            change: (taken[0].0, u32::from(locked.is_some())),
            about: (n, kind == TxKind::Unregister),
        });
        tx
    }

    /// Registers node `n` with 1,000 TIME at `endpoint`, to be spoken for with this operator key; two holders give their
    /// coins for it, and one gets the change.
    pub fn register(&mut self, n: usize, operator: &SecretKey, endpoint: &str) -> Tx {
        let payload = Register {
            owner: key(Role::Owner, n).public(),
            operator: operator.public(),
            payout: program(Role::Owner, n),
            endpoint: Endpoint::try_from(endpoint.as_bytes().to_vec()).unwrap_or_default(),
        };
        let locked = TxOutput {
            value: Amount::from_time(1_000).unwrap_or_default(),
            program: program(Role::Owner, n),
        };
        let payload = codec::encode(&payload);
        let keys = (None, Some(operator));
        self.registry_tx((TxKind::Register, n), 2, Some(locked), payload, keys)
    }

    /// The owner of masternode number `n` changes something about it; a new operator key says that it agrees.
    pub fn update(&mut self, n: usize, update: &Update, operator: Option<&SecretKey>) -> Tx {
        let owner = key(Role::Owner, n);
        let (payload, keys) = (codec::encode(update), (Some(&owner), operator));
        self.registry_tx((TxKind::Update, n), 1, None, payload, keys)
    }

    /// The owner of masternode `id`, number `n`, wants to leave.
    pub fn unregister(&mut self, n: usize, id: MasternodeId) -> Tx {
        let payload = codec::encode(&Unregister { id });
        let owner = key(Role::Owner, n);
        let keys = (Some(&owner), None);
        self.registry_tx((TxKind::Unregister, n), 1, None, payload, keys)
    }
}
