//! HTTP over real sockets: order, limits, clients that stall or go away.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::{Node, PATIENCE, Seen};
use timecoin::net::{HttpRequest, HttpResponse, Timeouts};

/// One response: status, head, body.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// Reads one response; the rest of the stream stays in `buffer`.
fn reply(stream: &mut TcpStream, buffer: &mut Vec<u8>, head_only: bool) -> Reply {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, buffer);
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length = if head_only {
        0
    } else {
        length.map_or(0, |text| text.parse().unwrap())
    };
    while buffer.len() < length {
        read_more(stream, buffer);
    }
    Reply {
        status,
        head,
        body: buffer.drain(..length).collect(),
    }
}

fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    let count = stream.read(&mut chunk).unwrap();
    assert!(count > 0, "the connection ended inside a response");
    buffer.extend_from_slice(&chunk[..count]);
}

fn ask(node: &Node, request: &[u8]) -> Reply {
    let mut stream = node.http();
    stream.write_all(request).unwrap();
    reply(&mut stream, &mut Vec::new(), false)
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_))
}

fn wait_request(node: &Node) -> HttpRequest {
    node.wait("a request", |seen| match seen {
        Seen::Http(request) => Some(request),
        _ => None,
    })
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let node = Node::start(1);
    let mut stream = node.http();
    let mut all = Vec::new();
    for number in 0..50 {
        let body = "x".repeat(number * 37);
        write!(
            all,
            "POST /{number}?q HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    }
    stream.write_all(&all).unwrap();
    let mut buffer = Vec::new();
    for number in 0..50 {
        let reply = reply(&mut stream, &mut buffer, false);
        assert_eq!(reply.status, 200);
        assert!(
            reply.head.contains("Content-Type: application/json\r\n"),
            "{}",
            reply.head
        );
        let expected = format!("/{number}:{}", "x".repeat(number * 37));
        assert_eq!(
            String::from_utf8(reply.body).unwrap(),
            expected,
            "answers keep the order of requests"
        );
    }
}

#[test]
fn an_answer_from_later_reaches_its_client_and_a_stale_token_nobody() {
    let node = Node::start(1);
    let mut stream = node.http();
    let request = b"POST /hold HTTP/1.1\r\nAuthorization: Basic abc\r\nContent-Length: 2\r\n\r\nhi";
    stream.write_all(request).unwrap();
    let seen = wait_request(&node);
    assert_eq!(seen.parts.authorization.as_deref(), Some("Basic abc"));
    assert_eq!(seen.parts.body, b"hi");
    assert_eq!(seen.peer, stream.local_addr().unwrap());
    let token = seen.token;
    assert!(node.ask(move |io| io.respond(token, &HttpResponse::text(200, "done"))));
    let mut buffer = Vec::new();
    assert_eq!(reply(&mut stream, &mut buffer, false).body, b"done\n");
    stream.write_all(request).unwrap();
    let next = wait_request(&node).token;
    let stale = node.ask(move |io| io.respond(token, &HttpResponse::text(200, "again")));
    assert!(
        !stale,
        "the token of an answered request must not answer the next one"
    );
    assert!(node.ask(move |io| io.respond(next, &HttpResponse::text(200, "next"))));
    assert_eq!(reply(&mut stream, &mut buffer, false).body, b"next\n");
}

#[test]
fn head_gets_the_length_but_no_body() {
    let node = Node::start(1);
    let mut stream = node.http();
    stream
        .write_all(b"HEAD /abc HTTP/1.1\r\n\r\nGET /d HTTP/1.1\r\n\r\n")
        .unwrap();
    let mut buffer = Vec::new();
    assert!(
        reply(&mut stream, &mut buffer, true)
            .head
            .contains("Content-Length: 5\r\n")
    );
    assert_eq!(
        reply(&mut stream, &mut buffer, false).body,
        b"/d:",
        "the next answer follows at once"
    );
}

#[test]
fn connection_close_and_http_1_0_end_after_the_answer() {
    let node = Node::start(1);
    for request in [
        &b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"[..],
        &b"GET / HTTP/1.0\r\n\r\n"[..],
    ] {
        let mut stream = node.http();
        stream.write_all(request).unwrap();
        let reply = reply(&mut stream, &mut Vec::new(), false);
        assert!(
            reply.head.contains("Connection: close\r\n"),
            "{}",
            reply.head
        );
        assert!(is_closed(&mut stream));
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let node = Node::start(1);
    let mut stream = node.http();
    stream
        .write_all(b"POST /p HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    let mut buffer = Vec::new();
    assert_eq!(reply(&mut stream, &mut buffer, true).status, 100);
    stream.write_all(b"abc").unwrap();
    assert_eq!(reply(&mut stream, &mut buffer, false).body, b"/p:abc");
}

#[test]
fn a_client_that_closed_its_sending_half_still_gets_its_answer() {
    let node = Node::start(1);
    let mut stream = node.http();
    stream.write_all(b"GET /n HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reply(&mut stream, &mut Vec::new(), false).body, b"/n:");
}

#[test]
fn malformed_and_oversized_requests_get_their_status_and_the_node_stays_up() {
    let node = Node::start_with(1, |config| config.http_limits.body = 1000);
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    let cases: [(&[u8], u16); 8] = [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (long.as_bytes(), 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            413,
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n",
            413,
        ),
    ];
    for (request, status) in cases {
        let reply = ask(&node, request);
        assert_eq!(
            reply.status,
            status,
            "{}",
            String::from_utf8_lossy(&request[..request.len().min(60)])
        );
        assert!(
            reply.head.contains("Connection: close\r\n"),
            "nothing after a refusal can be a request"
        );
    }
    assert_eq!(ask(&node, b"GET /ok HTTP/1.1\r\n\r\n").body, b"/ok:");
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending_its_body() {
    let node = Node::start_with(1, |config| {
        config.http_limits.body = 1000;
        config.timeouts.http_linger = PATIENCE;
    });
    let mut stream = node.http();
    stream
        .write_all(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
        .unwrap();
    stream.write_all(&vec![b'z'; 1_000_000]).unwrap();
    assert_eq!(reply(&mut stream, &mut Vec::new(), false).status, 413);
}

#[test]
fn connections_above_the_bound_are_told_503_and_room_comes_back() {
    let node = Node::start_with(1, |config| config.max_http = 3);
    let held: Vec<TcpStream> = (0..3).map(|_| node.http()).collect();
    node.wait_until("three clients", |io| io.http_count() == 3);
    let mut extra = node.http();
    let told = reply(&mut extra, &mut Vec::new(), false);
    assert_eq!(told.status, 503);
    assert!(is_closed(&mut extra));
    drop(extra);
    drop(held);
    node.wait_until("all gone", |io| io.http_count() == 0);
    assert_eq!(ask(&node, b"GET /back HTTP/1.1\r\n\r\n").body, b"/back:");
}

#[test]
fn a_client_that_goes_away_before_its_answer_is_reported() {
    let node = Node::start_with(1, |config| {
        config.timeouts.http_half_closed = Duration::from_millis(50)
    });
    let mut stream = node.http();
    stream.write_all(b"GET /hold HTTP/1.1\r\n\r\n").unwrap();
    let token = wait_request(&node).token;
    drop(stream);
    let gone = node.wait("the client gone", |seen| match seen {
        Seen::HttpGone(token) => Some(token),
        _ => None,
    });
    assert_eq!(gone, token);
    assert!(!node.ask(move |io| io.respond(token, &HttpResponse::text(200, "late"))));
}

#[test]
fn slow_and_idle_clients_are_cut() {
    let short = Duration::from_millis(50);
    type Pick = fn(&mut Timeouts) -> &mut Duration;
    let cases: [(&[u8], Pick, u64); 3] = [
        (b"", |timeouts| &mut timeouts.http_idle, 0),
        (b"GET / HT", |timeouts| &mut timeouts.http_head, 1),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab",
            |timeouts| &mut timeouts.http_body,
            1,
        ),
    ];
    for (start, timeout, stalls) in cases {
        let node = Node::start_with(1, |config| *timeout(&mut config.timeouts) = short);
        let mut stream = node.http();
        stream.write_all(start).unwrap();
        assert!(
            is_closed(&mut stream),
            "cut at {:?}",
            String::from_utf8_lossy(start)
        );
        let cut = node.ask(|io| io.counters().http_timeouts);
        assert_eq!(
            cut, stalls,
            "idle is no stall; a request that does not come to its end is"
        );
    }
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut() {
    let node = Node::start_with(1, |config| {
        config.timeouts.http_write = Duration::from_millis(100)
    });
    let mut stream = node.http();
    stream.write_all(b"GET /hold HTTP/1.1\r\n\r\n").unwrap();
    let token = wait_request(&node).token;
    let big = HttpResponse::new(200, "application/octet-stream", vec![7; 32 << 20]);
    assert!(node.ask(move |io| io.respond(token, &big)));
    node.wait_until("the client cut", |io| io.http_count() == 0);
}

#[test]
fn an_answer_given_before_the_stop_still_leaves() {
    let node = Node::start(1);
    let mut stream = node.http();
    stream.write_all(b"POST /hold HTTP/1.1\r\n\r\n").unwrap();
    let token = wait_request(&node).token;
    assert!(node.ask(move |io| io.respond(token, &HttpResponse::text(200, "stopping"))));
    drop(node);
    assert_eq!(
        reply(&mut stream, &mut Vec::new(), false).body,
        b"stopping\n"
    );
    assert!(is_closed(&mut stream));
}
