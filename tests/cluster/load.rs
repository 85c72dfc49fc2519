//! Payments that flow while nodes are killed, and the books about what was reported final.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::support::{Cluster, Node, pause, wait_until};

/// Seconds that a payer waits for one payment before it makes the next.
const FINALITY_S: u64 = 5;

/// One payer for each node, each with one payment under way at a time.
#[derive(Default)]
pub struct Load {
    over: AtomicBool,
    /// Calls that were begun or have ended: grows at moments that have nothing to do with the steps of consensus.
    calls: AtomicU64,
    reported: Mutex<Vec<Value>>,
}

impl Load {
    /// Runs `work` while payments flow, then lets them end.
    pub fn run(cluster: &Cluster, work: impl FnOnce(&Load)) -> Load {
        let load = Load::default();
        std::thread::scope(|scope| {
            for node in &cluster.nodes {
                let load = &load;
                let address = cluster.nodes[0].new_address();
                scope.spawn(move || load.pay(node, &address));
            }
            // Ends the payers also when `work` fails.
            let _over = Over(&load.over);
            work(&load);
        });
        load
    }

    /// Pays until the end. A node that does not answer costs nothing: the next call finds it again.
    fn pay(&self, node: &Node, address: &Value) {
        let mut client = node.client();
        while !self.over.load(Ordering::Acquire) {
            self.calls.fetch_add(1, Ordering::AcqRel);
            let sent = client.call("sendtoaddress", json!([address, "0.01"]));
            self.calls.fetch_add(1, Ordering::AcqRel);
            let Ok(txid) = sent else {
                // Without a limit: the steps of the test have theirs, and some never start this node again.
                while !self.over.load(Ordering::Acquire)
                    && client.call("uptime", json!([])).is_err()
                {
                    pause();
                }
                continue;
            };
            let state = client.call("waittransactionfinality", json!([txid, FINALITY_S]));
            if state.is_ok_and(|state| state["final"] == true) {
                self.books().push(txid);
            }
        }
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Vec<Value>> {
        self.reported
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
    }

    /// Payments that were reported final so far.
    pub fn count(&self) -> usize {
        self.books().len()
    }

    /// Waits until `more` payments were reported final from now on.
    pub fn await_payments(&self, more: usize) {
        let wanted = self.count() + more;
        wait_until("payments become final", || self.count() >= wanted);
    }

    /// Returns at a moment that is as good as random: `calls` calls of payers from now on.
    pub fn await_calls(&self, calls: u64) {
        let wanted = self.calls.load(Ordering::Acquire) + calls;
        wait_until("payers make calls", || {
            self.calls.load(Ordering::Acquire) >= wanted
        });
    }

    /// Every payment that was reported final is final on every node.
    pub fn assert_nothing_lost(&self, cluster: &Cluster) {
        for node in &cluster.nodes {
            let mut client = node.client();
            for txid in self.books().iter() {
                let state = client.call("gettransactionfinality", json!([txid]));
                let state = state.expect("an answer");
                assert_eq!(state["final"], true, "reported final before: {state}");
            }
        }
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
