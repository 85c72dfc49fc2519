//! Frames: the wire format inside TLS (P1, B2b), and the decoder that never trusts a length.
//!
//! A connection carries *units*, one after the other. All integers are little endian.
//! ```text
//!  0        4      5                5+n
//!  +--------+------+----------------+
//!  | n: u32 | kind |  body: n bytes |      n <= 16,384 (UNIT_MAX)
//!  +--------+------+----------------+
//!
//!  kind 0x00..=0xBF  a whole frame:     kind = frame type, body = payload (0..=16,384 bytes)
//!
//!  kind 0xC0 + c     a first fragment of class c, n = 16,384:
//!                    +------------+------+---------------------+
//!                    | total: u32 | type |  data: 16,379 bytes |    total = payload length > 16,384
//!                    +------------+------+---------------------+
//!
//!  kind 0xD0 + c     a further fragment of class c: body = data, n = min(what is missing, 16,384)
//!
//!  any other kind    a fault
//!
//!  c: 0 consensus, 1 control, 2 liveness, 3 fork, 4 tx, 5 sync (the order in which a sender chooses its next unit)
//! ```
//! A payload of up to 16 KiB travels as a whole frame, a longer one in fragments: there is one encoding per payload.
//! Units of different classes interleave freely, so a vote waits behind one unit of a block, not behind the block.
//! Within a class nothing comes between the fragments of a frame: one unfinished frame per class (P1).
//!
//! Input: bytes in any portions, and a rule per frame type. Output: frames in the order in which they were completed,
//! or one [`Fault`]. Must never allocate by a claimed length: the claim is checked against the rule of the type first,
//! and the buffer grows only as bytes arrive.

use std::fmt;

use super::limits::{FIRST_FRAGMENT_DATA, FIRST_FRAGMENT_HEAD, UNIT_HEADER, UNIT_MAX};

/// Greatest frame type that the layer above may use; the rest of the byte marks fragments.
pub const FRAME_TYPE_MAX: u8 = 0xBF;
const KIND_FIRST: u8 = 0xC0;
const KIND_FURTHER: u8 = 0xD0;

/// Traffic class of a frame type (B2b). The order is the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Proposals, votes, polkas, bodies, certificates. First in and out (P2).
    Consensus = 0,
    /// Hello, OperatorProof, Ping, Pong, Status, peer exchange, Reject.
    Control = 1,
    /// Heartbeats, attestations, evidence.
    Liveness = 2,
    /// Fork proofs, statements, recovery certificates.
    Fork = 3,
    /// Transactions and their inventories.
    Tx = 4,
    /// Headers, blocks, snapshots.
    Sync = 5,
}

impl Class {
    /// All classes, in the order of sending.
    pub const ALL: [Class; 6] = [
        Class::Consensus,
        Class::Control,
        Class::Liveness,
        Class::Fork,
        Class::Tx,
        Class::Sync,
    ];

    /// Place in [`Class::ALL`]; the class id on the wire.
    pub fn index(self) -> usize {
        self as usize
    }

    fn from_id(id: u8) -> Option<Class> {
        Class::ALL.get(usize::from(id)).copied()
    }

    /// Name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Consensus => "consensus",
            Class::Control => "control",
            Class::Liveness => "liveness",
            Class::Fork => "fork",
            Class::Tx => "tx",
            Class::Sync => "sync",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the layer above allows for a frame type at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRule {
    /// Longest payload, bytes.
    pub limit: usize,
    /// Class of the type.
    pub class: Class,
}

/// A complete frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub frame_type: u8,
    pub payload: Vec<u8>,
}

/// A provable fault of the peer (P3): the bytes it sent, inside authenticated TLS, break the frame format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The rule of the layer above knows no such type, or not now (before Hello only Hello is read).
    #[error("frame type {0} is not allowed here")]
    RefusedType(u8),
    /// The claimed length is above the limit of the type, or of a unit.
    #[error("frame of type {frame_type} claims {claimed} bytes, its limit is {limit}")]
    Oversized {
        frame_type: u8,
        claimed: usize,
        limit: usize,
    },
    /// Kind byte that no version of this format uses.
    #[error("unknown unit kind {0:#04x}")]
    UnknownUnit(u8),
    /// Fragments that do not follow the format.
    #[error("malformed fragment: {0}")]
    BadFragment(&'static str),
}

/// Where the body of the unit being read goes.
#[derive(Clone, Copy)]
enum Body {
    Whole { frame_type: u8 },
    Fragment { class: Class },
}

/// A frame of which some fragments are still missing.
struct Unfinished {
    frame_type: u8,
    total: usize,
    data: Vec<u8>,
    /// Which frame of the connection it is.
    serial: u64,
}

/// Turns bytes into frames. After a fault it is of no further use: the connection is closed.
pub struct FrameDecoder {
    head: [u8; UNIT_HEADER + FIRST_FRAGMENT_HEAD],
    head_len: usize,
    body: Option<(Body, usize)>,
    whole: Vec<u8>,
    unfinished: [Option<Unfinished>; 6],
    /// Frames in fragments that were begun.
    started: u64,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameDecoder {
    /// A decoder at the start of a connection.
    pub fn new() -> Self {
        FrameDecoder {
            head: [0; UNIT_HEADER + FIRST_FRAGMENT_HEAD],
            head_len: 0,
            body: None,
            whole: Vec::new(),
            unfinished: Default::default(),
            started: 0,
        }
    }

    /// Reads from `input` until a frame is complete (`Some`) or the input is used up (`None`). `rule` is asked once
    /// per frame, before any of its payload is stored.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        mut rule: impl FnMut(u8) -> Option<FrameRule>,
    ) -> Result<Option<Frame>, Fault> {
        loop {
            if self.body.is_none() && !self.read_head(input, &mut rule)? {
                return Ok(None);
            }
            match self.read_body(input) {
                Progress::Frame(frame) => return Ok(Some(frame)),
                Progress::UnitDone => {}
                Progress::Starved => return Ok(None),
            }
        }
    }

    /// Bytes held for frames that are not complete.
    pub fn buffered(&self) -> usize {
        self.whole.len()
            + self
                .unfinished
                .iter()
                .flatten()
                .map(|frame| frame.data.len())
                .sum::<usize>()
    }

    /// The oldest frame of which fragments are missing: a number that no other frame of the connection has.
    pub fn oldest_unfinished(&self) -> Option<u64> {
        let frames = self.unfinished.iter().flatten();
        frames.map(|frame| frame.serial).min()
    }

    /// Collects a unit header; true when `body` says where the rest goes.
    fn read_head(
        &mut self,
        input: &mut &[u8],
        rule: &mut impl FnMut(u8) -> Option<FrameRule>,
    ) -> Result<bool, Fault> {
        if !self.collect_head(input, UNIT_HEADER) {
            return Ok(false);
        }
        let length = u32_at(&self.head, 0);
        let kind = self.head[4];
        let next = match kind {
            0..=FRAME_TYPE_MAX => {
                let FrameRule { limit, class } = rule(kind).ok_or(Fault::RefusedType(kind))?;
                let limit = limit.min(UNIT_MAX);
                if length > limit {
                    return Err(Fault::Oversized {
                        frame_type: kind,
                        claimed: length,
                        limit,
                    });
                }
                if self.unfinished[class.index()].is_some() {
                    return Err(Fault::BadFragment(
                        "a frame inside an unfinished frame of its class",
                    ));
                }
                (Body::Whole { frame_type: kind }, length)
            }
            _ => match (kind & 0xF0, Class::from_id(kind & 0x0F)) {
                (KIND_FIRST, Some(class)) => {
                    if length != UNIT_MAX {
                        return Err(Fault::BadFragment("a first fragment must be full"));
                    }
                    if !self.collect_head(input, UNIT_HEADER + FIRST_FRAGMENT_HEAD) {
                        return Ok(false);
                    }
                    self.start_frame(class, rule)?;
                    (Body::Fragment { class }, FIRST_FRAGMENT_DATA)
                }
                (KIND_FURTHER, Some(class)) => {
                    let Some(frame) = &self.unfinished[class.index()] else {
                        return Err(Fault::BadFragment("a further fragment without a first"));
                    };
                    if length != (frame.total - frame.data.len()).min(UNIT_MAX) {
                        return Err(Fault::BadFragment(
                            "a fragment must be full, or hold exactly the rest",
                        ));
                    }
                    (Body::Fragment { class }, length)
                }
                _ => return Err(Fault::UnknownUnit(kind)),
            },
        };
        self.head_len = 0;
        self.body = Some(next);
        Ok(true)
    }

    fn collect_head(&mut self, input: &mut &[u8], want: usize) -> bool {
        let missing = want.saturating_sub(self.head_len).min(input.len());
        let (now, later) = input.split_at(missing);
        self.head[self.head_len..self.head_len + missing].copy_from_slice(now);
        self.head_len += missing;
        *input = later;
        self.head_len >= want
    }

    /// Judges the head of a first fragment; only what it claims is known, nothing is allocated yet.
    fn start_frame(
        &mut self,
        class: Class,
        rule: &mut impl FnMut(u8) -> Option<FrameRule>,
    ) -> Result<(), Fault> {
        let total = u32_at(&self.head, UNIT_HEADER);
        let frame_type = self.head[UNIT_HEADER + 4];
        if frame_type > FRAME_TYPE_MAX {
            return Err(Fault::RefusedType(frame_type));
        }
        let rule = rule(frame_type).ok_or(Fault::RefusedType(frame_type))?;
        if rule.class != class {
            return Err(Fault::BadFragment(
                "the class is not that of the frame type",
            ));
        }
        if total > rule.limit {
            return Err(Fault::Oversized {
                frame_type,
                claimed: total,
                limit: rule.limit,
            });
        }
        if total <= UNIT_MAX {
            return Err(Fault::BadFragment("a short frame must travel whole"));
        }
        if self.unfinished[class.index()].is_some() {
            return Err(Fault::BadFragment("a second unfinished frame of a class"));
        }
        self.unfinished[class.index()] = Some(Unfinished {
            frame_type,
            total,
            data: Vec::new(),
            serial: self.started,
        });
        self.started += 1;
        Ok(())
    }

    fn read_body(&mut self, input: &mut &[u8]) -> Progress {
        let Some((body, left)) = self.body else {
            return Progress::Starved;
        };
        let (now, later) = input.split_at(left.min(input.len()));
        *input = later;
        let left = left - now.len();
        self.body = if left == 0 { None } else { Some((body, left)) };
        match body {
            Body::Whole { frame_type } => {
                if left > 0 {
                    self.whole.extend_from_slice(now);
                    return Progress::Starved;
                }
                let mut payload = std::mem::take(&mut self.whole);
                payload.reserve_exact(now.len());
                payload.extend_from_slice(now);
                Progress::Frame(Frame {
                    frame_type,
                    payload,
                })
            }
            Body::Fragment { class } => {
                let slot = &mut self.unfinished[class.index()];
                if let Some(frame) = slot {
                    frame.store(now);
                }
                if left > 0 {
                    return Progress::Starved;
                }
                match slot.take_if(|frame| frame.data.len() == frame.total) {
                    Some(frame) => Progress::Frame(Frame {
                        frame_type: frame.frame_type,
                        payload: frame.data,
                    }),
                    None => Progress::UnitDone,
                }
            }
        }
    }
}

enum Progress {
    Frame(Frame),
    UnitDone,
    Starved,
}

impl Unfinished {
    /// Grows at most to twice of what has arrived, never above the checked total.
    fn store(&mut self, bytes: &[u8]) {
        let need = self.data.len() + bytes.len();
        if need > self.data.capacity() {
            let target = (2 * need).min(self.total);
            self.data.reserve_exact(target - self.data.len());
        }
        self.data.extend_from_slice(bytes);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word) as usize
}

/// Appends the next unit of a frame to `out`: `sent` payload bytes of it have gone before. Returns how many payload
/// bytes the unit carries; with `sent` = 0 and a payload up to 16 KiB this is the whole frame.
pub(super) fn encode_unit(
    out: &mut Vec<u8>,
    class: Class,
    frame_type: u8,
    payload: &[u8],
    sent: usize,
) -> usize {
    let id = class as u8;
    let rest = &payload[sent..];
    if sent == 0 && payload.len() <= UNIT_MAX {
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.push(frame_type);
        out.extend_from_slice(payload);
        return payload.len();
    }
    let data = if sent == 0 {
        out.extend_from_slice(&(UNIT_MAX as u32).to_le_bytes());
        out.push(KIND_FIRST + id);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.push(frame_type);
        &rest[..FIRST_FRAGMENT_DATA]
    } else {
        let data = &rest[..rest.len().min(UNIT_MAX)];
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.push(KIND_FURTHER + id);
        data
    };
    out.extend_from_slice(data);
    data.len()
}

/// Appends a whole frame, in fragments where it needs them, to `out`. For tests, tools and fuzz targets; a connection
/// cuts its frames unit by unit. `frame_type` is at most [`FRAME_TYPE_MAX`].
pub fn encode_frame(out: &mut Vec<u8>, class: Class, frame_type: u8, payload: &[u8]) {
    let mut sent = encode_unit(out, class, frame_type, payload, 0);
    while sent < payload.len() {
        sent += encode_unit(out, class, frame_type, payload, sent);
    }
}
