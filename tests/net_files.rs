//! A node that runs out of file descriptors: alone in its process, because the limit is the process's.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use timecoin::net::{
    CloseReason, ConnId, ConnInfo, DialError, DialId, FrameRule, Handler, HttpRequest, HttpToken,
    Io, NetConfig, NodeIdentity, Reactor,
};

/// Publishes the counters of the net thread at the end of every turn.
#[derive(Default)]
struct Watcher<'a> {
    accepted: Option<&'a AtomicU64>,
    errors: Option<&'a AtomicU64>,
}

impl Handler for Watcher<'_> {
    fn on_connected(&mut self, _: &mut Io, _: ConnId, _: &ConnInfo) {}
    fn on_frame(&mut self, _: &mut Io, _: ConnId, _: u8, _: Vec<u8>) {}
    fn on_closed(&mut self, _: &mut Io, _: ConnId, _: &CloseReason) {}
    fn on_dial_failed(&mut self, _: &mut Io, _: DialId, _: &DialError) {}
    fn on_http(&mut self, _: &mut Io, _: HttpRequest) {}
    fn on_http_gone(&mut self, _: &mut Io, _: HttpToken) {}
    fn on_wake(&mut self, _: &mut Io) {}
    fn on_deadline(&mut self, _: &mut Io) {}
    fn frame_rule(&self, _: ConnId, _: u8) -> Option<FrameRule> {
        None
    }
    fn on_turn_end(&mut self, io: &mut Io) {
        for (cell, value) in [
            (self.accepted, io.counters().http_accepted),
            (self.errors, io.counters().accept_errors),
        ] {
            if let Some(cell) = cell {
                cell.store(value, Ordering::Release);
            }
        }
    }
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(300);
    while !condition() {
        assert!(Instant::now() < end, "never reached: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn out_of_file_descriptors_the_node_waits_without_spinning_and_goes_on() {
    const CLIENTS: usize = 40;
    let mut config = NetConfig::new(NodeIdentity::from_seed(&[1; 32]).unwrap());
    config.http_listen = vec!["127.0.0.1:0".parse().unwrap()];
    let (mut reactor, wake) = Reactor::new(config).unwrap();
    let address = reactor.local_addrs().http[0];
    // The kernel completes these connections; the node has not accepted one yet.
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let before = getrlimit(Resource::Nofile);
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(used + 4),
            maximum: before.maximum,
        },
    )
    .unwrap();

    let (accepted, errors, turns) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut watcher = Watcher {
                accepted: Some(&accepted),
                errors: Some(&errors),
            };
            let count = |_: &_| {
                turns.fetch_add(1, Ordering::Relaxed);
            };
            reactor.run(&mut watcher, &stop, count).unwrap();
        });
        wait("accept failing three times", || {
            errors.load(Ordering::Acquire) >= 3
        });
        let (failed, turned) = (
            errors.load(Ordering::Acquire),
            turns.load(Ordering::Acquire),
        );
        assert!(
            accepted.load(Ordering::Acquire) < CLIENTS as u64,
            "the limit was low enough"
        );
        assert!(
            turned < 20 * failed,
            "{turned} turns for {failed} failures: waiting must not be spinning"
        );
        setrlimit(Resource::Nofile, before).unwrap();
        wait("all clients accepted", || {
            accepted.load(Ordering::Acquire) == CLIENTS as u64
        });
        stop.store(true, Ordering::Release);
        wake.wake();
    });
    drop(clients);
}
