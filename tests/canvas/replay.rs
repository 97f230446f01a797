//! Planning a recorded canvas, and writing the plan as the recorder wrote what Celery did.

use celeriac::canvas::continuation::{Errbacks, FailedMember, Replaced, failed_members};
use celeriac::canvas::{Call, Defaults, Given, Parent, Plan, Planner, Step};
use celeriac::protocol::{Body, Embed, Map, Message, ResultTuple, Signature, Value};
use celeriac::{Error, ErrorKind};

use crate::record::{NOW, ORIGIN, REPLY_TO, Row, text};

/// What was done: `steps`, `result` and `children` as recorded.
#[derive(Default)]
struct Done {
    steps: Vec<Value>,
    result: Value,
    children: Vec<Value>,
}

pub fn replay(row: &Row) -> Value {
    let mut count = 0;
    let mut ids = || {
        count += 1;
        format!("00000000-0000-4000-8000-{count:012}")
    };
    let rules = row.rules();
    let planner = Planner::new(&rules, &mut ids);
    let mut done = Done::default();
    match row.kind.as_str() {
        "sent" => sent(row, planner, &mut done),
        "run" => run(row, planner, &mut done),
        _ => chord(row, planner, &mut done),
    }
    .unwrap_or_else(|error| panic!("{}: {error}", row.case));
    Value::from(Map::from([
        ("steps", Value::List(done.steps)),
        ("result", done.result),
        ("children", Value::List(done.children)),
    ]))
}

fn sent(row: &Row, mut planner: Planner<'_>, done: &mut Done) -> celeriac::Result<()> {
    let signature = row.get("signature").try_into()?;
    let plan = match row.parent() {
        Some(parent) => planner.within(&parent).apply(signature, row.given())?,
        None => planner.apply(signature, row.given())?,
    };
    done.result = plan.result.clone().map_or(Value::Null, Value::from);
    done.plan(plan);
    Ok(())
}

/// What a worker does when a task ends, in its order.
fn run(row: &Row, planner: Planner<'_>, done: &mut Done) -> celeriac::Result<()> {
    let message = row.map("message");
    let headers = message.get("headers").and_then(Value::as_map).unwrap().clone();
    let body = Body::read(message.get("body").unwrap().clone()).unwrap();
    let parent = Parent {
        id: text(&headers, "id").unwrap(),
        root_id: text(&headers, "root_id"),
        priority: message.get("priority").and_then(Value::as_i64),
    };
    let mut planner = planner.within(&parent);
    let request = request(&headers, body.embed.clone());
    let recorded = row.get("steps").into_list().unwrap();
    let found = |name: &str| recorded.iter().find_map(|step| step.as_map()?.get(name)).cloned();
    if let Some(replacement) = found("replace") {
        done.steps.push(Map::from([("replace", replacement.clone())]).into());
        done.plan(planner.replace(request, replacement.try_into()?)?);
        return Ok(());
    }
    match text(&headers, "task").unwrap().as_str() {
        "fixtures.fail" => failure(&mut planner, request, body.embed, done),
        task => {
            if let Some(signature) = found("added") {
                done.steps.push(Map::from([("added", signature.clone())]).into());
                let added = planner.add_to_chord(request.clone(), signature.try_into()?)?;
                done.steps.push(Map::from([("extend", added.group_id)]).into());
                done.plan(added.plan);
            }
            if task == "fixtures.sender" {
                sender(&mut planner, done)?;
            }
            done.plan(planner.on_success(body.embed.clone(), &row.get("retval"))?);
            done.ended(&request.id, "SUCCESS", &request, text(&headers, "parent_id"), &body.embed);
            Ok(())
        }
    }
}

fn request(headers: &Map, embed: Embed) -> Replaced {
    let number = |name: &str| headers.get(name).and_then(Value::as_i64);
    Replaced {
        id: text(headers, "id").unwrap(),
        root_id: text(headers, "root_id"),
        group: text(headers, "group"),
        group_index: number("group_index"),
        replaced_task_nesting: number("replaced_task_nesting").unwrap_or(0),
        embed,
    }
}

/// What the recorder's task `sender` sends while it runs, built with our own builders.
fn sender(planner: &mut Planner<'_>, done: &mut Done) -> celeriac::Result<()> {
    use celeriac::canvas::{chain, group};
    let add = |x: i64, y: i64| Signature::new("fixtures.add").arg(x).arg(y);
    let last = Signature::new("fixtures.add").arg(4);
    for signature in [add(1, 2), group([add(1, 1), add(2, 2)]), chain([add(3, 3), last])] {
        done.plan(planner.apply(signature, Given::default())?);
    }
    Ok(())
}

fn failure(planner: &mut Planner<'_>, request: Replaced, embed: Embed, done: &mut Done) -> celeriac::Result<()> {
    done.ended(&request.id, "FAILURE", &request, None, &embed);
    for member in failed_members(embed.chain)? {
        done.failed(member);
    }
    let errbacks = planner.errbacks(&request.id, request.root_id.as_deref(), embed.errbacks, &mut is_inline)?;
    done.errbacks(errbacks);
    Ok(())
}

/// Registered functions of several arguments that are not bound.
fn is_inline(errback: &Signature) -> bool {
    matches!(errback.task.as_str(), "fixtures.report" | "fixtures.echo")
}

fn chord(row: &Row, planner: Planner<'_>, done: &mut Done) -> celeriac::Result<()> {
    let parent = row.parent().ok_or_else(|| Error::new(ErrorKind::Decode, "no parent"))?;
    let mut planner = planner.within(&parent);
    let body = row.get("body");
    if let Value::List(results) = row.get("results") {
        done.plan(planner.chord_body(body, results)?);
        return Ok(());
    }
    let failure = planner.chord_failed(body, &mut is_inline)?;
    for body in failure.bodies {
        done.errbacks(body.errbacks);
        done.stored(Some(body.id), "FAILURE", None, None);
    }
    if let Some(id) = failure.group_id {
        done.stored(Some(id), "FAILURE", None, None);
    }
    if failure.is_group {
        done.steps.push(Map::from([("revoke", Value::from(failure.revoke))]).into());
    }
    for member in failure.chain {
        done.failed(member);
    }
    Ok(())
}

impl Done {
    fn plan(&mut self, plan: Plan) {
        self.steps.extend(plan.steps.into_iter().map(written));
        self.children.extend(plan.children.into_iter().map(Value::from));
    }

    fn ended(&mut self, id: &str, state: &str, request: &Replaced, parent: Option<String>, embed: &Embed) {
        self.stored(Some(id.to_owned()), state, request.group.clone(), parent);
        if embed.chord.is_some() {
            self.part(Some(id.to_owned()), state, request.group.clone(), request.group_index);
        }
    }

    fn failed(&mut self, member: FailedMember) {
        if member.id.is_some() {
            self.stored(member.id.clone(), "FAILURE", member.group.clone(), member.parent_id);
        }
        if member.chord.is_some() {
            self.part(member.id, "FAILURE", member.group, member.group_index);
        }
    }

    fn stored(&mut self, id: Option<String>, state: &str, group: Option<String>, parent: Option<String>) {
        let row: [(&str, Value); 4] =
            [("store", id.into()), ("state", state.into()), ("group", group.into()), ("parent_id", parent.into())];
        self.steps.push(Map::from(row).into());
    }

    fn part(&mut self, id: Option<String>, state: &str, group: Option<String>, index: Option<i64>) {
        let row: [(&str, Value); 4] =
            [("part", id.into()), ("group", group.into()), ("index", index.into()), ("state", state.into())];
        self.steps.push(Map::from(row).into());
    }

    fn errbacks(&mut self, errbacks: Errbacks) {
        for errback in errbacks.inline {
            self.steps.push(Map::from([("inline", errback.task)]).into());
        }
        self.plan(errbacks.plan);
    }
}

fn written(step: Step) -> Value {
    let result = |result: ResultTuple| Value::from(result);
    let row = match step {
        Step::Send(call) => Map::from([("send", message(*call))]),
        Step::SaveGroup { group_id, result: tuple } => {
            Map::from([("save", Value::from(group_id)), ("result", result(tuple))])
        }
        Step::StartChord { group_id, size } => Map::from([("start", Value::from(group_id)), ("size", size.into())]),
    };
    row.into()
}

/// The message as it is handed to `Producer.publish`.
fn message(mut call: Call) -> Value {
    // What is declared with a registered task goes without saying in Celery's producer.
    if !call.task.starts_with("elsewhere.") {
        call.fill(Map::from([("ignore_result", false)]));
    }
    let option = |name: &str| call.options.get(name).and_then(Value::as_str).map(str::to_owned);
    let queue = option("queue").unwrap_or_else(|| "celery".into());
    let (exchange, routing_key) = match (option("exchange"), option("routing_key")) {
        (Some(exchange), Some(routing_key)) => (exchange, routing_key),
        _ => (String::new(), queue),
    };
    let defaults = Defaults { origin: ORIGIN.into(), reply_to: REPLY_TO.into(), ..Defaults::default() };
    let compression = option("compression");
    let serializer = option("serializer").unwrap_or_else(|| "json".into());
    let outgoing = call.into_outgoing(exchange, routing_key, &defaults, NOW.parse().unwrap()).unwrap();
    let body = outgoing.body.to_value();
    let expiration = outgoing.expiration.map(|expiration| expiration.as_secs_f64());
    let Message { headers, properties, .. } = outgoing.into_message().unwrap();
    let mut message = Map::from([("headers", Value::from(without(headers, "compression"))), ("body", body)]);
    let fields: [(&str, Value); 9] = [
        ("exchange", properties.exchange.into()),
        ("routing_key", properties.routing_key.into()),
        ("serializer", serializer.into()),
        ("compression", compression.into()),
        ("correlation_id", properties.correlation_id.into()),
        ("reply_to", properties.reply_to.into()),
        ("delivery_mode", properties.delivery_mode.map_or(Value::Null, |mode| i64::from(mode).into())),
        ("priority", properties.priority.filter(|&priority| priority != 0).into()),
        ("expiration", expiration.into()),
    ];
    message.extend(fields);
    message.extend(properties.other);
    message.into()
}

fn without(mut map: Map, name: &str) -> Map {
    map.remove(name);
    map
}
