//! [`Metas`]: what is stored for a task, from its request.

use jiff::tz::TimeZone;

use super::request::Work;
use crate::backend::{ReplyTo, StoreRequest};
use crate::canvas::continuation::FailedMember;
use crate::protocol::{DateTime, Exception, Map, MetaResult, ResultTuple, State, TaskMeta, Value};
use crate::task::Request;
use crate::time::Clock;

/// Makes what is stored (celery/backends/base.py `Backend._get_result_meta`).
#[derive(Debug, Clone)]
pub(crate) struct Metas {
    /// The worker's node name.
    pub(crate) hostname: String,
    pub(crate) clock: Clock,
    /// The zone that `date_done` is written in: the setting `timezone`.
    pub(crate) timezone: TimeZone,
    /// Whether `result_extended` is on.
    pub(crate) extended: bool,
    /// Whether the backend stores what the message's headers say of it.
    pub(crate) texts: bool,
}

impl Metas {
    /// The outcome of a run.
    pub(crate) fn of_work(
        &self,
        work: &Work,
        state: State,
        result: MetaResult,
        traceback: Option<String>,
        children: Vec<ResultTuple>,
    ) -> StoreRequest {
        let mut request = self.of_request(&work.request, state, result, traceback);
        request.meta.children = Some(children.into_iter().map(Value::from).collect());
        request.meta.extended = self.extension(work);
        request
    }

    /// A state of a task of which only the request is at hand.
    pub(crate) fn of_request(
        &self,
        request: &Request,
        state: State,
        result: MetaResult,
        traceback: Option<String>,
    ) -> StoreRequest {
        let date_done = state.is_ready().then(|| self.now());
        let meta = TaskMeta {
            task_id: request.id.clone(),
            status: state,
            result,
            traceback,
            children: Some(Vec::new()),
            date_done,
            group_id: request.group.clone(),
            parent_id: request.parent_id.clone(),
            extended: Map::new(),
        };
        StoreRequest { meta, reply_to: reply_to(request.reply_to.as_deref(), request.correlation_id.as_deref()) }
    }

    /// A state of a task of which only the id is known (celery/backends/base.py `Backend.store_result` without a request).
    pub(crate) fn of_id(&self, id: &str, state: State, result: MetaResult) -> StoreRequest {
        let request = Request { id: id.to_owned(), ..Request::default() };
        let mut request = self.of_request(&request, state, result, None);
        request.meta.children = None;
        request
    }

    /// STARTED, with where the task runs.
    pub(crate) fn started(&self, work: &Work) -> StoreRequest {
        let at =
            Map::from([("pid", Value::from(std::process::id())), ("hostname", Value::from(self.hostname.as_str()))]);
        self.of_work(work, State::Started, MetaResult::Value(Value::Map(at)), None, Vec::new())
    }

    /// The failure of a task that will never run, because one before it in its chain has failed
    /// (celery/backends/base.py `Backend._fail_chain`).
    pub(crate) fn of_failed_member(
        &self,
        id: &str,
        member: &FailedMember,
        exception: Exception,
        traceback: Option<String>,
    ) -> StoreRequest {
        let mut meta = TaskMeta::new(id, State::Failure, MetaResult::Exception(exception));
        meta.traceback = traceback;
        meta.children = Some(Vec::new());
        meta.date_done = Some(self.now());
        meta.group_id = member.group.clone();
        meta.parent_id = member.parent_id.clone();
        if self.extended {
            meta.extended = Map::from([
                ("name", Value::from(member.signature.task.as_str())),
                ("args", Value::List(member.signature.args.clone())),
                ("kwargs", Value::Map(member.signature.kwargs.clone())),
                ("worker", Value::Null),
                ("retries", Value::from(0)),
                ("queue", Value::Null),
            ]);
        }
        // What the client froze says where it waits, as a message would.
        let option = |name| member.signature.options.get(name).and_then(Value::as_str);
        StoreRequest { meta, reply_to: reply_to(option("reply_to"), option("correlation_id")) }
    }

    /// The failure of a chord's body (`Backend.fail_from_current_stack`); `children` are its errbacks.
    pub(crate) fn of_failed_body(&self, id: &str, exception: Exception, children: Vec<ResultTuple>) -> StoreRequest {
        let mut meta = TaskMeta::new(id, State::Failure, MetaResult::Exception(exception));
        meta.children = Some(children.into_iter().map(Value::from).collect());
        meta.date_done = Some(self.now());
        StoreRequest { meta, reply_to: None }
    }

    fn now(&self) -> DateTime {
        DateTime::from(&self.clock.now().to_zoned(self.timezone.clone()))
    }

    /// What `result_extended` adds: nothing where it is off.
    pub(crate) fn extension(&self, work: &Work) -> Map {
        let mut texts = Map::new();
        if self.texts {
            let header = |name: &str| work.request.headers.get(name).cloned();
            texts.extend(header("meta").map(|meta| ("request_meta", meta)));
            for name in ["argsrepr", "kwargsrepr", "periodic_task_name"].into_iter().filter(|_| self.extended) {
                texts.extend(header(name).map(|text| (name, text)));
            }
        }
        if !self.extended {
            return texts;
        }
        let arguments = work.arguments();
        let mut extension = Map::from([
            ("name", Value::from(work.request.task.as_str())),
            ("args", Value::List(arguments.args)),
            ("kwargs", Value::Map(arguments.kwargs)),
            ("worker", Value::from(self.hostname.as_str())),
            ("retries", Value::from(work.request.retries)),
            ("queue", work.request.delivery_info.get("routing_key").cloned().unwrap_or_default()),
        ]);
        for (name, value) in stamps(&work.request.headers) {
            extension.insert(name, value);
        }
        extension.extend(texts);
        extension
    }
}

/// Nobody, where there is no queue.
pub(crate) fn reply_to(queue: Option<&str>, correlation_id: Option<&str>) -> Option<ReplyTo> {
    let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(ReplyTo { queue: owned(queue?)?, correlation_id: correlation_id.and_then(owned) })
}

/// `stamped_headers`, and each stamp under its own name.
fn stamps(headers: &Map) -> Vec<(String, Value)> {
    let Some(names) = headers.get("stamped_headers").filter(|names| names.is_truthy()) else { return Vec::new() };
    let stamps = headers.get("stamps").and_then(Value::as_map);
    let mut found = vec![("stamped_headers".to_owned(), names.clone())];
    for name in names.as_list().unwrap_or_default().iter().filter_map(Value::as_str) {
        if let Some(value) = stamps.and_then(|stamps| stamps.get(name)) {
            found.push((name.to_owned(), value.clone()));
        }
    }
    found
}
