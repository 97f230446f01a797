//! [`DatabaseUrl`]: which database a URL names, as SQLAlchemy reads it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;

use super::encryption::Encryption;
use super::postgres::Server;
use super::table::Table;
use super::{Database, Postgres, Sqlite};
use crate::backend::BackendOptions;
use crate::url::UrlParts;
use crate::{Error, ErrorKind, Result};

/// How long SQLite's other users are waited for, unless the URL says.
const SQLITE_PATIENCE: Duration = Duration::from_secs(30);

/// How long a PostgreSQL server may take to accept a connection, encryption and login included, unless the URL says.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where PostgreSQL's socket is, where no host is named.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// A database that results are kept in.
pub(in crate::backend) struct DatabaseUrl {
    /// Without `db+` and without the password, as Celery shows it.
    shown: String,
    place: Place,
}

enum Place {
    Sqlite { path: PathBuf, patience: Duration },
    Postgres(Box<Server>),
}

impl DatabaseUrl {
    /// Reads what follows `prefix`, `db+` for example: `sqlite:///relative`, `sqlite:////absolute`,
    /// `postgresql://user:password@host:port/database`, with or without a Python driver's name.
    ///
    /// # Errors
    /// `Configuration`: another database, or an option that would have no effect.
    pub(in crate::backend) fn parse(prefix: &str, text: &str) -> Result<Self> {
        let (scheme, parts) = split(text);
        DatabaseUrl::of(prefix, scheme, &parts)
    }

    /// The same, and the value of an option that is not the database's.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub(in crate::backend) fn parse_with(prefix: &str, text: &str, option: &str) -> Result<(Self, Option<String>)> {
        let (scheme, mut parts) = split(text);
        let value = parts.take(option);
        Ok((DatabaseUrl::of(prefix, scheme, &parts)?, value))
    }

    fn of(prefix: &str, scheme: &str, parts: &UrlParts<'_>) -> Result<Self> {
        let (dialect, driver) = scheme.split_once('+').unwrap_or((scheme, ""));
        match (dialect, driver) {
            ("sqlite", "" | "pysqlite") => sqlite(parts),
            ("postgresql", "" | "psycopg2" | "psycopg" | "asyncpg" | "pg8000" | "psycopg2cffi") => postgres(parts),
            _ => {
                // Only what cannot be a password is shown.
                let name = if dialect.chars().all(char::is_alphanumeric) { dialect } else { "…" };
                Err(wrong(&format!("the database {prefix}{name} is not supported: use sqlite or postgresql")))
            }
        }
    }

    /// The database, not connected to yet, in which these tables are.
    pub(in crate::backend) fn open(&self, options: &BackendOptions, tables: Vec<Table>) -> Arc<dyn Database> {
        let shown = self.shown.clone();
        match &self.place {
            Place::Sqlite { path, patience } => Arc::new(Sqlite::new(shown, path, *patience, tables)),
            Place::Postgres(server) => {
                Arc::new(Postgres::new(shown, (**server).clone(), options.socket_timeout, tables))
            }
        }
    }
}

fn split(text: &str) -> (&str, UrlParts<'_>) {
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    (scheme, UrlParts::split(rest))
}

fn sqlite(parts: &UrlParts<'_>) -> Result<DatabaseUrl> {
    let mut patience = SQLITE_PATIENCE;
    for (name, value) in &parts.query {
        match name.as_str() {
            "timeout" => patience = seconds(name, value)?,
            // How threads share a connection is Python's matter.
            "check_same_thread" => {}
            _ => return Err(unknown(name)),
        }
    }
    if parts.path.is_empty() || parts.path == ":memory:" {
        return Err(wrong(
            "a SQLite database in memory is one process's alone: name a file, sqlite:////var/results.sqlite",
        ));
    }
    let shown = format!("sqlite:///{}", parts.path);
    Ok(DatabaseUrl { shown, place: Place::Sqlite { path: PathBuf::from(&parts.path), patience } })
}

fn postgres(parts: &UrlParts<'_>) -> Result<DatabaseUrl> {
    let (host, port) = parts.host_and_port(5432).ok_or_else(|| wrong("the database's URL has a port that is none"))?;
    let mut config = Config::new();
    let (mut encryption, mut limit) = (Encryption::default(), CONNECT_TIMEOUT);
    config.keepalives_idle(Duration::from_secs(30)).application_name("celeriac");
    config.tcp_user_timeout(Duration::from_secs(30));
    let mut place = host.clone();
    let mut hosts = if parts.has_host() { vec![host] } else { SOCKET_FOLDERS.map(str::to_owned).to_vec() };
    let mut port = port;
    for (name, value) in &parts.query {
        match name.as_str() {
            "host" => hosts = vec![value.clone()],
            "port" => port = value.parse().map_err(|_| wrong("the database's port is no number"))?,
            "connect_timeout" => limit = seconds(name, value)?,
            "application_name" => _ = config.application_name(value),
            "options" => _ = config.options(value),
            _ if encryption.take(name, value)? => {}
            _ => return Err(unknown(name)),
        }
    }
    // On a socket of the same machine libpq does not encrypt, whatever it is told.
    if hosts.iter().all(|host| host.starts_with('/')) {
        encryption = Encryption::none();
    }
    encryption.check()?;
    for host in &hosts {
        config.host(host).port(port);
    }
    let user = parts.username.as_deref().ok_or_else(|| wrong("the database's URL names no user"))?;
    config.user(user).dbname(if parts.path.is_empty() { user } else { &parts.path });
    if let Some(password) = &parts.password {
        config.password(password);
    }
    if !parts.has_host() {
        place = String::new();
    }
    let login = if parts.password.is_some() { format!("{user}:**") } else { user.to_owned() };
    let shown = format!("postgresql://{login}@{place}:{port}/{}", parts.path);
    // As with libpq nothing is a limit of none.
    let server = Server { config, encryption, limit: (!limit.is_zero()).then_some(limit) };
    Ok(DatabaseUrl { shown, place: Place::Postgres(Box::new(server)) })
}

fn seconds(name: &str, value: &str) -> Result<Duration> {
    let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|time| *time <= Duration::from_secs(86_400))
        .ok_or_else(|| wrong(&format!("the database's option {name} is no number of seconds")))
}

fn unknown(name: &str) -> Error {
    wrong(&format!("the database's option {name:?} is not supported"))
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("result_backend: {what}"))
}
