//! [`Listening`] and [`Serving`]: the server, from a port that is held to the last connection's end.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::addresses;
use crate::{Error, ErrorKind, Result};

/// How many connections are served at a time; others wait until one of these ends.
const CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants.
const ASKING: Duration = Duration::from_secs(3);
/// How long a connection lasts at most, however slowly its client reads.
const LONGEST: Duration = Duration::from_secs(10);
/// How much of a request is read. hyper takes no less.
const LARGEST_HEAD: usize = 8 * 1024;
/// Before another connection is taken when the system has no room for one.
const PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";

/// What a server shows.
pub(crate) trait Site: Send + Sync + 'static {
    /// The page at this path; `None`: there is none.
    fn page(&self, path: &str) -> Option<Page>;

    /// The paths of all pages, for who asks for another.
    fn paths(&self) -> &'static [&'static str];
}

/// What a path shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) content_type: &'static str,
    pub(crate) text: String,
    /// Or else whoever asks is told that the service is unavailable (503).
    pub(crate) is_good: bool,
}

impl Page {
    /// A text, and whether it is good news.
    pub(crate) fn plain(is_good: bool, text: impl Into<String>) -> Self {
        Page { content_type: TEXT, text: text.into(), is_good }
    }
}

/// A port that is held, and not served yet: who connects waits.
#[derive(Debug)]
pub(crate) struct Listening(TcpListener);

/// A server that runs; dropping it ends it, and frees its port.
#[derive(Debug)]
pub(crate) struct Serving {
    stop: Option<DropGuard>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It waits for nobody: pages are made of numbers that are there. If it has panicked, there is nothing to wait for.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

impl Listening {
    /// Holds the port of `host:port`.
    ///
    /// # Errors
    /// `Configuration`: that is no address. `Io`: it is taken, or may not be.
    pub(crate) fn at(address: &str) -> Result<Self> {
        let bound = TcpListener::bind(&*addresses(address)?);
        let bound = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let failed = |error| Error::new(ErrorKind::Io, format!("serve http at {address}")).with_source(error);
        bound.map(Listening).map_err(failed)
    }

    /// Where it listens; the port may have been the system's choice.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let failed = |error| Error::new(ErrorKind::Io, "serve http").with_source(error);
        self.0.local_addr().map_err(failed)
    }

    /// Shows the site from now on, on a thread of its own.
    ///
    /// # Errors
    /// `Io`: there is no thread.
    pub(crate) fn serve(self, site: Arc<dyn Site>) -> Result<Serving> {
        let failed = |error| Error::new(ErrorKind::Io, "start the thread that serves http").with_source(error);
        let stop = CancellationToken::new();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let stopped = stop.clone();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = accept(self.0, site) => {}
                }
            });
        };
        let thread = thread::Builder::new().name("http".to_owned()).spawn(serve).map_err(failed)?;
        Ok(Serving { stop: Some(stop.drop_guard()), thread: Some(thread) })
    }
}

async fn accept(listener: TcpListener, site: Arc<dyn Site>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!("cannot serve http: {error}"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = Arc::clone(&site);
                tokio::spawn(async move {
                    converse(stream, site).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!("cannot take a connection: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, site: Arc<dyn Site>) {
    let answer = service_fn(move |request| {
        let answer = answer(&request, &*site);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKING)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(LONGEST, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a client's request was not answered: {error}"),
        Err(_) => debug!("a client took too long over its answer"),
    }
}

fn answer(request: &Request<Incoming>, site: &dyn Site) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are answered\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match site.page(request.uri().path()) {
        Some(Page { content_type, text, is_good }) => {
            let status = if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(status, content_type, text)
        }
        None => respond(StatusCode::NOT_FOUND, TEXT, format!("there are {}\n", site.paths().join(", "))),
    }
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
