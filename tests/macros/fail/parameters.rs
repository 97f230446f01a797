//! Parameters that a message cannot fill.

use celeriac::TaskContext;

#[celeriac::task]
async fn borrowed(name: &str) {}

#[celeriac::task]
async fn pattern((x, y): (i64, i64)) {}

#[celeriac::task]
async fn default_first(#[default] x: i64, y: i64) {}

#[celeriac::task]
async fn context_last(x: i64, ctx: TaskContext) {}

#[celeriac::task]
async fn misspelt(#[defualt] x: i64) {}

#[celeriac::task]
async fn after_kwargs(#[kwargs] named: std::collections::HashMap<String, i64>, x: i64) {}

fn main() {}
