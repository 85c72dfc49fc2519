//! Values of configuration keys: what a text or TOML value means, and whether it fits its key.
//!
//! Job: check one value against its [`Kind`]; read endpoints and users. Inputs: values of any source.
//! Outputs: [`Value`], [`Endpoint`], [`RpcUser`], or a sentence that says what is wrong.
//! Never: touches files or the network; knows nothing of precedence.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use super::cores::CoreSet;
use super::keys::Kind;
use crate::base::hex;

/// Longest `HOST:PORT`, in bytes: an endpoint of the registry holds no more.
pub const ENDPOINT_SIZE_MAX: usize = 64;
/// Most elements of one list.
pub const LIST_COUNT_MAX: usize = 1_024;
/// Longest text value, in bytes.
pub const TEXT_SIZE_MAX: usize = 4_096;

/// A value as written, not yet given its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// true or false.
    Bool(bool),
    /// A whole number.
    Integer(u64),
    /// A string.
    Text(String),
    /// A list of strings.
    List(Vec<String>),
}

/// The value as TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Text(text) => f.write_str(&quoted(text)),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// `text` as a TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Reads the text of an environment variable or a command-line option as a value of `kind`. Lists are separated by commas,
/// but for [`Kind::UserMethods`], whose elements hold commas: there by semicolons.
pub fn from_text(kind: Kind, text: &str) -> Result<Value, String> {
    let list = |separator: char| {
        let items = text
            .split(separator)
            .map(str::trim)
            .filter(|item| !item.is_empty());
        Value::List(items.map(str::to_owned).collect())
    };
    match kind {
        Kind::Bool => match text {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(format!("\"{text}\" is neither true nor false")),
        },
        Kind::Integer { .. } => match text.replace('_', "").parse() {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => Err(format!("\"{text}\" is not a whole number")),
        },
        Kind::Endpoints | Kind::Addresses | Kind::Users => Ok(list(',')),
        Kind::UserMethods => Ok(list(';')),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// Says whether `value` fits `kind`; if not, what is wrong with it.
pub fn check(kind: Kind, value: &Value) -> Result<(), String> {
    match (kind, value) {
        (Kind::Bool, Value::Bool(_)) => Ok(()),
        (Kind::Integer { min, max }, Value::Integer(number)) => {
            if (min..=max).contains(number) {
                Ok(())
            } else {
                Err(format!("{number} is out of range"))
            }
        }
        (Kind::Bool | Kind::Integer { .. }, _) => Err(format!("{value} has the wrong type")),
        (_, Value::Text(text)) => check_text(kind, text),
        (_, Value::List(items)) => check_list(kind, items),
        _ => Err(format!("{value} has the wrong type")),
    }
}

fn check_text(kind: Kind, text: &str) -> Result<(), String> {
    if text.len() > TEXT_SIZE_MAX {
        return Err(format!("it is longer than {TEXT_SIZE_MAX} bytes"));
    }
    match kind {
        Kind::Choice(words) if words.contains(&text) => Ok(()),
        Kind::Choice(_) => Err(format!("\"{text}\" is not among them")),
        Kind::Path if text.contains('\0') => Err("a path holds no NUL".into()),
        Kind::Path => Ok(()),
        Kind::Name => check_wallet_name(text),
        Kind::Block if text.is_empty() => Ok(()),
        Kind::Block => crate::node::trust::parse_root(text).map(drop),
        Kind::Endpoint if text.is_empty() => Ok(()),
        Kind::Endpoint => Endpoint::parse(text).map(drop),
        Kind::Cores => CoreSet::parse(text).map(drop),
        Kind::LogFilter => check_log_filter(text),
        _ => Err(format!("\"{text}\" has the wrong type")),
    }
}

fn check_list(kind: Kind, items: &[String]) -> Result<(), String> {
    if items.len() > LIST_COUNT_MAX {
        return Err(format!("it has more than {LIST_COUNT_MAX} elements"));
    }
    for item in items {
        if item.len() > TEXT_SIZE_MAX {
            return Err(format!("an element is longer than {TEXT_SIZE_MAX} bytes"));
        }
        match kind {
            Kind::Endpoints => Endpoint::parse(item).map(drop)?,
            Kind::Addresses => parse_address(item).map(drop)?,
            Kind::Users => RpcUser::parse(item).map(drop)?,
            Kind::UserMethods => parse_user_methods(item).map(drop)?,
            _ => return Err("a list has the wrong type".into()),
        }
    }
    Ok(())
}

fn check_wallet_name(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= 64 && !text.starts_with('.') && text.chars().all(plain) {
        Ok(())
    } else {
        Err(format!(
            "\"{text}\" is not a wallet name (letters, digits, - _ ., at most 64)"
        ))
    }
}

fn check_log_filter(text: &str) -> Result<(), String> {
    for part in text.split(',') {
        let level = part
            .rsplit_once('=')
            .map_or(part, |(_, level)| level)
            .trim();
        if level.parse::<log::LevelFilter>().is_err() {
            return Err(format!("\"{level}\" is not a log level"));
        }
    }
    Ok(())
}

/// Reads `IP:PORT`.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("\"{text}\" is not IP:PORT, as 127.0.0.1:24101 or [::1]:24101"))
}

/// `HOST:PORT`: a host name or an IP address (IPv6 in brackets), and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

impl Endpoint {
    /// Reads `HOST:PORT`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("\"{text}\" is not HOST:PORT: {why}"));
        if text.len() > ENDPOINT_SIZE_MAX {
            return wrong("it is longer than 64 bytes");
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            if address.port() == 0 {
                return wrong("the port is 0");
            }
            return Ok(Endpoint {
                host: address.ip().to_string(),
                port: address.port(),
            });
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong("there is no port");
        };
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        if !host.split('.').all(label) {
            return wrong("that is no host name");
        }
        match port.parse() {
            Ok(0) | Err(_) => wrong("the port is not 1 to 65535"),
            Ok(port) => Ok(Endpoint {
                host: host.to_owned(),
                port,
            }),
        }
    }

    /// Asks the resolver for the addresses. Blocks: never call it on a thread that votes or polls.
    pub fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One user of the RPC, as `time-cli rpcauth` makes it: the password itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcUser {
    /// User name.
    pub name: String,
    /// Salt, as text: its bytes key the HMAC.
    pub salt: String,
    /// HMAC-SHA256 of the password under the salt.
    pub hash: [u8; 32],
    /// Methods this user may call; all if None.
    pub methods: Option<BTreeSet<String>>,
}

impl RpcUser {
    /// Reads `NAME:SALT$HASH`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "a user is not NAME:SALT$HASH, as time-cli rpcauth prints it".to_owned();
        let (name, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (salt, hash) = rest.split_once('$').ok_or_else(wrong)?;
        let hash = hex::decode_array(hash).map_err(|_| wrong())?;
        if name.is_empty() || salt.is_empty() {
            return Err(wrong());
        }
        Ok(RpcUser {
            name: name.to_owned(),
            salt: salt.to_owned(),
            hash,
            methods: None,
        })
    }
}

/// Reads `NAME:METHOD,METHOD`.
pub fn parse_user_methods(text: &str) -> Result<(String, BTreeSet<String>), String> {
    let (name, methods) = text
        .split_once(':')
        .ok_or_else(|| format!("\"{text}\" is not NAME:METHOD,METHOD"))?;
    let methods = methods
        .split(',')
        .map(str::trim)
        .filter(|method| !method.is_empty());
    Ok((name.to_owned(), methods.map(str::to_owned).collect()))
}

/// The known name nearest to `wrong`, if one is near enough to be a slip: at most a third of its letters changed.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.map(|name| (distance(wrong, name), name)).min()?;
    (best.0 * 3 <= best.1.len().max(3)).then_some(best.1)
}

/// Edit distance (insert, delete, replace) of two names, by bytes.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn endpoints_take_names_and_both_address_families() {
        for text in [
            "a.example:24100",
            "127.0.0.1:1",
            "[::1]:24100",
            "seed-1:65535",
        ] {
            let endpoint = Endpoint::parse(text).expect(text);
            assert_eq!(
                endpoint.to_string(),
                text,
                "what is read is written the same"
            );
        }
        for text in [
            "",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "::1:5",
            ":5",
            "a..b:5",
            "a b:5",
            "127.0.0.1:0",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text} is no endpoint");
        }
        assert!(
            Endpoint::parse(&format!("{}:1", "a".repeat(63))).is_err(),
            "64 bytes are the bound"
        );
    }

    #[test]
    fn rpc_users_are_as_rpcauth_prints_them() {
        let hash = "ab".repeat(32);
        let user = RpcUser::parse(&format!("alice:5a1t${hash}")).expect("valid");
        assert_eq!(
            (user.name.as_str(), user.salt.as_str(), user.hash),
            ("alice", "5a1t", [0xab; 32])
        );
        for text in ["alice", "alice:salt", ":salt$00", "alice:secretpassword$zz"] {
            let error = RpcUser::parse(text).expect_err(text);
            assert!(
                !error.contains("secretpassword"),
                "an error never repeats what may be a password"
            );
        }
    }

    #[test]
    fn nearest_offers_slips_only() {
        let known = ["max_inbound", "max_outbound", "bind"];
        assert_eq!(
            nearest("max_inbond", known.into_iter()),
            Some("max_inbound")
        );
        assert_eq!(nearest("bnd", known.into_iter()), Some("bind"));
        assert_eq!(
            nearest("colour", known.into_iter()),
            None,
            "nothing near: no guess"
        );
    }

    #[test]
    fn integers_outside_the_range_are_refused() {
        let kind = Kind::Integer { min: 8, max: 1_024 };
        assert!(check(kind, &Value::Integer(8)).is_ok());
        assert!(check(kind, &Value::Integer(1_024)).is_ok());
        assert!(check(kind, &Value::Integer(7)).is_err());
        assert!(check(kind, &Value::Integer(1_025)).is_err());
        assert!(
            check(kind, &Value::Text("8".into())).is_err(),
            "a string is no number"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_checked_without_panic(text in ".{0,80}") {
            for key in super::super::keys() {
                if let Ok(value) = from_text(key.kind, &text) {
                    let _ = check(key.kind, &value);
                }
            }
        }

        #[test]
        fn text_written_as_toml_reads_back(text in ".{0,40}") {
            let line = format!("k = {}", Value::Text(text.clone()));
            let table: toml::Table = toml::from_str(&line).expect("valid TOML");
            prop_assert_eq!(table["k"].as_str(), Some(text.as_str()));
        }
    }
}
