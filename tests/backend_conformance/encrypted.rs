//! `sslmode` and the files beside it, against a real PostgreSQL, with libpq's meanings.

use celeriac::Error;
use celeriac::backend::{BackendOptions, from_url};

use crate::support::certificates::Certificates;
use crate::support::postgres_server::PostgresServer;
use crate::support::{LONG, eventually};

/// Asks for a result, and says whether the connection was encrypted.
async fn asks(server: &PostgresServer, url: &str) -> Result<bool, Error> {
    let sign = if url.contains('?') { '&' } else { '?' };
    let patient = format!("{url}{sign}connect_timeout={}", LONG.as_secs());
    let backend = from_url(Some(&patient), &BackendOptions::default())?;
    assert!(backend.fetch("none").await?.is_none());
    let asked =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'celeriac'";
    let answer = server.asked(asked).expect("it answers");
    drop(backend);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'celeriac'";
    eventually("the connection ends", || async { server.asked(left).as_deref() == Some("0") }).await;
    Ok(answer == "t")
}

#[tokio::test]
async fn connections_are_encrypted_as_libpq_would() {
    let Some(server) = PostgresServer::start_with_tls().await else { return };
    let (url, authority) = (server.url(), server.authority());
    let elsewhere = url.replace("127.0.0.1", "127.0.0.2");
    let rows = [
        (url.clone(), true),
        (format!("{url}?sslmode=disable"), false),
        (format!("{url}?sslmode=allow"), false),
        (format!("{url}?sslmode=prefer"), true),
        (format!("{url}?sslmode=require"), true),
        (format!("{url}?sslmode=require&sslrootcert={authority}"), true),
        (format!("{url}?sslmode=verify-ca&sslrootcert={authority}"), true),
        (format!("{url}?sslmode=verify-full&sslrootcert={authority}"), true),
        (format!("{elsewhere}?sslmode=verify-ca&sslrootcert={authority}"), true),
    ];
    for (url, is_encrypted) in rows {
        assert_eq!(asks(&server, &url).await.unwrap(), is_encrypted, "{url}");
    }
    // A name that the certificate does not have.
    let url = format!("{elsewhere}?sslmode=verify-full&sslrootcert={authority}");
    let refused = asks(&server, &url).await.unwrap_err().to_string();
    assert!(refused.contains("certificate") && !refused.contains("secret"), "{refused}");
}

#[tokio::test]
async fn a_server_that_another_authority_vouches_for_is_not_spoken_to() {
    let Some(server) = PostgresServer::start_with_tls().await else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let other = Certificates::make(folder.path()).unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}&sslrootcert={}", server.url(), other.authority.display());
        let refused = asks(&server, &url).await.unwrap_err().to_string();
        assert!(refused.contains("certificate") && !refused.contains("secret"), "{mode}: {refused}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_spoken_to_where_that_is_allowed() {
    let Some(server) = PostgresServer::start().await else { return };
    for options in ["", "?sslmode=allow", "?sslmode=prefer"] {
        assert!(!asks(&server, &format!("{}{options}", server.url())).await.unwrap(), "{options}");
    }
    let refused = asks(&server, &format!("{}?sslmode=require", server.url())).await.unwrap_err().to_string();
    assert!(refused.contains("TLS") && !refused.contains("secret"), "{refused}");
}

/// Who may come how.
const RULES: &str = "hostssl all certified all trust clientcert=verify-ca
host all certified all reject
hostnossl all plain all trust
hostssl all plain all reject
host all scrammed all scram-sha-256
";

#[tokio::test]
async fn who_comes_in_is_the_servers_to_say() {
    let Some(mut server) = PostgresServer::start_with_tls().await else { return };
    let created = server.asked(
        "CREATE ROLE certified SUPERUSER LOGIN; CREATE ROLE plain SUPERUSER LOGIN; \
         CREATE ROLE scrammed SUPERUSER LOGIN PASSWORD 'secret'",
    );
    created.expect("it creates them");
    server.becomes(None, RULES).await.unwrap();
    let url = |role: &str, options: &str| server.url().replace("celeriac:", &format!("{role}:")) + options;
    let own = {
        let (certificate, key) = server.certificate();
        format!("&sslcert={certificate}&sslkey={key}")
    };
    assert!(asks(&server, &url("certified", &format!("?sslmode=require{own}"))).await.unwrap());
    // Over TLS the login is SCRAM with its proof bound to the certificate, where the server offers that.
    assert!(asks(&server, &url("scrammed", "?sslmode=require")).await.unwrap());
    assert!(!asks(&server, &url("plain", "")).await.unwrap(), "tried again without TLS");
    assert!(asks(&server, &url("certified", &format!("?sslmode=allow{own}"))).await.unwrap(), "tried again with it");
    for refused in [url("certified", "?sslmode=require"), url("plain", "?sslmode=require")] {
        let error = asks(&server, &refused).await.unwrap_err().to_string();
        assert!(error.contains(":**@") && !error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_servers_own_certificate_may_be_the_authority_and_its_subject_the_name() {
    let Some(mut server) = PostgresServer::start_with_tls().await else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let own = Certificates::make_own(folder.path()).unwrap();
    server.becomes(Some(&own), "").await.unwrap();
    let authority = own.authority.display();
    let full = format!("?sslmode=verify-full&sslrootcert={authority}");
    assert!(asks(&server, &(server.url().replace("127.0.0.1", "localhost") + &full)).await.unwrap());
    let by_address = format!("{}?sslmode=verify-ca&sslrootcert={authority}", server.url());
    assert!(asks(&server, &by_address).await.unwrap());
    let refused = asks(&server, &(server.url() + &full)).await.unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    let of_before = format!("{}?sslmode=verify-ca&sslrootcert={}", server.url(), server.authority());
    assert!(asks(&server, &of_before).await.is_err());
}
