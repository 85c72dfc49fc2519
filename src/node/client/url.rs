//! Where a node's HTTP port is.
//!
//! Job: read and write `http://HOST:PORT/PATH`. Inputs: text. Outputs: [`Url`]. Never: resolves names, takes secrets in a URL.

use std::fmt;
use std::str::FromStr;

/// `http://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Beginning with a slash.
    pub path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let form = "write it as http://127.0.0.1:24301/";
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest,
            Some((scheme, _)) => {
                return Err(format!(
                    "'{text}': a node speaks plain http, not {scheme}; {form}"
                ));
            }
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err(
                "a URL must not hold a password (others see command lines): put user:password into a file and name it with --rpc-cookie"
                    .to_owned(),
            );
        }
        let (host, port) = authority
            .rsplit_once(':')
            .ok_or_else(|| format!("'{text}' names no port; {form}"))?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("'{text}' has no port from 1 to 65535; {form}"))?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let fine = |c: char| c.is_ascii_graphic() && !"/?#\\\"<>[]".contains(c);
        let path_is_fine = path.chars().all(|c| c.is_ascii_graphic());
        if host.is_empty() || !host.chars().all(fine) || !path_is_fine {
            return Err(format!("'{text}' is no address of a node; {form}"));
        }
        if bare.is_none() && host.contains(':') {
            return Err(format!("'{text}': put an IPv6 address into brackets"));
        }
        Ok(Url {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

impl Url {
    /// `HOST:PORT`.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}
