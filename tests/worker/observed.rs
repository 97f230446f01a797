//! Who hears of messages: the worker takes in no more than they have room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use celeriac::App;
use celeriac::app::Observer;
use celeriac::async_trait;
use celeriac::protocol::{Message, State, Value};
use celeriac::task::Request;
use celeriac::worker::Shutdown;
use tokio::sync::watch;

use super::rig::{Rig, echo, message};

/// Hears of as many messages as it is allowed to.
#[derive(Debug)]
struct Slow {
    allowed: watch::Sender<usize>,
    heard: AtomicUsize,
}

#[async_trait]
impl Observer for Slow {
    async fn room(&self) -> usize {
        let mut allowed = self.allowed.subscribe();
        let heard = self.heard.load(Ordering::SeqCst);
        let allowed = allowed.wait_for(|allowed| *allowed > heard).await;
        *allowed.expect("the sender is its own") - heard
    }

    fn received(&self, _: &Arc<Request>, _: &Message) {
        self.heard.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn who_is_slow_to_hear_slows_the_intake_and_the_rest_goes_back() {
    let slow = Arc::new(Slow { allowed: watch::Sender::new(3), heard: AtomicUsize::new(0) });
    let rig = Rig::start(App::new("test").task(echo()).observed_by(Arc::clone(&slow) as _)).await;
    for number in 0..10 {
        rig.send(message("echo", &number.to_string(), vec![number.into()])).await;
    }
    assert_eq!(rig.result("2").await.status, State::Success);
    slow.allowed.send_replace(5);
    assert_eq!(rig.result("4").await.status, State::Success);
    let heard = || slow.heard.load(Ordering::SeqCst);
    assert_eq!(heard(), 5);
    let transport = rig.stop(Shutdown::Warm).await;
    assert_eq!(heard(), 5, "the others were not taken in");
    let ids = transport.waiting("celery").into_iter().map(|message| message.headers.get("id").cloned());
    let expected: Vec<_> = (5..10).map(|number| Some(Value::from(number.to_string()))).collect();
    assert_eq!(ids.collect::<Vec<_>>(), expected);
}
