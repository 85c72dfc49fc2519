//! The decoders and what must hold of what they accept.

use timecoin::net::{Class, FrameDecoder, FrameRule, HttpLimits, HttpParser, Parsed};
use timecoin::p2p::messages::Message;
use timecoin::rpc::args::Args;
use timecoin::rpc::envelope::{self, Body};
use timecoin::rpc::proof::{Proof, Start, Step};
use timecoin::rpc::registry;
use timecoin::types::address::{Network, Program};
use timecoin::types::codec;
use timecoin::types::genesis::Genesis;

/// Decodes, panics if a property does not hold, answers whether the input is worth keeping.
pub type Judge = Box<dyn Fn(&[u8]) -> bool>;

/// A decoder under test.
pub struct Target {
    /// Its name.
    pub name: String,
    /// First inputs.
    pub seeds: Vec<Vec<u8>>,
    /// Pieces of text that belong to its language.
    pub words: &'static [&'static str],
    /// Its judge.
    pub judge: Judge,
}

/// Every decoder.
pub fn targets() -> Vec<Target> {
    let mut all: Vec<Target> = Message::CODES.iter().map(|code| message(*code)).collect();
    all.push(frames());
    all.push(http());
    all.push(genesis());
    all.push(address());
    all.push(rpc_body());
    all.push(raw_transaction());
    all.push(proof());
    all
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A frame's body. One value has one encoding: what is accepted is written back byte by byte.
fn message(code: u8) -> Target {
    let name = Message::name(code).unwrap_or("?");
    let (limit, _) = Message::rule(code).expect("every code has a rule");
    // Zeros of every length: empty lists, absent options, first variants.
    let seeds = (0..1_200).map(|size| vec![0; size]).collect();
    Target {
        name: format!("message {name}"),
        seeds,
        words: &[],
        judge: Box::new(move |input| match Message::decode(code, input) {
            Ok(message) => {
                assert_eq!(message.encode(), input, "one value, one encoding");
                assert!(input.len() <= limit, "the type's limit holds");
                assert_eq!(message.code(), code, "the type is the one asked for");
                true
            }
            Err(_) => false,
        }),
    }
}

/// Frames of a connection: how the bytes arrive in pieces changes nothing.
fn frames() -> Target {
    fn rule(frame_type: u8) -> Option<FrameRule> {
        (frame_type < 0x40).then_some(FrameRule {
            limit: 4_096,
            class: Class::Tx,
        })
    }
    fn decode(pieces: &[&[u8]]) -> (Vec<(u8, Vec<u8>)>, bool) {
        let mut decoder = FrameDecoder::new();
        let mut frames = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                match decoder.next(&mut rest, rule) {
                    Ok(Some(frame)) => frames.push((frame.frame_type, frame.payload)),
                    Ok(None) => break,
                    Err(_) => return (frames, false),
                }
            }
            assert!(
                decoder.buffered() <= 6 * 4_096,
                "no more is held than the limits allow"
            );
        }
        (frames, true)
    }
    let mut seed = Vec::new();
    timecoin::net::encode_frame(&mut seed, Class::Tx, 7, &[1, 2, 3]);
    timecoin::net::encode_frame(&mut seed, Class::Tx, 9, &[0; 3_000]);
    Target {
        name: "frames".into(),
        seeds: vec![seed, vec![0; 8]],
        words: &[],
        judge: Box::new(|input| {
            let whole = decode(&[input]);
            let (left, right) = input.split_at(input.len() / 2);
            assert_eq!(decode(&[left, right]), whole, "halves");
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(decode(&bytes), whole, "single bytes");
            !whole.0.is_empty()
        }),
    }
}

/// HTTP requests: how the bytes arrive in pieces changes nothing.
fn http() -> Target {
    fn parse(pieces: &[&[u8]]) -> Vec<Parsed> {
        let mut parser = HttpParser::new(HttpLimits {
            head: 2_048,
            body: 4_096,
        });
        let mut steps = Vec::new();
        for piece in pieces {
            parser.push(piece);
            loop {
                match parser.step() {
                    Parsed::More => break,
                    Parsed::Continue => {}
                    Parsed::Refused(status) => {
                        steps.push(Parsed::Refused(status));
                        return steps;
                    }
                    request => steps.push(request),
                }
            }
        }
        steps
    }
    Target {
        name: "http".into(),
        seeds: texts(&[
            "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ]),
        words: &[
            "\r\n",
            "\r\n\r\n",
            "Content-Length: ",
            "Transfer-Encoding: chunked",
            "GET ",
            "HTTP/1.0",
            "Expect: 100-continue",
        ],
        judge: Box::new(|input| {
            let whole = parse(&[input]);
            // The status of a refusal may depend on how much is known when it is refused; the requests before it may not.
            let requests = |steps: Vec<Parsed>| -> Vec<Parsed> {
                steps
                    .into_iter()
                    .filter(|step| matches!(step, Parsed::Request(_)))
                    .collect()
            };
            let whole = requests(whole);
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(requests(parse(&bytes)), whole, "single bytes");
            !whole.is_empty()
        }),
    }
}

/// A genesis file: what is accepted is written as a file of the same chain.
fn genesis() -> Target {
    Target {
        name: "genesis".into(),
        seeds: texts(&[
            "version = 1\nnetwork = \"dev\"\ntime_ms = 5000\n[params]\nslot_ms = 5000\n",
            "version = 1\nnetwork = \"dev\"\ntime_ms = 0\n",
        ]),
        words: &[
            "[limits]\n",
            "[[balance]]\n",
            "address = \"\"\n",
            "amount = \"1\"\n",
            "[[masternode]]\n",
            "0",
            "9999999999",
        ],
        judge: Box::new(|input| {
            let Ok(text) = std::str::from_utf8(input) else {
                return false;
            };
            // What is no genesis may still be read as far as its form goes: parsing must answer.
            match Genesis::from_toml(text) {
                Ok(genesis) => {
                    let again =
                        Genesis::from_toml(&genesis.to_toml()).expect("what is written is read");
                    assert_eq!(again.chain_id(), genesis.chain_id(), "the same chain");
                    true
                }
                Err(error) => !error.to_string().is_empty(),
            }
        }),
    }
}

/// An address: what is accepted names the program that is written as the same address.
fn address() -> Target {
    let program = Program::from_address;
    let seeds: Vec<Vec<u8>> = Network::ALL
        .into_iter()
        .map(|network| {
            let key = timecoin::crypto::keys::SecretKey::from_seed(&[7; 32]).public();
            Program::Key(key).address(network).into_bytes()
        })
        .collect();
    Target {
        name: "address".into(),
        seeds,
        words: &["dtime1", "time1", "q", "p", "1"],
        judge: Box::new(move |input| {
            let Ok(text) = std::str::from_utf8(input) else {
                return false;
            };
            let mut accepted = false;
            for network in Network::ALL {
                if let Ok(program) = program(text, network) {
                    assert_eq!(
                        program.address(network),
                        text.to_lowercase(),
                        "one address for one program"
                    );
                    accepted = true;
                }
            }
            accepted
        }),
    }
}

/// A JSON-RPC body: its calls find their arguments or an error, and every answer is JSON with the id that was sent.
fn rpc_body() -> Target {
    fn judge(parsed: envelope::Parsed) -> bool {
        let (header, outcome) = match parsed {
            Ok(call) => {
                let args = registry::find(&call.method).map(|spec| Args::new(spec, call.params));
                let outcome = match args {
                    Some(Err(error)) => Err(error),
                    Some(Ok(_)) | None => Ok(serde_json::Value::Null),
                };
                (call.header, outcome)
            }
            Err(fault) => {
                let (header, error) = *fault;
                (header, Err(error))
            }
        };
        let accepted = outcome.is_ok();
        let answer = envelope::encode(&header, outcome);
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("answers are JSON");
        let id = header.id.unwrap_or_default();
        assert_eq!(answer["id"], id, "the id comes back as it was");
        accepted
    }
    Target {
        name: "rpc body".into(),
        seeds: texts(&[
            r#"{"id":1,"method":"getblock","params":["00",2]}"#,
            r#"{"jsonrpc":"2.0","id":"x","method":"gettxout","params":{"txid":"00","n":1}}"#,
            r#"[{"method":"uptime"},{"jsonrpc":"2.0","method":"help","params":{"args":["stop"]}}]"#,
        ]),
        words: &[
            "\"jsonrpc\":\"2.0\",",
            "\"id\":",
            "\"params\":[",
            "{}",
            "[[[[",
            "null",
            "1e5",
            "\\u0000",
            "\"args\":[",
        ],
        judge: Box::new(|input| match envelope::parse(input, 4) {
            Ok(Body::Single(call)) => judge(call),
            Ok(Body::Batch(calls)) => calls.into_iter().fold(true, |ok, call| judge(call) & ok),
            Err(_) => false,
        }),
    }
}

/// A transaction as callers send it: hex of its one encoding.
fn raw_transaction() -> Target {
    let seeds = (40..60).map(|size| "00".repeat(size).into_bytes());
    Target {
        name: "raw transaction".into(),
        seeds: seeds.collect(),
        words: &["00", "01", "ff", "0100000000000000"],
        judge: Box::new(|input| {
            let Ok(text) = std::str::from_utf8(input) else {
                return false;
            };
            let Ok(tx) = timecoin::rpc::methods::transactions::decode(text) else {
                return false;
            };
            let again = timecoin::base::hex::encode(&codec::encode(&tx));
            assert_eq!(again, text.to_lowercase(), "one value, one encoding");
            true
        }),
    }
}

/// A finality proof as JSON: what is read is written back to the same proof.
fn proof() -> Target {
    fn zeros<T: serde::de::DeserializeOwned>() -> T {
        let found = (0..2_000).find_map(|size| codec::decode(&vec![0; size], 4_096).ok());
        found.expect("zeros of some length are a value")
    }
    let step = || Step {
        header: zeros(),
        certificate: zeros(),
        next: zeros(),
    };
    let first = Proof {
        chain: zeros(),
        txid: zeros(),
        wtxid: zeros(),
        merkle: zeros(),
        header: zeros(),
        certificate: zeros(),
        validators: zeros(),
        steps: vec![step()],
        recoveries: Vec::new(),
        start: None,
    };
    let begun = Proof {
        start: Some(Start {
            header: zeros(),
            next: zeros(),
        }),
        ..first.clone()
    };
    let seed = |proof: &Proof| proof.to_json().to_string().into_bytes();
    Target {
        name: "finality proof".into(),
        seeds: vec![seed(&first), seed(&begun)],
        words: &["\"steps\":[", "\"start\":{", "0", "ff", ",", "}", "\"", " "],
        judge: Box::new(|input| {
            let Ok(text) = std::str::from_utf8(input) else {
                return false;
            };
            let Ok(proof) = Proof::from_json(text) else {
                return false;
            };
            let again = Proof::from_json(&proof.to_json().to_string());
            assert_eq!(again.as_ref(), Ok(&proof), "written and read back");
            true
        }),
    }
}
