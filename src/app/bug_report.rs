//! [`bug_report`]: what a bug report should say (celery/app/utils.py `bugreport`).

use std::env::consts;
use std::fmt::Write as _;

use rustix::system::uname;

use super::{App, conf};
use crate::protocol::repr;

/// This program, its machine, and the settings that are not the default; passwords are hidden.
pub(crate) fn bug_report(app: &App, transport: &str, backend: &str) -> String {
    let system = uname();
    let mut text = format!(
        "\nsoftware -> celeriac:{}\nplatform -> system:{} arch:{}\n            kernel version:{}\n\
         app      -> {} ({} tasks)\nsettings -> transport:{transport} results:{backend}\n\n",
        env!("CARGO_PKG_VERSION"),
        system.sysname().to_string_lossy(),
        consts::ARCH,
        system.release().to_string_lossy(),
        app.name(),
        app.tasks().len(),
    );
    for (name, value) in conf::table(app.config(), false).iter() {
        // Text always has room for more.
        let _ = writeln!(text, "{name}: {}", repr::repr(value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_there_and_no_password() {
        let mut app = App::new("proj");
        app.config_mut().broker_url = Some("redis://:pw@h/0".to_owned());
        let text = bug_report(&app, "redis://:**@h:6379/0", "disabled://");
        let shape = "\nsoftware -> celeriac:";
        assert!(text.starts_with(shape) && text.contains("app      -> proj (0 tasks)\n"), "{text}");
        assert!(text.ends_with("results:disabled://\n\nbroker_url: 'redis://:********@h/0'\n"), "{text}");
    }
}
