//! Who calls: the cookie of this start, or a user of the configuration (`rpcauth`: salted HMAC-SHA256, as Bitcoin Core's).
//!
//! Input: the Authorization field. Output: a user with the methods it may call, or the refusal. Secrets are compared in
//! constant time, and an unknown name costs what a known one costs.

use crate::base::hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::BTreeSet;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The user name in a cookie file.
pub const COOKIE_NAME: &str = "__cookie__";

/// A user of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Name.
    pub name: String,
    /// Salt as it is written (Bitcoin Core uses the hex text itself as HMAC key).
    pub salt: String,
    /// HMAC-SHA256 of the password under the salt.
    pub hash: [u8; 32],
    /// Methods it may call; `None`: all.
    pub methods: Option<BTreeSet<String>>,
}

/// Who was recognised.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    /// Name; [`COOKIE_NAME`] for the cookie.
    pub name: String,
    /// Methods it may call; `None`: all.
    pub methods: Option<BTreeSet<String>>,
}

impl User {
    /// Whether it may call `method`.
    pub fn may(&self, method: &str) -> bool {
        self.methods.as_ref().is_none_or(|set| set.contains(method))
    }
}

/// Why nobody was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No Authorization field.
    Missing,
    /// Not Basic, or not readable: answered at once, for it proves no attempt at a password.
    Malformed,
    /// Wrong name or password: answered late.
    Wrong,
}

/// Everybody who may call.
#[derive(Debug)]
pub struct Users {
    cookie: Option<(Zeroizing<String>, Arc<User>)>,
    users: Vec<(Credential, Arc<User>)>,
}

/// The HMAC that a configuration holds for a password: what `time-cli rpcauth` prints.
pub fn password_hash(salt: &str, password: &str) -> [u8; 32] {
    let mut out = [0; 32];
    // An HMAC takes a key of any length, so this always succeeds.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(salt.as_bytes()) {
        mac.update(password.as_bytes());
        out.copy_from_slice(&mac.finalize().into_bytes());
    }
    out
}

impl Users {
    /// `cookie`: the password in the cookie file.
    pub fn new(cookie: Option<String>, credentials: Vec<Credential>) -> Users {
        let user = |name: &str, methods| {
            Arc::new(User {
                name: name.into(),
                methods,
            })
        };
        Users {
            cookie: cookie.map(|secret| (Zeroizing::new(secret), user(COOKIE_NAME, None))),
            users: credentials
                .into_iter()
                .map(|c| {
                    let known = user(&c.name, c.methods.clone());
                    (c, known)
                })
                .collect(),
        }
    }

    /// Recognises the sender of an Authorization field.
    pub fn recognise(&self, field: Option<&str>) -> Result<Arc<User>, Refusal> {
        let field = field.ok_or(Refusal::Missing)?;
        let (scheme, encoded) = field.split_once(' ').ok_or(Refusal::Malformed)?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Refusal::Malformed);
        }
        let decoded = Zeroizing::new(base64(encoded.trim()).ok_or(Refusal::Malformed)?);
        let text = std::str::from_utf8(&decoded).map_err(|_| Refusal::Malformed)?;
        let (name, password) = text.split_once(':').ok_or(Refusal::Malformed)?;
        if name == COOKIE_NAME {
            return match &self.cookie {
                Some((secret, user)) if same(secret.as_bytes(), password.as_bytes()) => {
                    Ok(user.clone())
                }
                _ => Err(Refusal::Wrong),
            };
        }
        // Every entry is hashed, so the time tells nothing about which names exist.
        let mut found = None;
        for (credential, user) in &self.users {
            let hash = password_hash(&credential.salt, password);
            let right =
                same(&hash, &credential.hash) & same(name.as_bytes(), credential.name.as_bytes());
            if right {
                found = Some(user.clone());
            }
        }
        found.ok_or(Refusal::Wrong)
    }
}

/// Constant time for equal lengths; secrets here have a public length.
fn same(a: &[u8], b: &[u8]) -> bool {
    bool::from(a.ct_eq(b))
}

/// Bytes of standard base64, padding optional; `None` if it is none.
fn base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    if text.len() - body.len() > 2 || body.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(body.len() * 3 / 4);
    for group in body.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for (i, byte) in group.iter().enumerate() {
            bits |= u32::from(sextet(*byte)?) << (18 - 6 * i);
        }
        let [_, a, b, c] = bits.to_be_bytes();
        out.extend_from_slice(&[a, b, c][..group.len() - 1]);
    }
    Some(out)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// A line of the configuration for a user: `name:salt$hash`, as Bitcoin Core's rpcauth.
pub fn rpcauth_line(name: &str, salt: &str, password: &str) -> String {
    format!(
        "{name}:{salt}${}",
        hex::encode(&password_hash(salt, password))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn users() -> Users {
        let credential = Credential {
            name: "alice".into(),
            salt: "f7efda5c189b999524f151318c0c86".into(),
            hash: password_hash("f7efda5c189b999524f151318c0c86", "secret"),
            methods: Some(BTreeSet::from(["uptime".to_string()])),
        };
        Users::new(Some("00ff".into()), vec![credential])
    }

    fn recognise(plain: &str) -> Result<String, Refusal> {
        let field = format!("Basic {}", encode64(plain.as_bytes()));
        users()
            .recognise(Some(&field))
            .map(|user| user.name.clone())
    }

    fn encode64(bytes: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for group in bytes.chunks(3) {
            let mut raw = [0; 3];
            raw[..group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes([0, raw[0], raw[1], raw[2]]);
            for i in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char;
                out.push(if i <= group.len() { digit } else { '=' });
            }
        }
        out
    }

    #[test]
    fn the_cookie_and_a_user_are_recognised_and_nobody_else() {
        assert_eq!(recognise("__cookie__:00ff"), Ok("__cookie__".into()));
        assert_eq!(recognise("alice:secret"), Ok("alice".into()));
        for wrong in [
            "__cookie__:00fe",
            "__cookie__:",
            "alice:Secret",
            "bob:secret",
            "alice:",
            ":",
            "__cookie__:secret",
        ] {
            assert_eq!(recognise(wrong), Err(Refusal::Wrong), "{wrong}");
        }
        let users = users();
        assert_eq!(users.recognise(None), Err(Refusal::Missing));
        for bad in [
            "",
            "Basic",
            "Basic !",
            "Bearer abcd",
            "Basic YWxpY2U=",
            "Basic /w==",
        ] {
            assert_eq!(users.recognise(Some(bad)), Err(Refusal::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_list_of_methods_is_all_that_a_user_may_call() {
        let field = format!("basic {}", encode64(b"alice:secret"));
        let user = users().recognise(Some(&field)).unwrap();
        assert!(user.may("uptime") && !user.may("stop"));
    }

    #[test]
    fn the_hash_is_hmac_sha256_with_the_salt_text_as_key() {
        // RFC 4231, test case 2.
        assert_eq!(
            hex::encode(&password_hash("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert!(
            rpcauth_line("a", "Jefe", "what do ya want for nothing?").starts_with("a:Jefe$5bdc")
        );
    }

    proptest! {
        #[test]
        fn base64_reads_what_it_wrote(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let text = encode64(&bytes);
            prop_assert_eq!(base64(&text), Some(bytes.clone()));
            prop_assert_eq!(base64(text.trim_end_matches('=')), Some(bytes));
        }

        #[test]
        fn any_field_is_answered(text in "\\PC{0,60}") {
            let field = format!("Basic {text}");
            prop_assert!(users().recognise(Some(&text)).is_err());
            prop_assert!(users().recognise(Some(&field)).is_err());
        }
    }
}
