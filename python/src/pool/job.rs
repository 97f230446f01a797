//! [`Job`]: a call on its way to a child.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use celeriac::protocol::{Map, Properties, Value};
use celeriac::task::{Call, CallEnd, Fate, How, Order, StoredMeta};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::error;

use crate::frame;

/// What runs for longer is not short, whatever its task was before.
const LONG: Duration = Duration::from_millis(10);

/// A call on its way to a child.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) task: String,
    /// The task is not run: what has become of it is carried out.
    pub(super) is_fate: bool,
    /// What the child is told.
    pub(super) frame: Bytes,
    /// When its body was begun to be decoded, if that may take long, or else the task.
    pub(super) began: Option<Instant>,
    /// Its number among those of the child (`claims`); of use while a child has it and it has not begun.
    pub(super) token: u64,
    /// How many processes have died before they could begin it.
    pub(super) deaths: u8,
    /// What it was told before it began: it is not to run.
    pub(super) doomed: Option<Order>,
    /// The process that runs it is sent a signal because of it, and nothing waits behind it.
    pub(super) is_signalled: bool,
    news: mpsc::UnboundedSender<News>,
}

/// What is told of a job.
#[derive(Debug)]
pub(super) enum News {
    Reading,
    Accepted {
        pid: u32,
    },
    /// With an `answer` the child waits for it.
    Store {
        meta: StoredMeta,
        answer: Option<Answer>,
    },
    /// Nothing is told after this.
    Ended(CallEnd),
}

/// The answer to a child that waits until a result is stored. When it is dropped without one, the child hears that it is not: who
/// cannot be ended, such as a thread, goes on though its call was given up, and is not to wait for ever.
#[derive(Debug)]
pub(super) struct Answer {
    /// That of the child's question.
    number: u64,
    is_stored: bool,
    outbox: mpsc::UnboundedSender<Bytes>,
}

impl Answer {
    pub(super) fn to(number: u64, outbox: mpsc::UnboundedSender<Bytes>) -> Self {
        Answer { number, is_stored: false, outbox }
    }

    pub(super) fn give(mut self, is_stored: bool) {
        self.is_stored = is_stored;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A child that is gone by then does not ask any more.
        let _ = self.outbox.send(frame::stored(self.number, self.is_stored).into());
    }
}

impl Job {
    pub(super) fn new(call: &Call, news: mpsc::UnboundedSender<News>) -> Self {
        // Billiard numbers the jobs of a process from 0 on, and tells the number when one is lost.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let request = &call.request;
        let frame = frame::job(&frame::Job {
            task: &request.task,
            id: &request.id,
            content_type: call.message.content_type.as_deref(),
            content_encoding: call.message.content_encoding.as_deref(),
            body: &call.message.body,
            request: &request_dict(call),
            fate: call.fate.as_ref().map(told).as_ref(),
        });
        let (number, task) = (NUMBER.fetch_add(1, Ordering::Relaxed), request.task.clone());
        Job {
            number,
            task,
            is_fate: call.fate.is_some(),
            frame: frame.into(),
            began: None,
            token: 0,
            deaths: 0,
            doomed: None,
            is_signalled: false,
            news,
        }
    }

    /// The child has begun to decode its body.
    pub(super) fn read(&mut self) {
        self.began = Some(Instant::now());
        self.tell(News::Reading);
    }

    /// The task begins, in that process.
    pub(super) fn accept(&mut self, pid: u32) {
        self.began.get_or_insert_with(Instant::now);
        self.tell(News::Accepted { pid });
    }

    /// What a run is told that nobody can end: it goes on, and when it is to be over nobody waits for it any more.
    pub(super) fn outlive(&self, order: Order) {
        match order {
            Order::Kill => self.tell(News::Ended(CallEnd::Lost("left behind".to_owned()))),
            // celery/concurrency/base.py `BasePool.terminate_job`
            Order::Signal(_) => error!("{}: this pool does not implement kill_job", self.task),
            Order::SoftLimit => {}
        }
    }

    /// Whether nothing is to wait for it: it runs longer than was to be expected, or its process is sent a signal, and may end.
    pub(super) fn stays_alone(&self) -> bool {
        self.is_signalled || self.began.is_some_and(|began| began.elapsed() > LONG)
    }

    pub(super) fn tell(&self, news: News) {
        // Nobody waits any more for a call that was dropped.
        let _ = self.news.send(news);
    }
}

/// A fate as `python/celeriac/fate.py` reads it.
fn told(fate: &Fate) -> Value {
    let Fate { how, exception, unread } = fate;
    let (how, signal, is_expired) = match *how {
        How::TimeLimit => ("time limit", None, false),
        How::Lost => ("lost", None, false),
        How::Rejected => ("rejected", None, false),
        How::Revoked { signal, is_expired } => ("revoked", signal, is_expired),
        How::Cancelled => ("cancelled", None, false),
        How::Failed => ("failed", None, false),
    };
    let class: [Value; 2] = [exception.exc_type.as_str().into(), exception.exc_module.as_deref().into()];
    let [kind, module] = class;
    Value::List(vec![
        how.into(),
        kind,
        module,
        Value::List(exception.exc_message.clone()),
        signal.into(),
        is_expired.into(),
        unread.clone().map_or(Value::Null, Value::Map),
    ])
}

/// What the tracer gets (celery/worker/request.py `Request.__init__`).
fn request_dict(call: &Call) -> Map {
    let request = &call.request;
    let mut dict = request.headers.clone();
    dict.insert("properties", properties(&call.message.properties));
    dict.insert("reply_to", request.reply_to.as_deref());
    dict.insert("correlation_id", request.correlation_id.as_deref());
    dict.insert("hostname", request.hostname.as_str());
    dict.insert("delivery_info", request.delivery_info.clone());
    dict
}

/// The properties of a message as Kombu has them.
pub(crate) fn properties(properties: &Properties) -> Map {
    let mut shown = properties.other.clone();
    for (name, value) in [
        ("correlation_id", Value::from(properties.correlation_id.as_deref())),
        ("reply_to", properties.reply_to.as_deref().into()),
        ("delivery_mode", properties.delivery_mode.map(i64::from).into()),
        ("priority", properties.priority.into()),
        ("expiration", properties.expiration.as_deref().into()),
    ] {
        if value != Value::Null {
            shown.insert(name, value);
        }
    }
    shown
}
