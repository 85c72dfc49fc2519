//! Power cuts at every point at which a disk has synced something, each with a disk that does not come back. Four nodes of
//! equal power, one of them amnesic: the network must decide again and name nobody (S5, B7).

use super::given;
use super::scenarios::tell;
use timecoin::sim::disk::LedgerDisk;
use timecoin::sim::script::Story;
use timecoin::sim::world::{Options, World};
use timecoin::types::ids::Height;

/// Heights whose syncs are all cut.
const HEIGHTS: u64 = 3;

fn options() -> Options {
    Options {
        pay_every_ms: 250,
        latency: (1_000, 5_000),
        ..Options::devnet(41, 4)
    }
}

fn syncs(world: &World) -> u64 {
    world.nodes.iter().map(|n| n.signer.done).sum()
}

/// How many syncs the first heights take.
fn syncs_of_the_first_heights() -> u64 {
    let mut s = Story::begin(options());
    s.until_height(Height(HEIGHTS), 30_000);
    syncs(&s.outcome().expect("a network without faults"))
}

/// Power is lost by all after the sync with this number; one node's signer store, and perhaps its ledger, stays lost.
fn cut(number: u64, lost: usize, ledger_too: bool) {
    tell(options(), |s| {
        s.until("the sync is done", 30_000, |w| syncs(w) >= number);
        s.kill(&[0, 1, 2, 3]);
        s.lose_signer(lost);
        if ledger_too {
            s.world.nodes[lost].ledger = LedgerDisk::new(s.world.genesis());
        }
        s.world.tell(&format!(
            "power cut after sync {number}, node {lost} loses its disk"
        ));
        s.start(&[0, 1, 2, 3]);
        s.goes_on(2, 60_000);
        s.until(
            "B7.5: the node that lost its store signs again",
            60_000,
            |w| w.nodes[lost].signer.unsure.is_none(),
        );
    });
}

/// Every sync once, the nodes that lose their disks in turn; with TIMECOIN_SIM_ALL=1 every node at every sync.
#[test]
fn a_power_cut_and_a_lost_disk_at_every_sync() {
    let count = syncs_of_the_first_heights();
    assert!(count >= 4 * HEIGHTS, "every node syncs in every height");
    for number in 1..=count {
        for lost in 0..4 {
            if given("ALL").is_some() || number % 4 == lost {
                cut(number, lost as usize, number / 4 % 2 == 1);
            }
        }
    }
    println!("{count} syncs cut");
}
