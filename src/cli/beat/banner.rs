//! [`Banner`]: what beat shows of its configuration when it starts (celery/apps/beat.py `STARTUP_INFO_FMT`).

use std::fmt;

use super::super::log::LogOptions;
use super::Service;
use crate::app::{App, parts};
use crate::schedule::humanize_seconds;
use crate::time::{Clock, zone};

/// What the banner says.
pub(super) struct Banner<'a> {
    pub(super) app: &'a App,
    pub(super) service: &'a Service,
    pub(super) log: &'a LogOptions,
    pub(super) colored: bool,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (color, reset) = if self.colored { ("\x1b[1;34m", "\x1b[0m") } else { ("", "") };
        let (service, log) = (self.service, self.log);
        let now = Clock::system().now().to_zoned(zone::local());
        let file = log.file.as_ref().map_or("[stderr]".to_owned(), |file| file.display().to_string());
        let longest = service.max_interval.as_secs_f64();
        writeln!(f, "{color}__    -    ... __   -        _{reset}")?;
        writeln!(f, "LocalTime -> {}", now.strftime("%Y-%m-%d %H:%M:%S"))?;
        writeln!(f, "Configuration ->")?;
        if let Ok(transport) = parts::transport(self.app.config(), None, Clock::system(), 0) {
            writeln!(f, "    . broker -> {}", transport.uri())?;
        }
        writeln!(f, "    . app -> {}", self.app.name())?;
        writeln!(f, "    . scheduler -> {}", service.scheduler.replacen(':', ".", 1))?;
        if let Some(info) = service.store.info() {
            writeln!(f, "    . db -> {info}")?;
        }
        writeln!(f, "    . logfile -> {file}@%{}", log.level.name())?;
        write!(f, "    . maxinterval -> {} ({longest}s)", humanize_seconds(longest))
    }
}
