//! One peer connection without its socket: TLS, frames in, queues out.
//!
//! Input: bytes of the peer, frames to send. Output: frames, bytes to send. Must never touch a socket or a clock, so
//! that two sessions can talk to each other in a test, byte by byte.

use std::sync::Arc;

use super::frame::{Class, Fault, Frame, FrameDecoder, FrameRule};
use super::limits::{READ_CHUNK, SEAL_CHUNK};
use super::outbound::{Full, Outbound};
use super::tls::{Proven, TlsSession};
use super::window::Window;

/// TLS, decoder and queues of one peer.
pub(super) struct Session {
    tls: TlsSession,
    plain: Window,
    decoder: FrameDecoder,
    out: Outbound,
    wire: Window,
    delivered: u64,
    pub frames_in: u64,
    pub frames_out: u64,
}

impl Session {
    pub fn new(tls: TlsSession) -> Self {
        Session {
            tls,
            plain: Window::default(),
            decoder: FrameDecoder::new(),
            out: Outbound::default(),
            wire: Window::default(),
            delivered: 0,
            frames_in: 0,
            frames_out: 0,
        }
    }

    /// Takes bytes of the peer in. After an error the output holds the alert to send.
    pub fn ingest(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        self.tls.ingest(bytes, self.plain.tail())
    }

    /// The next complete frame of what was taken in.
    pub fn next_frame(
        &mut self,
        rule: impl FnMut(u8) -> Option<FrameRule>,
    ) -> Result<Option<Frame>, Fault> {
        let mut input = self.plain.rest();
        let before = input.len();
        let frame = self.decoder.next(&mut input, rule)?;
        let used = before - input.len();
        self.plain.consume(used);
        self.frames_in += u64::from(frame.is_some());
        Ok(frame)
    }

    /// See [`FrameDecoder::oldest_unfinished`].
    pub fn oldest_unfinished(&self) -> Option<u64> {
        self.decoder.oldest_unfinished()
    }

    pub fn push(&mut self, class: Class, frame_type: u8, payload: Arc<[u8]>) -> Result<(), Full> {
        self.out.push(class, frame_type, payload)
    }

    /// Bytes to send; seals the next portion of the queues when nothing is left of the last one.
    pub fn wire(&mut self, gather: &mut Vec<u8>) -> Result<&[u8], rustls::Error> {
        if self.wire.is_empty() {
            self.delivered = self.out.cut();
            if !self.tls.is_handshaking() && !self.out.is_empty() {
                gather.clear();
                self.frames_out += self.out.fill(gather, SEAL_CHUNK);
                self.tls.seal(gather)?;
            }
        }
        self.tls.take_output(self.wire.tail());
        Ok(self.wire.rest())
    }

    /// The socket took `count` bytes of [`Session::wire`].
    pub fn sent(&mut self, count: usize) {
        self.wire.consume(count);
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The peer said goodbye and everything before that is delivered.
    pub fn is_finished(&self) -> bool {
        self.tls.peer_closed()
    }

    pub fn proven(&self) -> Result<Proven, rustls::Error> {
        self.tls.proven()
    }

    pub fn say_close(&mut self) {
        self.tls.say_close();
    }

    /// Frames are waiting for the socket.
    pub fn has_output(&self) -> bool {
        !self.wire.is_empty() || !self.out.is_empty()
    }

    /// Marks for the drain timeout: cost of frames taken in, and of those that reached the kernel.
    pub fn drain_marks(&self) -> (u64, u64) {
        (self.out.taken_in(), self.delivered)
    }

    /// Bytes that wait for the peer.
    pub fn queued(&self) -> usize {
        self.out.queued() + self.wire.rest().len()
    }

    /// Gives back the memory of buffers that are empty: hundreds of idle peers must cost little.
    pub fn release(&mut self) {
        self.plain.release();
        self.wire.release();
    }
}

const _: () = assert!(
    SEAL_CHUNK <= READ_CHUNK,
    "what one peer seals at once, the other reads at once"
);
