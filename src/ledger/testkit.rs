//! A small network in memory for tests: keys, a genesis, payments, certificates, and blocks one after another.

use crate::base::bounded::{BoundedBytes, BoundedVec};
use crate::base::time::WallMs;
use crate::crypto::keys::SecretKey;
use crate::crypto::verify::verify_all;
use crate::ledger::apply::{Applied, BuildInput, Delta, apply, build};
use crate::ledger::coins::MemoryCoins;
use crate::ledger::state::State;
use crate::types::address::{Network, Program};
use crate::types::amount::Amount;
use crate::types::bitmap::Bitmap;
use crate::types::block::{Block, Commit};
use crate::types::genesis::{Genesis, GenesisMasternode};
use crate::types::ids::*;
use crate::types::masternode::{Attestation, AttestationBody, Evidence, Offence, SlotPart};
use crate::types::params::{ConsensusLimits, Params};
use crate::types::transaction::*;
use crate::types::validators::ValidatorSet;
use crate::types::vote::{Vote, VoteBody, VoteStep};

/// The secret key with seed `i`.
pub fn key(i: u64) -> SecretKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&i.to_le_bytes());
    SecretKey::from_seed(&seed)
}

/// The program of key `i`.
pub fn program(i: u64) -> Program {
    Program::Key(key(i).public())
}

/// Key number of the owner of masternode `i`.
pub const OWNER: u64 = 1_000;
/// Key number of the operator of masternode `i`.
pub const OPERATOR: u64 = 2_000;
/// Key number of the holder of genesis balance `i`.
pub const HOLDER: u64 = 3_000;
/// Value of each genesis balance, in TIME.
pub const BALANCE_TIME: u64 = 50_000;

/// A devnet genesis: masternode i has `collaterals[i]` TIME, `balances` holders have [`BALANCE_TIME`] each.
pub fn genesis(collaterals: &[u64], balances: u64) -> Genesis {
    let masternode = |(i, time): (u64, &u64)| GenesisMasternode {
        owner: key(OWNER + i).public(),
        operator: key(OPERATOR + i).public(),
        payout: program(OWNER + i),
        collateral: TxOutput {
            value: Amount::from_time(*time).unwrap(),
            program: program(OWNER + i),
        },
        endpoint: Endpoint::try_from(format!("127.0.0.1:{}", 24_000 + i).into_bytes()).unwrap(),
    };
    let balance = |i| TxOutput {
        value: Amount::from_time(BALANCE_TIME).unwrap(),
        program: program(HOLDER + i),
    };
    let genesis = Genesis {
        version: 1,
        network: Network::Dev,
        time: WallMs(1_700_000_000_000),
        params: Params::of(Network::Dev),
        limits: ConsensusLimits::of(Network::Dev),
        balances: (0..balances).map(balance).collect(),
        masternodes: (0..).zip(collaterals).map(masternode).collect(),
    };
    genesis.check().unwrap();
    genesis
}

/// A network at its tip.
pub struct Net {
    pub genesis: Genesis,
    pub state: State,
    pub coins: MemoryCoins,
    /// The block at the tip and the round of its certificate.
    pub last: Option<Block>,
    /// Key numbers by which masternodes sign, by id.
    pub operators: Vec<(MasternodeId, u64)>,
}

impl Net {
    pub fn new(genesis: Genesis) -> Net {
        let operators = (0..).zip(&genesis.masternodes);
        Net {
            state: State::genesis(&genesis),
            coins: MemoryCoins::genesis(&genesis),
            last: None,
            operators: operators.map(|(i, m)| (m.id(), OPERATOR + i)).collect(),
            genesis,
        }
    }

    /// A certificate's precommits of the tip, by all members.
    pub fn last_commit(&self) -> Commit {
        match &self.last {
            None => Commit::default(),
            Some(block) => {
                let set = &self.state.last_validators;
                self.commit_of(block, set, self.state.tip.last_branch)
            }
        }
    }

    pub fn commit_of(&self, block: &Block, set: &ValidatorSet, branch: Branch) -> Commit {
        let at = EraRound {
            era: block.header.era,
            round: block.header.round,
        };
        let body = VoteBody {
            step: VoteStep::Precommit,
            branch,
            era: at.era,
            height: block.header.height,
            round: at.round,
            valid_round: None,
            block: Some(block.id()),
        };
        let message = body.signing_hash(self.state.chain_id());
        // A key change takes effect at the next height: the set names the key that signed.
        let sign = |id: &MasternodeId, public| {
            let numbers = self.operators.iter().filter(|(i, _)| i == id);
            let mut keys = numbers.map(|(_, n)| key(*n));
            let secret = keys.find(|k| k.public() == public).expect("a known key");
            secret.sign(&message)
        };
        let signatures = set.members().iter().map(|m| sign(&m.id, m.operator));
        Commit {
            at,
            signers: Bitmap::from_ones(set.len(), 0..set.len()),
            signatures: BoundedVec::take_from(signatures),
        }
    }

    /// A proposal on the tip by the leader of `round`.
    pub fn input(&self, time: WallMs, round: u32, candidates: Vec<Tx>) -> BuildInput {
        BuildInput {
            round: Round(round),
            proposer: self.state.leader(Round(round)),
            time,
            last_commit: self.last_commit(),
            slot_part: SlotPart::default(),
            candidates,
        }
    }

    /// The earliest time of the next slot block.
    pub fn next_slot(&self) -> WallMs {
        let slot_ms = self.state.params().slot_ms;
        WallMs((self.state.slot().0 + 1) * slot_ms)
    }

    /// Builds, applies, compares both, verifies every signature, and moves on.
    pub fn step(&mut self, input: BuildInput) -> (Block, Delta) {
        let (block, built) = build(&self.coins, &self.state, input).expect("a block can be built");
        let applied = self.judge(&block);
        assert_eq!(applied.delta.after, built.after, "build and apply agree");
        assert_eq!(applied.delta.created, built.created);
        self.commit(&block, &built);
        (block, built)
    }

    /// Applies and verifies.
    pub fn judge(&self, block: &Block) -> Applied {
        let applied = apply(&self.coins, &self.state, block).expect("a valid block");
        assert!(verify_all(&applied.other_checks), "its own signatures hold");
        for tx in &applied.checks {
            assert!(verify_all(&tx.checks), "its transactions' signatures hold");
        }
        applied
    }

    pub fn commit(&mut self, block: &Block, delta: &Delta) {
        self.coins.commit(delta);
        self.state = delta.after.clone();
        self.last = Some(block.clone());
    }

    /// An ordinary block right after the tip.
    pub fn block(&mut self, candidates: Vec<Tx>) -> (Block, Delta) {
        let round = u32::from(candidates.is_empty());
        self.step(self.input(self.state.earliest(), round, candidates))
    }

    /// A slot block without attestations at the next slot.
    pub fn slot_block(&mut self, candidates: Vec<Tx>) -> (Block, Delta) {
        self.step(self.input(self.next_slot(), 0, candidates))
    }

    /// The operator key that signs for `id` at the next height.
    pub fn operator(&self, id: &MasternodeId) -> SecretKey {
        let entry = self.state.registry().get(id).expect("a registered one");
        let numbers = self.operators.iter().filter(|(i, _)| i == id);
        let mut keys = numbers.map(|(_, n)| key(*n));
        keys.find(|k| k.public() == entry.operator)
            .expect("a known key")
    }

    /// The attestation of `attester` for a slot block at `time`, naming everybody but `absent`.
    pub fn attestation(
        &self,
        attester: &MasternodeId,
        time: WallMs,
        absent: &[MasternodeId],
    ) -> Attestation {
        let entries = self.state.registry().entries();
        let present = (0..entries.len()).filter(|i| !absent.contains(&entries[*i].id));
        let slot = Slot(time.0 / self.state.params().slot_ms - 1);
        self.sign_attestation(AttestationBody {
            era: self.state.tip.era,
            slot,
            base: self.state.tip.prev_slot_block,
            supports: Branch(0),
            attester: *attester,
            present: Bitmap::from_ones(entries.len(), present),
        })
    }

    pub fn sign_attestation(&self, body: AttestationBody) -> Attestation {
        let secret = self.operator(&body.attester);
        let signature = secret.sign(&body.signing_hash(self.state.chain_id()));
        Attestation { body, signature }
    }

    /// A slot part in which every member attests that everybody but `absent` was there.
    pub fn all_attest(&self, time: WallMs, absent: &[MasternodeId]) -> SlotPart {
        let members = self.state.validators.members().iter();
        SlotPart {
            attestations: BoundedVec::take_from(
                members.map(|m| self.attestation(&m.id, time, absent)),
            ),
            ..SlotPart::default()
        }
    }

    /// An attested slot block at the next slot; `absent` were not there.
    pub fn attested(&mut self, absent: &[MasternodeId], candidates: Vec<Tx>) -> (Block, Delta) {
        let mut input = self.input(self.next_slot(), 0, candidates);
        input.slot_part = self.all_attest(input.time, absent);
        self.step(input)
    }

    /// A slot block with evidence and no attestations.
    pub fn punish(&mut self, evidence: Vec<Evidence>) -> (Block, Delta) {
        let mut input = self.input(self.next_slot(), 0, vec![]);
        input.slot_part.evidence = BoundedVec::take_from(evidence);
        self.step(input)
    }

    /// A vote for block `[block; 32]`, signed by key number `signer`.
    pub fn vote(&self, voter: MasternodeId, signer: u64, body: VoteBody) -> Vote {
        Vote {
            signature: key(signer).sign(&body.signing_hash(self.state.chain_id())),
            body,
            voter,
        }
    }

    /// Two precommits of one round by `offender`, signed by key number `signer`.
    pub fn double_vote(&self, offender: MasternodeId, signer: u64, height: Height) -> Evidence {
        let body = |block| VoteBody {
            step: VoteStep::Precommit,
            branch: Branch(0),
            era: Era(0),
            height,
            round: Round(0),
            valid_round: None,
            block,
        };
        let vote = |block| self.vote(offender, signer, body(block));
        let some = Some(BlockId(crate::crypto::hash::Hash([9; 32])));
        Evidence {
            offender,
            key: key(signer).public(),
            offence: Offence::Votes(vote(None), vote(some)),
        }
    }

    /// The id of genesis masternode `i`.
    pub fn id(&self, i: usize) -> MasternodeId {
        self.genesis.masternodes[i].id()
    }

    /// A registration of masternode number `n` with `collateral` TIME paid by `from`; the kit will sign with its keys.
    pub fn register(&mut self, n: u64, from: u64, collateral: u64) -> Tx {
        let payload = Register {
            owner: key(OWNER + n).public(),
            operator: key(OPERATOR + n).public(),
            payout: program(OWNER + n),
            endpoint: Endpoint::try_from(b"127.0.0.1:24999".to_vec()).unwrap(),
        };
        let locked = output(OWNER + n, collateral * 100_000_000);
        let payload = crate::types::codec::encode(&payload);
        let tx = self.spend(TxKind::Register, from, locked, payload, &[OPERATOR + n]);
        self.operators.push((MasternodeId(tx.txid.0), OPERATOR + n));
        tx
    }

    /// An update signed by owner `n` and, if it names a new operator key number, by that key.
    pub fn update(&mut self, n: u64, from: u64, id: MasternodeId, operator: Option<u64>) -> Tx {
        let payload = Update {
            id,
            operator: operator.map(|o| key(o).public()),
            payout: Some(program(from)),
            endpoint: None,
        };
        let mut auth = vec![OWNER + n];
        auth.extend(operator);
        self.operators.extend(operator.map(|o| (id, o)));
        let payload = crate::types::codec::encode(&payload);
        self.spend(TxKind::Update, from, output(from, 50_000), payload, &auth)
    }

    /// A wish to leave, signed by owner `n`.
    pub fn unregister(&self, n: u64, from: u64, id: MasternodeId) -> Tx {
        let payload = crate::types::codec::encode(&Unregister { id });
        let auth = [OWNER + n];
        self.spend(
            TxKind::Unregister,
            from,
            output(from, 50_000),
            payload,
            &auth,
        )
    }

    /// Coins of a key number.
    pub fn coins_of(&self, number: u64) -> Vec<(OutPoint, TxOutput)> {
        let mine = program(number);
        let all = self.coins.0.iter();
        all.filter(|(_, c)| c.output.program == mine)
            .map(|(o, c)| (*o, c.output))
            .collect()
    }

    /// A signed transaction of `kind` that spends `inputs` of key `from`.
    pub fn sign(
        &self,
        kind: TxKind,
        from: u64,
        inputs: &[(OutPoint, TxOutput)],
        outputs: Vec<TxOutput>,
        payload: Vec<u8>,
        auth: &[u64],
    ) -> Tx {
        let body = TxBody {
            version: TX_VERSION,
            kind,
            inputs: BoundedVec::take_from(inputs.iter().map(|(o, _)| *o)),
            outputs: BoundedVec::take_from(outputs),
            payload: BoundedBytes::try_from(payload).unwrap(),
        };
        let spent: Vec<TxOutput> = inputs.iter().map(|(_, o)| *o).collect();
        let message = body.signature_hash(self.state.chain_id(), self.state.tip.branch, &spent);
        let witness = Witness::Key(key(from).sign(&message));
        let pop = possession_hash(&message);
        // The owner signs the hash itself; an operator, as possession, the hash of it.
        let signed = auth.iter().map(|n| {
            let is_owner = *n < OPERATOR;
            key(*n).sign(if is_owner { &message } else { &pop })
        });
        Tx::new(Transaction {
            witnesses: BoundedVec::take_from(inputs.iter().map(|_| witness.clone())),
            auth: BoundedVec::take_from(signed),
            body,
        })
    }

    /// Pays `value` from the first large enough coin of `from` to `to`, change back, with a generous fee.
    pub fn pay(&self, from: u64, to: u64, value: u64) -> Tx {
        self.spend(TxKind::Transfer, from, output(to, value), Vec::new(), &[])
    }

    /// As [`Net::pay`], of any kind.
    pub fn spend(
        &self,
        kind: TxKind,
        from: u64,
        first: TxOutput,
        payload: Vec<u8>,
        auth: &[u64],
    ) -> Tx {
        let coins = self.coins_of(from);
        let coin = coins
            .iter()
            .find(|(_, o)| o.value.0 > first.value.0 + 2 * FEE)
            .expect("enough money");
        let change = output(from, coin.1.value.0 - first.value.0 - FEE);
        self.sign(kind, from, &[*coin], vec![first, change], payload, auth)
    }
}

/// Fee of the kit's payments.
pub const FEE: u64 = 10_000;

/// An output to key `to`.
pub fn output(to: u64, value: u64) -> TxOutput {
    TxOutput {
        value: Amount(value),
        program: program(to),
    }
}
