//! Tests of the HTTP parser and the response encoder: cases, and any bytes in any portions.

use proptest::collection::vec;
use proptest::prelude::*;

use super::http::{HttpLimits, HttpParser, Method, Parsed, Phase, RequestParts};
use super::http_response::HttpResponse;

const LIMITS: HttpLimits = HttpLimits {
    head: 500,
    body: 1000,
};

/// Feeds `bytes` in portions that end at `cuts`; returns every step but "more".
fn parse(bytes: &[u8], cuts: &[usize]) -> Vec<Parsed> {
    let mut parser = HttpParser::new(LIMITS);
    let mut steps = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts {
        parser.push(&bytes[from..cut]);
        from = cut;
        loop {
            match parser.step() {
                Parsed::More => break,
                step @ Parsed::Refused(_) => {
                    assert_eq!(
                        parser.step(),
                        step,
                        "after a refusal nothing is parsed any more"
                    );
                    steps.push(step);
                    return steps;
                }
                step => steps.push(step),
            }
        }
    }
    steps
}

fn refusal(bytes: &[u8]) -> u16 {
    match parse(bytes, &[]).last() {
        Some(Parsed::Refused(status)) => *status,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

fn request(bytes: &[u8]) -> RequestParts {
    match &parse(bytes, &[])[..] {
        [Parsed::Request(parts)] => parts.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_taken_apart() {
    let parts = request(
        b"\r\n\nPOST /wallet/w?a=1&b HTTP/1.1\r\nhOsT: me:1\r\nAUTHORIZATION:  Basic xyz \r\nOrigin: o\r\n\
          content-type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(
        (parts.method, parts.path.as_str(), parts.query.as_deref()),
        (Method::Post, "/wallet/w", Some("a=1&b"))
    );
    assert_eq!(
        parts.host.as_deref(),
        Some("me:1"),
        "field names know no case"
    );
    assert_eq!(
        parts.authorization.as_deref(),
        Some("Basic xyz"),
        "values are trimmed"
    );
    assert_eq!(parts.origin.as_deref(), Some("o"));
    assert_eq!(parts.content_type.as_deref(), Some("application/json"));
    assert_eq!(
        (parts.body.as_slice(), parts.keep_alive),
        (&b"{}"[..], true)
    );
    assert_eq!(
        request(b"GET http://h:1/x#f HTTP/1.1\n\n").path,
        "/x",
        "absolute form, and bare line feeds"
    );
    assert_eq!(request(b"GET http://h HTTP/1.1\r\n\r\n").path, "/");
}

#[test]
fn keep_alive_follows_the_version_and_the_field() {
    let keeps = |head: &str| request(format!("GET / {head}\r\n\r\n").as_bytes()).keep_alive;
    assert!(keeps("HTTP/1.1"));
    assert!(!keeps("HTTP/1.1\r\nConnection: foo, Close"));
    assert!(!keeps("HTTP/1.0"));
    assert!(keeps("HTTP/1.0\r\nConnection: Keep-Alive"));
}

#[test]
fn chunked_bodies_are_put_together() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    let both = format!("{head}{body}GET /next HTTP/1.1\r\n\r\n");
    match &parse(both.as_bytes(), &[])[..] {
        [Parsed::Request(first), Parsed::Request(second)] => {
            assert_eq!(first.body, b"abc0123456789");
            assert_eq!(
                second.path, "/next",
                "the next request starts where the trailer ends"
            );
        }
        other => panic!("{other:?}"),
    }
    for (bad, status) in [
        ("x\r\n", 400),
        ("\r\n", 400),
        ("-1\r\n", 400),
        ("3\nabc", 400),
        ("3\r\nabcd\r\n", 400),
        ("3e9\r\n", 413),
        ("ffffffffffffffff\r\n", 413),
        ("fffffffffffffffff\r\n", 413),
    ] {
        assert_eq!(
            refusal(format!("{head}{bad}").as_bytes()),
            status,
            "{bad:?}"
        );
    }
    let long_line = format!("{head}3;{}", "e".repeat(300));
    assert_eq!(
        refusal(long_line.as_bytes()),
        400,
        "a chunk line without end"
    );
    let trailers = format!("{head}0\r\n{}", "T: 1\r\n".repeat(100));
    assert_eq!(refusal(trailers.as_bytes()), 400, "trailers without end");
    let sum = format!("{head}3e8\r\n{}\r\n1\r\n", "b".repeat(1000));
    assert_eq!(
        refusal(sum.as_bytes()),
        413,
        "the limit holds for the sum of chunks"
    );
}

#[test]
fn what_could_smuggle_a_request_is_refused() {
    let post = |fields: &str| refusal(format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes());
    assert_eq!(post("Content-Length: 1\r\nContent-Length: 1"), 400);
    assert_eq!(post("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400);
    assert_eq!(
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        400
    );
    assert_eq!(post("Transfer-Encoding: gzip, chunked"), 501);
    assert_eq!(
        refusal(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        501
    );
    for length in ["+1", "-1", "1 1", "0x1", "1,1", ""] {
        assert_eq!(
            post(&format!("Content-Length: {length}")),
            400,
            "{length:?}"
        );
    }
    assert_eq!(post("Content-Length: 1001"), 413);
    assert_eq!(post("Content-Length: 99999999999999999999999999"), 413);
    assert_eq!(post("Authorization: a\r\nAuthorization: b"), 400);
    assert_eq!(post("Bad Name: 1"), 400);
    assert_eq!(post("X: a\r\n folded"), 400);
    assert_eq!(post("Expect: coffee"), 417);
}

#[test]
fn heads_that_are_none_get_their_status() {
    assert_eq!(
        refusal(b"\x16\x03\x01"),
        400,
        "a TLS client is told at once"
    );
    assert_eq!(refusal(b"PUT / HTTP/1.1\r\n\r\n"), 405);
    assert_eq!(refusal(b"GET / HTTP/2.0\r\n\r\n"), 505);
    assert_eq!(refusal(b"GET nowhere HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(refusal(b"GET /\r\n\r\n"), 400);
    assert_eq!(refusal(&[b'G'; 500]), 431);
    assert_eq!(
        refusal(format!("GET / HTTP/1.1\r\n{}\r\n", "A:b\r\n".repeat(65)).as_bytes()),
        431
    );
    let full = format!(
        "GET / HTTP/1.1\r\nX: {}\r\n\r\n",
        "y".repeat(LIMITS.head - 23)
    );
    assert_eq!(full.len(), LIMITS.head);
    assert_eq!(
        parse(full.as_bytes(), &[]).len(),
        1,
        "the limit itself is allowed"
    );
}

#[test]
fn the_phase_tells_which_timeout_applies() {
    let mut parser = HttpParser::new(LIMITS);
    let mut phase_after = |bytes: &[u8]| {
        parser.push(bytes);
        parser.step();
        parser.phase()
    };
    assert_eq!(
        phase_after(b"\r\n"),
        Phase::Idle,
        "empty lines do not keep a connection alive"
    );
    assert_eq!(phase_after(b"POST / HT"), Phase::Head);
    assert_eq!(
        phase_after(b"TP/1.1\r\nContent-Length: 2\r\n\r\na"),
        Phase::Body
    );
    assert_eq!(phase_after(b"b"), Phase::Idle);
}

#[test]
fn answers_have_their_length_and_no_field_breaks_out() {
    let response = HttpResponse::new(401, "application/json", "{}")
        .with_header("WWW-Authenticate", "Basic realm=\"x\"\r\nSet-Cookie: a");
    let mut out = Vec::new();
    response.encode(&mut out, true, false);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
         Connection: keep-alive\r\nWWW-Authenticate: Basic realm=\"x\"  Set-Cookie: a\r\n\r\n{}"
    );
    let mut out = Vec::new();
    HttpResponse::new(204, "", "ignored").encode(&mut out, false, false);
    assert_eq!(
        out, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        "204 has neither body nor length"
    );
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &'static str| Just(text.as_bytes().to_vec());
    prop_oneof![
        text("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"),
        text("HEAD / HTTP/1.0\n\n"),
        text("POST /p HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"),
        text("POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
        text("POST / HTTP/1.1\r\n"),
        text("Transfer-Encoding: chunked\r\n\r\n"),
        text("\r\n"),
        (0usize..600).prop_map(|length| vec![b'A'; length]),
        vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #[test]
    fn any_bytes_in_any_portions_give_the_same_requests(
        pieces in vec(piece(), 0..8),
        cuts in vec(any::<usize>(), 0..40),
    ) {
        let bytes = pieces.concat();
        prop_assert_eq!(parse(&bytes, &cuts), parse(&bytes, &[]));
    }
}
