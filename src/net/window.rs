//! A byte buffer that is filled at the end and consumed from the front.
//!
//! Input: appended bytes. Output: the bytes not yet consumed. Must never keep what was consumed once it is appended to.

/// Bytes that are consumed from the front.
#[derive(Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    at: usize,
}

impl Window {
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.at = 0;
        }
    }

    /// The buffer to append to; what was consumed is dropped first.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        &mut self.bytes
    }

    /// Gives the memory of an empty window back.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Window::default();
        }
    }
}
