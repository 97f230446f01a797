//! Which [`Store`] is meant: [`open`], from what `-S` or `beat_scheduler` says.

use std::path::PathBuf;

use async_trait::async_trait;

use super::entry::Kept;
use super::file_store::FileStore;
use super::redis_store::{RedisStore, RedisStoreOptions};
use super::run::Store;
use super::schedule_file::Setting;
use crate::app::parts;
use crate::config::Config;
use crate::{Error, ErrorKind, Result};

/// What a store may have to know.
#[derive(Debug, Clone)]
pub struct StoreOptions<'a> {
    /// `-s` or `beat_schedule_filename`.
    pub schedule_filename: PathBuf,
    /// All settings.
    pub config: &'a Config,
    /// The time zone and so on that the runs are counted in.
    pub setting: Setting,
}

/// What makes a store.
type Open = fn(&StoreOptions<'_>) -> Result<Box<dyn Store>>;

/// The names of Celery's classes, with a dot for the colon that may stand in them, and what stands for each; and a name of
/// our own, `redis`.
const STORES: &[(&str, Open)] =
    &[("celery.beat.PersistentScheduler", file), ("celery.beat.Scheduler", none), ("redis", redis)];

/// Whether there is a store of that name.
pub fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// The store of that name.
///
/// # Errors
///
/// `Configuration`: there is no such store, or it cannot be made with these settings.
pub fn open(name: &str, options: &StoreOptions<'_>) -> Result<Box<dyn Store>> {
    let Some(open) = find(name) else {
        let known: Vec<&str> = STORES.iter().map(|(name, _)| *name).collect();
        let message = format!("there is no scheduler {name}: use one of {}", known.join(", "));
        return Err(Error::new(ErrorKind::Configuration, message));
    };
    open(options)
}

fn find(name: &str) -> Option<Open> {
    let name = name.replacen(':', ".", 1);
    STORES.iter().find(|(known, _)| *known == name).map(|(_, open)| *open)
}

fn file(options: &StoreOptions<'_>) -> Result<Box<dyn Store>> {
    Ok(Box::new(FileStore::new(&options.schedule_filename, options.setting.clone())))
}

fn none(_: &StoreOptions<'_>) -> Result<Box<dyn Store>> {
    Ok(Box::new(NoStore))
}

fn redis(options: &StoreOptions<'_>) -> Result<Box<dyn Store>> {
    let config = options.config;
    let url = parts::redis_url(config.beat_redis_url.as_deref().unwrap_or(config.write_url()), config)?;
    let prefix = &config.broker_transport_options.global_keyprefix;
    let key_prefix = format!("{prefix}{}", config.beat_redis_key_prefix);
    Ok(Box::new(RedisStore::new(url, &RedisStoreOptions { key_prefix, lease: config.beat_lease })))
}

/// Nothing is kept from one beat to the next, as with Celery's plain `Scheduler`.
#[derive(Debug)]
struct NoStore;

#[async_trait]
impl Store for NoStore {
    async fn load(&mut self) -> Result<Kept> {
        Ok(Kept::new())
    }

    async fn save(&mut self, _: &Kept) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_with_a_colon_or_a_dot() {
        for name in ["celery.beat:PersistentScheduler", "celery.beat.PersistentScheduler", "celery.beat:Scheduler"] {
            assert!(is_known(name), "{name}");
        }
        assert!(!is_known("shop.beat:Scheduler"));
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        let setting = Setting { timezone: None, enable_utc: true };
        let options = StoreOptions { schedule_filename: "schedule".into(), config: &Config::default(), setting };
        let error = open("shop.beat:Scheduler", &options).map(|_| ()).unwrap_err();
        let expected = "there is no scheduler shop.beat:Scheduler: use one of celery.beat.PersistentScheduler, \
             celery.beat.Scheduler, redis";
        assert_eq!(error.to_string(), expected);
    }
}
