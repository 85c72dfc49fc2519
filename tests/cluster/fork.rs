//! What real processes do about a fork (B6): it ends by itself, or the operators end it, and nobody honest pays for it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::{Value, json};

use crate::forked::{Forked, Paid, Parts, finality, stop_all};
use crate::masternode::newcomer;
use crate::support::{Cluster, Node, run_timed, time_cli, timed, wait_until};

/// The words of systemd's socket that are heard.
struct Systemd(UnixDatagram);

impl Systemd {
    fn new(path: &Path) -> Systemd {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_nonblocking(true).expect("asked");
        Systemd(socket)
    }

    /// How often `word` was said since the last call.
    fn heard(&self, word: &str) -> usize {
        let (mut buffer, mut count) = ([0; 4096], 0);
        while let Ok(size) = self.0.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
            count += text.lines().filter(|line| *line == word).count();
        }
        count
    }
}

/// Proofs of the branch that stays hold before and after the fork, and need no node; one of the branch that is gone is
/// refused by any node that knows.
fn assert_proofs(net: &Forked, kept: &Value, lost: &Value) {
    let node = &net.cluster.nodes[1];
    let anew = node.call("getfinalityproof", json!([net.second.txid]));
    assert!(anew["recoveries"].is_array(), "it shows how the era began");
    let (file, genesis) = (net.cluster.dir.path().join("proof"), net.cluster.genesis());
    let verify = |proof: &Value| {
        std::fs::write(&file, proof.to_string()).expect("written");
        let words = [
            "proof",
            "verify",
            &file.to_string_lossy(),
            "--genesis",
            &genesis,
        ];
        let output = time_cli(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for proof in [kept, &anew] {
        assert_eq!(verify(proof), (Some(0), String::new()), "{proof}");
        let verdict = node.call("verifyfinalityproof", json!([proof]));
        assert_eq!(verdict["valid"], true, "{verdict}");
    }
    let mut bare = anew.clone();
    bare["recoveries"] = json!([]);
    let (code, said) = verify(&bare);
    assert!(code != Some(0) && said.contains("era 1"), "{code:?} {said}");
    let refused = node.try_call("verifyfinalityproof", json!([lost]));
    let refused = refused.map_err(|error| error.to_string());
    assert!(
        refused
            .as_ref()
            .is_err_and(|why| why.contains("a fork ended")),
        "{refused:?}"
    );
}

/// What `timed recover` says and how it ends, run on a node's directory.
fn recover(node: &Node, words: &[&str]) -> (Option<i32>, String) {
    let command = timed()
        .arg("recover")
        .args(words)
        .args(["--datadir", &node.dir.to_string_lossy()])
        .args(["--config", &node.config()])
        .output()
        .expect("timed starts");
    let said = [command.stdout, command.stderr].concat();
    (
        command.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The command for a branch as the node's advice prints it.
fn advised(node: &Node, branch: &str) -> Vec<String> {
    let fork = node.call("getforkinfo", json!([]));
    let advice = fork["advice"].as_str().expect("text").to_owned();
    let commands = advice
        .split('\'')
        .filter(|part| part.starts_with("timed recover "));
    let found = commands
        .map(str::to_owned)
        .find(|part| part.contains(branch));
    let found = found.unwrap_or_else(|| panic!("no command for {branch}: {advice}"));
    found
        .split_whitespace()
        .skip(2)
        .map(str::to_owned)
        .collect()
}

/// Runs the advised command; it must succeed.
fn agree(node: &Node, branch: &str) -> String {
    let words = advised(node, branch);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (code, said) = recover(node, &words);
    assert_eq!(code, Some(0), "{said}");
    said
}

/// While the fork is open nothing says final of what it may take back, and of what is below everything does.
fn assert_contested(node: &Node, own: &Paid, below: &Paid) {
    let fork = node.call("getforkinfo", json!([]));
    let state = finality(node, &own.txid);
    assert_eq!(
        (&state["state"], &state["final"], &state["blockhash"]),
        (&json!("contested"), &json!(false), &own.block),
        "{state}"
    );
    assert_eq!(state["fork_height"], fork["height"], "{state}");
    for (method, params) in [
        ("gettransaction", json!([own.txid])),
        ("getrawtransaction", json!([own.txid, 1])),
        ("getblock", json!([own.block])),
    ] {
        let shown = node.call(method, params);
        assert_eq!(shown["final"], false, "{method}: {shown}");
        assert_eq!(shown["confirmations"], 0, "{method}: {shown}");
    }
    let refused = |method: &str, params: Value| {
        let error = node.try_call(method, params).expect_err("refused");
        assert!(error.to_string().contains("contested"), "{method}: {error}");
    };
    refused("waittransactionfinality", json!([own.txid, 0.2]));
    refused("getfinalityproof", json!([own.txid]));
    let shown = time_cli(&["--datadir", &node.dir.to_string_lossy(), "status"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON for a pipe");
    assert_eq!(shown["chain"]["contested_from"], fork["height"], "{shown}");

    let state = finality(node, &below.txid);
    assert_eq!(state["final"], true, "below the fork: {state}");
    let shown = node.call("gettransaction", json!([below.txid]));
    assert!(shown["confirmations"].as_u64() > Some(0), "{shown}");
    node.call("getfinalityproof", json!([below.txid]));
}

/// Mistakes with `timed recover` are named and change nothing.
fn assert_mistakes_change_nothing(net: &Forked, branch: &str) {
    let node = &net.cluster.nodes[0];
    let open = || {
        let fork = node.call("getforkinfo", json!([]));
        assert_eq!(fork["status"], "open");
        (fork["branches"].clone(), fork["attempt"].clone())
    };
    let unheard = |branch: &Value| branch["stated"].as_u64() < Some(2_000);
    wait_until("the word of both sides has gone round", || {
        let branches = open().0;
        !branches.as_array().expect("a list").iter().any(unheard)
    });
    let before = open();
    let zero = "0".repeat(64);
    let culprit = &net.cluster.nodes[net.parts.both[0]];
    wait_until("a culprit knows the fork, too", || {
        culprit.call("getforkinfo", json!([]))["status"] == "open"
    });
    let alone = Cluster::make(1);
    alone.nodes[0].start();
    alone.nodes[0].await_ready();
    let refused = |node: &Node, words: &[&str], why: &str| {
        let (code, said) = recover(node, words);
        assert!(
            code.is_some_and(|code| code != 0) && said.contains(why),
            "{words:?}: {code:?} {said}"
        );
    };
    refused(node, &[], "--branch");
    refused(node, &["--branch", branch], "--i-know");
    refused(node, &["--branch", "12", "--i-know"], "length 64");
    refused(
        node,
        &["--branch", &zero, "--i-know"],
        "neither of the two blocks",
    );
    refused(culprit, &["--branch", branch, "--i-know"], "states nothing");
    refused(
        &alone.nodes[0],
        &["--branch", branch, "--i-know"],
        "no open fork",
    );
    alone.nodes[0].kill();
    refused(&alone.nodes[0], &["--branch", branch, "--i-know"], "timed");
    assert_eq!(open(), before, "nothing was stated");
}

fn highest(nodes: &[&Node]) -> Option<u64> {
    nodes.iter().map(|node| node.height()).max()
}

#[test]
fn a_split_waits_for_operators_and_goes_on_where_they_agree() {
    let parts = Parts {
        first: vec![0, 1],
        second: vec![2, 3],
        both: vec![4, 5, 6],
    };
    let net = Forked::make(&[1_000; 7], parts, &[]);
    let nodes = &net.cluster.nodes;
    net.join();
    let fork = net.await_known();
    let stays = fork["held"].as_str().expect("the own branch").to_owned();
    // Of each side: one node may still be told the last block of the other.
    let tips = || [&net.parts.first, &net.parts.second].map(|part| highest(&net.of(part)));
    for node in net.honest() {
        wait_until("its health names the fork", || {
            let (status, reasons) = node.health();
            status == 503 && reasons.contains("FORK")
        });
        wait_until("nothing is signed", || {
            node.call("masternode", json!(["status"]))["able_to_sign"] == false
        });
    }
    let before = tips();
    for (node, own) in [(&nodes[0], &net.first), (&nodes[2], &net.second)] {
        assert_contested(node, own, &net.before);
    }
    assert_mistakes_change_nothing(&net, &stays);

    // Two of the three that are needed say it, and go down; the third gives its own branch up.
    for node in [&nodes[0], &nodes[1]] {
        let said: Value = serde_json::from_str(&agree(node, &stays)).expect("JSON for a pipe");
        assert_eq!(said["attempt"], 1, "operators meet in one attempt: {said}");
    }
    let stated = |node: &Node| {
        let fork = node.call("getforkinfo", json!([]));
        let branches = fork["branches"].as_array().expect("a list").clone();
        let of = branches.iter().find(|b| b["block"] == json!(stays));
        of.and_then(|branch| branch["stated"].as_u64()).unwrap_or(0)
    };
    for node in [&nodes[2], &nodes[3]] {
        wait_until("the word goes round", || stated(node) == 2_000);
    }
    assert_eq!(tips(), before, "nothing is decided while the fork is open");
    nodes[0].kill();
    nodes[1].kill();
    agree(&nodes[3], &stays);
    for node in [&nodes[2], &nodes[3]] {
        wait_until("the fork has ended", || {
            let fork = node.try_call("getforkinfo", json!([]));
            fork.is_ok_and(|fork| fork["status"] == "ended")
        });
    }
    // The branch that stays is on no node that runs: what was taken back waits.
    let merchant = &nodes[2];
    wait_until("undone payments wait again", || {
        let states = [&net.second, &net.spent_again].map(|paid| {
            let state = merchant.try_call("gettransactionfinality", json!([paid.txid]));
            state.is_ok_and(|state| state["state"] == "pending")
        });
        states == [true, true]
    });
    for paid in [&net.second, &net.spent_again] {
        let shown = merchant.call("gettransaction", json!([paid.txid]));
        assert_eq!(shown["final"], false, "{shown}");
        assert_eq!(shown["confirmations"], 0, "{shown}");
        assert_eq!(shown["walletconflicts"], json!([]), "{shown}");
    }
    let kept = finality(merchant, &net.before.txid);
    assert_eq!(kept["final"], true, "below the fork nothing moves: {kept}");

    net.join();
    net.assert_recovered(&net.first, &net.second);
    net.assert_cheated(merchant);
    let (code, said) = recover(&nodes[0], &["--branch", &stays, "--i-know"]);
    assert!(code != Some(0) && said.contains("no open fork"), "{said}");
}

#[test]
fn a_fork_ends_by_itself_and_costs_the_honest_nothing() {
    let net = Forked::three_to_one();
    let loser = &net.cluster.nodes[3];
    assert_eq!(loser.stop(), Some(0), "a clean stop");
    let socket = net.cluster.dir.path().join("n");
    let systemd = Systemd::new(&socket);
    let mut command = timed();
    command.args(["--config", &loser.config(), "--log", "info"]);
    command.env("NOTIFY_SOCKET", &socket);
    loser.start_as(command);
    loser.await_ready();
    wait_until("systemd hears that it is ready", || {
        systemd.heard("READY=1") > 0
    });
    let pid = loser.pid();
    let lost = loser.call("getfinalityproof", json!([net.second.txid]));

    net.join();
    let kept = net.cluster.nodes[0].call("getfinalityproof", json!([net.first.txid, "", true]));
    wait_until(
        "the loser starts again in place, and says READY again",
        || {
            loser.assert_runs();
            systemd.heard("READY=1") > 0
        },
    );
    assert_eq!(loser.pid(), pid, "the same process");
    net.await_known();
    net.assert_recovered(&net.first, &net.second);
    assert!(loser.logged().contains("are taken back"), "undo and replay");

    let shown = time_cli(&["--datadir", &loser.dir.to_string_lossy(), "getforkinfo"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let returned = shown["returned"].as_array().expect("a list");
    assert!(returned.contains(&net.second.txid), "listed: {shown}");
    net.assert_cheated(loser);
    assert_proofs(&net, &kept, &lost);
    // Who comes later follows the chain from its genesis through the fork.
    let late = newcomer(&net.cluster, 6);
    let tip = net.cluster.nodes[0].height();
    wait_until("a new node comes through both eras", || {
        late.assert_runs();
        late.height() >= tip
    });
    let root = |node: &Node| node.call("getblockhash", json!([tip]));
    assert_eq!(root(&late), root(loser), "the same chain");
    let kept = loser.call("gettransaction", json!([net.second.txid]));
    assert_eq!(kept["final"], true, "{kept}");
}

/// The commands that a node's advice prints for who runs the chain that goes, and for who runs the one that stays.
fn deep_advice(node: &Node) -> (Vec<String>, Vec<String>) {
    let fork = node.call("getforkinfo", json!([]));
    let advice = fork["advice"].as_str().expect("text").to_owned();
    let quoted = advice.split('\'').skip(1).step_by(2).map(str::to_owned);
    let mut gone: Vec<String> = quoted.filter(|c| c.starts_with("timed ")).collect();
    assert_eq!(gone.len(), 3, "{advice}");
    let stays = gone.split_off(2);
    (gone, stays)
}

/// Operators have agreed on the chain of the second part: everybody runs what the nodes advise, the first part first.
fn follow_deep_advice(net: &Forked) {
    let run = |node: &Node, commands: &[String]| {
        for command in commands {
            let words = command.split(' ').skip(1);
            let config = node.config();
            let words: Vec<&str> = words.chain(["--config", &config]).collect();
            let (code, said) = run_timed(&words);
            assert_eq!(code, Some(0), "{command}: {said}");
        }
    };
    let of_stays = &net.cluster.nodes[net.parts.second[0]];
    let of = |part: &[usize], stays: bool| -> Vec<Vec<String>> {
        let part = net.of(part).into_iter();
        part.map(|node| {
            let (gone, kept) = deep_advice(node);
            if stays {
                return kept;
            }
            let height = node.call("getforkinfo", json!([]))["height"].clone();
            let id = of_stays.call("getblockhash", json!([height]));
            let id = format!(":{}", id.as_str().expect("an id"));
            gone.iter().map(|c| c.replace(":ID", &id)).collect()
        })
        .collect()
    };
    // The coalition's nodes know of the fork as well, and run what stays.
    let staying = [&net.parts.second[..], &net.parts.both].concat();
    let (gone, kept) = (of(&net.parts.first, false), of(&staying, true));
    stop_all(&net.cluster.nodes.iter().collect::<Vec<_>>());
    for (node, commands) in net.of(&net.parts.first).iter().zip(gone) {
        run(node, &commands);
    }
    for (node, commands) in net.of(&staying).iter().zip(kept) {
        run(node, &commands);
    }
    net.cluster.nodes.iter().for_each(Node::start);
    net.cluster.nodes.iter().for_each(Node::await_ready);
}

/// A node that has halted, killed and started with no other node there: halted at once, with the same words.
fn assert_halted_alone(node: &Node, own: &Paid) {
    let before = node.call("getforkinfo", json!([]));
    node.kill();
    node.start();
    node.await_ready();
    let after = node.call("getforkinfo", json!([]));
    assert_eq!(node.call("getconnectioncount", json!([])), 0);
    assert_eq!(after["status"], "open", "{after}");
    for field in ["height", "held", "branches", "advice"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let (status, reasons) = node.health();
    assert!(status == 503 && reasons.contains("FORK"), "{reasons}");
    let own_standing = node.call("masternode", json!(["status"]));
    assert_eq!(own_standing["able_to_sign"], false, "{own_standing}");
    let state = finality(node, &own.txid);
    assert_eq!(state["state"], "contested", "{state}");
    node.kill();
}

#[test]
fn a_fork_that_is_too_deep_halts_with_words_that_say_what_to_do() {
    let parts = Parts {
        first: vec![0, 1],
        second: vec![2, 3],
        both: vec![4, 5, 6],
    };
    // Each side has decided more blocks since. While the sides meet, the second goes on: it may be ahead by less than this.
    let net = Forked::make(&[1_000; 7], parts, &[("max_reorg", 20)]);
    net.join();
    for node in net.honest() {
        wait_until("it says that it cannot go back so far", || {
            node.logged().contains("or in two eras. This node signs")
        });
        let fork = node.call("getforkinfo", json!([]));
        let advice = fork["advice"].as_str().expect("text");
        assert!(
            fork["status"] == "open" && advice.contains("timed db rebuild"),
            "{fork}"
        );
        wait_until("its health names the fork", || {
            let (status, reasons) = node.health();
            status == 503 && reasons.contains("FORK")
        });
        let own = node.call("masternode", json!(["status"]));
        assert_eq!(own["able_to_sign"], false, "nothing is signed: {own}");
        let held = fork["held"].as_str().expect("a block").to_owned();
        let (code, said) = recover(node, &["--branch", &held, "--i-know"]);
        assert!(code != Some(0) && said.contains("getforkinfo"), "{said}");
    }
    let all: Vec<&Node> = net.cluster.nodes.iter().collect();
    let coalition = net.of(&net.parts.both);
    stop_all(&coalition);
    let honest: Vec<&Node> = net.honest().collect();
    for (i, own) in [(0, &net.first), (2, &net.second)] {
        let others: Vec<&Node> = honest
            .iter()
            .copied()
            .filter(|n| n.port != all[i].port)
            .collect();
        others.iter().for_each(|node| node.kill());
        assert_halted_alone(all[i], own);
        honest.iter().for_each(|node| node.start());
        honest.iter().for_each(|node| node.await_ready());
    }
    coalition.iter().for_each(|node| node.start());
    for node in &coalition {
        wait_until("everybody has halted", || {
            let fork = node.try_call("getforkinfo", json!([]));
            fork.is_ok_and(|fork| fork["status"] == "open")
        });
    }
    follow_deep_advice(&net);
    for node in net.honest() {
        for paid in [&net.before, &net.second] {
            node.await_final(&paid.txid);
        }
    }
    let paid = net.cluster.nodes[0].pay(&net.cluster.nodes[2].new_address(), "1");
    net.cluster
        .nodes
        .iter()
        .for_each(|node| node.await_final(&paid));
    wait_until("everybody signs again", || {
        let own = |node: &Node| node.call("masternode", json!(["status"]));
        net.honest().all(|node| own(node)["able_to_sign"] == true)
    });
    for node in net.honest() {
        let fork = node.call("getforkinfo", json!([]));
        assert_eq!(fork["status"], "none", "the halt has ended: {fork}");
        let (_, reasons) = node.health();
        assert!(!reasons.contains("FORK"), "{reasons}");
        assert_eq!(finality(node, &net.second.txid)["final"], true);
    }
    let returned = finality(&net.cluster.nodes[0], &net.first.txid);
    assert_ne!(returned["state"], "contested", "{returned}");
}
