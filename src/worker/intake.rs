//! [`read`]: what is to be done with a message that arrived, decided from its bytes alone.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::info;

use super::execute::Limits;
use super::inspect::Content;
use super::malformed::{Fault, Malformed};
use super::parking;
use super::policy::Policy;
use super::pools::Pools;
use super::request::Work;
use super::unknown::Unknown;
use crate::app::App;
use crate::config::{Config, UnknownTasks};
use crate::control::Rate;
use crate::protocol::{AcceptContent, Body, Embed, HeaderError, Map, Message, TaskHeaders, Value};
use crate::task::{Arguments, Pool, Request, RetryPolicy, Task, TaskOptions};
use crate::transport::{Delivery, QueueName, Receipt};
use crate::{Error, ErrorKind, Result};

/// What is to be done with a message.
#[derive(Debug)]
pub(crate) enum Intake {
    /// Run it when there is room.
    Run(Box<Work>),
    /// Run it at that moment.
    Hold(Timestamp, Box<Work>),
    /// Its time has passed.
    Expired(Box<Work>),
    /// Another worker may know it.
    HandBack(Box<Unknown>),
    /// It cannot be run.
    Malformed(Box<Malformed>),
}

impl Intake {
    /// Whether the broker has taken the message back meanwhile.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Intake::Run(work) | Intake::Hold(_, work) | Intake::Expired(work) => work.is_lost(),
            Intake::HandBack(unknown) => unknown.is_lost(),
            Intake::Malformed(malformed) => malformed.delivery.is_lost(),
        }
    }
}

/// The tasks of a worker with what was worked out about each.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    known: HashMap<String, Arc<KnownTask>, ahash::RandomState>,
    accept: Arc<AcceptContent>,
    hostname: String,
    /// What becomes of those that are not among them.
    unknown: UnknownTasks,
    /// The limits of tasks that have none of their own.
    default_limits: Limits,
    /// The queues that messages are delayed for at the broker, and their routing keys.
    delayed: Arc<HashMap<String, Arc<str>>>,
    /// Whether limits were changed since the worker began.
    has_new_limits: bool,
}

/// A task that this worker can run.
#[derive(Clone)]
pub(crate) struct KnownTask {
    pub(crate) task: Arc<dyn Task>,
    pub(crate) policy: Policy,
    pub(crate) retries: RetryPolicy,
    /// Where it is run; `None`: here.
    pub(crate) pool: Option<Arc<dyn Pool>>,
    /// What its declaration and the annotations say.
    pub(crate) options: TaskOptions,
    accept: Arc<AcceptContent>,
}

impl Tasks {
    /// # Errors
    /// `Configuration`: `accept_content` names something that this worker cannot decode.
    pub(crate) fn new(app: &App, hostname: &str) -> Result<Self> {
        let accept = Arc::new(AcceptContent::new(&app.config().accept_content)?);
        let mut tasks = Tasks {
            known: HashMap::default(),
            accept,
            hostname: hostname.to_owned(),
            unknown: app.config().unknown_tasks,
            default_limits: Limits { hard: app.config().task_time_limit, soft: app.config().task_soft_time_limit },
            delayed: Arc::default(),
            has_new_limits: false,
        };
        let names = app.tasks().names().into_iter();
        tasks.add(names.filter_map(|name| app.tasks().task(name).cloned()).collect(), app.config());
        Ok(tasks)
    }

    /// Tells the queues that messages are delayed for at the broker, and their routing keys.
    pub(super) fn delay(&mut self, queues: HashMap<String, Arc<str>>) {
        self.delayed = Arc::new(queues);
    }

    /// Adds tasks, except those whose names are taken.
    pub(crate) fn add(&mut self, tasks: Vec<Arc<dyn Task>>, config: &Config) {
        for task in tasks {
            let name = task.name().to_owned();
            let options = task.options().annotated(&name, &config.task_annotations);
            let (policy, retries) = (Policy::new(&options, config), RetryPolicy::from(&options));
            let (pool, accept) = (task.pool(), Arc::clone(&self.accept));
            let known = KnownTask { task, policy, retries, pool, options, accept };
            self.known.entry(name).or_insert_with(|| Arc::new(known));
        }
    }

    /// The tasks by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &KnownTask)> {
        self.known.iter().map(|(name, task)| (name.as_str(), &**task))
    }

    /// What may be decoded.
    pub(crate) fn accept(&self) -> Arc<AcceptContent> {
        Arc::clone(&self.accept)
    }

    /// Whether a task's messages are acknowledged when it is done.
    pub(crate) fn acks_late(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|task| task.policy.acks_late)
    }

    /// Whether there is a task of that name.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Where they are run; `handlers` is how many of those that run here do so beside pools.
    pub(crate) fn pools(&self, handlers: Option<u32>) -> Pools {
        let handlers = self.known.values().any(|task| task.pool.is_none()).then_some(handlers);
        Pools::new(self.known.values().filter_map(|task| task.pool.clone()), handlers)
    }

    /// The rate limits of the tasks that have one.
    ///
    /// # Errors
    /// `Configuration`: a limit that cannot be read.
    pub(crate) fn rates(&self) -> Result<Vec<(String, Rate)>> {
        let limited = self.known.iter().filter_map(|(name, task)| Some((name, task.policy.rate_limit.as_deref()?)));
        let read = limited.map(|(name, text)| match Rate::parse(text) {
            Ok(rate) => Ok(rate.map(|rate| (name.clone(), rate))),
            Err(exception) => {
                Err(Error::new(ErrorKind::Configuration, format!("the rate limit of {name}: {exception}")))
            }
        });
        read.filter_map(Result::transpose).collect()
    }

    /// Changes the time limits of a task for all that starts from now on; `false` if there is no such task. A limit that
    /// is absent is the worker's own.
    pub(crate) fn set_limits(&mut self, name: &str, limits: Limits) -> bool {
        let Some(task) = self.known.get_mut(name) else { return false };
        let mut changed = KnownTask::clone(task);
        let default = self.default_limits;
        changed.policy.limits = Limits { hard: limits.hard.or(default.hard), soft: limits.soft.or(default.soft) };
        *task = Arc::new(changed);
        self.has_new_limits = true;
        true
    }

    /// Tells, from now on, that a task has this rate limit.
    pub(crate) fn set_rate_limit(&mut self, name: &str, text: Option<String>) {
        if let Some(task) = self.known.get_mut(name) {
            let mut changed = KnownTask::clone(task);
            changed.policy.rate_limit = text;
            *task = Arc::new(changed);
        }
    }

    /// Gives work that is about to start the limits of its task as they are now, unless its message has its own.
    pub(crate) fn renew_limits(&self, work: &mut Work) {
        if !self.has_new_limits {
            return;
        }
        if let Some(task) = self.known.get(&work.request.task)
            && let Ok(headers) = TaskHeaders::read(&work.request.headers)
        {
            work.limits = task.policy.limits_with(headers.time_limit, headers.soft_time_limit);
        }
    }
}

impl KnownTask {
    /// A message of this task whose body, as was found elsewhere, cannot be decoded.
    pub(crate) fn undecodable(&self, delivery: Receipt, message: Message, id: String, error: Error) -> Malformed {
        let followed = followed(&message, &self.accept);
        let named = Some((id, self.task.name().to_owned()));
        Malformed::new(delivery, message, Fault::Payload(error), named, followed)
    }
}

impl std::fmt::Debug for KnownTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownTask").field("name", &self.task.name()).finish_non_exhaustive()
    }
}

/// A body of so many bytes takes milliseconds to read.
const HEAVY: usize = 1 << 20;

/// So many compressed bytes may stand for as many as that.
const HEAVY_COMPRESSED: usize = 4 << 10;

/// Whether a delivery takes long to read: it is large, or may be when it is unpacked.
pub(crate) fn is_heavy(delivery: &Delivery) -> bool {
    let Ok(message) = delivery.message() else { return false };
    let is_compressed = message.headers.get("compression").is_some_and(Value::is_truthy);
    message.body.len() > if is_compressed { HEAVY_COMPRESSED } else { HEAVY }
}

/// Decides what is to be done with a delivery at `now`.
pub(crate) fn read(delivery: Delivery, tasks: &Tasks, now: Timestamp) -> Intake {
    let (message, delivery) = delivery.into_parts();
    let message = match message {
        Ok(message) => parking::unparked(message),
        Err(undecodable) => return Intake::Malformed(Box::new(Malformed::no_message(delivery, undecodable))),
    };
    match understand(&message, tasks) {
        Ok(understood) => accept(delivery, message, understood, tasks, now),
        Err((Fault::NotRegistered(_), _)) if tasks.unknown == UnknownTasks::HandBack && Unknown::may_go(&message) => {
            Intake::HandBack(Box::new(Unknown::new(delivery, message)))
        }
        Err((fault, named)) => malformed(delivery, message, fault, named, &tasks.accept),
    }
}

/// Makes work of a message once more that was accepted before, and held. Whether it has expired is seen when it begins.
pub(crate) fn again(delivery: Receipt, message: Message, tasks: &Tasks) -> Intake {
    match understand(&message, tasks) {
        Ok(understood) => match work(delivery, message, understood, tasks) {
            Ok((_, work)) => Intake::Run(work),
            Err(malformed) => Intake::Malformed(malformed),
        },
        Err((fault, named)) => malformed(delivery, message, fault, named, &tasks.accept),
    }
}

fn malformed(delivery: Receipt, message: Message, fault: Fault, named: Named, accept: &AcceptContent) -> Intake {
    let followed = named.as_ref().and_then(|_| followed(&message, accept));
    Intake::Malformed(Box::new(Malformed::new(delivery, message, fault, named, followed)))
}

/// A message that can be run.
struct Understood {
    headers: TaskHeaders,
    /// `None`: whoever runs it elsewhere decodes it, and says whether it can be.
    body: Option<Body>,
    task: Arc<KnownTask>,
    /// The headers that a version 1 body came to; `None`: those of the message.
    rewritten: Option<Map>,
}

/// The id and name under which a refused message is reported, if it has any.
type Named = Option<(String, String)>;

fn understand(message: &Message, tasks: &Tasks) -> Result<Understood, (Fault, Named)> {
    let (headers, decoded, rewritten) = match TaskHeaders::read(&message.headers) {
        Err(HeaderError::NoTask) => {
            let (map, body) = version_1(message, &tasks.accept).map_err(|fault| (fault, named(&message.headers)))?;
            let headers = TaskHeaders::read(&map).map_err(|error| (Fault::Header(error), named(&map)))?;
            (headers, Some(body), Some(map))
        }
        read => (read.map_err(|error| (Fault::Header(error), named(&message.headers)))?, None, None),
    };
    let named = || Some((headers.id.clone(), headers.task.clone()));
    let Some(task) = tasks.known.get(&headers.task) else {
        let name = headers.task.clone();
        return Err((Fault::NotRegistered(name), named()));
    };
    let body = match decoded {
        None if task.pool.is_none() => Some(decode(message, &tasks.accept).map_err(|fault| (fault, named()))?),
        decoded => decoded,
    };
    Ok(Understood { task: Arc::clone(task), headers, body, rewritten })
}

/// What was to follow a message that cannot be run, as far as it can be read: its chord must not wait for it for ever.
fn followed(message: &Message, accept: &AcceptContent) -> Option<(TaskHeaders, Embed)> {
    let mut headers = message.headers.clone();
    // It will not run, so it does not matter when.
    ["eta", "expires"].into_iter().for_each(|time| drop(headers.remove(time)));
    let (headers, body) = (TaskHeaders::read(&headers).ok()?, message.plain_payload(accept).ok()?);
    Embed::of(body).filter(|embed| !embed.is_empty()).map(|embed| (headers, embed))
}

fn named(headers: &Map) -> Named {
    let text = |name| headers.get(name).and_then(Value::as_str).map(str::to_owned);
    Some((text("id")?, text("task").unwrap_or_default()))
}

fn decode(message: &Message, accept: &AcceptContent) -> Result<Body, Fault> {
    if message.content_type.is_none() {
        return Err(Fault::NoContentType);
    }
    let value = message.payload(accept).map_err(Fault::Payload)?;
    Body::read(value).map_err(Fault::Body)
}

fn version_1(message: &Message, accept: &AcceptContent) -> Result<(Map, Body), Fault> {
    let value = message.payload(accept).map_err(Fault::Payload)?;
    let read = Body::read_version_1(value, &message.headers).map_err(Fault::Body)?;
    read.ok_or(Fault::NoTask)
}

fn accept(delivery: Receipt, message: Message, understood: Understood, tasks: &Tasks, now: Timestamp) -> Intake {
    let (eta, work) = match work(delivery, message, understood, tasks) {
        Ok(accepted) => accepted,
        Err(malformed) => return Intake::Malformed(malformed),
    };
    let (id, name) = (&*work.request.id, &*work.request.task);
    info!(task_id = id, task_name = name, "Task {}[{id}] received", work.name);
    match eta {
        _ if work.is_expired(now) => Intake::Expired(work),
        Some(eta) if eta > now => Intake::Hold(eta, work),
        _ => Intake::Run(work),
    }
}

/// The work that a message means, and its ETA.
fn work(
    delivery: Receipt,
    mut message: Message,
    understood: Understood,
    tasks: &Tasks,
) -> Result<(Option<Timestamp>, Box<Work>), Box<Malformed>> {
    let Understood { headers, body, task, rewritten } = understood;
    if let (Some(rewritten), Some(body)) = (rewritten, &body) {
        message.headers = rewritten;
        // What is made of the message later, a retry or a dead letter, is of version 2 throughout.
        if let Err(error) = message.set_body(body) {
            let named = Some((headers.id.clone(), headers.task.clone()));
            return Err(Box::new(Malformed::new(delivery, message, Fault::Payload(error), named, None)));
        }
    }
    let limits = task.policy.limits_with(headers.time_limit, headers.soft_time_limit);
    let ignore_result = headers.ignore_result.unwrap_or(task.policy.ignore_result);
    let name = headers.shadow.clone().unwrap_or_else(|| headers.task.clone());
    let (eta, request) = (headers.eta, request(headers, &mut message, delivery.queue(), &tasks.hostname));
    let mut work = Box::new(Work::new(delivery, message, body, task, request, name));
    (work.limits, work.ignore_result) = (limits, ignore_result);
    work.delayed_as = tasks.delayed.get(work.queue.as_str()).cloned();
    Ok((eta, work))
}

/// What a handler could know of a message that was accepted before.
pub(super) fn request_of(message: &mut Message, queue: &QueueName, hostname: &str) -> Option<Request> {
    let headers = TaskHeaders::read(&message.headers).ok()?;
    Some(request(headers, message, queue, hostname))
}

/// What the handler can know. It takes the message's headers: [`Work::message`] puts them back together.
fn request(headers: TaskHeaders, message: &mut Message, queue: &QueueName, hostname: &str) -> Request {
    let properties = &message.properties;
    let delivery_info = Map::from([
        ("exchange", Value::from(properties.exchange.clone())),
        ("routing_key", Value::from(properties.routing_key.clone().unwrap_or_else(|| queue.to_string()))),
        ("priority", Value::from(properties.priority)),
        ("redelivered", Value::from(properties.redelivered)),
    ]);
    Request {
        id: headers.id,
        task: headers.task,
        retries: headers.retries,
        root_id: headers.root_id,
        parent_id: headers.parent_id,
        group: headers.group,
        group_index: headers.group_index,
        eta: headers.eta,
        expires: headers.expires,
        hostname: hostname.to_owned(),
        delivery_info,
        reply_to: properties.reply_to.clone(),
        correlation_id: properties.correlation_id.clone(),
        headers: std::mem::take(&mut message.headers),
    }
}

impl Work {
    /// Decodes the body once more.
    ///
    /// # Errors
    /// `Decode` or `Refused`, which they were not when the message came.
    pub(crate) fn decode(&self) -> Result<Body> {
        Content::of(&self.message).body(&self.request.headers, &self.task.accept)
    }

    /// What is to follow, of a body that its pool is not to read; nothing of one that only Python reads.
    pub(crate) fn follows(&self) -> Map {
        self.decode().unwrap_or_default().embed.into_map()
    }

    /// The arguments of the call, decoded once more: the handler has had them.
    pub(crate) fn arguments(&self) -> Arguments {
        let body = self.decode().unwrap_or_default();
        Arguments { args: body.args, kwargs: body.kwargs }
    }
}
