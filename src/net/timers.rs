//! Deadlines of many owners in one heap; mio has no timers of its own.
//!
//! An owner computes its deadline from its state; the heap only remembers when to look at whom. Input: `arm`. Output:
//! owners that are due. Must never decide that something is late: the owner is asked again when its time comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Deadlines in order. An owner that moves its deadline to a later time leaves its entry alone and is looked at early.
pub(super) struct Timers<K: Ord> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord + Copy> Timers<K> {
    pub fn new() -> Self {
        Timers {
            heap: BinaryHeap::new(),
        }
    }

    /// Remembers to look at `owner` at `at`.
    pub fn arm(&mut self, at: Instant, owner: K) {
        self.heap.push(Reverse((at, owner)));
    }

    /// When to look next.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one owner whose time has come, with the time it was armed for.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reactor::any_instant;
    use super::*;
    use std::time::Duration;

    #[test]
    fn owners_come_out_when_due_and_in_order() {
        let zero = any_instant();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut timers = Timers::new();
        timers.arm(at(30), 'c');
        timers.arm(at(10), 'a');
        timers.arm(at(20), 'b');
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop_due(at(5)), None, "nobody is due before his time");
        assert_eq!(timers.pop_due(at(25)), Some((at(10), 'a')));
        assert_eq!(timers.pop_due(at(25)), Some((at(20), 'b')));
        assert_eq!(timers.pop_due(at(25)), None);
    }
}
