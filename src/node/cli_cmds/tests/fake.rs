//! A node made of one function: method and parameters in, result or error out. GET asks for the path as method.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};

type Answer = dyn Fn(&str, &Value) -> Result<Value, Value> + Send + Sync;

pub(super) struct FakeNode(SocketAddr);

/// An error member.
pub(super) fn refuse(code: i64, message: &str) -> Value {
    json!({"code": code, "message": message})
}

impl FakeNode {
    /// Serves until the test process ends.
    pub(super) fn start(
        answer: impl Fn(&str, &Value) -> Result<Value, Value> + Send + Sync + 'static,
    ) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answer.clone();
                std::thread::spawn(move || serve(stream, &*answer));
            }
        });
        FakeNode(address)
    }
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.0)
    }
}

fn serve(stream: TcpStream, answer: &Answer) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((path, body)) = request(&mut reader) {
        let reply = if body.is_null() {
            answer(&path, &Value::Null).unwrap_or_else(|error| error)
        } else {
            let method = body["method"].as_str().unwrap();
            match answer(method, &body["params"]) {
                Ok(result) => json!({"jsonrpc": "2.0", "id": body["id"], "result": result}),
                Err(error) => json!({"jsonrpc": "2.0", "id": body["id"], "error": error}),
            }
        };
        let text = reply.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
        if writer.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
