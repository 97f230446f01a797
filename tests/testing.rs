//! What users have for their own tests: an app with its worker, in memory and in virtual time.

use std::sync::Mutex;
use std::time::Duration;

use celeriac::testing::TestApp;
use celeriac::{App, Interrupt, TaskContext, args, chain, chord, signature};

type Tested = Result<(), Box<dyn std::error::Error>>;

const HOUR: Duration = Duration::from_secs(3600);

#[celeriac::task(name = "shop.add")]
async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[celeriac::task(name = "shop.sum")]
fn sum(numbers: Vec<i64>) -> i64 {
    numbers.iter().sum()
}

/// Succeeds at its third try.
#[celeriac::task(name = "shop.fetch", max_retries = 5)]
async fn fetch(ctx: TaskContext) -> Result<u32, Interrupt> {
    match ctx.retries() {
        retries @ 0..2 => Err(ctx.retry().countdown(HOUR * (retries + 1)).into()),
        retries => Ok(retries),
    }
}

/// Sends a letter with a task of somebody else.
#[celeriac::task(name = "shop.order")]
async fn order(ctx: TaskContext, customer: String) -> Result<(), Interrupt> {
    ctx.send(signature("mail.send", args![customer]).queue("mail")).await?;
    Ok(())
}

fn app() -> App {
    App::new("shop").task(add).task(sum).task(fetch).task(order)
}

#[tokio::test(start_paused = true)]
async fn retries_wait_for_no_real_hours() -> Tested {
    let test = TestApp::start(app()).await?;
    let before = test.now();
    let result = test.send(fetch::s()).await?;
    test.advance(HOUR - Duration::from_secs(1)).await;
    assert_eq!(result.state().await?.to_string(), "RETRY");
    assert_eq!(result.get::<u32>(None).await?, 2);
    assert_eq!(test.elapsed().as_secs(), 3 * 3600);
    assert_eq!((test.now() - before).total(jiff::Unit::Hour)?.floor(), 3.0, "the worker's clock goes with it");
    Ok(test.stop().await?)
}

#[tokio::test(start_paused = true)]
async fn what_is_due_happens_in_its_order_and_not_before() -> Tested {
    static SEEN: Mutex<Vec<i64>> = Mutex::new(Vec::new());

    #[celeriac::task(name = "shop.note")]
    async fn note(number: i64) {
        SEEN.lock().expect("nobody panics").push(number);
    }

    let seen = || SEEN.lock().expect("nobody panics").clone();
    let test = TestApp::start(App::new("shop").task(note)).await?;
    for hours in [3, 1, 2] {
        test.send(note::s(hours).countdown(hours as f64 * 3600.0)).await?;
    }
    test.advance(HOUR / 2).await;
    assert!(seen().is_empty(), "{:?}", seen());
    test.advance(HOUR * 2).await;
    assert_eq!(seen(), [1, 2]);
    test.advance(HOUR).await;
    assert_eq!(seen(), [1, 2, 3]);
    Ok(test.stop().await?)
}

#[tokio::test(start_paused = true)]
async fn canvases_run_and_blocking_handlers_too() -> Tested {
    let test = TestApp::start(app()).await?;
    let total = chord((0..10).map(|i| add::s(i, i)), signature("shop.sum", args![]));
    assert_eq!(test.send(total).await?.get::<i64>(None).await?, 90);
    let six = test.app().send(chain([add::s(1, 2), add::partial(3)])).await?;
    assert_eq!(six.get::<i64>(None).await?, 6, "the app sends to the same broker");
    Ok(test.stop().await?)
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_to_others_waits_where_it_was_sent_to() -> Tested {
    let test = TestApp::start_on(app(), &["orders"]).await?;
    test.send(order::s("ann@example.org".to_owned()).queue("orders")).await?.get::<()>(None).await?;
    let [letter] = &test.waiting("mail")[..] else { panic!("one letter: {:?}", test.waiting("mail")) };
    assert_eq!(letter.headers.get("task").and_then(|task| task.as_str()), Some("mail.send"));
    test.send(add::s(1, 2)).await?;
    test.advance(HOUR).await;
    assert_eq!(test.waiting("celery").len(), 1, "the worker has no such queue");
    Ok(test.stop().await?)
}

#[tokio::test]
async fn without_pausing_time_is_real() -> Tested {
    let test = TestApp::start(app()).await?;
    assert_eq!(test.send(add::s(2, 2).countdown(0.01)).await?.get::<i64>(Duration::from_secs(10)).await?, 4);
    assert!(test.elapsed() >= Duration::from_millis(10));
    Ok(test.stop().await?)
}

#[tokio::test]
async fn an_app_that_cannot_be_is_refused() {
    let refused = TestApp::start(app().task(add)).await.expect_err("two of one name");
    assert!(refused.to_string().contains("shop.add"), "{refused}");
}
