//! The client against a tiny server that says what the test tells it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use proptest::prelude::*;

use super::super::testing::TempDir;
use super::*;

/// What was asked: the Authorization field and the body.
#[derive(Debug)]
struct Asked {
    authorization: Option<String>,
    body: Value,
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let (mut length, mut authorization) = (0, None);
    let mut line = String::new();
    let mut first = true;
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if first {
            assert!(text.starts_with("POST / HTTP/1.1"), "{text}");
            first = false;
        }
        if let Some((name, value)) = text.split_once(": ") {
            match name {
                "Content-Length" => length = value.parse().unwrap(),
                "Content-Type" => assert_eq!(value, "application/json", "exactly"),
                "Authorization" => authorization = Some(value.to_owned()),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    Some(Asked {
        authorization,
        body,
    })
}

/// At the end of an answer: close the connection after it, without a word.
const HANG_UP: &str = "\u{4}";

/// Answers requests with `answer` until it gives None, which closes the connection; serves `connections` in turn. Returns how many requests came on each.
fn serve(
    connections: usize,
    mut answer: impl FnMut(&Asked) -> Option<String> + Send + 'static,
) -> (Client, JoinHandle<Vec<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let mut counts = Vec::new();
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            let mut reader = BufReader::new(stream);
            let mut count = 0;
            while let Some(asked) = read_request(&mut reader) {
                count += 1;
                let Some(text) = answer(&asked) else { break };
                writer
                    .write_all(text.trim_end_matches(HANG_UP).as_bytes())
                    .unwrap();
                if text.ends_with(HANG_UP) {
                    break;
                }
            }
            counts.push(count);
        }
        counts
    });
    let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    (Client::new(url, Credentials::None), thread)
}

fn http(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn ok(asked: &Asked, result: &Value) -> String {
    http(
        200,
        &json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result}).to_string(),
    )
}

#[test]
fn calls_share_one_connection_and_keep_amounts_exact() {
    let (mut client, server) = serve(1, |asked| {
        let amount: Value = serde_json::from_str("{\"amount\":0.10000000}").unwrap();
        (asked.body["method"] != "stop").then(|| ok(asked, &amount))
    });
    for _ in 0..3 {
        let result = client.call("getbalance", json!([])).unwrap();
        assert!(!result.is_null());
    }
    let stopped = client.call("stop", json!([])).unwrap_err();
    assert!(matches!(stopped, ClientError::Broken { .. }), "{stopped}");
    assert_eq!(stopped.exit(), Exit::Unavailable);
    assert_eq!(server.join().unwrap(), [4], "keep-alive");
}

#[test]
fn a_connection_that_the_node_closed_is_made_anew_before_anything_is_sent() {
    let (mut client, server) = serve(2, |asked| {
        let text = ok(asked, &json!(1));
        Some(text.replace(
            "HTTP/1.1 200 X\r\n",
            "HTTP/1.1 200 X\r\nConnection: close\r\n",
        ))
    });
    assert_eq!(client.call("a", json!([])).unwrap(), 1);
    assert_eq!(client.call("a", json!([])).unwrap(), 1);
    drop(client);
    assert_eq!(server.join().unwrap(), [1, 1], "no request is sent twice");
}

#[test]
fn a_connection_that_broke_while_it_was_idle_is_noticed_before_it_is_used() {
    let (mut client, server) = serve(2, |asked| Some(ok(asked, &json!(1)) + HANG_UP));
    assert_eq!(client.call("a", json!([])).unwrap(), 1);
    while client.connection.as_ref().is_some_and(is_open) {
        std::thread::yield_now(); // until the end of the connection has arrived
    }
    assert_eq!(client.call("a", json!([])).unwrap(), 1);
    assert_eq!(server.join().unwrap(), [1, 1]);
}

#[test]
fn a_new_cookie_is_read_when_the_old_one_is_refused() {
    let dir = TempDir::new("cookie");
    let path = dir.path().join(".cookie");
    std::fs::write(&path, "__cookie__:old").unwrap();
    let swap = path.clone();
    let (client, server) = serve(1, move |asked| {
        let given = asked.authorization.clone().unwrap();
        if given == "Basic X19jb29raWVfXzpvbGQ=" {
            std::fs::write(&swap, "__cookie__:new").unwrap();
            return Some(http(401, ""));
        }
        assert_eq!(given, "Basic X19jb29raWVfXzpuZXc=");
        Some(ok(asked, &json!("fine")))
    });
    let mut client = Client::new(client.url().clone(), Credentials::File(path));
    assert_eq!(client.call("uptime", json!([])).unwrap(), "fine");
    drop(client);
    assert_eq!(server.join().unwrap(), [2]);
}

#[test]
fn failures_say_whose_fault_and_which_exit_code() {
    let (mut client, server) = serve(1, |asked| {
        let error = |code: i64, data: Value| {
            let error = json!({"code": code, "message": "no", "data": data});
            http(
                200,
                &json!({"jsonrpc": "2.0", "id": asked.body["id"], "error": error}).to_string(),
            )
        };
        Some(match asked.body["method"].as_str().unwrap() {
            "warmup" => error(-28, Value::Null),
            "timeout" => error(-1, json!({"reason": "timeout", "hint": "wait longer"})),
            "wrong" => error(-5, Value::Null),
            "legacy" => http(
                500,
                "{\"result\":null,\"error\":{\"code\":-8,\"message\":\"x\"},\"id\":1}",
            ),
            "other" => http(200, "{\"result\":1,\"error\":null,\"id\":77}"),
            "refused" => http(403, ""),
            _ => http(200, "not json"),
        })
    });
    let mut exit_of = |method| {
        let error = client.call(method, json!([])).unwrap_err();
        (error.exit(), error.to_string())
    };
    assert_eq!(exit_of("warmup").0, Exit::NotReady);
    let (exit, text) = exit_of("timeout");
    assert_eq!(exit, Exit::TimedOut);
    assert!(text.contains("hint: wait longer"), "{text}");
    assert_eq!(exit_of("wrong"), (Exit::Failure, "no (code -5)".to_owned()));
    assert_eq!(exit_of("legacy").0, Exit::Failure);
    assert_eq!(exit_of("other").0, Exit::Unavailable);
    assert_eq!(exit_of("refused").0, Exit::Permission);
    assert_eq!(exit_of("garbage").0, Exit::Unavailable);
    drop(client);
    assert_eq!(server.join().unwrap(), [7]);
}

#[test]
fn silence_ends_with_the_time_limit_and_no_listener_at_once() {
    // An address of its own: no other test takes this port in between.
    let listener = TcpListener::bind("127.0.0.66:0").unwrap();
    let url: Url = listener.local_addr().unwrap().to_string().parse().unwrap();
    let mut client = Client::new(url.clone(), Credentials::None);
    client.set_timeout(Duration::from_millis(50));
    let silent = client.call("uptime", json!([])).unwrap_err();
    assert!(matches!(silent, ClientError::Timeout { .. }), "{silent}");
    assert_eq!(silent.exit(), Exit::TimedOut);
    drop(listener);
    let gone = Client::new(url.clone(), Credentials::None).call("uptime", json!([]));
    let gone = gone.unwrap_err();
    assert!(
        gone.is_not_ready() && gone.exit() == Exit::Unavailable,
        "{gone}"
    );
    let missing = Credentials::File(PathBuf::from("/nonexistent/.cookie"));
    let missing = Client::new(url, missing)
        .call("uptime", json!([]))
        .unwrap_err();
    assert!(missing.is_not_ready() && missing.exit() == Exit::Unavailable);
}

#[test]
fn urls_are_read_strictly() {
    let url: Url = "http://[::1]:24301".parse().unwrap();
    assert_eq!(
        (url.host.as_str(), url.port, url.path.as_str()),
        ("::1", 24301, "/")
    );
    assert_eq!(url.to_string(), "http://[::1]:24301/");
    assert_eq!(
        "localhost:1/wallet/a".parse::<Url>().unwrap().path,
        "/wallet/a"
    );
    for bad in [
        "https://a:1/",
        "http://a/",
        "http://:1/",
        "http://a:0/",
        "http://a:70000/",
        "http://u:p@a:1/",
        "http://a b:1/",
        "http://::1:24301/",
        "http://a:1/x y",
    ] {
        assert!(bad.parse::<Url>().is_err(), "{bad}");
    }
}

#[test]
fn an_announced_flood_is_refused_before_it_is_read() {
    let mut reader = http::Reader::default();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    assert!(matches!(
        reader.feed(head),
        Err(http::Failure::Malformed(_))
    ));
    let endless = b"HTTP/1.1 200 OK\r\nX: ".repeat(2_000);
    assert!(http::Reader::default().feed(&endless).is_err());
}

proptest! {
    #[test]
    fn answers_come_together_however_they_are_cut(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..60) {
        let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(&body);
        let mut reader = http::Reader::default();
        let mut found = None;
        for part in bytes.chunks(cut) {
            prop_assert!(found.is_none());
            found = reader.feed(part).unwrap();
        }
        let (response, keep) = found.unwrap();
        prop_assert!(keep);
        prop_assert_eq!(response.body, body);
    }

    #[test]
    fn random_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut reader = http::Reader::default();
        for part in bytes.chunks(7) {
            if reader.feed(part).is_err() {
                break;
            }
        }
    }
}
