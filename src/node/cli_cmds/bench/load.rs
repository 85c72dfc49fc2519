//! Sends payments when they are due and measures until they are final.
//!
//! Job: an open loop (payment i is due at start + i / rate, however slow the answers) and a closed loop of single payments. Inputs: signed
//! payments, nodes. Outputs: [`Measured`]. Never: counts time from the sending of a payment that was already late (coordinated omission).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use hdrhistogram::Histogram;
use serde_json::json;

use super::super::connect::pause;
use super::coins::Payment;
use crate::node::client::{Client, ClientError};

/// Greatest latency that is told apart, microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Time from the start of the threads to the first payment.
const LEAD: Duration = Duration::from_millis(200);
/// Texts of failures told apart; others count together.
const FAILURE_KIND_COUNT_MAX: usize = 20;

/// How a run is done.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Payments per second.
    pub rate: u32,
    /// Connections that send, for each node.
    pub senders: usize,
    /// Connections that wait, for each node.
    pub waiters: usize,
    /// A payment that is not final so long after it was sent has failed.
    pub timeout: Duration,
}

/// What came out.
pub(super) struct Measured {
    /// From due to final, microseconds.
    pub finality: Histogram<u64>,
    /// From due to accepted by the node, microseconds.
    pub accepted: Histogram<u64>,
    /// Failures by text.
    pub failures: BTreeMap<String, u64>,
    /// Numbers of the payments that became final.
    pub finished: Vec<usize>,
    /// From the first payment due to the last one final.
    pub elapsed: Duration,
    /// The longest that a payment was sent after it was due, microseconds: what the sending side could not keep up with.
    pub late_us_max: u64,
    last: Option<Instant>,
}

impl Measured {
    fn new() -> Measured {
        // PROOF: the bounds 1, 600 s and 3 digits are within what a histogram takes.
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("PROOF: constant bounds that a histogram accepts")
        };
        Measured {
            finality: histogram(),
            accepted: histogram(),
            failures: BTreeMap::new(),
            finished: Vec::new(),
            elapsed: Duration::ZERO,
            late_us_max: 0,
            last: None,
        }
    }
    fn fail(&mut self, error: &ClientError) {
        let text = match error {
            ClientError::Rpc(failure) => {
                let reason = failure.reason.as_deref().unwrap_or(&failure.message);
                format!(
                    "{} ({})",
                    reason.lines().next().unwrap_or_default(),
                    failure.code
                )
            }
            other => other.to_string(),
        };
        let room =
            self.failures.len() < FAILURE_KIND_COUNT_MAX || self.failures.contains_key(&text);
        let text = if room { text } else { "other".to_owned() };
        *self.failures.entry(text).or_default() += 1;
    }
    fn accept(&mut self, due: Instant) {
        self.accepted.saturating_record(micros(due.elapsed()));
    }
    fn finish(&mut self, number: usize, due: Instant) {
        let now = Instant::now();
        self.finality
            .saturating_record(micros(now.duration_since(due)));
        self.finished.push(number);
        self.last = self.last.max(Some(now));
    }
    fn merge(&mut self, other: Measured) {
        for (name, count) in other.failures {
            *self.failures.entry(name).or_default() += count;
        }
        self.finality += &other.finality;
        self.accepted += &other.accepted;
        self.finished.extend(other.finished);
        self.late_us_max = self.late_us_max.max(other.late_us_max);
        self.last = self.last.max(other.last);
    }
    /// How many failed.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// A payment that a node has accepted.
struct Sent {
    number: usize,
    due: Instant,
}

/// Sends `payments` at a constant rate, in turn to each node.
pub(super) fn open_loop(nodes: &[Client], payments: &[Payment], plan: &Plan) -> Measured {
    let start = Instant::now() + LEAD;
    let lanes = nodes.len() * plan.senders;
    let mut total = Measured::new();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            // One place for every payment: no send blocks, so the senders keep to their times.
            let (sender, receiver) = bounded::<Sent>(payments.len().max(1));
            for lane in 0..plan.senders {
                let (client, sender) = (node.another(), sender.clone());
                let first = lane * nodes.len() + place;
                let mine = (first..payments.len()).step_by(lanes);
                threads
                    .push(scope.spawn(move || send(client, payments, mine, start, plan, &sender)));
            }
            for _ in 0..plan.waiters {
                let (client, receiver) = (node.another(), receiver.clone());
                threads.push(scope.spawn(move || wait(client, payments, plan, &receiver)));
            }
        }
        for thread in threads {
            if let Ok(part) = thread.join() {
                total.merge(part);
            }
        }
    });
    total.elapsed = total
        .last
        .map_or(Duration::ZERO, |last| last.duration_since(start));
    total
}

fn send(
    mut client: Client,
    payments: &[Payment],
    mine: impl Iterator<Item = usize>,
    start: Instant,
    plan: &Plan,
    accepted: &Sender<Sent>,
) -> Measured {
    let mut measured = Measured::new();
    client.set_timeout(plan.timeout);
    for number in mine {
        let due = start
            + Duration::from_nanos(number as u64 * 1_000_000_000 / u64::from(plan.rate.max(1)));
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            pause(left);
        }
        measured.late_us_max = measured.late_us_max.max(micros(due.elapsed()));
        match client.call("sendrawtransaction", json!([payments[number].hex])) {
            Ok(_) => {
                measured.accept(due);
                // The channel has a place for every payment and outlives the senders.
                let _room = accepted.try_send(Sent { number, due });
            }
            Err(error) => measured.fail(&error),
        }
    }
    measured
}

fn wait(
    mut client: Client,
    payments: &[Payment],
    plan: &Plan,
    accepted: &Receiver<Sent>,
) -> Measured {
    let mut measured = Measured::new();
    for Sent { number, due } in accepted {
        match await_final(&mut client, &payments[number].txid, plan.timeout) {
            Ok(()) => measured.finish(number, due),
            Err(error) => measured.fail(&error),
        }
    }
    measured
}

fn await_final(client: &mut Client, txid: &str, timeout: Duration) -> Result<(), ClientError> {
    let params = json!([txid, timeout.as_secs()]);
    let limit = timeout + Duration::from_secs(5);
    client.call_within("waittransactionfinality", params, limit)?;
    Ok(())
}

/// Sends one payment after the other, each when the one before is final and `rest` has passed, in turn to each node.
pub(super) fn one_by_one(
    nodes: &[Client],
    payments: &[Payment],
    rest: Duration,
    timeout: Duration,
) -> Measured {
    let mut clients: Vec<Client> = nodes.iter().map(Client::another).collect();
    let count = clients.len().max(1);
    let mut measured = Measured::new();
    let start = Instant::now();
    for (number, payment) in payments.iter().enumerate() {
        pause(rest);
        let Some(client) = clients.get_mut(number % count) else {
            break;
        };
        let due = Instant::now();
        let done = client
            .call("sendrawtransaction", json!([payment.hex]))
            .and_then(|_| {
                measured.accept(due);
                await_final(client, &payment.txid, timeout)
            });
        match done {
            Ok(()) => measured.finish(number, due),
            Err(error) => measured.fail(&error),
        }
    }
    measured.elapsed = start.elapsed();
    measured
}
