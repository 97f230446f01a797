//! What every transport promises, asked of each of them.

#![allow(clippy::unwrap_used, reason = "a test fails where its broker does")]

mod support;

#[path = "transport_conformance/folders.rs"]
mod folders;
#[path = "transport_conformance/harness.rs"]
mod harness;
#[path = "transport_conformance/listening.rs"]
mod listening;
#[path = "transport_conformance/suite.rs"]
mod suite;

/// Runs every function of the suite against a fresh broker of each kind.
macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        conformance!(@each memory, crate::harness::Memory::start(), $($name)*);
        conformance!(@each filesystem, crate::harness::Filesystem::start(), $($name)*);
        conformance!(@each redis_tracking, crate::harness::Redis::start(celeriac::transport::Waiting::Tracking), $($name)*);
        conformance!(@each redis_blocking, crate::harness::Redis::start(celeriac::transport::Waiting::Blocking), $($name)*);
        conformance!(@each rabbitmq, crate::harness::Rabbit::start(), $($name)*);
        conformance!(@each redis_polling, crate::harness::Redis::start(celeriac::transport::Waiting::Polling), $($name)*);
    };
    (@each $kind:ident, $start:expr, $($name:ident)*) => {
        mod $kind {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(harness) = $start.await {
                        crate::suite::$name(&harness).await;
                    }
                }
            )*
        }
    };
}

conformance! {
    messages_come_in_order,
    a_message_arrives_as_it_was_sent,
    a_message_sent_later_wakes_the_consumer,
    priorities_are_heeded,
    queues_take_turns,
    a_full_queue_does_not_starve_another,
    the_window_is_never_exceeded,
    acked_and_rejected_messages_are_gone,
    a_requeued_message_comes_again,
    a_restored_message_comes_next,
    dropped_deliveries_go_back_in_their_order,
    a_dropped_consumer_gives_back_what_it_had,
    a_dead_letter_replaces_its_message,
    exchanges_lead_to_their_queues,
    a_bad_publication_is_no_obstacle_to_others,
    a_dead_letter_that_is_refused_leaves_its_message,
    closing_settles_everything,
    a_lost_connection_tells_who_does_not_consume,
    a_cancelled_wait_loses_nothing,
    a_closed_connection_ends_its_consumers,
    purging_counts_what_was_waiting,
    a_queue_is_added_to_a_running_consumer,
    what_a_cancelled_queue_gave_is_settled_and_the_rest_stays,
    a_queue_is_added_to_one_that_consumes_nothing,
    broadcasts_reach_everybody_who_listens,
    announcements_reach_who_listens_and_need_nobody,
    a_closed_connection_ends_its_subscriptions,
    answers_reach_those_who_wait_and_nobody_else,
    answers_are_heard_by_who_asked,
    browsing_touches_nothing,
    single_messages_are_taken_and_replaced,
    what_replaces_a_message_keeps_its_place_of_origin,
    notes_are_kept_until_they_are_removed,
    many_notes_are_each_kept_under_their_names,
    many_messages_go_through_two_consumers_once,
}
