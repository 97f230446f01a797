//! Where it connects to, and what it says when it cannot.

use std::time::Duration;

use celeriac::amqp_client::{AmqpConnectOptions, AmqpUrls, Failover};
use celeriac::tls::TlsOptions;
use celeriac::transport::{AmqpTransport, Transport};
use celeriac::{Error, ErrorKind};

use crate::rig::{transport, transport_with};
use crate::support::rabbitmq_server::RabbitServer;
use crate::support::{LONG, free_port};

async fn refused(url: &str) -> Error {
    let error = transport(url).connect().await.expect_err(url);
    let text = error.to_string();
    assert!(!text.contains("secret") && !text.contains('\n'), "{text}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_in_one_line() {
    let Some(server) = RabbitServer::shared().await else { return };
    let port = server.port();
    let rows = [
        (format!("amqp://guest:secret@127.0.0.1:{port}//"), ErrorKind::Authentication, "ACCESS_REFUSED"),
        (format!("amqp://guest:guest@127.0.0.1:{port}/no-such"), ErrorKind::Configuration, "vhost no-such not found"),
        (format!("amqp://guest:secret@127.0.0.1:{}//", free_port()), ErrorKind::Connection, "connection refused"),
        ("amqp://guest:secret@no-such-host.invalid//".to_owned(), ErrorKind::Connection, "unknown host"),
    ];
    for (url, kind, text) in rows {
        let error = refused(&url).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://127.0.0.1:{}//", listener.local_addr().unwrap().port());
    let options = AmqpConnectOptions { connect_timeout: Duration::from_secs(3), ..AmqpConnectOptions::default() };
    let transport = transport_with(&url, options);
    let both = async { tokio::join!(transport.connect(), listener.accept()) };
    let (connected, accepted) = tokio::time::timeout(LONG, both).await.expect("it is given up");
    let error = connected.unwrap_err();
    assert!(error.is_connection() && error.to_string().contains("timed out"), "{error}");
    // Its socket is closed too, and nobody waits on it any more.
    let (mut stream, _) = accepted.unwrap();
    let read = async {
        let mut header = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut header).await.unwrap();
        header
    };
    let header = tokio::time::timeout(LONG, read).await.expect("the socket is closed");
    assert_eq!(header, b"AMQP\x00\x00\x09\x01");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_is_tried() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let transport = transport(&format!("amqp://127.0.0.1:{}//;{}", free_port(), vhost.url()));
    assert!(transport.connect().await.unwrap_err().is_connection());
    let connection = transport.connect().await.unwrap();
    assert!(transport.uri().ends_with("/test%20") || transport.uri().contains("/test%20"), "{}", transport.uri());
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_a_name() {
    let Some(server) = RabbitServer::shared().await else { return };
    let vhost = server.vhost();
    let options = AmqpConnectOptions { connection_name: Some("celery@here".into()), ..AmqpConnectOptions::default() };
    let _connection = transport_with(&vhost.url(), options).connect().await.unwrap();
    // Another test's may end while it is asked.
    let all = "[catch rabbit_reader:info(C, [client_properties]) || C <- rabbit_networking:connections()].";
    let names = server.ask(all);
    assert!(names.contains("celery@here") && names.contains("Celeriac"), "{names}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_connection_is_verified() {
    let Some(server) = RabbitServer::start_with_tls().await else { return };
    let (port, files) = server.tls().unwrap();
    let connect = async |tls: &[(&str, &str)]| {
        let url = format!("amqps://guest:guest@127.0.0.1:{port}//");
        let urls = AmqpUrls::parse(&url, Failover::RoundRobin, fastrand::Rng::with_seed(1)).unwrap();
        let urls = urls.with_tls(&TlsOptions::from_pairs(tls.iter().copied()).unwrap());
        AmqpTransport::new(urls, AmqpConnectOptions::default()).connect().await.map(drop)
    };
    let authority = files.authority.to_str().unwrap();
    connect(&[("ca_certs", authority)]).await.unwrap();
    connect(&[("cert_reqs", "CERT_NONE")]).await.unwrap();
    let other = [("ca_certs", authority), ("server_hostname", "elsewhere.example")];
    let error = connect(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    connect(&[other[0], other[1], ("check_hostname", "false")]).await.unwrap();
    assert_eq!(connect(&[("ca_certs", "/no/such/file")]).await.unwrap_err().kind(), ErrorKind::Configuration);
    // Against the system's authorities the test's own is nobody.
    assert_eq!(connect(&[]).await.unwrap_err().kind(), ErrorKind::Configuration);
}
