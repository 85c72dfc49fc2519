//! Finality of a paying client while 50 strangers flood the four nodes: valid transactions, bad signatures, unknown coins,
//! noise, and connections opened and dropped. The same strangers flood a sink first, so that both runs share the processor
//! alike. All of it stays on loopback, each stranger with an address of its own, and together they take half a core at most.

use crate::network::{Network, answer, await_some, pause};
use crate::parts::{anonymous_kib, percentiles};
use crate::stranger::{Counts, Kind, Stranger};
use crate::{Report, Sizes, ms};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use timecoin::base::bounded::{BoundedBytes, BoundedVec};
use timecoin::base::hex;
use timecoin::base::limits::TX_BYTES_MAX;
use timecoin::crypto::hash::Hash;
use timecoin::crypto::keys::SecretKey;
use timecoin::net::{
    Class, CloseReason, ConnId, ConnInfo, DialError, DialId, FrameRule, Handler, HttpRequest,
    HttpToken, Io, NetConfig, NodeIdentity, Reactor, encode_frame,
};
use timecoin::node::client::Client;
use timecoin::p2p::messages::{Hello, Message, PROTOCOL_VERSION, Status};
use timecoin::types::address::{Network as Chain, Program};
use timecoin::types::amount::Amount;
use timecoin::types::codec;
use timecoin::types::ids::{Branch, ChainId, OutPoint, Txid};
use timecoin::types::params::{ConsensusLimits, Params};
use timecoin::types::transaction::{TX_VERSION, Transaction, Tx, TxBody, TxKind, TxOutput};
use timecoin::wallet::{Terms, sign};

/// Strangers in all.
const STRANGERS: usize = 50;
/// Coins that their valid transactions spend; after that they offer them again.
const COINS: usize = 1_000;
/// Transactions of one frame.
const PER_FRAME: usize = 20;
/// The flood runs so long before the client pays.
const WARM_UP: Duration = Duration::from_secs(3);

fn wrong(what: &'static str) -> impl Fn() -> String {
    move || format!("the node gave an unexpected {what}")
}

/// A key of the flood with coins of its own.
struct Purse {
    key: SecretKey,
    terms: Terms,
    coins: Vec<(OutPoint, TxOutput)>,
}

impl Purse {
    fn make(&self, coin: (OutPoint, TxOutput), outputs: Vec<TxOutput>) -> Result<Tx, String> {
        let body = TxBody {
            version: TX_VERSION,
            kind: TxKind::Transfer,
            inputs: BoundedVec::take_from([coin.0]),
            outputs: BoundedVec::take_from(outputs),
            payload: BoundedBytes::default(),
        };
        let keys = |_: &_| Some(self.key.clone());
        let (chain, branch) = (self.terms.chain, self.terms.branch);
        let signed = sign::sign_with(&sign::unsigned(body), &[coin.1], &[], &keys, chain, branch);
        Ok(Tx::new(signed.map_err(|e| e.to_string())?.transaction))
    }

    fn mine(&self, value: u64) -> TxOutput {
        let program = Program::Key(self.key.public());
        let value = Amount(value);
        TxOutput { value, program }
    }

    /// Coins for the flood, from the faucet.
    fn new(client: &mut Client) -> Result<Purse, String> {
        let mut ask = |method: &str, params: Value| -> Result<Value, String> {
            client.call(method, params).map_err(|e| e.to_string())
        };
        let chain = ask("getblockhash", json!([0]))?;
        let chain: Option<ChainId> = chain.as_str().and_then(|text| text.parse().ok());
        let chain = chain.ok_or_else(wrong("genesis hash"))?;
        let params = Params::of(Chain::Dev);
        let terms = Terms::new(chain, Branch(0), &params, &ConsensusLimits::of(Chain::Dev));
        let key = SecretKey::from_seed(&[0x0f; 32]);
        let coins = Vec::new();
        let mut purse = Purse { key, terms, coins };
        let address = Program::Key(purse.key.public()).address(Chain::Dev);
        let txid = ask("sendtoaddress", json!([address, "1000"]))?;
        let mut is_final = |txid: &Value| -> Result<(), String> {
            let state = ask("waittransactionfinality", json!([txid, 5]))?;
            (state["final"] == true)
                .then_some(())
                .ok_or_else(wrong("state of a payment"))
        };
        is_final(&txid)?;
        let raw = client
            .call("getrawtransaction", json!([txid]))
            .map_err(|e| e.to_string())?;
        let bytes = raw.as_str().and_then(|text| hex::decode(text).ok());
        let tx = bytes.and_then(|b| codec::decode::<Transaction>(&b, TX_BYTES_MAX).ok());
        let tx = Tx::new(tx.ok_or_else(wrong("transaction"))?);
        let own = (0u32..).zip(tx.body().outputs.iter());
        let found = own
            .filter(|(_, o)| o.value.0 == 100_000_000_000)
            .map(|(i, o)| (tx.outpoint(i), *o))
            .next();
        let coin = found.ok_or_else(wrong("output"))?;
        let split = purse.make(coin, vec![purse.mine(50_000_000); COINS])?;
        let text = hex::encode(&codec::encode(&split));
        let txid = client
            .call("sendrawtransaction", json!([text]))
            .map_err(|e| e.to_string())?;
        let wait = json!([txid, 30]);
        let limit = Duration::from_secs(35);
        client
            .call_within("waittransactionfinality", wait, limit)
            .map_err(|e| e.to_string())?;
        let own = (0u32..).zip(split.body().outputs.iter());
        purse.coins = own.map(|(i, o)| (split.outpoint(i), *o)).collect();
        Ok(purse)
    }
}

fn frame(message: &Message, class: Class) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, class, message.code(), &message.encode());
    out
}

fn frames(txs: &[Tx]) -> Vec<Vec<u8>> {
    let txs = txs.chunks(PER_FRAME);
    txs.map(|part| {
        frame(
            &Message::Txs(BoundedVec::take_from(part.iter().cloned())),
            Class::Tx,
        )
    })
    .collect()
}

/// What each kind of stranger sends, again and again.
fn material(purse: &Purse, kind: Kind, number: usize) -> Result<Vec<Vec<u8>>, String> {
    let output = |spread: usize| vec![purse.mine(40_000_000 + spread as u64)];
    let make = |coin: &(OutPoint, TxOutput), spread| purse.make(*coin, output(spread));
    let txs: Result<Vec<Tx>, String> = match kind {
        Kind::Valid => {
            let share = purse.coins.chunks(COINS / 10).nth(number % 10);
            let share = share.unwrap_or_default();
            share.iter().map(|coin| make(coin, 0)).collect()
        }
        Kind::BadSignature => {
            // Signed for another value of the coin: everything but the signature is right.
            let lie = |(outpoint, output): &(OutPoint, TxOutput)| {
                let value = Amount(output.value.0 + 1);
                (*outpoint, TxOutput { value, ..*output })
            };
            let coins = purse.coins.iter().take(400);
            coins.map(|coin| make(&lie(coin), 1 + number)).collect()
        }
        Kind::UnknownCoin => {
            let nowhere = |i: usize| {
                let mut txid = [number as u8; 32];
                txid[..8].copy_from_slice(&(i as u64).to_le_bytes());
                let txid = Txid(Hash(txid));
                (OutPoint { txid, vout: 0 }, purse.coins[0].1)
            };
            (0..400).map(|i| make(&nowhere(i), i)).collect()
        }
        Kind::Noise | Kind::Reconnect => return Ok(Vec::new()),
    };
    Ok(frames(&txs?))
}

/// Reads everything and answers nothing.
struct Sink;

impl Handler for Sink {
    fn on_connected(&mut self, _: &mut Io, _: ConnId, _: &ConnInfo) {}
    fn on_frame(&mut self, _: &mut Io, _: ConnId, _: u8, _: Vec<u8>) {}
    fn on_closed(&mut self, _: &mut Io, _: ConnId, _: &CloseReason) {}
    fn on_dial_failed(&mut self, _: &mut Io, _: DialId, _: &DialError) {}
    fn on_http(&mut self, _: &mut Io, _: HttpRequest) {}
    fn on_http_gone(&mut self, _: &mut Io, _: HttpToken) {}
    fn on_wake(&mut self, _: &mut Io) {}
    fn on_deadline(&mut self, _: &mut Io) {}
    fn frame_rule(&self, _: ConnId, frame_type: u8) -> Option<FrameRule> {
        let limit = Message::rule(frame_type)?.0;
        let class = match frame_type {
            0..=25 => Class::Consensus,
            _ => Class::Tx,
        };
        Some(FrameRule { limit, class })
    }
}

/// Floods `targets` while the client pays; what the client saw and what the strangers did.
fn run(
    network: &Network,
    purse: &Purse,
    targets: &[SocketAddr],
    payments: u64,
) -> Result<(Value, Arc<Counts>, Vec<u64>), String> {
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        chain: purse.terms.chain,
        agent: BoundedBytes::default(),
        supports: Branch(0),
        endpoint: None,
        status: Status::default(),
        probe: false,
    };
    let hello = frame(&Message::Hello(Box::new(hello)), Class::Consensus);
    let counts = Arc::new(Counts::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for i in 0..STRANGERS {
        let kind = Kind::ALL[i % Kind::ALL.len()];
        let stranger = Stranger {
            kind,
            from: Ipv4Addr::new(127, 1, i as u8, 1),
            target: targets[i % targets.len()],
            number: i,
            hello: hello.clone(),
            frames: material(purse, kind, i / Kind::ALL.len())?,
            share: 0.5 / STRANGERS as f64,
        };
        let (counts, stop) = (counts.clone(), stop.clone());
        threads.push(std::thread::spawn(move || stranger.flood(&counts, &stop)));
    }
    pause(WARM_UP);
    let mut bench = network.bench();
    bench.args(["--latency", &payments.to_string()]);
    let report = answer(bench);
    let memory = network
        .pids()?
        .iter()
        .map(|pid| anonymous_kib(*pid))
        .collect();
    stop.store(true, Ordering::Release);
    for thread in threads {
        thread.join().map_err(|_| "a stranger failed".to_owned())?;
    }
    Ok((report?, counts, memory))
}

fn mib(kib: &[u64]) -> String {
    let each = kib
        .iter()
        .map(|kib| format!("{:.1}", *kib as f64 / 1_024.0));
    format!("{} MiB", each.collect::<Vec<_>>().join("  "))
}

/// See the module.
pub fn flood(sizes: &Sizes) -> Result<Report, String> {
    let mut network = Network::ready()?;
    let before = network.sync_us()?;
    let purse = Purse::new(&mut network.nodes[0])?;
    let idle: Vec<u64> = network
        .pids()?
        .iter()
        .map(|pid| anonymous_kib(*pid))
        .collect();

    let identity = NodeIdentity::from_seed(&[0x51; 32]).map_err(|e| e.to_string())?;
    let mut config = NetConfig::new(identity);
    config.p2p_listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let (mut reactor, wake) = Reactor::new(config).map_err(|e| e.to_string())?;
    let sink = reactor.local_addrs().p2p;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || reactor.run(&mut Sink, &stopped, |_| {}).is_ok());
    let (alone, sunk, _) = run(&network, &purse, &sink, sizes.payments)?;
    stop.store(true, Ordering::Release);
    wake.wake();
    let drained = thread.join().map_err(|_| "the sink failed".to_owned())?;

    let mut targets = Vec::new();
    for node in &mut network.nodes {
        let at = await_some("a node says where it listens", || {
            let info = node.call("getnetworkinfo", json!([])).ok()?;
            let found = &info["localaddresses"][0];
            let port = found["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())?;
            Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        })?;
        targets.push(at);
    }
    let (flooded, counts, memory) = run(&network, &purse, &targets, sizes.payments)?;
    let p99 = |report: &Value| report["finality_us"]["p99"].as_u64().unwrap_or_default();
    let (base, under) = (p99(&alone), p99(&flooded));
    let ratio = under as f64 / (base.max(1)) as f64;
    let bans = network.nodes[0].call("listbanned", json!([]));
    let bans = bans.map_or(0, |bans| bans.as_array().map_or(0, Vec::len));
    Ok(Report {
        rows: vec![
            ("flood into a sink", percentiles(&alone, "finality_us")),
            ("flood into the nodes", percentiles(&flooded, "finality_us")),
            (
                "p99, flooded / sink",
                format!("{ratio:.2} ({} / {})", ms(under), ms(base)),
            ),
            ("strangers, sink", format!("{sunk} (drained: {drained})")),
            ("strangers, nodes", counts.to_string()),
            ("bans on the first node", bans.to_string()),
            ("RssAnon before", mib(&idle)),
            ("RssAnon under flood", mib(&memory)),
        ],
        sync_us: [before, network.sync_us()?],
    })
}
