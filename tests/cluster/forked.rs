//! Forks of real processes (B6). A coalition of more than a third runs every key twice, one run after the other: it decides
//! with one part of the honest masternodes while the others are down, then takes its disks back to what they were before,
//! bit by bit in place, and decides something else with the others. Every vote is signed by a real `timed`; the honest
//! ones have broken no rule, and that is what they must be treated like.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Cluster, Node, wait_for, wait_until};

/// What a masternode keeps of itself.
const STORES: [&str; 2] = ["signer", "lmdb"];
/// What else it keeps.
const FILES: [&str; 3] = ["wallets", "mempool", "taken-back"];
/// Coins that every node has before the fork.
const COINS: usize = 2;

/// The masternodes of a network in three parts, by index.
pub struct Parts {
    /// Honest, on the branch that is decided first.
    pub first: Vec<usize>,
    /// Honest, on the branch that is decided then.
    pub second: Vec<usize>,
    /// On both.
    pub both: Vec<usize>,
}

/// A copy with the modes of what is copied.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.is_ok_and(|status| status.success()), "copied");
}

/// Writes over the files of a store that are there: they keep their inodes, and no tag tells (B7 step 1).
fn put_back(kept: &Path, store: &Path) {
    for entry in std::fs::read_dir(kept).expect("listed") {
        let name = entry.expect("an entry").file_name();
        let bytes = std::fs::read(kept.join(&name)).expect("read");
        let file = std::fs::File::options()
            .write(true)
            .truncate(true)
            .open(store.join(name));
        file.expect("opened").write_all(&bytes).expect("written");
    }
}

/// The state of a masternode at one moment, to be put back as often as a test likes.
pub struct Kept {
    dir: PathBuf,
    copy: PathBuf,
}

impl Kept {
    /// Of a node that does not run.
    pub fn of(node: &Node, cluster: &Cluster) -> Kept {
        Kept::named(node, cluster, "kept")
    }

    /// One of several moments.
    pub fn named(node: &Node, cluster: &Cluster, moment: &str) -> Kept {
        let name = node.dir.file_name().expect("a name");
        let copy_dir = cluster.dir.path().join(moment).join(name);
        std::fs::create_dir_all(&copy_dir).expect("a directory");
        for name in STORES.iter().chain(&FILES) {
            let own = node.dir.join(name);
            if own.exists() {
                copy(&own, &copy_dir.join(name));
            }
        }
        Kept {
            dir: node.dir.clone(),
            copy: copy_dir,
        }
    }

    /// As it was, to the last byte and inode of what tells a copy from the original.
    pub fn put_back(&self) {
        for name in STORES {
            put_back(&self.copy.join(name), &self.dir.join(name));
        }
        for name in FILES {
            let (own, copied) = (self.dir.join(name), self.copy.join(name));
            if own.is_dir() {
                std::fs::remove_dir_all(&own).expect("removed");
            } else if own.exists() {
                std::fs::remove_file(&own).expect("removed");
            }
            if copied.exists() {
                copy(&copied, &own);
            }
        }
    }
}

/// Asks all of them to end, then waits for each.
pub fn stop_all(nodes: &[&Node]) {
    nodes.iter().for_each(|node| node.signal(Signal::TERM));
    for node in nodes {
        assert_eq!(node.await_end().code(), Some(0), "a clean stop");
    }
}

/// Replaces lines of the genesis on every node; `edit` sees the line and the number of masternodes begun before it.
fn edit_genesis(cluster: &Cluster, edit: impl Fn(&str, usize) -> String) {
    let own = cluster
        .nodes
        .iter()
        .map(|node| node.dir.join("genesis.toml"));
    for path in own.chain([PathBuf::from(cluster.genesis())]) {
        let text = std::fs::read_to_string(&path).expect("a genesis");
        let (mut lines, mut begun) = (Vec::new(), 0);
        for line in text.lines() {
            begun += usize::from(line == "[[masternode]]");
            lines.push(edit(line, begun));
        }
        std::fs::write(&path, lines.join("\n") + "\n").expect("written");
    }
}

/// A payment that a test follows.
pub struct Paid {
    pub txid: Value,
    pub block: Value,
}

/// A network with a fork in it.
pub struct Forked {
    pub cluster: Cluster,
    pub parts: Parts,
    /// Ids of the coalition's masternodes.
    pub guilty: Vec<String>,
    /// Final everywhere before the fork.
    pub before: Paid,
    /// Final on the first branch, paid by an honest node.
    pub first: Paid,
    /// Final on the second branch, paid by an honest node.
    pub second: Paid,
    /// Paid by the coalition on the first branch to an honest node.
    pub spent: Paid,
    /// The same money, paid on the second branch to another honest node.
    pub spent_again: Paid,
}

impl Forked {
    /// Three honest nodes on one side, node 3 alone on the other: it ends by itself, and node 3 crosses.
    pub fn three_to_one() -> Forked {
        let parts = Parts {
            first: vec![0, 1, 2],
            second: vec![3],
            both: vec![4, 5],
        };
        Forked::make(&[1_000, 1_000, 1_000, 1_000, 3_000, 3_000], parts, &[])
    }

    /// Makes a network with these collaterals and forks it. The second honest part and the coalition run afterwards, the first part does
    /// not: its [`Node::start`] is what joins the branches.
    pub fn make(collaterals: &[u64], parts: Parts, params: &[(&str, u64)]) -> Forked {
        let count = u16::try_from(collaterals.len()).expect("few");
        let cluster = Cluster::make(count);
        edit_genesis(&cluster, |line, begun| {
            let key = line.split(" = ").next().unwrap_or_default();
            let set = params.iter().find(|(name, _)| *name == key);
            match (key, set) {
                // Nobody is jailed for the time in which its part of the network is off.
                ("jail_after", _) => "jail_after = 100".into(),
                // Coins that only one branch has would spoil the double spend.
                ("payout_period", _) => "payout_period = 1000".into(),
                ("collateral", _) => {
                    format!("collateral = \"{}.00000000\"", collaterals[begun - 1])
                }
                (_, Some((name, value))) => format!("{name} = {value}"),
                _ => line.to_owned(),
            }
        });
        let nodes = &cluster.nodes;
        let all = || nodes.iter();
        all().for_each(Node::start);
        all().for_each(Node::await_ready);
        cluster.fund(COINS);
        let own = |i: &usize| nodes[*i].call("masternode", json!(["status"]))["proTxHash"].clone();
        let text = |id: Value| id.as_str().expect("an id").to_owned();
        let guilty = parts.both.iter().map(own).map(text).collect();
        let address = |i: usize| nodes[i].new_address();
        let (to_first, to_second) = (address(parts.first[0]), address(parts.second[0]));
        let before = pay(&nodes[parts.first[0]], &to_second, "5");
        all().for_each(|node| node.await_final(&before.txid));
        stop_all(&all().collect::<Vec<_>>());

        let kept = parts.both.iter().map(|i| Kept::of(&nodes[*i], &cluster));
        let kept: Vec<Kept> = kept.collect();
        let cheat = &nodes[parts.both[0]];
        // A test that says how far undo reaches gets a fork that is deeper.
        let reorg = params.iter().find(|(name, _)| *name == "max_reorg");
        let more = reorg.map_or(0, |(_, heights)| heights + 2);
        let run = |honest: &[usize], payer: &Node, to: &Value| {
            let side = || honest.iter().chain(&parts.both).map(|i| &nodes[*i]);
            side().for_each(Node::start);
            side().for_each(Node::await_ready);
            // All coins but a few of the coalition: two such payments have one in common.
            let spent = pay(cheat, to, "1990");
            let paid = pay(payer, &address(parts.both[0]), "7");
            for node in side() {
                node.await_final(&spent.txid);
                node.await_final(&paid.txid);
            }
            (0..more).for_each(|_| drop(pay(payer, &address(parts.both[0]), "0.1")));
            (spent, paid)
        };
        let (spent, first) = run(&parts.first, &nodes[parts.first[0]], &to_first);
        let on_first = parts.first.iter().chain(&parts.both);
        stop_all(&on_first.map(|i| &nodes[*i]).collect::<Vec<_>>());
        kept.iter().for_each(Kept::put_back);
        let (spent_again, second) = run(&parts.second, &nodes[parts.second[0]], &to_second);
        Forked {
            cluster,
            parts,
            guilty,
            before,
            first,
            second,
            spent,
            spent_again,
        }
    }

    pub fn honest(&self) -> impl Iterator<Item = &Node> {
        let all = self.parts.first.iter().chain(&self.parts.second);
        all.map(|i| &self.cluster.nodes[*i])
    }

    pub fn of(&self, part: &[usize]) -> Vec<&Node> {
        part.iter().map(|i| &self.cluster.nodes[*i]).collect()
    }

    /// Starts the part that decided first: the branches meet.
    pub fn join(&self) {
        let first = self.of(&self.parts.first);
        first.iter().for_each(|node| node.start());
        first.iter().for_each(|node| node.await_ready());
    }

    /// Waits until the fork is known on all honest nodes with culprits of the coalition, and said in the log.
    pub fn await_known(&self) -> Value {
        for node in self.honest() {
            let known = wait_for("the fork is found and its culprits are named", || {
                let fork = node.try_call("getforkinfo", json!([])).ok()?;
                (!fork["culprits"].as_array()?.is_empty()).then_some(fork)
            });
            let culprits = known["culprits"].as_array().expect("a list").clone();
            for culprit in culprits {
                let id = culprit["masternode"].as_str().expect("an id");
                assert!(self.guilty.iter().any(|g| g == id), "S6: {id} is honest");
                assert!(node.logged().contains(id), "the log names {id}");
            }
            assert!(node.logged().contains("FORK at height"), "said in the log");
        }
        let node = self.honest().next().expect("a node");
        node.call("getforkinfo", json!([]))
    }

    /// B6 steps 5 and 6: all honest nodes are on the branch with `stays` and in the next era, the coalition is slashed, nobody else.
    pub fn assert_recovered(&self, stays: &Paid, gone: &Paid) {
        for node in self.honest() {
            wait_until("the fork has ended and the next era is under way", || {
                node.assert_runs();
                let fork = node.try_call("getforkinfo", json!([]));
                fork.is_ok_and(|fork| fork["status"] == "ended") && era(node) == Some(1)
            });
            for paid in [&self.before, stays] {
                let state = finality(node, &paid.txid);
                assert_eq!(state["final"], true, "what the branch that stays decided");
                assert_eq!(state["blockhash"], paid.block, "in the same block");
            }
        }
        let fork = self
            .honest()
            .next()
            .expect("a node")
            .call("getforkinfo", json!([]));
        let named = fork["culprits"].as_array().expect("a list").clone();
        for node in self.honest() {
            for culprit in &named {
                let id = culprit["masternode"].as_str().expect("an id");
                wait_until("evidence follows on the surviving chain", || {
                    standing(node, id) == "SLASHED"
                });
            }
            let list = node.call("protx", json!(["list", "registered", true]));
            for entry in list.as_array().expect("a list") {
                let id = entry["proTxHash"].as_str().expect("an id").to_owned();
                let slashed = !entry["state"]["slashedAt"].is_null();
                let burned = entry["state"]["burned"].to_string();
                assert!(
                    self.guilty.contains(&id) || !(slashed || burned != *"0.00000000"),
                    "nobody is punished for having been on the losing side: {entry}"
                );
            }
        }
        // The honest payment of the lost branch came back and is final again, in another block.
        for node in self.honest() {
            node.await_final(&gone.txid);
            let state = finality(node, &gone.txid);
            assert_ne!(state["blockhash"], gone.block, "decided anew: {state}");
        }
        // The network goes on, and its honest nodes are of one mind.
        let honest: Vec<&Node> = self.honest().collect();
        for payer in [honest[0], honest[honest.len() - 1]] {
            let paid = payer.pay(&honest[0].new_address(), "1");
            honest.iter().for_each(|node| node.await_final(&paid));
        }
        wait_until("equal tips and state roots", || {
            let tips: Vec<_> = honest.iter().map(|node| node.tip()).collect();
            tips[0].is_some() && tips.iter().all(|tip| *tip == tips[0])
        });
    }
}

/// Pays and waits for finality at the payer.
fn pay(from: &Node, to: &Value, amount: &str) -> Paid {
    let txid = from.pay(to, amount);
    from.await_final(&txid);
    let block = finality(from, &txid)["blockhash"].clone();
    Paid { txid, block }
}

pub fn finality(node: &Node, txid: &Value) -> Value {
    node.call("gettransactionfinality", json!([txid]))
}

fn standing(node: &Node, id: &str) -> String {
    let entry = node.try_call("protx", json!(["info", id]));
    let found = entry.map(|e| e["state"]["status"].as_str().unwrap_or("").to_owned());
    found.unwrap_or_default()
}

/// Era of the tip.
fn era(node: &Node) -> Option<u64> {
    let tip = node.try_call("getbestblockhash", json!([])).ok()?;
    let header = node.try_call("getblockheader", json!([tip])).ok()?;
    header["era"].as_u64()
}

impl Forked {
    /// The payment that the branch which stays made impossible: its receiver is told, and by what.
    pub fn assert_cheated(&self, merchant: &Node) {
        wait_until("the payment is void", || {
            finality(merchant, &self.spent_again.txid)["state"] == "conflicted"
        });
        let shown = merchant.call("gettransaction", json!([self.spent_again.txid]));
        assert_eq!(shown["final"], false, "{shown}");
        assert_eq!(shown["confirmations"], 0, "{shown}");
        assert_eq!(
            shown["walletconflicts"],
            json!([self.spent.txid]),
            "{shown}"
        );
    }
}
