//! [`FilesystemOptions`]: the names of `broker_transport_options`, with Kombu's defaults.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::BrokerTransportOptions;

/// Where the transport's folders are (kombu/transport/filesystem.py `Channel`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesystemOptions {
    /// The folder that messages are read from. It has to be there.
    pub data_folder_in: PathBuf,
    /// The folder that messages are published into, which may be the same. It has to be there.
    pub data_folder_out: PathBuf,
    /// Whether what is done with is kept.
    pub store_processed: bool,
    /// Where it is kept.
    pub processed_folder: PathBuf,
    /// Where the exchanges' tables are. It is made when something is bound.
    pub control_folder: PathBuf,
    /// How often the folders are looked through although nobody told of a change.
    pub polling_interval: Duration,
}

impl Default for FilesystemOptions {
    fn default() -> Self {
        FilesystemOptions {
            data_folder_in: "data_in".into(),
            data_folder_out: "data_out".into(),
            store_processed: false,
            processed_folder: "processed".into(),
            control_folder: "control".into(),
            polling_interval: Duration::from_secs(1),
        }
    }
}

impl From<&BrokerTransportOptions> for FilesystemOptions {
    fn from(settings: &BrokerTransportOptions) -> Self {
        let defaults = FilesystemOptions::default();
        FilesystemOptions {
            data_folder_in: settings.data_folder_in.clone().into(),
            data_folder_out: settings.data_folder_out.clone().into(),
            store_processed: settings.store_processed,
            processed_folder: settings.processed_folder.clone().into(),
            control_folder: settings.control_folder.clone().into(),
            polling_interval: settings.polling_interval.unwrap_or(defaults.polling_interval),
        }
    }
}
