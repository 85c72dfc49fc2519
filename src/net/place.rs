//! What a mio token points at.
//!
//! A token is 64 bits: generation (32), kind (2), index (30). Input and output: the two forms of it.

use mio::Token;

use super::slab::Key;

const KIND_SHIFT: u32 = 30;
const INDEX_MASK: usize = (1 << KIND_SHIFT) - 1;

/// Somebody whom readiness or time concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Waker,
    Listener(usize),
    Conn(Key),
    Http(Key),
}

impl Place {
    pub fn token(self) -> Token {
        let (kind, index, generation) = match self {
            Place::Waker => (0, 0, 0),
            Place::Listener(index) => (1, index, 0),
            Place::Conn(key) => (2, key.index as usize, key.generation as usize),
            Place::Http(key) => (3, key.index as usize, key.generation as usize),
        };
        Token(generation << 32 | kind << KIND_SHIFT | index & INDEX_MASK)
    }

    pub fn of(token: Token) -> Place {
        let index = token.0 & INDEX_MASK;
        let key = Key {
            index: index as u32,
            generation: (token.0 >> 32) as u32,
        };
        match token.0 >> KIND_SHIFT & 3 {
            0 => Place::Waker,
            1 => Place::Listener(index),
            2 => Place::Conn(key),
            _ => Place::Http(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        let key = Key {
            index: 123_456,
            generation: u32::MAX,
        };
        for place in [
            Place::Waker,
            Place::Listener(3),
            Place::Conn(key),
            Place::Http(key),
        ] {
            assert_eq!(Place::of(place.token()), place);
        }
    }
}
