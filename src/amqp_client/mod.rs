//! From an AMQP URL and options to an open connection, for the transport and the result backend.
//!
//! [`AmqpUrl`] reads the URLs that Celery's settings hold and shows them without their passwords; [`AmqpUrls`] is a list
//! of them and the order in which they are tried; [`AmqpUrl::connect`] opens one connection, [`AmqpConnection`], which
//! says when it is lost; `failure` turns what the client library reports into this crate's error.
//!
//! This room knows neither tasks nor results, tries nothing twice by itself, and never prints a password.

mod connect;
mod connection;
mod failure;
mod fields;
#[cfg(test)]
mod fixtures;
mod message;
mod scrub;
mod stream;
mod url;
mod urls;

pub use connect::{AmqpConnectOptions, LoginMethod};
pub use connection::AmqpConnection;
pub(crate) use failure::{code, failure, is_refusal, lost, refusal, short};
pub(crate) use fields::table;
pub(crate) use message::{properties, read};
pub use url::AmqpUrl;
pub use urls::{AmqpUrls, Failover};
