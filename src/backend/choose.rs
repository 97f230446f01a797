//! [`from_url`]: the backend that `result_backend` names.

use std::sync::Arc;

use super::memcached::SCHEMES;
use super::{
    BackendOptions, DatabaseBackend, DisabledBackend, DjangoBackend, FileBackend, MemcachedBackend, MemoryBackend,
    RedisBackend, ResultBackend, RpcBackend,
};
use crate::{Error, ErrorKind, Result};

/// The backend that `result_backend` names: a URL or one of Celery's aliases (celery/app/backends.py `by_url`).
///
/// | `url` | backend |
/// |---|---|
/// | `None`, `disabled`, `disabled://` | [`DisabledBackend`] |
/// | `redis`, `redis://`, `rediss://`, `redis+socket://`, `socket://` | [`RedisBackend`] |
/// | `memory://`, `cache+memory://` | [`MemoryBackend`] |
/// | `cache+memcached://`, `cache+memcache://`, `cache+pymemcache://`, `cache+pylibmc://`; `cache` with `cache_backend` | [`MemcachedBackend`] |
/// | `file://` | [`FileBackend`] |
/// | `db+sqlite://`, `db+postgresql://` | [`DatabaseBackend`] |
/// | `django-db+sqlite://`, `django-db+postgresql://` | [`DjangoBackend`] |
/// | `rpc`, `rpc://` | [`RpcBackend`], at the broker that the options name |
///
/// Nothing is connected to yet.
///
/// # Errors
/// `Configuration`: a backend that is not supported, or a URL or an option that is wrong; `Refused`: pickled results.
pub fn from_url(url: Option<&str>, options: &BackendOptions) -> Result<Arc<dyn ResultBackend>> {
    let url = url.map(str::trim).filter(|url| !url.is_empty()).unwrap_or("disabled");
    if let Some(url) = url.strip_prefix("db+") {
        return Ok(Arc::new(DatabaseBackend::new(url, options)?));
    }
    if let Some(url) = url.strip_prefix("django-db+") {
        return Ok(Arc::new(DjangoBackend::new(url, options)?));
    }
    if let Some(url) = cache(url, options) {
        return match scheme(url) {
            "memory" => Ok(Arc::new(MemoryBackend::new(options.clone())?)),
            name if SCHEMES.contains(&name) => Ok(Arc::new(MemcachedBackend::new(url, options)?)),
            other => Err(unsupported(&format!("cache+{other}"))),
        };
    }
    Ok(match scheme(url) {
        "disabled" => Arc::new(DisabledBackend),
        "memory" => Arc::new(MemoryBackend::new(options.clone())?),
        "redis" if !url.contains("://") => Arc::new(RedisBackend::new("redis://", options)?),
        "redis" | "rediss" | "redis+socket" | "socket" => Arc::new(RedisBackend::new(url, options)?),
        "file" => Arc::new(FileBackend::new(url, options)?),
        // What follows is not looked at, as in Celery: the broker is the application's.
        "rpc" => Arc::new(RpcBackend::new(options)?),
        "django-db" => return Err(unplaced()),
        other => return Err(unsupported(other)),
    })
}

/// What Celery's `CacheBackend` is told, where it is the one that is named: the rest of the URL, or `cache_backend`.
fn cache<'a>(url: &'a str, options: &'a BackendOptions) -> Option<&'a str> {
    match url {
        "cache" => Some(options.cache.backend.as_deref().unwrap_or("memcached")),
        _ => url.strip_prefix("cache+"),
    }
}

fn scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(scheme, _)| scheme)
}

/// Where Django's settings are read, they say it.
fn unplaced() -> Error {
    let message = "result_backend: `django-db` alone says not where the tables are: \
                   django-db+sqlite:////path/db.sqlite3 or django-db+postgresql://user:password@host/database";
    Error::new(ErrorKind::Configuration, message)
}

/// Only the scheme is named: the rest of a URL may hold a password.
fn unsupported(scheme: &str) -> Error {
    let known = !scheme.is_empty() && scheme.len() <= 64 && !scheme.contains(['@', '/']);
    let name = if known { format!("`{scheme}`") } else { "this one".to_owned() };
    let supported = "redis://, rediss://, redis+socket://, rpc://, cache+memcached://, file://, \
                     db+sqlite://, db+postgresql://, django-db+sqlite://, django-db+postgresql://, memory://, disabled://";
    let message = format!("the result backend {name} is not supported: use one of {supported}");
    Error::new(ErrorKind::Configuration, message)
}
