//! JSON-RPC on the wire: 1.0 and 1.1 as Bitcoin Core speaks them, 2.0, batches of both, notifications.
//!
//! Input: the bytes of a body. Output: requests, and for each answer the bytes and the HTTP status. Never panics, never
//! nests deeper than the JSON library's bound (128), keeps the id as it came.
//!
//! Legacy (no `jsonrpc`, "1.0" or "1.1"): the answer has `result` and `error`, one of them null; an error is HTTP 500, 404
//! for an unknown method, 400 for an invalid request. 2.0: one of the two and HTTP 200; without `id` a notification: 204.
//! A batch is HTTP 200 whatever is in it, or 204 if nothing in it wants an answer.

use crate::rpc::error::{RpcError, code};
use serde_json::{Map, Value};

/// Calls of one batch (B2).
pub const BATCH_COUNT_MAX: usize = 1_000;
/// Bytes of one body (B2).
pub const BODY_BYTES_MAX: usize = 1_000_000;
/// Bytes of one answer, batch or not: a caller cannot make the node hold more for it.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which rules a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.0 and 1.1.
    Legacy,
    /// 2.0.
    Two,
}

/// How to answer a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The id as it came; `None` if there was none.
    pub id: Option<Value>,
    /// Its rules.
    pub version: Version,
}

impl Header {
    /// Nothing is answered to a 2.0 request without an id.
    pub fn is_notification(&self) -> bool {
        self.version == Version::Two && self.id.is_none()
    }
    const UNKNOWN: Header = Header {
        id: None,
        version: Version::Legacy,
    };
}

/// A request that names a method.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// How to answer.
    pub header: Header,
    /// Method.
    pub method: String,
    /// List, object, or null.
    pub params: Value,
}

/// A request, or why it is none.
pub type Parsed = Result<Request, Box<(Header, RpcError)>>;

/// A body.
#[derive(Debug)]
pub enum Body {
    /// One request.
    Single(Parsed),
    /// A list of them, not longer than the bound.
    Batch(Vec<Parsed>),
}

fn invalid(message: &str) -> RpcError {
    RpcError::new(code::REQUEST, message)
}

fn parse_request(value: Value) -> Parsed {
    let Value::Object(mut fields) = value else {
        return Err(Box::new((
            Header::UNKNOWN,
            invalid("Invalid Request object"),
        )));
    };
    let mut header = Header {
        id: fields.remove("id"),
        version: Version::Legacy,
    };
    match parse_fields(fields, &mut header.version) {
        Ok((method, params)) => Ok(Request {
            header,
            method,
            params,
        }),
        Err(error) => Err(Box::new((header, error))),
    }
}

fn parse_fields(
    mut fields: Map<String, Value>,
    version: &mut Version,
) -> Result<(String, Value), RpcError> {
    match fields.remove("jsonrpc") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => match text.as_str() {
            "1.0" | "1.1" => {}
            "2.0" => *version = Version::Two,
            _ => return Err(invalid("JSON-RPC version not supported")),
        },
        Some(_) => return Err(invalid("jsonrpc field must be a string")),
    }
    let method = match fields.remove("method") {
        None | Some(Value::Null) => return Err(invalid("Missing method")),
        Some(Value::String(method)) => method,
        Some(_) => return Err(invalid("Method must be a string")),
    };
    let params = fields.remove("params").unwrap_or(Value::Null);
    match params {
        Value::Array(_) | Value::Object(_) | Value::Null => Ok((method, params)),
        _ => Err(invalid("Params must be an array or object")),
    }
}

/// Reads a body. The error is answered by the legacy rules, for nothing is known of its sender.
pub fn parse(body: &[u8], batch_max: usize) -> Result<Body, RpcError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(invalid("the body is larger than 1,000,000 bytes"));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|e| RpcError::new(code::PARSE, "Parse error").hint(e.to_string()))?;
    match value {
        Value::Object(_) => Ok(Body::Single(parse_request(value))),
        Value::Array(list) if list.len() > batch_max => Err(invalid(&format!(
            "a batch has at most {batch_max} calls, not {}",
            list.len()
        ))),
        Value::Array(list) => Ok(Body::Batch(list.into_iter().map(parse_request).collect())),
        _ => Err(RpcError::new(code::PARSE, "Top-level object parse error")),
    }
}

/// One answer as bytes, without line end.
pub fn encode(header: &Header, outcome: Result<Value, RpcError>) -> Vec<u8> {
    let mut out = Map::new();
    if header.version == Version::Two {
        out.insert("jsonrpc".into(), "2.0".into());
    }
    let legacy = header.version == Version::Legacy;
    match outcome {
        Ok(value) => {
            out.insert("result".into(), value);
            if legacy {
                out.insert("error".into(), Value::Null);
            }
        }
        Err(error) => {
            if legacy {
                out.insert("result".into(), Value::Null);
            }
            out.insert("error".into(), error.to_json());
        }
    }
    out.insert("id".into(), header.id.clone().unwrap_or(Value::Null));
    Value::Object(out).to_string().into_bytes()
}

/// HTTP status of an answer that stands alone.
pub fn status(header: &Header, outcome: &Result<Value, RpcError>) -> u16 {
    match (header.version, outcome) {
        (Version::Two, _) if header.is_notification() => 204,
        (Version::Two, _) | (_, Ok(_)) => 200,
        (_, Err(error)) => status_of(error),
    }
}

/// HTTP status of an error by the legacy rules.
pub fn status_of(error: &RpcError) -> u16 {
    match error.code {
        code::REQUEST => 400,
        code::METHOD => 404,
        _ => 500,
    }
}

/// The answer to a body that could not be read at all.
pub fn unreadable(error: RpcError) -> (u16, Vec<u8>) {
    let status = status_of(&error);
    (status, encode(&Header::UNKNOWN, Err(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn single(body: Value) -> Parsed {
        match parse(body.to_string().as_bytes(), BATCH_COUNT_MAX) {
            Ok(Body::Single(parsed)) => parsed,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn requests_and_their_rules() {
        let ok = |body: Value| single(body).unwrap();
        assert_eq!(ok(json!({"method": "a"})).header.version, Version::Legacy);
        for version in ["1.0", "1.1"] {
            let request = ok(json!({"jsonrpc": version, "id": 1, "method": "a"}));
            assert_eq!(request.header.version, Version::Legacy);
            assert!(!request.header.is_notification());
        }
        let two = ok(json!({"jsonrpc": "2.0", "method": "a", "params": {"x": 1}}));
        assert!(two.header.is_notification(), "2.0 without id");
        let null = ok(json!({"jsonrpc": "2.0", "method": "a", "id": null}));
        assert!(!null.header.is_notification(), "null is an id");
    }

    #[test]
    fn faults_of_requests_by_code_and_status() {
        for (body, message) in [
            (json!({"id": 7}), "Missing method"),
            (json!({"id": 7, "method": 3}), "Method must be a string"),
            (
                json!({"id": 7, "method": "a", "params": "x"}),
                "Params must be an array or object",
            ),
            (
                json!({"id": 7, "method": "a", "jsonrpc": 2.0}),
                "jsonrpc field must be a string",
            ),
            (
                json!({"id": 7, "method": "a", "jsonrpc": "3.0"}),
                "JSON-RPC version not supported",
            ),
        ] {
            let (header, error) = *single(body).unwrap_err();
            assert_eq!(
                (error.code, error.message.as_str()),
                (code::REQUEST, message)
            );
            assert_eq!(header.id, Some(json!(7)), "the id comes back");
            assert_eq!(status(&header, &Err(error)), 400);
        }
        for body in ["", "{", "nul", "\"text\"", "5", "{\"a\":1}{}", "\u{1}"] {
            let error = parse(body.as_bytes(), 9).unwrap_err();
            assert_eq!(error.code, code::PARSE, "{body:?}");
            assert_eq!(status_of(&error), 500);
        }
    }

    #[test]
    fn depth_size_and_batch_length_are_bounded() {
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes(), 9).unwrap_err().code, code::PARSE);
        let closed = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(parse(closed.as_bytes(), 9).unwrap_err().code, code::PARSE);
        let long = json!(vec![json!({"method": "a"}); 10]).to_string();
        assert_eq!(parse(long.as_bytes(), 9).unwrap_err().code, code::REQUEST);
        let big = vec![b' '; BODY_BYTES_MAX + 1];
        assert_eq!(parse(&big, 9).unwrap_err().code, code::REQUEST);
        match parse(b"[1,{\"method\":\"a\"},[]]", 9) {
            Ok(Body::Batch(list)) => {
                assert_eq!(
                    list.iter().map(Result::is_ok).collect::<Vec<_>>(),
                    [false, true, false]
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_look_as_their_version_says() {
        let header = |version, id: Option<Value>| Header { id, version };
        let text = |h: &Header, o: Result<Value, RpcError>| {
            let status = status(h, &o);
            (status, String::from_utf8(encode(h, o)).unwrap())
        };
        let legacy = header(Version::Legacy, Some(json!("x")));
        let two = header(Version::Two, Some(json!(1.50)));
        let error = |code| Err(RpcError::new(code, "no"));
        assert_eq!(
            text(&legacy, Ok(json!(5))),
            (200, r#"{"result":5,"error":null,"id":"x"}"#.into())
        );
        assert_eq!(
            text(&legacy, error(-8)),
            (
                500,
                r#"{"result":null,"error":{"code":-8,"message":"no"},"id":"x"}"#.into()
            )
        );
        assert_eq!(text(&legacy, error(code::METHOD)).0, 404);
        assert_eq!(
            text(&two, error(code::METHOD)),
            (
                200,
                r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"no"},"id":1.5}"#.into()
            )
        );
        assert_eq!(
            text(&two, Ok(Value::Null)).1,
            r#"{"jsonrpc":"2.0","result":null,"id":1.5}"#
        );
        assert_eq!(text(&header(Version::Two, None), Ok(json!(1))).0, 204);
    }

    #[test]
    fn ids_keep_their_type_and_their_digits() {
        for id in [
            "1",
            "\"1\"",
            "1.0",
            "18446744073709551616",
            "null",
            "[1]",
            "true",
            "1e3",
        ] {
            let body = format!("{{\"id\":{id},\"method\":\"a\"}}");
            let Ok(Body::Single(Ok(request))) = parse(body.as_bytes(), 9) else {
                panic!("{body}");
            };
            let out = String::from_utf8(encode(&request.header, Ok(Value::Null))).unwrap();
            let end = out.rsplit("\"id\":").next().unwrap().to_string();
            assert_eq!(end.to_lowercase().replace('+', ""), format!("{id}}}"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, BATCH_COUNT_MAX);
        }

        #[test]
        fn almost_json_is_read_or_refused(text in "[\\[\\]{}\":,0-9a-e.\\\\nultrfsmho ]{0,120}") {
            if let Ok(Body::Single(Err(fault))) = parse(text.as_bytes(), 5) {
                let (header, error) = *fault;
                prop_assert!(serde_json::from_slice::<Value>(&encode(&header, Err(error))).is_ok());
            }
        }
    }
}
