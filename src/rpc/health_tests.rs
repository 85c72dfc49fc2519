//! What makes a node unhealthy, one reason at a time.

use crate::base::time::{MonoUs, Now};
use crate::crypto::keys::PublicKey;
use crate::rpc::fake::{FakeNode, LATER};
use crate::rpc::health::{Report, health, livez, readyz};
use crate::rpc::node::*;

fn judge(change: impl FnOnce(&mut NodeView, &mut Vitals, &mut Now)) -> Report {
    let node = FakeNode::new();
    let mut view = (*node.view()).clone();
    view.own = Some(OwnMasternode {
        operator: PublicKey([1; 32]),
        id: None,
        unsure: None,
        anchored: true,
        abstains: None,
    });
    view.peers = std::sync::Arc::new(vec![peer()]);
    let mut vitals = Vitals {
        disk: Some((50 << 30, 100 << 30)),
        ..Vitals::default()
    };
    let mut now = node.now();
    change(&mut view, &mut vitals, &mut now);
    let params = &node.facts().genesis.params;
    health(&Phase::Running, &view, &vitals, params, now)
}

fn peer() -> PeerView {
    PeerView {
        id: 1,
        node_key: PublicKey([2; 32]),
        address: "127.0.0.1:1".parse().unwrap(),
        inbound: false,
        since: LATER,
        masternode: None,
        agent: String::new(),
        height: crate::types::ids::Height(0),
        clock_offset_ms: 0,
        ping_us: None,
        min_ping_us: None,
        bytes_out: 0,
        bytes_in: 0,
        last_send: LATER,
        last_receive: LATER,
        score: 0,
        by_type: Default::default(),
    }
}

fn assert_fails(report: &Report, name: &str, word: &str) {
    let failed: Vec<_> = report.checks.iter().filter(|c| !c.ok).collect();
    assert_eq!(report.status(), 503);
    assert_eq!(failed.len(), 1, "one reason: {failed:?}");
    assert_eq!(failed[0].name, name);
    assert!(failed[0].reason.contains(word), "{}", failed[0].reason);
}

#[test]
fn a_node_at_work_is_healthy() {
    let report = judge(|_, _, _| {});
    assert_eq!((report.status(), report.reasons()), (200, Vec::new()));
}

#[test]
fn no_quorum_matters_after_ten_seconds_and_only_if_something_is_due() {
    let ago = |now: &Now, ms: u64| Some(MonoUs(now.mono.0 - ms * 1_000));
    let idle = judge(|view, _, now| view.consensus.no_quorum_since = ago(now, 60_000));
    assert_eq!(idle.status(), 200, "nothing is due");
    let short = judge(|view, _, now| {
        view.consensus.no_quorum_since = ago(now, 9_000);
        view.consensus.due_since = ago(now, 9_000);
    });
    assert_eq!(short.status(), 200);
    let long = judge(|view, _, now| {
        view.consensus.no_quorum_since = ago(now, 10_000);
        view.consensus.due_since = ago(now, 9_000);
    });
    assert_fails(&long, "quorum", "no quorum for 10 s");
    let stuck = judge(|view, _, now| view.consensus.due_since = ago(now, 15_000));
    assert_fails(&stuck, "finality_age", "waits for");
}

#[test]
fn age_disk_clock_queues_and_own_state_are_reasons() {
    assert_fails(
        &judge(|_, _, now| now.wall = now.wall.plus(15_000)),
        "tip_age",
        "old",
    );
    assert_fails(
        &judge(|_, vitals, _| vitals.disk = Some((900 << 20, 10 << 30))),
        "disk",
        "900 MiB",
    );
    assert_fails(
        &judge(|_, vitals, _| vitals.disk = Some((40 << 30, 1_000 << 30))),
        "disk",
        "free",
    );
    assert_fails(
        &judge(|view, _, _| view.clock.alarm = Some("12 s ahead of the others".into())),
        "clock",
        "ahead",
    );
    assert_fails(
        &judge(|_, vitals, _| {
            vitals.queues.push(QueueView {
                name: "blocks",
                depth: 8,
                capacity: 8,
                dropped: 0,
            });
        }),
        "queues",
        "blocks",
    );
    let own =
        |change: fn(&mut OwnMasternode)| judge(|view, _, _| change(view.own.as_mut().unwrap()));
    assert_fails(
        &own(|o| o.unsure = Some("store missing".into())),
        "masternode",
        "UNSURE",
    );
    assert_fails(&own(|o| o.anchored = false), "masternode", "unanchored");
    assert_fails(
        &own(|o| o.abstains = Some("disk full".into())),
        "masternode",
        "disk full",
    );
    assert_fails(
        &judge(|view, _, _| view.warnings.push("fork".into())),
        "alarms",
        "fork",
    );
    assert_fails(
        &judge(|view, _, _| view.peers = std::sync::Arc::default()),
        "peers",
        "0 connected",
    );
}

#[test]
fn a_silent_thread_and_a_syncing_node_show() {
    let now = Now {
        wall: LATER,
        mono: MonoUs(60_000_000),
    };
    let thread = |last_beat| ThreadView {
        name: "net",
        work_ns: 0,
        idle_ns: 0,
        backpressure_ns: 0,
        last_beat,
        cores: vec![0],
    };
    let vitals = |beat| Vitals {
        threads: vec![thread(MonoUs(beat))],
        ..Vitals::default()
    };
    assert_eq!(livez(&vitals(59_000_000), now).status(), 200);
    assert_eq!(livez(&vitals(50_000_000), now).status(), 503);
    let node = FakeNode::new();
    let mut view = (*node.view()).clone();
    assert_eq!(readyz(&Phase::Running, &view).status(), 200);
    view.sync.active = true;
    assert_eq!(readyz(&Phase::Running, &view).status(), 503);
    view.sync.active = false;
    assert_eq!(readyz(&Phase::WarmingUp("x".into()), &view).status(), 503);
}
