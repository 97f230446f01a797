//! A server that is far away: a proxy that hands on what it reads after a while, in both directions.
//!
//! `distance LISTEN_PORT SERVER_PORT MILLISECONDS_EACH_WAY`. It needs nothing but the standard library:
//! `rustc --edition 2024 -O benches/peers/distance.rs`.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Pieces that come together leave together.
const CHUNK: usize = 1 << 18;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, server, each_way] = arguments.as_slice() else {
        return Err("distance LISTEN_PORT SERVER_PORT MILLISECONDS_EACH_WAY".into());
    };
    let (server, delay) = (server.parse()?, Duration::try_from_secs_f64(each_way.parse::<f64>()? / 1000.0)?);
    for near in TcpListener::bind(("127.0.0.1", listen.parse()?))?.incoming() {
        connect(near?, server, delay)?;
    }
    Ok(())
}

fn connect(near: TcpStream, server: u16, delay: Duration) -> Result<(), Box<dyn Error>> {
    let far = TcpStream::connect(("127.0.0.1", server))?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    carry(near.try_clone()?, far.try_clone()?, delay);
    carry(far, near, delay);
    Ok(())
}

/// Hands on each piece when it has been under way for `delay`; pieces do not wait for each other.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (underway, arriving) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if underway.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, piece) in arriving {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        // Who is gone already needs no notice.
        let _ = to.shutdown(Shutdown::Both);
    });
}
