//! Lower-case hexadecimal, for people and JSON. Input: bytes or text; output: text or bytes. Never used in hashed data.

/// Why a text is no hexadecimal of the wanted length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// The text has another length than wanted.
    #[error("expected {wanted} hex digits, found {found}")]
    Length {
        /// Digits wanted.
        wanted: usize,
        /// Characters found.
        found: usize,
    },
    /// A character is not 0-9, a-f or A-F.
    #[error("character {0:?} is not a hex digit")]
    Digit(char),
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hex of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn digit(c: u8) -> Result<u8, HexError> {
    match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        b'A'..=b'F' => Ok(c - b'A' + 10),
        _ => Err(HexError::Digit(char::from(c))),
    }
}

/// The bytes of a hex text of any even length.
pub fn decode(text: &str) -> Result<Vec<u8>, HexError> {
    let raw = text.as_bytes();
    if !raw.len().is_multiple_of(2) {
        return Err(HexError::Length {
            wanted: raw.len() + 1,
            found: raw.len(),
        });
    }
    raw.chunks_exact(2)
        .map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

/// Exactly `N` bytes from `2 N` hex digits.
pub fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    if text.len() != 2 * N {
        return Err(HexError::Length {
            wanted: 2 * N,
            found: text.chars().count(),
        });
    }
    let mut out = [0; N];
    for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_names_the_fault() {
        assert_eq!(encode(&[0, 0xab, 0xff]), "00abff");
        assert_eq!(decode("00ABff"), Ok(vec![0, 0xab, 0xff]));
        assert_eq!(decode_array::<2>("zz00"), Err(HexError::Digit('z')));
        assert_eq!(
            decode_array::<2>("00"),
            Err(HexError::Length {
                wanted: 4,
                found: 2
            })
        );
        assert!(decode("abc").is_err());
    }
}
