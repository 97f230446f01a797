//! What our builders make of a canvas is what Celery's make of it.

use celeriac::canvas::{chain, chord, chunks, group, map, starmap};
use celeriac::protocol::{Signature, Value};

use crate::compare::Comparison;
use crate::record::rows;

fn add(args: &[i64]) -> Signature {
    args.iter().fold(Signature::new("fixtures.add"), |add, &arg| add.arg(arg))
}

fn named(name: &str) -> Signature {
    Signature::new(format!("fixtures.{name}"))
}

fn pair() -> [Signature; 2] {
    [add(&[1, 1]), add(&[2, 2])]
}

fn two() -> Signature {
    group([add(&[1]), add(&[2])])
}

fn stamped(signature: Signature) -> Signature {
    signature.stamp("tenant", "acme")
}

#[test]
fn builders_build_as_celery_builds() {
    let (total, echo) = (|| named("total"), || named("echo"));
    let check = Checker::new();
    check.row("task", add(&[1, 2]));
    check.row("task-partial-kwargs", echo().arg(1).kwarg("a", 1).kwarg("b", 2));
    check.row("task-immutable", add(&[1, 2]).immutable(true));
    check.row(
        "task-options",
        add(&[1, 2])
            .queue("q")
            .priority(3)
            .countdown(10.0)
            .expires_in(60.0)
            .set("shadow", "shown")
            .set("time_limit", 9),
    );
    check.row("task-soft-limit", add(&[1, 2]).time_limits(None, Some(2.5)).ignore_result(true).set("retries", 2));
    check.row("task-id", add(&[1, 2]).task_id("my-id").set("root_id", "my-root").set("parent_id", "my-parent"));
    check.row("task-headers", add(&[1, 2]).header("tenant", "acme"));
    check.row("task-exchange", add(&[1, 2]).exchange("ex", "rk").set("delivery_mode", 1));
    check.row("task-link-several", add(&[1, 2]).link(add(&[3])).link(echo().arg(4).immutable(true)));
    check.row("task-link-twice", add(&[1, 2]).link(add(&[3])).link(add(&[3])));
    check.row("task-link-canvas", add(&[1, 2]).link(group([add(&[3]), add(&[4])])).link(chord(pair(), total())));
    check.row("task-link-error", add(&[1, 2]).link_error(echo()).link_error(echo().arg(1).immutable(true)));
    check.row("chain", chain([add(&[1, 2]), add(&[3]), add(&[4])]));
    check.row("chain", add(&[1, 2]).then(add(&[3])).then(add(&[4])));
    check.row("chain-one", chain([add(&[1, 2])]));
    check.row("chain-empty", chain::<Signature>([]));
    check.row("chain-nested", chain([chain([add(&[1, 2]), add(&[3])]), chain([add(&[4]), add(&[5])])]));
    check.row("chain-link", chain([add(&[1, 2]), add(&[3])]).link(echo()));
    check.row("chain-link-error-chord", chain([add(&[1, 2]), two(), total()]).link_error(echo()));
    check.row(
        "chain-link-of-nested",
        chain([chain([add(&[1, 2]), add(&[3])]).link(echo()).link_error(echo().arg(1).immutable(true)), add(&[4])]),
    );
    check.row("chain-group", chain([add(&[1, 2]), two()]));
    check.row("chain-group-one", chain([add(&[1, 2]), group([add(&[1])]), add(&[2])]));
    check.row("chain-group-task", chain([add(&[1, 2]), two(), total()]));
    check.row("chain-group-task", add(&[1, 2]).then(two()).then(total()));
    check.row("chain-group-task-task", chain([add(&[1, 2]), two(), total(), add(&[7]), echo()]));
    check.row("chain-group-group", chain([group(pair()), group([total(), echo()])]));
    check.row("chain-chord-first", chain([chord(pair(), total()), add(&[5])]));
    check.row("chain-chord-chord", chain([chord(pair(), total()), chord([add(&[1]), add(&[2])], total())]));
    check.row("chain-chord-group", chain([chord(pair(), total()), two()]));
    check.row("chain-chord-group-task", chain([chord(pair(), total()), two(), total()]));
    check.row("chain-group-only", chain([group([add(&[1, 1]), add(&[2, 2])])]));
    check.row("group", group(pair()));
    check.row("group-empty", group::<Signature>([]));
    check.row("group-link", group(pair()).link(echo()));
    check.row("group-link-error", group(pair()).link_error(echo()));
    check.row("chord", chord(pair(), total()));
    check.row("chord-empty", chord::<Signature>([], total()));
    check.row("chord-link", chord(pair(), total()).link(echo()));
    check.row("chord-link-error", chord(pair(), total()).link_error(echo()));
    check.row("chord-body-group", chord(pair(), group([total(), echo()])));
    check.row("chord-piped", chord(pair(), total()).then(add(&[1])).then(add(&[2])));
    check.row("map", map(echo(), [1, 2]));
    check.row("starmap", starmap(add(&[]), [[1, 2], [3, 4]]));
    check.row("chunks", chunks(add(&[]), [[1, 2], [3, 4], [5, 6]], 2));
}

#[test]
fn stamps_are_put_where_celery_puts_them() {
    let check = Checker::new();
    let tagged = |signature| stamped(signature).stamp("tags", ["a"]);
    let echo = || named("echo");
    check.row("task-stamp", tagged(add(&[1, 2])));
    check.row("task-stamp-links", tagged(add(&[1, 2]).link(add(&[3])).link_error(echo())));
    check.row("chain-stamp", tagged(chain([add(&[1, 2]), add(&[3])])));
    check.row("chain-stamp-chord", tagged(chain([add(&[1, 2]), two(), named("total")])));
    check.row("group-stamp", tagged(group(pair())));
    check.row("chord-stamp", tagged(chord(pair(), named("total"))));
    let twice = add(&[1, 2]).stamp("tags", ["a"]).stamp("one", 1).stamp("tags", ["b"]).stamp("one", 2);
    check.row("task-stamp-twice", twice);
}

struct Checker(Vec<(String, Value)>);

impl Checker {
    fn new() -> Self {
        Checker(rows("5.7").into_iter().map(|row| (row.case.clone(), row.get("signature"))).collect())
    }

    fn row(&self, case: &str, built: Signature) {
        let recorded = self.0.iter().find(|(name, _)| name == case).unwrap_or_else(|| panic!("{case} is recorded"));
        let found = Comparison::default().compare(&recorded.1, &Value::from(built));
        assert_eq!(found, Ok(()), "{case}");
    }
}
