//! Options that are wrong; all of them are told at once.

#[celeriac::task(ack_late)]
async fn misspelt() {}

#[celeriac::task(bind = true)]
async fn bound() {}

#[celeriac::task(exchange = "fast")]
async fn routed() {}

#[celeriac::task(time_limit = "soon", rate_limit = "10/d", max_retries = "many", acks_late = 1, serializer = "pickle", queue = "", priority = 256)]
async fn mistyped() {}

#[celeriac::task(name = "", acks_late, acks_late)]
async fn repeated() {}

fn main() {}
