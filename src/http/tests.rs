use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::*;

struct Two;

impl Site for Two {
    fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/good" => Some(Page::plain(true, "yes\n")),
            "/bad" => Some(Page::plain(false, "no\n")),
            "/long" => Some(Page::plain(true, "line\n".repeat(1_000_000))),
            _ => None,
        }
    }

    fn paths(&self) -> &'static [&'static str] {
        &["/good", "/bad"]
    }
}

fn serve() -> (SocketAddr, Serving) {
    let listening = Listening::at("127.0.0.1:0").unwrap();
    (listening.address().unwrap(), listening.serve(Arc::new(Two)).unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

/// What comes until the server closes the connection.
fn say(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    // It may be closed before all is said.
    let _ = stream.write_all(request.as_bytes());
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

#[test]
fn pages_are_shown_and_whatever_else_is_asked_for_is_refused() {
    let (address, _serving) = serve();
    let huge = format!("GET /good HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let rows = [
        ("GET /good HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK", "yes\n"),
        ("GET /good?verbose HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK", "yes\n"),
        ("GET /bad HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 503 Service Unavailable", "no\n"),
        ("GET /other HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 404 Not Found", "there are /good, /bad\n"),
        ("HEAD /good HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK", ""),
        (
            "POST /good HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999\r\n\r\nx",
            "HTTP/1.1 405 Method Not Allowed",
            "only GET and HEAD are answered\n",
        ),
        (&huge, "HTTP/1.1 431 Request Header Fields Too Large", ""),
        ("no http at all\r\n\r\n", "HTTP/1.1 400 Bad Request", ""),
    ];
    for (request, status, text) in rows {
        let said = say(address, request);
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
        let shown = &request[..request.len().min(60)];
        assert_eq!((head.lines().next(), body), (Some(status), text), "{shown}: {said}");
    }
    assert!(say(address, "HEAD /good HTTP/1.1\r\nHost: h\r\n\r\n").to_lowercase().contains("content-length: 4\r\n"));
    assert!(say(address, "PUT / HTTP/1.1\r\nHost: h\r\n\r\n").to_lowercase().contains("allow: get, head\r\n"));
}

#[test]
fn clients_that_say_nothing_are_not_waited_for_however_many_they_are() {
    let (address, _serving) = serve();
    let silent: Vec<_> = (0..100).map(|_| connect(address)).collect();
    let mut half = connect(address);
    half.write_all(b"GET /good HT").unwrap();
    assert!(say(address, "GET /good HTTP/1.1\r\nHost: h\r\n\r\n").ends_with("yes\n"));
    for mut stream in silent {
        // Closed, with or without a word about it: not the time limit of this test.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
}

#[test]
fn clients_that_do_not_read_keep_no_others_back() {
    let (address, _serving) = serve();
    let slow: Vec<_> = (0..3).map(|_| connect(address)).collect();
    for mut stream in &slow {
        stream.write_all(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    assert!(say(address, "GET /good HTTP/1.1\r\nHost: h\r\n\r\n").ends_with("yes\n"));
}

#[test]
fn who_asks_gets_the_answer_or_one_line() {
    let (address, serving) = serve();
    let place = address.to_string();
    assert_eq!(ask(&place, "/good").unwrap(), Answer { is_good: true, text: "yes\n".to_owned() });
    assert!(!ask(&place, "/bad").unwrap().is_good);
    let taken = Listening::at(&place).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Io);
    assert!(taken.to_string().starts_with(&format!("serve http at {place}")), "{taken}");
    for wrong in ["9808", ":9808", "localhost", "localhost:", "localhost:99999", ""] {
        assert_eq!(Listening::at(wrong).unwrap_err().kind(), ErrorKind::Configuration, "{wrong}");
    }
    drop(serving);
    // Bound, so that nobody else is given it, and never listening.
    let kept = tokio::net::TcpSocket::new_v4().unwrap();
    kept.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let free = kept.local_addr().unwrap();
    let nobody = ask(&free.to_string(), "/good").unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Connection);
    assert!(nobody.to_string().starts_with(&format!("ask http://{free}/good")), "{nobody}");
}
