//! A node that was away for long: it must come back at the pace of its disk and network, never of timeouts (F1).

use super::scenarios::tell;
use timecoin::sim::world::Options;
use timecoin::types::ids::Height;

/// How many blocks the others have decided meanwhile.
const BEHIND: u64 = 10_000;

#[test]
fn ten_thousand_blocks_behind() {
    let options = Options {
        pay_every_ms: 200,
        ..Options::devnet(31, 4)
    };
    let begun = std::time::Instant::now();
    tell(options, |s| {
        let past = s.world.live_through(&[0, 1, 2], BEHIND);
        assert_eq!(past, Ok(()));
        println!("a past of {BEHIND} blocks made in {:?}", begun.elapsed());
        let since = s.world.now();
        s.until("the node has all that was decided", 60_000, |w| {
            w.checker.heights[3] >= Height(BEHIND)
        });
        let took = (s.world.now() - since) / 1_000;
        println!(
            "caught up within {took} ms of simulated, {:?} of real time",
            begun.elapsed()
        );
        let tip = s.world.checker.tip();
        s.must("the others went on meanwhile", tip > Height(BEHIND));
        s.until("it votes with the others", 10_000, |w| {
            w.checker.heights[3] >= w.checker.tip()
        });
    });
}
