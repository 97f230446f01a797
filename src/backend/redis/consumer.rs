//! [`Consumer`]: hears of results as they are published (celery/backends/redis.py `ResultConsumer`).
//!
//! One connection serves all who wait. Whenever it is opened, all are told to look for themselves: what was published
//! while nobody listened is not published again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::redis_client::{ConnectOptions, Opened, RedisUrl, SharedConnection, failure};
use crate::{Error, ErrorKind, Result};

/// The pause between tries to connect, and between looks where the server pushes nothing: Celery's polling interval.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Hears of results as they are published.
pub(super) struct Consumer {
    url: RedisUrl,
    options: ConnectOptions,
    /// After how long without a word the connection is asked whether it lives.
    health_check_interval: Duration,
    /// To the background task, which is started by whoever waits first.
    orders: Mutex<Option<UnboundedSender<Order>>>,
}

/// What one who waits is told.
#[derive(Debug)]
pub(super) enum Notice {
    /// Whatever is published on this channel from now on will be told: fetch what is there already.
    Look(Arc<str>),
    /// A result was published on this channel.
    Published(Arc<str>, Vec<u8>),
}

/// One who waits for channels; one is unsubscribed from when nobody is left.
pub(super) struct Subscription {
    channels: Vec<Arc<str>>,
    notices: UnboundedReceiver<Result<Notice>>,
    orders: UnboundedSender<Order>,
}

enum Order {
    Subscribe(Vec<Arc<str>>, UnboundedSender<Result<Notice>>),
    /// Somebody has gone from these channels.
    Release(Vec<Arc<str>>),
}

impl Consumer {
    pub(super) fn new(url: RedisUrl, options: ConnectOptions, health_check_interval: Duration) -> Self {
        Consumer { url, options, health_check_interval, orders: Mutex::default() }
    }

    /// Waits for what is published on `channels`. Must be called within a Tokio runtime.
    pub(super) fn subscribe(&self, channels: Vec<String>) -> Subscription {
        let channels: Vec<Arc<str>> = channels.into_iter().map(Arc::from).collect();
        let (tell, notices) = mpsc::unbounded_channel();
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = match &*orders {
            Some(orders) if !orders.is_closed() => orders.clone(),
            _ => orders.insert(self.start()).clone(),
        };
        // The task ends only when nobody can give orders any more.
        let _ = orders.send(Order::Subscribe(channels.clone(), tell));
        Subscription { channels, notices, orders }
    }

    /// A runtime that ends takes its task with it: another one gets its own.
    fn start(&self) -> UnboundedSender<Order> {
        let (orders, incoming) = mpsc::unbounded_channel();
        let listening = Listening {
            url: self.url.clone(),
            options: self.options.clone(),
            health_check_interval: self.health_check_interval,
            incoming,
            waiting: HashMap::new(),
            is_lost: false,
        };
        tokio::spawn(listening.run());
        orders
    }
}

impl Subscription {
    /// What comes next, as much as there is; an error is one that connecting again does not help.
    pub(super) async fn next_many(&mut self) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        if self.notices.recv_many(&mut notices, 1000).await == 0 {
            return Err(Error::new(ErrorKind::Connection, "nobody listens for results any more"));
        }
        notices.into_iter().collect()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.notices.close();
        let _ = self.orders.send(Order::Release(std::mem::take(&mut self.channels)));
    }
}

/// The background task.
struct Listening {
    url: RedisUrl,
    options: ConnectOptions,
    health_check_interval: Duration,
    incoming: UnboundedReceiver<Order>,
    waiting: HashMap<Arc<str>, Listeners>,
    /// Whether the present outage has been logged.
    is_lost: bool,
}

/// Those who wait for one channel.
#[derive(Default)]
struct Listeners {
    all: Vec<UnboundedSender<Result<Notice>>>,
    /// How many have gone since they were last looked through, which happens when they may be half of all.
    gone: usize,
}

/// Why a connection is not listened to any more.
enum End {
    /// Nobody can wait any more.
    Finished,
    /// It was lost, or there is nobody to wait for.
    Closed,
}

impl Listening {
    async fn run(mut self) {
        while let Some(order) = self.incoming.recv().await {
            self.note(order);
            if matches!(self.listen_while_waited_for().await, End::Finished) {
                return;
            }
        }
    }

    /// Opens connections as long as somebody waits; an open one is kept for the next who does.
    async fn listen_while_waited_for(&mut self) -> End {
        while !self.waiting.is_empty() {
            let (pushes, mut pushed) = mpsc::unbounded_channel();
            let options = ConnectOptions { resp3: true, pushes: Some(pushes), ..self.options.clone() };
            let end = match self.url.connect(&options).await {
                Ok(Opened { resp3: false, .. }) => self.poll().await,
                Ok(Opened { connection, .. }) => self.listen(connection, &mut pushed).await,
                Err(error) => self.cannot_connect(error).await,
            };
            if matches!(end, End::Finished) {
                return end;
            }
        }
        End::Closed
    }

    async fn listen(&mut self, mut connection: SharedConnection, pushed: &mut UnboundedReceiver<PushInfo>) -> End {
        let all: Vec<Arc<str>> = self.waiting.keys().cloned().collect();
        if self.subscribe(&mut connection, all).await.is_err() {
            return End::Closed;
        }
        loop {
            tokio::select! {
                order = self.incoming.recv() => {
                    let Some(order) = order else { return End::Finished };
                    if self.follow(&mut connection, order).await.is_err() {
                        return End::Closed;
                    }
                }
                push = pushed.recv() => match push {
                    Some(PushInfo { kind: PushKind::Message, data }) => self.tell(data),
                    Some(PushInfo { kind: PushKind::Disconnection, .. }) | None => return End::Closed,
                    Some(_) => {}
                },
                () = tokio::time::sleep(self.health_check_interval), if !self.waiting.is_empty() => {
                    let lives = redis::cmd("PING").exec_async(&mut connection).await;
                    if self.answered(lives).is_err() {
                        return End::Closed;
                    }
                }
            }
        }
    }

    /// Carries out what has gathered: one request subscribes to many channels.
    async fn follow(&mut self, connection: &mut SharedConnection, first: Order) -> Result<()> {
        let (mut new, mut old) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(order) = next {
            match self.note(order) {
                Change::Wanted(channels) => new.extend(channels),
                Change::Unwanted(channels) => old.extend(channels),
            }
            next = self.incoming.try_recv().ok();
        }
        old.retain(|channel| !self.waiting.contains_key(channel));
        new.retain(|channel| self.waiting.contains_key(channel));
        for channels in old.chunks(1000) {
            self.answered(connection.unsubscribe(names(channels)).await)?;
        }
        self.subscribe(connection, new).await
    }

    /// Subscribing to a channel twice is harmless, and tells a newcomer when to look.
    async fn subscribe(&mut self, connection: &mut SharedConnection, channels: Vec<Arc<str>>) -> Result<()> {
        for channels in channels.chunks(1000) {
            self.answered(connection.subscribe(names(channels)).await)?;
            self.is_lost = false;
            for channel in channels {
                let listeners = self.waiting.get(channel);
                listeners.iter().for_each(|listeners| listeners.tell_all(|| Ok(Notice::Look(channel.clone()))));
            }
        }
        Ok(())
    }

    fn answered(&mut self, outcome: redis::RedisResult<()>) -> Result<()> {
        let outcome = outcome.map_err(|error| failure("cannot listen for results at", &self.url, error));
        if let Err(error) = &outcome {
            self.log_lost(error);
        }
        outcome
    }

    /// Notes an order, and says what it changes.
    fn note(&mut self, order: Order) -> Change {
        match order {
            Order::Subscribe(channels, listener) => {
                for channel in &channels {
                    self.waiting.entry(channel.clone()).or_default().all.push(listener.clone());
                }
                Change::Wanted(channels)
            }
            Order::Release(mut channels) => {
                channels.retain(|channel| self.release(channel));
                Change::Unwanted(channels)
            }
        }
    }

    /// Whether nobody is left.
    fn release(&mut self, channel: &str) -> bool {
        let Some(listeners) = self.waiting.get_mut(channel) else { return false };
        listeners.gone += 1;
        if listeners.gone * 2 >= listeners.all.len() {
            listeners.all.retain(|listener| !listener.is_closed());
            listeners.gone = 0;
        }
        let is_unwanted = listeners.all.is_empty();
        if is_unwanted {
            self.waiting.remove(channel);
        }
        is_unwanted
    }

    fn tell(&mut self, data: Vec<Value>) {
        let [Value::BulkString(channel), Value::BulkString(payload)] = &data[..] else { return };
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        if let Some((channel, listeners)) = self.waiting.get_key_value(channel) {
            listeners.tell_all(|| Ok(Notice::Published(channel.clone(), payload.clone())));
        }
    }

    /// Those who wait go on waiting through an outage; what an outage does not explain is theirs.
    async fn cannot_connect(&mut self, error: Error) -> End {
        if error.can_pass() {
            self.log_lost(&error);
            return self.pause().await;
        }
        for (_, listeners) in self.waiting.drain() {
            listeners.tell_all(|| Err(Error::new(error.kind(), error.to_string())));
        }
        End::Closed
    }

    /// For servers without RESP3, which push nothing over this connection.
    async fn poll(&mut self) -> End {
        while !self.waiting.is_empty() {
            for (channel, listeners) in &self.waiting {
                listeners.tell_all(|| Ok(Notice::Look(channel.clone())));
            }
            if matches!(self.pause().await, End::Finished) {
                return End::Finished;
            }
        }
        End::Closed
    }

    /// Orders are noted meanwhile.
    async fn pause(&mut self) -> End {
        let pause = tokio::time::sleep(PAUSE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return End::Closed,
                order = self.incoming.recv() => match order {
                    Some(order) => _ = self.note(order),
                    None => return End::Finished,
                }
            }
        }
    }

    fn log_lost(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.is_lost, true) {
            tracing::warn!("Connection to Redis lost: Retry in {:.2} seconds. ({error})", PAUSE.as_secs_f64());
        }
    }
}

impl Listeners {
    fn tell_all(&self, notice: impl Fn() -> Result<Notice>) {
        for listener in &self.all {
            let _ = listener.send(notice());
        }
    }
}

/// What an order changes.
enum Change {
    /// Somebody waits for these channels who has not looked yet.
    Wanted(Vec<Arc<str>>),
    /// Nobody waits for these channels any more.
    Unwanted(Vec<Arc<str>>),
}

fn names(channels: &[Arc<str>]) -> Vec<&str> {
    channels.iter().map(|channel| &**channel).collect()
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("url", &self.url).finish_non_exhaustive()
    }
}
