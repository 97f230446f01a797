//! Signatures that nobody meant to send: an error or a plan, whatever their form.

use celeriac::canvas::continuation::failed_members;
use celeriac::canvas::{Given, Plan, Planner, Rules, chain, chord, group};
use celeriac::protocol::{Embed, Map, Signature, Value};
use celeriac::{ErrorKind, Result};
use proptest::prelude::*;

fn planned(signature: Signature) -> Result<Plan> {
    let mut count = 0;
    let mut ids = || {
        count += 1;
        count.to_string()
    };
    Planner::new(&Rules::default(), &mut ids).apply(signature, Given::argument(1))
}

fn task() -> Signature {
    Signature::new("t")
}

/// `signature` put `depth` times into what `wrap` makes.
fn nested(depth: usize, wrap: impl Fn(Signature) -> Signature) -> Signature {
    (0..depth).fold(task(), |inner, _| wrap(inner))
}

fn raw_chain(tasks: Vec<Signature>) -> Signature {
    let tasks: Value = tasks.into_iter().map(Value::from).collect();
    Signature { kwargs: Map::from([("tasks", tasks)]), ..Signature::new("celery.chain") }
}

#[test]
fn deep_canvases_are_planned_and_deeper_ones_refused() {
    type Wrap = fn(Signature) -> Signature;
    let wraps: [(&str, Wrap); 6] = [
        ("groups", |inner| group([inner, task()])),
        ("chains", |inner| raw_chain(vec![inner, task()])),
        ("chains' ends", |inner| raw_chain(vec![task(), inner])),
        ("headers", |inner| chord([inner, task()], task())),
        ("bodies", |inner| chord([task()], inner)),
        ("bodies in chains", |inner| raw_chain(vec![task(), chord([task()], inner), task()])),
    ];
    for (name, wrap) in wraps {
        let plan = planned(nested(49, wrap));
        assert!(plan.is_ok_and(|plan| plan.calls().next().is_some()), "{name}");
        for depth in [101, 320] {
            let refused = planned(nested(depth, wrap)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Decode, "{name} {depth}");
        }
    }
}

#[test]
fn stages_of_groups_are_planned() {
    let two = || group([task(), task()]);
    let stages = (0..48).flat_map(|_| [task(), two()]).chain([task()]);
    let plan = planned(chain(stages)).unwrap();
    let first = plan.calls().next().unwrap();
    assert_eq!(first.chain.as_ref().map(|chain| chain.len()), Some(48), "each chord with one task for its body");
}

#[test]
fn wide_canvases_are_planned_in_linear_time() {
    let tasks = || (0..100_000).map(|number| task().arg(number));
    let members = planned(group(tasks())).unwrap().steps.len();
    assert_eq!(members, 100_000);
    let chord = planned(chord(tasks(), task())).unwrap();
    assert_eq!(chord.steps.len(), 100_001);
    let chain = planned(raw_chain(tasks().collect())).unwrap();
    assert_eq!(chain.calls().next().unwrap().chain.as_ref().map(|rest| rest.len()), Some(99_999));
    assert!(chain.result.is_some());
}

#[test]
fn many_links_are_told_apart_in_linear_time() {
    let links: Value = (0..20_000).map(|number| Value::from(task().arg(number))).collect();
    let chain = raw_chain(vec![task(), task()]).set("link_error", links.clone()).set("link", links);
    let plan = planned(chain).unwrap();
    let errbacks = plan.calls().next().unwrap().options.get("link_error").unwrap().as_list().unwrap().len();
    assert_eq!(errbacks, 20_000);
    let links: Value = (0..1_000).map(|number| Value::from(task().arg(number))).collect();
    let blown_up = raw_chain(vec![task(); 1_000]).set("link_error", links);
    assert_eq!(planned(blown_up).unwrap_err().kind(), ErrorKind::Decode);
}

#[test]
fn wrong_forms_are_refused() {
    for (name, kwargs) in [
        ("celery.chain", Map::from([("tasks", Value::Int(1))])),
        ("celery.group", Map::from([("tasks", Value::from([1]))])),
        ("celery.chord", Map::from([("header", Value::from([Value::Null])), ("body", task().into())])),
        ("celery.chord", Map::from([("header", Value::from([Value::from(task())]))])),
        ("celery.chord", Map::from([("header", Value::Null), ("body", Value::from("t"))])),
        ("celery.chunks", Map::from([("task", task().into()), ("it", Value::from([1])), ("n", 0.into())])),
    ] {
        let signature = Signature { kwargs, ..Signature::new(name) };
        assert_eq!(planned(signature).unwrap_err().kind(), ErrorKind::Decode, "{name}");
    }
    assert_eq!(planned(task().set("chain", 1)).unwrap_err().kind(), ErrorKind::Decode);
    assert!(failed_members(Some(Value::from([1]))).is_err());
}

#[test]
fn groups_refuse_links_as_celery_does() {
    for option in ["link", "link_error"] {
        let mut ids = || "id".to_owned();
        let given = Given::options(Map::from([(option, Value::from(task()))]));
        let refused = Planner::new(&Rules::default(), &mut ids).apply(group([task()]), given).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Configuration);
    }
}

fn values() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(&["t", "celery.chain", "celery.group", "celery.chord", "celery.map"]);
    let key = prop::sample::select(&[
        "task",
        "args",
        "kwargs",
        "options",
        "subtask_type",
        "immutable",
        "tasks",
        "header",
        "body",
        "link",
        "link_error",
        "chord",
        "chain",
        "task_id",
        "group_id",
        "group_index",
        "root_id",
        "stamped_headers",
        "stamp",
        "countdown",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        name().prop_map(Value::from),
        Just(Value::from(task())),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        let signature =
            (name(), prop::collection::vec((key.clone(), inner.clone()), 0..6)).prop_map(|(name, fields)| {
                let mut signature = Signature::new(name);
                signature.kwargs = fields.iter().cloned().collect();
                signature.options = fields.into_iter().collect();
                Value::from(signature)
            });
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5).prop_map(|fields| Map::from_iter(fields).into()),
            signature,
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_message_carries_is_an_error_or_a_plan(values in prop::array::uniform4(values())) {
        let mut ids = || "id".to_owned();
        let rules = Rules::default();
        let mut planner = Planner::new(&rules, &mut ids);
        let [callbacks, errbacks, chain, chord] = values.map(Some);
        let mut inline = |errback: &Signature| errback.args.is_empty();
        let _ = planner.chord_failed(chord.clone().unwrap_or_default(), &mut inline);
        let _ = planner.chord_body(chord.clone().unwrap_or_default(), vec![]);
        let _ = planner.errbacks("id", None, errbacks.clone(), &mut inline);
        let _ = failed_members(chain.clone());
        if let Ok(signature) = Signature::try_from(callbacks.clone().unwrap_or_default()) {
            let embed = Embed { callbacks: errbacks.clone(), errbacks: chain.clone(), ..Embed::default() };
            let request = celeriac::canvas::continuation::Replaced { embed, ..Default::default() };
            let _ = planner.replace(request.clone(), signature.clone().link(task()).stamp("a", 1));
            let _ = planner.add_to_chord(request, signature);
        }
        let _ = planner.on_success(Embed { callbacks, errbacks, chain, chord, ..Embed::default() }, &Value::Null);
    }
}
