//! What happened, in lines: the newest ones for a trace around a failure, and a fingerprint of all of them.

use std::collections::VecDeque;

/// Lines kept for a trace.
const TRACE_LINES: usize = 200;

/// The log of one run.
#[derive(Debug, Clone)]
pub struct Log {
    newest: VecDeque<String>,
    all: Option<Vec<String>>,
    fingerprint: u64,
    lines: u64,
}

impl Log {
    /// An empty log; `keep` keeps every line.
    pub fn new(keep: bool) -> Log {
        Log {
            newest: VecDeque::new(),
            all: keep.then(Vec::new),
            fingerprint: 0xcbf2_9ce4_8422_2325,
            lines: 0,
        }
    }

    /// Adds a line of simulated time `at`, µs.
    pub fn line(&mut self, at: u64, text: &str) {
        let line = format!("{:>12}.{:06} {text}", at / 1_000_000, at % 1_000_000);
        for byte in line.bytes() {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines += 1;
        if let Some(all) = &mut self.all {
            all.push(line.clone());
        }
        if self.newest.len() >= TRACE_LINES {
            self.newest.pop_front();
        }
        self.newest.push_back(line);
    }

    /// FNV-1a over all lines.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
    /// How many lines there were.
    pub fn len(&self) -> u64 {
        self.lines
    }
    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }
    /// The newest lines.
    pub fn trace(&self) -> Vec<String> {
        self.newest.iter().cloned().collect()
    }
    /// All lines, if they were kept.
    pub fn all(&self) -> &[String] {
        self.all.as_deref().unwrap_or_default()
    }
}
