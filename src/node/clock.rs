//! The one place where clocks are read. Threads take a [`Now`] here and hand it to machines.

use crate::base::time::{MonoUs, Now, WallMs};
use std::time::{Duration, Instant, SystemTime};

/// The clocks of this process. Copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Clock {
            start: Instant::now(),
        }
    }
}

impl Clock {
    /// Both clocks, now.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall = wall.map_or(0, |since| since.as_millis() as u64);
        Now {
            wall: WallMs(wall),
            mono: self.mono(),
        }
    }

    /// The monotonic clock, now.
    pub fn mono(&self) -> MonoUs {
        MonoUs(self.start.elapsed().as_micros() as u64)
    }

    /// Time since the process started.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    /// The operating system's instant of a monotonic time.
    pub fn instant(&self, at: MonoUs) -> Instant {
        self.start + Duration::from_micros(at.0)
    }

    /// How long until `at`; zero if it has passed.
    pub fn until(&self, at: MonoUs) -> Duration {
        Duration::from_micros(at.since(self.mono()))
    }
}
