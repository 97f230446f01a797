//! Beat: sends periodic tasks when their schedules say so (`celery/beat.py`).
//!
//! [`Scheduler`] decides, and neither reads a clock nor sends nor waits; [`Beat`] asks it, keeps what it decided in a
//! [`Store`] and then has a [`Sender`] send it. In this order a beat that is killed leaves out a run rather than sending
//! it twice: Celery's writes it down up to three minutes later (`sync_every`). Runs that are due at one instant may be kept
//! together: what that costs when the machine crashes stands in `file_store.rs`.
//!
//! What was missed is made up for with one run at most, however many there were. One beat per store, unless it is a
//! [`SharedStore`]: any number of beats may share that, and one of them leads.

mod entry;
mod file_store;
mod redis_store;
mod run;
mod schedule_file;
mod scheduler;
mod shared;
mod stores;

pub use entry::{Entry, Kept, Run};
pub use file_store::FileStore;
pub use redis_store::{RedisStore, RedisStoreOptions};
pub use run::{Beat, Changed, Sender, Store};
pub use schedule_file::Setting;
pub use scheduler::{Scheduler, Sending, Step};
pub use shared::{Found, Lead, SharedStore, Unsent};
pub use stores::{StoreOptions, is_known, open};
