//! [`Proxy`]: stands between a client and a broker, and breaks what passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Forwards connections from a port of its own to another.
pub(crate) struct Proxy {
    port: u16,
    /// How many answers still pass before they are thrown away; requests never are. The largest number stands for all.
    passing: Arc<AtomicUsize>,
    /// How long each piece is kept in either direction, in microseconds.
    delay: Arc<AtomicU64>,
    /// Cuts the connections that are open.
    cut: std::sync::Mutex<CancellationToken>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (passing, delay) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicU64::new(0)));
        Arc::new_cyclic(|proxy: &std::sync::Weak<Proxy>| {
            let (proxy, left, delayed) = (proxy.clone(), Arc::clone(&passing), Arc::clone(&delay));
            let accepting = tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Some(proxy) = proxy.upgrade() else { return };
                    let cut = proxy.cut.lock().expect("nobody panics with it").clone();
                    tokio::spawn(forward(client, target, cut, Arc::clone(&left), Arc::clone(&delayed)));
                }
            });
            Proxy { port, passing, delay, cut: Default::default(), accepting }
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on requests reach the server and answers do not come back.
    pub(crate) fn mute(&self, mute: bool) {
        self.passing.store(if mute { 0 } else { usize::MAX }, Ordering::SeqCst);
    }

    /// The same once so many answers have come back.
    pub(crate) fn mute_after(&self, answers: usize) {
        self.passing.store(answers, Ordering::SeqCst);
    }

    /// Whether as many have.
    pub(crate) fn is_mute(&self) -> bool {
        self.passing.load(Ordering::SeqCst) == 0
    }

    /// Keeps everything for as long, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.delay.store(delay.as_micros() as u64, Ordering::SeqCst);
    }

    /// Cuts all connections; new ones are accepted.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().expect("nobody panics with it")).cancel();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn forward(
    client: TcpStream,
    target: u16,
    cut: CancellationToken,
    passing: Arc<AtomicUsize>,
    delay: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let all = Arc::new(AtomicUsize::new(usize::MAX));
    let requests = pump(from_client, to_server, all, Arc::clone(&delay));
    let answers = pump(from_server, to_client, passing, delay);
    tokio::select! {
        () = requests => {}
        () = answers => {}
        () = cut.cancelled() => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    passing: Arc<AtomicUsize>,
    delay: Arc<AtomicU64>,
) {
    let passes = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
    let (sender, mut pieces) = tokio::sync::mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    let reading = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let due = tokio::time::Instant::now() + Duration::from_micros(delay.load(Ordering::SeqCst));
            if sender.send((due, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = pieces.recv().await {
            if due > tokio::time::Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            let is_heard = passing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, passes).is_ok();
            if is_heard && to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
