//! A node that is killed at every moment at which something becomes durable while it crosses into the next era (B6 step 5):
//! whatever it had written, the next start ends in the same state. The build under test kills itself (`TIMECOIN_STRIKE`).

use serde_json::{Value, json};

use crate::forked::{Forked, Kept, Parts, finality, stop_all};
use crate::support::{Node, Tip, run_timed, timed, wait_for, wait_until};

/// Starts the node so that it dies at a moment, named or counted.
fn start_doomed(node: &Node, moment: &str) {
    let mut command = timed();
    command.args(["--config", &node.config(), "--log", "info"]);
    command.env("TIMECOIN_STRIKE", moment);
    node.start_as(command);
}

/// What the crossing must lead to, without peers: the tip below the fork, and what was undone waits.
fn crossed(node: &Node, net: &Forked) -> (Tip, Value) {
    node.start();
    node.await_ready();
    wait_until("it has crossed", || {
        node.call("getforkinfo", json!([]))["status"] == "ended"
    });
    for paid in [&net.second, &net.spent_again] {
        wait_until("undone payments wait again", || {
            finality(node, &paid.txid)["state"] == "pending"
        });
        let shown = node.call("gettransaction", json!([paid.txid]));
        assert_eq!(shown["confirmations"], 0, "{shown}");
    }
    let before = node.call("gettransaction", json!([net.before.txid]));
    assert_eq!(before["final"], true, "{before}");
    let tip = node.tip().expect("it answers");
    let balance = node.call("getbalance", json!([]));
    node.kill();
    assert!(
        !node.logged().contains("signer state is unsure"),
        "its store is its own"
    );
    (tip, balance)
}

/// Waits until a node has heard that the fork has ended and is up again in the next era. While the program takes its own
/// place no signal is heard in order.
fn await_crossed(node: &Node) {
    wait_until("it is up again in the next era", || {
        let logged = node.logged();
        let ends = ["a majority agrees", "starts again in the next era"];
        let end = ends.iter().filter_map(|word| logged.rfind(word)).max();
        end.is_some() && logged.rfind("ready: height") > end
    });
}

#[test]
fn a_crash_at_any_write_of_the_crossing_changes_nothing() {
    let net = Forked::three_to_one();
    let loser = &net.cluster.nodes[3];
    loser.kill();
    start_doomed(loser, "the next era is durable");
    loser.await_ready();
    net.join();
    // One whose word is needed, killed as it finds the fork, as it states its branch, and as it hears of the majority.
    let needed = &net.cluster.nodes[0];
    for word in ["FORK at height", "stated in attempt", "a majority agrees"] {
        wait_until(word, || needed.logged().contains(word));
        needed.kill();
        needed.start();
        needed.await_ready();
    }
    wait_until("it dies with the certificate on its disk", || {
        loser.has_ended()
    });
    let others: Vec<&Node> = net
        .cluster
        .nodes
        .iter()
        .filter(|n| n.port != loser.port)
        .collect();
    others.iter().for_each(|node| await_crossed(node));
    stop_all(&others);
    let kept = Kept::of(loser, &net.cluster);
    let (tip, balance) = crossed(loser, &net);

    let mut moments = 0;
    loop {
        kept.put_back();
        let logged = loser.logged().len();
        start_doomed(loser, &(moments + 1).to_string());
        let said = |what: &str| loser.logged()[logged..].contains(what);
        let survived = wait_for("it dies or is ready", || {
            match (loser.has_ended(), said("ready: height")) {
                (true, _) => Some(false),
                (false, true) => Some(true),
                (false, false) => None,
            }
        });
        if survived {
            loser.kill();
            break;
        }
        moments += 1;
        let (again, then) = crossed(loser, &net);
        assert_eq!(again, tip, "killed at moment {moments}");
        assert_eq!(then, balance, "killed at moment {moments}");
    }
    println!("killed at each of {moments} moments of the crossing");
    assert!(moments >= 6, "the file, the ledger and the signer store");
    others.iter().for_each(|node| node.start());
    loser.start();
    net.cluster.nodes.iter().for_each(Node::await_ready);
    net.assert_recovered(&net.first, &net.second);
    net.assert_cheated(loser);
}

/// What the log says once the halt is durable.
const HALTED: &str = "or in two eras. This node signs";

/// Whether a node that starts alone halts.
fn halts_alone(node: &Node) -> bool {
    node.start();
    node.await_ready();
    let fork = node.call("getforkinfo", json!([]));
    let own = node.call("masternode", json!(["status"]));
    node.kill();
    let halted = fork["status"] == "open";
    assert!(!halted || own["able_to_sign"] == false, "{own}");
    halted
}

#[test]
fn a_crash_at_any_write_of_a_deep_halt_loses_nothing_that_was_said() {
    let parts = Parts {
        first: vec![0, 1],
        second: vec![2, 3],
        both: vec![4, 5, 6],
    };
    let net = Forked::make(&[1_000; 7], parts, &[("max_reorg", 20)]);
    let nodes = &net.cluster.nodes;
    let finder = &nodes[0];
    let kept = Kept::of(finder, &net.cluster);
    // Killed at every moment until it has found the fork, among the others.
    let mut crashes = Vec::new();
    loop {
        kept.put_back();
        let logged = finder.logged().len();
        start_doomed(finder, &(crashes.len() + 1).to_string());
        let said = || finder.logged()[logged..].contains(HALTED);
        wait_until("it dies or says that it has halted", || {
            finder.has_ended() || said()
        });
        if !finder.has_ended() {
            break;
        }
        let name = format!("crash-{}", crashes.len() + 1);
        crashes.push((Kept::named(finder, &net.cluster, &name), said()));
    }
    // Its next write is its doom, also that of a stop in order: what it found is asked of a process that may live.
    finder.kill();
    finder.start();
    finder.await_ready();
    let height = finder.call("getforkinfo", json!([]))["height"].clone();
    finder.kill();
    let others = net.of(&[net.parts.second.clone(), net.parts.both.clone()].concat());
    stop_all(&others);
    let mut found = 0;
    for (i, (crash, said)) in crashes.iter().enumerate() {
        crash.put_back();
        let halted = halts_alone(finder);
        found += usize::from(halted);
        assert!(halted || !said, "killed at moment {}", i + 1);
    }
    println!(
        "killed at each of {} moments, {found} of them after the record was durable",
        crashes.len()
    );
    assert!(found < crashes.len(), "before it had found anything");

    // Operators agree on this node's chain; killed at every moment of the start that forgets the halt.
    kept.put_back();
    finder.start();
    finder.await_ready();
    others.iter().for_each(|node| node.start());
    others.iter().for_each(|node| node.await_ready());
    wait_until("it is halted", || {
        finder.call("getforkinfo", json!([]))["status"] == "open"
    });
    let fork = finder.call("getforkinfo", json!([]));
    assert_eq!(fork["height"], height, "found at the same place");
    let block = fork["held"].as_str().expect("a block").to_owned();
    stop_all(&[&others[..], &[finder]].concat());
    let halted = Kept::named(finder, &net.cluster, "halted");
    assert!(halts_alone(finder), "no word yet");
    halted.put_back();
    let word = format!("{height}:{block}");
    let (code, said) = run_timed(&["trust", &word, "--config", &finder.config()]);
    assert_eq!(code, Some(0), "{said}");
    for moment in 1.. {
        halted.put_back();
        let logged = finder.logged().len();
        start_doomed(finder, &moment.to_string());
        let ready = || finder.logged()[logged..].contains("ready: height");
        wait_until("it dies or is ready", || finder.has_ended() || ready());
        let survived = !finder.has_ended();
        if survived {
            finder.kill();
        }
        assert!(!halts_alone(finder), "killed at moment {moment}");
        if survived {
            break;
        }
    }
}
