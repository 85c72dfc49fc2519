//! How a thread spends its time, and that it lives: counters in plain atomics, written by one thread, read by any.

use crate::base::time::MonoUs;
use crate::node::clock::Clock;
use crate::rpc::node::ThreadView;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Default)]
struct Counters {
    work_us: AtomicU64,
    idle_us: AtomicU64,
    backpressure_us: AtomicU64,
    beat_us: AtomicU64,
    unwatched: AtomicBool,
    cores: Mutex<Vec<usize>>,
}

/// The meter of one thread.
#[derive(Debug, Clone)]
pub struct Meter {
    name: &'static str,
    clock: Clock,
    counters: Arc<Counters>,
    last: MonoUs,
}

/// The reading end of a meter.
#[derive(Debug, Clone)]
pub struct Gauge {
    name: &'static str,
    counters: Arc<Counters>,
}

impl Meter {
    /// A meter and its reading end.
    pub fn new(name: &'static str, clock: Clock) -> (Meter, Gauge) {
        let counters = Arc::new(Counters::default());
        let gauge = Gauge {
            name,
            counters: counters.clone(),
        };
        let last = clock.mono();
        counters.beat_us.store(last.0, Ordering::Relaxed);
        (
            Meter {
                name,
                clock,
                counters,
                last,
            },
            gauge,
        )
    }

    /// The thread's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The cores it may run on, as the operating system says.
    pub fn on_cores(&self, cores: Vec<usize>) {
        *self.counters.cores.lock() = cores;
    }

    /// The threads of a pool: they rest without a sign of life, and only their work is measured.
    pub fn unwatched(&self) {
        self.counters.unwatched.store(true, Ordering::Relaxed);
    }

    /// A piece of work took this long, on whatever thread of a pool.
    pub fn add_work(&self, work: Duration) {
        let us = work.as_micros() as u64;
        self.counters.work_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The thread is about to wait: what passed since the last call was work.
    pub fn worked(&mut self) {
        let now = self.clock.mono();
        self.counters
            .work_us
            .fetch_add(now.since(self.last), Ordering::Relaxed);
        self.last = now;
    }

    /// The thread has waited; `held_up`: because something behind it was full.
    pub fn waited(&mut self, held_up: bool) {
        let now = self.clock.mono();
        let regime = if held_up {
            &self.counters.backpressure_us
        } else {
            &self.counters.idle_us
        };
        regime.fetch_add(now.since(self.last), Ordering::Relaxed);
        self.counters.beat_us.store(now.0, Ordering::Relaxed);
        self.last = now;
    }

    /// Times measured by somebody else (the event loop).
    pub fn turn(&mut self, work: Duration, idle: Duration) {
        self.counters
            .work_us
            .fetch_add(work.as_micros() as u64, Ordering::Relaxed);
        self.counters
            .idle_us
            .fetch_add(idle.as_micros() as u64, Ordering::Relaxed);
        self.counters
            .beat_us
            .store(self.clock.mono().0, Ordering::Relaxed);
    }
}

impl Gauge {
    /// The counters now.
    pub fn view(&self) -> ThreadView {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ThreadView {
            name: self.name,
            work_ns: get(&self.counters.work_us).saturating_mul(1_000),
            idle_ns: get(&self.counters.idle_us).saturating_mul(1_000),
            backpressure_ns: get(&self.counters.backpressure_us).saturating_mul(1_000),
            last_beat: match self.counters.unwatched.load(Ordering::Relaxed) {
                true => MonoUs(u64::MAX),
                false => MonoUs(get(&self.counters.beat_us)),
            },
            cores: self.counters.cores.lock().clone(),
        }
    }
}
