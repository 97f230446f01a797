//! What the AMQP transport promises when things break, and what it declares for other workers to share.

#![allow(clippy::unwrap_used, reason = "a test fails where its broker does")]

mod support;

#[path = "transport_amqp/connecting.rs"]
mod connecting;
#[path = "transport_amqp/faults.rs"]
mod faults;
#[path = "transport_conformance/harness.rs"]
#[allow(dead_code, reason = "shared with the conformance suite")]
mod harness;
#[path = "transport_amqp/hostile.rs"]
mod hostile;
#[path = "transport_amqp/rig.rs"]
mod rig;
#[path = "transport_amqp/window.rs"]
mod window;
#[path = "transport_amqp/wire.rs"]
mod wire;
