//! [`READS`]: what Python reads of the command line before Rust does (python/celeriac/options.py), in the words of `--help`.

use celeriac::cli::Reads;

/// Of an app in Python.
pub(super) const READS: Reads = Reads {
    about: "Runs a Celery project's tasks: those in Python, and those in Rust.",
    options: &[
        ("", "app", "The Celery app: a module, or module:attribute, as for celery"),
        ("", "loader", "Celery's loader"),
        ("", "config", "Celery's configuration module; a TOML file is named by CELERIAC_CONFIG"),
        ("", "skip-checks", "Leave out Django's checks"),
        ("worker", "pool", "The pool: prefork, threads or solo [default: the setting worker_pool, or prefork]"),
        ("worker", "max-tasks-per-child", "Replace a process after so many tasks"),
        ("worker", "max-memory-per-child", "Replace a process that holds so much memory after a task"),
        ("worker", "include", "Import these modules too, separated by commas"),
        ("worker", "schedule-filename", "Keep what ran last beside this file [default: celerybeat-schedule]"),
        ("worker", "scheduler", "Where that is kept, as for beat -S"),
        ("beat", "detach", "Go into the background"),
        ("beat", "uid", "Become this user, by name or number"),
        ("beat", "gid", "Become this group, by name or number"),
        ("beat", "umask", "Let files be made with this mask, in octal"),
    ],
    commands: &[
        ("config", "Say which settings have no effect, or stop a worker: config check"),
        ("quickstart", "Write a small project into an empty folder, and run it"),
    ],
};
