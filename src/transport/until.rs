//! [`until`]: waiting for a state, and not for a notice of it.

use tokio::sync::Notify;

/// Waits until `is_so`, which is looked at whenever `changed` is told: no notice between two looks is missed.
pub(super) async fn until(changed: &Notify, is_so: impl Fn() -> bool) {
    loop {
        let change = changed.notified();
        tokio::pin!(change);
        change.as_mut().enable();
        if is_so() {
            return;
        }
        change.await;
    }
}
