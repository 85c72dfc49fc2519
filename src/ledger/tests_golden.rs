//! Golden vectors: encodings and hashes of fixed objects. A change here is a change of format, and a format change is a
//! version change (L7): if it is meant, raise the version and copy what the failing test prints.

use crate::base::bounded::BoundedVec;
use crate::base::hex;
use crate::crypto::hash::{Domain, Hash};
use crate::ledger::coins::coin_element;
use crate::ledger::testkit::*;
use crate::types::address::Network;
use crate::types::codec;
use crate::types::ids::*;
use crate::types::masternode::*;
use crate::types::transaction::*;
use crate::types::vote::*;
use serde::Serialize;
use std::collections::BTreeMap;

type Vectors = BTreeMap<String, String>;

struct Recorder(Vectors);

impl Recorder {
    fn text(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.to_owned(), value.to_string());
    }
    fn bytes(&mut self, name: &str, value: &impl Serialize) {
        let encoded = hex::encode(&codec::encode(value));
        self.0.insert(format!("{name}, encoded"), encoded);
    }
}

fn transactions(out: &mut Recorder, net: &mut Net) -> Tx {
    let pay = net.pay(HOLDER, HOLDER + 1, 70_000);
    let register = net.register(10, HOLDER + 1, 2_500);
    let update = net.update(0, HOLDER + 2, net.id(0), Some(OPERATOR + 500));
    let unregister = net.unregister(1, HOLDER + 3, net.id(1));
    for (name, tx) in [
        ("transfer", &pay),
        ("register", &register),
        ("update", &update),
        ("unregister", &unregister),
    ] {
        out.bytes(name, tx);
        out.text(&format!("{name}, txid"), tx.txid);
        out.text(&format!("{name}, wtxid"), tx.wtxid);
    }
    let spent = net.coins_of(HOLDER)[0];
    let message = pay
        .body()
        .signature_hash(net.state.chain_id(), Branch(0), &[spent.1]);
    out.text("transfer, signature hash", message);
    out.text(
        "register, possession hash of zero",
        possession_hash(&Hash::ZERO),
    );
    let coin = net.coins.0[&spent.0];
    out.text("coin element", hex::encode(&coin_element(&spent.0, &coin)));
    out.text(
        "address of key 1 on main",
        program(1).address(Network::Main),
    );
    pay
}

fn signed_messages(out: &mut Recorder, net: &Net) {
    let chain = net.state.chain_id();
    let at = |round| EraRound {
        era: Era(0),
        round: Round(round),
    };
    let block = BlockId(Hash([7; 32]));
    for step in [VoteStep::Prevote, VoteStep::Precommit] {
        let body = VoteBody {
            step,
            branch: Branch(0),
            era: Era(0),
            height: Height(5),
            round: Round(3),
            valid_round: (step == VoteStep::Prevote).then(|| at(1)),
            block: Some(block),
        };
        out.bytes(&format!("{step:?}"), &net.vote(net.id(0), OPERATOR, body));
        out.text(&format!("{step:?}, signing hash"), body.signing_hash(chain));
    }
    let proposal = ProposalBody {
        branch: Branch(0),
        era: Era(0),
        height: Height(5),
        round: Round(3),
        valid_round: None,
        block,
    };
    out.bytes("proposal body", &proposal);
    out.text("proposal, signing hash", proposal.signing_hash(chain));
    let heartbeat = HeartbeatBody {
        era: Era(0),
        masternode: net.id(0),
        slot: Slot(9),
        sequence: 4,
        height: Height(5),
        block,
    };
    out.bytes("heartbeat body", &heartbeat);
    out.text("heartbeat, signing hash", heartbeat.signing_hash(chain));
    let attestation = net.attestation(&net.id(0), net.next_slot(), &[net.id(1)]);
    out.bytes("attestation", &attestation);
    out.text(
        "attestation, signing hash",
        attestation.body.signing_hash(chain),
    );
    out.bytes("evidence", &net.double_vote(net.id(0), OPERATOR, Height(1)));
    let statement = StatementBody {
        era: Era(0),
        attempt: 1,
        fork: Hash([8; 32]),
        block,
        tip_height: Height(5),
        tip: block,
    };
    out.bytes("statement body", &statement);
    out.text("statement, signing hash", statement.signing_hash(chain));
}

fn blocks(out: &mut Recorder, net: &mut Net, pay: Tx) {
    out.text("genesis, state_root", net.state.root());
    let (block, delta) = net.block(vec![pay]);
    out.text("block 1, id", block.id());
    out.bytes("block 1, header", &block.header);
    out.text(
        "block 1, hash of its encoding",
        codec::hash_of(Domain::Header, &block),
    );
    out.text(
        "block 1, hash of its undo",
        codec::hash_of(Domain::Header, &delta.undo),
    );
    let id = net.id(3);
    let leave = net.unregister(3, HOLDER + 4, id);
    let update = net.update(0, HOLDER + 2, net.id(0), Some(OPERATOR + 500));
    let register = net.register(10, HOLDER + 1, 2_500);
    let mut input = net.input(net.next_slot(), 0, vec![leave, update, register]);
    input.slot_part = net.all_attest(input.time, &[]);
    let offence = net.double_vote(net.id(1), OPERATOR + 1, Height(1));
    input.slot_part.evidence = BoundedVec::take_from([offence]);
    let (block, delta) = net.step(input);
    out.text("slot block, id", block.id());
    out.bytes("slot block, header", &block.header);
    out.text(
        "slot block, hash of its undo",
        codec::hash_of(Domain::Header, &delta.undo),
    );
    out.bytes("slot block, last_commit", &block.last_commit);
    out.text("slot block, registry hash", net.state.registry.hash);
    out.bytes("slot block, registry", net.state.registry());
    out.bytes("slot block, leaders", &*net.state.leaders);
    out.bytes("slot block, slot table", &*net.state.slots);
    out.bytes("slot block, tip", &net.state.tip);
    net.attested(&[], vec![]);
    net.attested(&[], vec![]);
    let (paid, _) = net.attested(&[], vec![]);
    out.bytes("coinbase", &paid.transactions[0]);
    out.text("coinbase, txid", paid.transactions[0].txid);
    out.text("last block, id", paid.id());
}

#[test]
fn formats_stand_still() {
    let mut net = Net::new(genesis(&[1_000, 2_000, 3_000, 4_000, 5_000, 6_000], 6));
    let mut out = Recorder(Vectors::new());
    out.text("chain id", net.state.chain_id());
    out.text("masternode id", net.id(0));
    let pay = transactions(&mut out, &mut net);
    signed_messages(&mut out, &net);
    blocks(&mut out, &mut net, pay);
    let text = include_str!("../../tests/vectors/ledger.json");
    let golden: Vectors = serde_json::from_str(text).expect("a JSON object of strings");
    for (name, value) in &out.0 {
        assert_eq!(
            golden.get(name),
            Some(value),
            "L7: the format of '{name}' changed; if that is meant, the new file is\n{}",
            serde_json::to_string_pretty(&out.0).unwrap()
        );
    }
    assert_eq!(golden.len(), out.0.len(), "a vector without an object");
}
