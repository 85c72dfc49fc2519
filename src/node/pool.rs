//! The pool of threads that checks signatures. Pure functions in, verdicts out; its work is measured as that of one thread.

use crate::node::config::CoreSet;
use crate::node::meter::Meter;
use crate::node::pinning;
use std::sync::Arc;
use std::time::Instant;

/// The pool. Clones share it.
#[derive(Clone)]
pub struct Pool {
    threads: Arc<rayon::ThreadPool>,
    meter: Meter,
}

impl Pool {
    /// A pool of `count` threads on `cores`; one thread for each core if no count is given.
    pub fn new(
        count: Option<usize>,
        cores: &CoreSet,
        meter: Meter,
    ) -> Result<Pool, rayon::ThreadPoolBuildError> {
        let count = count.unwrap_or(if cores.floats() { 0 } else { cores.count() });
        meter.unwatched();
        let (wanted, shown) = (cores.clone(), meter.clone());
        let builder = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("pool-{i}"))
            .start_handler(move |_| match pinning::pin_current("pool", &wanted) {
                Ok(effective) => shown.on_cores(effective.iter().map(usize::from).collect()),
                Err(error) => log::error!("{error}"),
            });
        let threads = Arc::new(builder.build()?);
        Ok(Pool { threads, meter })
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Does `work` on one of the threads.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let meter = self.meter.clone();
        self.threads.spawn(move || {
            let began = Instant::now();
            work();
            meter.add_work(began.elapsed());
        });
    }
}
