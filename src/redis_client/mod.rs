//! From a Redis URL and options to an open connection, for the transport and the result backend.
//!
//! [`RedisUrl`] reads the URLs that Celery's settings hold and shows them without their passwords;
//! [`RedisUrl::connect`] opens one connection; `failure` turns what the client library reports into this crate's
//! error. `Script` runs Lua by its digest, `Caller` for who is neither broker nor backend.
//!
//! This room knows neither queues nor results, tries nothing twice by itself, and never prints a password.

mod caller;
mod connect;
mod failure;
mod script;
mod shared;
mod tls;
mod url;

pub use crate::tls::{CertificateRequirement, TlsOptions};
pub(crate) use caller::{Answer, Caller};
pub use connect::{ConnectOptions, Opened};
pub(crate) use failure::{failure, is_passing, is_refusal, lost, refusal};
pub(crate) use script::Script;
pub use shared::SharedConnection;
pub use url::{Endpoint, RedisUrl, UrlPolicy};
