//! What the Redis transport promises when things break, and what it leaves in Redis for other workers to read.

#![allow(clippy::unwrap_used, reason = "a test fails where its broker does")]

mod support;

#[path = "transport_redis/claimed.rs"]
mod claimed;
#[path = "transport_redis/connecting.rs"]
mod connecting;
#[path = "transport_redis/faults.rs"]
mod faults;
#[path = "transport_conformance/harness.rs"]
#[allow(dead_code, reason = "shared with the conformance suite")]
mod harness;
#[path = "transport_redis/misfits.rs"]
mod misfits;
#[path = "transport_redis/rig.rs"]
mod rig;
#[path = "transport_redis/wire.rs"]
mod wire;
