//! The set of masternodes changes while the story goes on: registrations, leavers, and what a node that has forgotten what
//! it signed may believe of either set.

use super::scenarios::{opening, quiet, tell};
use super::{fail, seeds_that_change_sets, this_test};
use std::sync::Arc;
use timecoin::consensus::rules::Rules;
use timecoin::p2p::messages::{Message, PeerId};
use timecoin::sim::adversary::{self, Adversary, Outgoing, Tools};
use timecoin::sim::faults::Faults;
use timecoin::sim::network::FrameOdds;
use timecoin::sim::script::Story;
use timecoin::sim::stage::{CONSENSUS, Kind, Pick};
use timecoin::sim::swarm;
use timecoin::sim::world::{Options, World};
use timecoin::types::ids::{Height, MasternodeId};

/// Says that it stands at this height and serves nothing above it; without one it behaves.
struct Behind(Option<Height>);

impl Adversary for Behind {
    fn name(&self) -> &'static str {
        "one that pretends to be behind"
    }
    fn outgoing(&mut self, _: Tools<'_>, to: Vec<PeerId>, message: Arc<Message>) -> Outgoing {
        let Some(height) = self.0 else {
            return vec![(to, message)];
        };
        let lie = |status: &timecoin::p2p::messages::Status| timecoin::p2p::messages::Status {
            height,
            voted: height,
            ..*status
        };
        let told = match &*message {
            Message::Hello(hello) => {
                let mut hello = hello.clone();
                hello.status = lie(&hello.status);
                Message::Hello(hello)
            }
            Message::Ping(status) => Message::Ping(lie(status)),
            Message::Status(status) => Message::Status(lie(status)),
            Message::Certificate(c) if c.height > height => return Vec::new(),
            Message::Block(b) if b.certificate.height > height => return Vec::new(),
            _ => return vec![(to, message)],
        };
        vec![(to, Arc::new(told))]
    }
}

fn id_of(world: &World, node: usize) -> Option<MasternodeId> {
    world.nodes[node].operator.as_ref().map(|(id, _)| *id)
}

/// Whether a node's masternode votes on the next height, as the node at the tip sees it.
fn has_power(world: &World, node: usize) -> bool {
    let id = id_of(world, node);
    let tip = world.checker.tip();
    let mut states = world.nodes.iter().filter_map(|n| n.running.as_ref());
    states.any(|r| {
        let state = r.replica.state();
        state.height() == tip && id.is_some_and(|id| state.validators.get(&id).is_some())
    })
}

/// Whether a node may sign now; if not, why.
pub fn signing(world: &World, node: usize) -> Result<(), String> {
    let running = world.nodes[node].running.as_ref().ok_or("down")?;
    let now = world.nodes[node].now(world.now());
    running.replica.consensus(now).signing
}

#[test]
fn masternodes_come_and_go() {
    let options = Options {
        observers: 1,
        pay_every_ms: 500,
        ..Options::devnet(42, 5)
    };
    tell(options, |s| {
        s.pass(2_000);
        s.register(5);
        s.until("the new masternode has power", 20_000, |w| has_power(w, 5));
        s.unregister(0);
        s.until("the one that leaves has none", 20_000, |w| !has_power(w, 0));
        s.kill(&[1]);
        s.goes_on(10, 20_000);
    });
}

/// Joins, leaves, jailing, return and evidence, while links break, frames are lost and nodes crash.
#[test]
fn masternodes_come_and_go_while_everything_fails() {
    let options = Options {
        observers: 2,
        pay_every_ms: 500,
        holders: 16,
        faults: Faults {
            frames: FrameOdds {
                loss: 5_000,
                tail: 20_000,
                ..FrameOdds::default()
            },
            crash: 20_000,
            partition: 20_000,
            flap: 50_000,
            outage_ms: 2_000,
            ..Faults::default()
        },
        ..Options::devnet(44, 7)
    };
    tell(options, |s| {
        s.world.corrupt(6, adversary::make(0, 44));
        let liar = id_of(&s.world, 6);
        s.pass(5_000);
        s.register(7);
        s.register(8);
        s.unregister(0);
        s.until("both new masternodes have power", 120_000, |w| {
            has_power(w, 7) && has_power(w, 8)
        });
        s.until("the one that leaves has none", 120_000, |w| {
            !has_power(w, 0)
        });
        s.kill(&[1]);
        s.until("the dead one is jailed", 120_000, |w| !has_power(w, 1));
        s.start(&[1]);
        s.until("the dead one is back", 120_000, |w| has_power(w, 1));
        s.until("the liar is slashed", 240_000, |w| {
            liar.and_then(|id| w.entry(&id))
                .is_none_or(|e| e.slashed.is_some())
        });
        s.goes_on(10, 60_000);
    });
}

/// V5 with seven equal masternodes, one Byzantine (`z`) and one that will forget (`n`): in one slot block x and y leave, e and
/// f enter. Returns the height of that block; the next one is decided too, and at the one after it `n` has prevoted nil.
fn v5(s: &mut Story) -> Height {
    let [n, z, one, behind, also, x, y, e, f] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    opening(s);
    s.register(e);
    s.register(f);
    s.until("both are registered", 10_000, |w| {
        let states = w.nodes.iter().filter_map(|node| node.running.as_ref());
        let mut registries = states.map(|r| r.replica.state().registry().entries().len());
        registries.all(|count| count == 9)
    });
    s.pass(1_000);
    s.unregister(x);
    s.unregister(y);
    // Attestations are everywhere 200 ms before the slot ends; then x and y hear nothing, two others no decision.
    let slot = 5_000;
    let left = slot - (s.world.now() / 1_000) % slot;
    s.pass(left - 60);
    let before = s.world.checker.tip();
    s.part(&[x, y]);
    s.world
        .lose(Pick::of(&[Kind::Precommit, Kind::Certificate, Kind::Block]).to(&[behind, also]));
    let change = before.next();
    s.until("the set changes", 10_000, |w| {
        w.checker.tip() == change && has_power(w, e) && has_power(w, f) && !has_power(w, x)
    });
    let knowing = [n, z, one, e, f];
    s.pay(&knowing);
    s.until("the new set decides", 10_000, |w| {
        knowing
            .iter()
            .all(|i| w.checker.heights[*i] == change.next())
    });
    // At the next height n hears nobody, prevotes nil, and nobody hears that.
    s.at = Height(change.0 + 2);
    s.world.hold(Pick::of(CONSENSUS).height(s.at));
    s.world
        .lose(Pick::of(&[Kind::Prevote]).by(&[n]).height(s.at));
    s.pay(&knowing);
    s.until_said(&[n], Kind::Prevote, 0, None);
    let leader = s.leader(0);
    s.must(
        "the leader is among those that n will meet",
        [z, behind, also, e].contains(&leader),
    );
    for node in [behind, also, x, y] {
        let height = s.world.checker.heights[node];
        s.must(
            "the others of the old set know nothing of it",
            height == before,
        );
    }
    change
}

/// An Update replaces an operator key (M2). What peers hold of the masternode then are votes of the key before: they blame
/// nobody, and they do not keep the new key from signing (B7 step 2).
#[test]
fn a_new_operator_key_signs_although_peers_show_votes_of_the_old_one() {
    let options = Options {
        pay_every_ms: 300,
        ..Options::devnet(46, 4)
    };
    tell(options, |s| {
        s.pass(3_000);
        let id = id_of(&s.world, 1).unwrap_or_default();
        s.world.rekey(1, id);
        s.until("the node has its new key", 20_000, |w| {
            w.nodes[1].next_operator.is_none()
        });
        s.until("it signs", 10_000, |w| signing(w, 1).is_ok());
        s.kill(&[2]);
        s.goes_on(5, 20_000);
    });
}

/// The network of V5.
fn of_v5(rules: Rules) -> Options {
    Options {
        collaterals: vec![1_000; 7],
        observers: 2,
        rules,
        ..quiet(105)
    }
}

/// V5 goes on: the node loses everything, meets those who know nothing of the new set and one who says so, then learns the
/// block that changed the set and the one after it, and meets one more: with those it has met they would be enough to vote
/// at the next height, where it has voted before.
fn v5_forgets(s: &mut Story) {
    let (n, z) = (0, 1);
    let change = v5(s);
    let before = Height(change.0 - 1);
    s.kill(&[n]);
    s.lose_disks(n);
    s.let_go();
    s.world.network.blocked.clear();
    s.part(&[2, 7, 8]);
    s.world.corrupt(z, Box::new(Behind(Some(before))));
    s.start(&[n]);
    s.until("five of seven have told it where they stand", 20_000, |w| {
        let waits = format!("signs again from height {}", before.0 + 3);
        signing(w, n).is_err_and(|why| why.contains(&waits))
    });
    s.must(
        "it would sign again where it has signed before",
        s.said(n, Kind::Prevote, 0).is_some() && s.at.0 == before.0 + 3,
    );
    s.world.corrupt(z, Box::new(Behind(None)));
    s.world.network.blocked.clear();
    s.part(&[2, 8]);
    s.until("it has both blocks", 20_000, |w| {
        w.checker.heights[n] == change.next()
    });
    s.pay(&[3, 4, 7]);
    s.pass(5_000);
}

#[test]
fn v5_who_forgot_asks_the_set_in_force_and_again_when_it_changes() {
    let n = 0;
    tell(of_v5(Rules::default()), |s| {
        v5_forgets(s);
        let asking = signing(&s.world, n).is_err_and(|why| why.contains("tips of validators"));
        s.must("B7.4: it asks the new set", asking);
        s.heal();
        s.until("it signs again", 60_000, |w| {
            w.nodes[n].signer.unsure.is_none()
        });
    });
}

#[test]
fn v5_who_asks_the_old_set_only_signs_twice() {
    let mut s = Story::begin(of_v5(Rules {
        asks_new_set: false,
        ..Rules::default()
    }));
    v5_forgets(&mut s);
    let found = s.outcome().err().map(|violation| violation.what);
    let what = found.expect("the key that forgot signs again");
    let twice = what.contains("I1") || what.contains("I2");
    assert!(twice, "V5: {what}");
}

/// Faults::join, leave, rekey and away do what they say, and the network's set follows.
#[test]
fn a_swarm_changes_its_sets_while_everything_fails() {
    let (mut changes, mut lines) = (0, Vec::new());
    for seed in seeds_that_change_sets().take(3) {
        let mut options = swarm::options(seed, None);
        options.keep_log = true;
        options.faults = Faults {
            join: 200_000,
            leave: 100_000,
            rekey: 100_000,
            moves: 50_000,
            away: 30_000,
            ..options.faults
        };
        let (world, report) = match swarm::run(options.clone(), 90) {
            Ok(done) => done,
            Err(violation) => fail(&options, &violation, &this_test()),
        };
        let sets = (1..=report.height.0).map(|h| world.checker.set_at(Height(h)));
        let sets: Vec<_> = sets.flatten().collect();
        changes += sets.windows(2).filter(|two| two[0] != two[1]).count();
        lines.extend(world.log().all().to_vec());
    }
    let times = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    for what in [
        "is registered",
        "wants to leave",
        "has a new operator key",
        "is changed",
        "is away",
    ] {
        assert!(times(what) > 0, "no log of these seeds says '{what}'");
    }
    assert!(changes >= 10, "sets changed {changes} times");
}
