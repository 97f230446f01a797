//! Promises of the command line: help, error lines and exit codes are those of the snapshots in `tests/cli/`.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test cli` writes the snapshots anew; look at the difference before you commit it.
#[path = "cli/program.rs"]
mod program;
mod support;

use std::fmt::Write as _;
use std::fs;

use program::{Program, assert_snapshot};
use support::redis_server::RedisServer;
use support::{eventually, free_port};

#[test]
fn help() {
    assert_snapshot("help.txt", &Program::new().run(&["--help"]).text());
    assert_snapshot("worker-help.txt", &Program::new().run(&["worker", "--help"]).text());
}

#[test]
fn help_is_the_answer_to_every_way_of_asking() {
    let help = Program::new().run(&["--help"]).text();
    assert_eq!(Program::new().run(&[]).text(), help);
    assert_eq!(Program::new().run(&["help"]).text(), help);
    assert_eq!(Program::new().run(&["help", "worker"]).text(), Program::new().run(&["worker", "--help"]).text());
}

#[test]
fn version() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(Program::new().run(&["--version"]).text(), format!("exit code 0\n{version} (celeriac)\n"));
}

#[tokio::test]
async fn dead_letters_need_no_app_and_a_worker_does() {
    let program = Program::without_app();
    let help = Program::new().run(&["--help"]).text().replace("Usage: worker", "Usage: celeriac");
    assert_eq!(program.run(&["--help"]).text(), help);
    assert_eq!(program.run(&["--version"]).text(), Program::new().run(&["--version"]).text());
    let refused = program.run(&["-b", "redis://localhost", "worker"]);
    assert_eq!((refused.code.as_str(), refused.errors.lines().count()), ("exit code 2", 1));
    assert!(refused.errors.contains("celeriac::cli::run"), "{}", refused.errors);
    for line in [["-A", "config", "worker"], ["worker", "-A", "config"]] {
        let refused = program.run(&line);
        assert!(refused.errors.contains("the celeriac that pip installs"), "{}", refused.errors);
    }
    let Some(server) = RedisServer::start().await else { return };
    let listed = program.run(&["-b", &server.url(0), "dead-letters", "list"]);
    assert_eq!(listed.text(), "exit code 0\nNo dead letters in celeriac.dead-letters.\n");
}

/// Every way to get the command line or the settings wrong, with its one line and its exit code.
#[test]
fn mistakes() {
    let rows: &[&[&str]] = &[
        &["--loud"],
        &["wrker"],
        &["beat", "--dry-run"],
        &["beat", "--dry-run", "--until", "tomorrow"],
        &["beat", "--enable-remote-control"],
        &["graph"],
        &["-A", "proj", "worker"],
        &["--loader", "x", "worker"],
        &["--config", "missing.toml", "worker"],
        &["--config", "wrong-name.toml", "worker"],
        &["--config", "django-name.toml", "worker"],
        &["--config", "wrong-key.toml", "worker"],
        &["--config", "wrong-type.toml", "worker"],
        &["--config", "no-toml.toml", "worker"],
        &["--workdir", "missing", "worker"],
        &["worker", "--loud"],
        &["worker", "-A", "proj"],
        &["worker", "--app=proj"],
        &["worker", "-Q", "rust", "-b", "redis://localhost"],
        &["worker", "--broker=redis://localhost"],
        &["worker", "-q"],
        &["worker", "--config", "celeriac.toml"],
        &["dead-letters", "list", "-b", "redis://localhost"],
        &["dead-letters", "requeue"],
        &["worker", "-l", "LOUD"],
        &["worker", "-c", "many"],
        &["worker", "-O", "fast"],
        &["worker", "-P", "prefork"],
        &["worker", "-n", "w1@%z"],
        &["worker", "-X", "celery"],
        &["worker", "--time-limit", "soon"],
        &["worker", "--time-limit=-1"],
        &["worker", "--time-limit", "-1"],
        &["worker", "--soft-time-limit", "-0.5"],
        &["worker", "--time-limit", "nan"],
        &["worker", "--time-limit", "inf"],
        &["worker", "-c", "-1"],
        &["worker", "--prefetch-multiplier"],
        &["worker", "--prefetch-multiplier", "-1"],
        &["worker", "--prefetch-multiplier", "1.5"],
        &["worker", "-f", "missing/worker.log"],
        &["worker", "--pidfile", "missing/worker.pid"],
        &["worker", "--pidfile", "held.pid"],
        &["-b", "redis://localhost", "worker", "-S", "missing/worker.state"],
        &["-b", "redis://localhost", "worker", "-S", "/dev/zero"],
        &["-b", "redis://localhost", "worker", "-Q", "celery,celeriac.dead-letters"],
        &["worker", "worker.concurency=3"],
        &["worker", "broker_transport_options.visibility_timeot=6"],
        &["worker", "task.acks_late=perhaps"],
        &["worker", "loud"],
        &["worker", "worker.log_format=%(colour)s"],
        &["worker", "--log-format", "xml"],
        &["worker", "worker.log_lines=xml"],
        &["worker", "--http", "9808"],
        &["worker", "--http", "localhost:http"],
        &["-b", "redis://localhost", "worker", "worker.http=9808"],
        &["probe", "deadz"],
        &["probe", "--http", "localhost"],
        &["worker", "-Q", "hipri", "task.create_missing_queues=no"],
        &["-b", "nonsense", "worker"],
        &["-b", "redis//localhost", "worker"],
        &["-b", "redis://localhost/database", "worker"],
        &["-b", "carrier-pigeon://localhost", "worker"],
        &["-b", "amqp://user:secret@localhost:99999//", "worker"],
        &["-b", "amqp://user:secret@localhost?frobnicate=1", "worker"],
        &["-b", "amqp://user:secret@localhost", "worker", "broker.login_method=GSSAPI"],
        &["-b", "amqp://user:secret@localhost", "worker", "broker.failover_strategy=best"],
        &["-b", "sqs://key:secret@", "worker"],
        &["-b", "sentinel://localhost:26379", "worker"],
        &["-b", "redis://localhost", "--result-backend", "nonsense://", "worker"],
    ];
    let program = Program::new();
    program.write("wrong-name.toml", "broker_ur = 'redis://localhost'\n");
    program.write("django-name.toml", "CELERY_BROKER_URL = 'redis://localhost'\n");
    program.write("wrong-key.toml", "broker_transport_options = { visibility_timeot = 3 }\n");
    program.write("wrong-type.toml", "task_acks_late = 'yes'\n");
    program.write("no-toml.toml", "task_acks_late: yes\n");
    program.write("held.pid", &format!("{}\n", std::process::id()));
    let mut lines = String::new();
    for arguments in rows {
        let ended = program.run(arguments);
        let said = ended.errors.replace(&format!("(pid: {})", std::process::id()), "(pid: PID)");
        assert_eq!(said.lines().count(), 1, "{arguments:?} says one line: {said}");
        writeln!(lines, "$ {}\n{}{}\n", arguments.join(" "), said, ended.code).unwrap();
    }
    assert_snapshot("mistakes.txt", &lines);
}

/// What Celery has and this has not is refused by name, from the command line and from the environment.
#[test]
fn options_without_effect_are_refused() {
    let flags = ["--detach", "-D"];
    let options = [
        "--max-tasks-per-child",
        "--max-memory-per-child",
        "--pool-start-method",
        "--include",
        "-I",
        "--uid",
        "--gid",
        "--umask",
        "--executable",
    ];
    let program = Program::new();
    let mut lines = String::new();
    let mut refuse = |arguments: &[&str]| {
        let ended = program.run(arguments);
        assert_eq!(ended.code, "exit code 2", "{arguments:?}: {}", ended.errors);
        write!(lines, "$ {}\n{}", arguments.join(" "), ended.errors).unwrap();
    };
    flags.iter().for_each(|flag| refuse(&["worker", flag]));
    options.iter().for_each(|option| refuse(&["worker", option, "1"]));
    assert_snapshot("refused.txt", &lines);

    let ended = Program::new().with("CELERY_WORKER_UMASK", "022").run(&["worker"]);
    assert_eq!(ended.errors, "celeriac: error: --umask is not supported yet\n");
    let ended = Program::new().with("CELERY_WORKER_BEAT", "0").with("CELERY_WORKER_LOGLEVEL", "LOUD").run(&["worker"]);
    assert!(ended.errors.contains("'LOUD' for '--loglevel"), "{}", ended.errors);
}

#[test]
fn a_refused_connection_is_tried_again_and_a_signal_ends_the_wait() {
    for (signal, code) in [("TERM", 0), ("INT", 1), ("QUIT", 0)] {
        let url = format!("redis://:secret@127.0.0.1:{}/1", free_port());
        let mut worker = Program::new().start(&["-b", &url, "-C", "worker", "-l", "INFO", "-c", "3"]);
        let line = worker.error_line("Cannot connect");
        assert!(line.contains("ERROR/MainProcess] consumer: Cannot connect to redis://:**@127.0.0.1:"), "{line}");
        assert!(line.contains("onnection refused"), "{line}");
        assert!(line.ends_with("seconds... (try 1; gives up after 49 minutes)"), "{line}");
        assert!(worker.error_line("Cannot connect").contains("(try 2; gives up after 49 minutes)"));
        worker.signal(signal);
        let ended = worker.wait();
        assert_eq!(ended.code, format!("exit code {code}"), "{signal}: {}", ended.errors);
        assert!(!format!("{}{}", ended.output, ended.errors).contains("secret"));
    }
}

#[test]
fn the_banner_shows_the_configuration() {
    let program = Program::new().with("CELERY_RESULT_BACKEND", "redis://:secret@localhost/2");
    program.write("celeriac.toml", "task_queues = ['hipri', 'celery']\nworker_concurrency = 7\n");
    let url = format!("redis://user:secret@127.0.0.1:{}/1", free_port());
    let mut worker = program.start(&["-b", &url, "worker", "-l", "INFO", "-n", "w1@box"]);
    worker.error_line("Cannot connect");
    worker.signal("TERM");
    let shown = worker.wait().output;
    let expected = [
        "w1@box v",
        ".> app:         ",
        ".> transport:   redis://user:**@127.0.0.1:",
        ".> results:     redis://:**@localhost:6379/2",
        ".> concurrency: 7 (tokio)",
        ".> task events: OFF",
        ".> celery           exchange=celery(direct) key=celery",
        ".> hipri            exchange=celery(direct) key=hipri",
        "[tasks]\n",
        "  . rust.add\n",
    ];
    for part in expected {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn quiet_hides_the_banner_and_the_log_goes_to_its_file() {
    let program = Program::new();
    let url = format!("redis://127.0.0.1:{}", free_port());
    let worker = program.start(&["-q", "-b", &url, "worker", "-f", "%n-%I.log", "--pidfile", "%n.pid", "-n", "w1@box"]);
    let log = program.folder().join("w1-.log");
    let logged = || fs::read_to_string(&log).is_ok_and(|text| text.contains("Trying again"));
    eventually("the log is in its file", || async { logged() }).await;
    let id = fs::read_to_string(program.folder().join("w1.pid")).unwrap();
    assert_eq!(id, format!("{}\n", worker.id()));
    worker.signal("TERM");
    let ended = worker.wait();
    assert_eq!((ended.output.as_str(), ended.errors.as_str()), ("\nworker: Warm shutdown (MainProcess)\n", ""));
    assert!(!program.folder().join("w1.pid").exists(), "the pidfile is gone");
}

#[test]
fn a_log_file_that_cannot_be_written_is_told_once_on_standard_error() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let mut worker = Program::new().start(&["-q", "-b", &url, "worker", "-f", "/dev/full"]);
    let line = worker.error_line("write the log file");
    assert_eq!(line, "celeriac: write the log file /dev/full: No space left on device (os error 28)");
    worker.signal("TERM");
    let ended = worker.wait();
    assert_eq!(ended.code, "exit code 0");
    assert_eq!(ended.errors.matches("write the log file").count(), 1, "{}", ended.errors);
}

#[test]
fn a_stale_pidfile_is_removed() {
    let program = Program::new();
    program.write("worker.pid", "2147483647\n");
    let url = format!("redis://127.0.0.1:{}", free_port());
    let mut worker = program.start(&["-q", "-b", &url, "worker", "--pidfile", "worker.pid"]);
    worker.error_line("Stale pidfile exists - Removing it.");
    worker.error_line("Cannot connect");
    worker.signal("TERM");
    assert_eq!(worker.wait().code, "exit code 0");
}

#[test]
fn settings_win_over_each_other_in_the_order_that_help_gives() {
    let url = |database: u8| format!("redis://127.0.0.1:{}/{database}", free_port());
    let shown = |program: &Program, arguments: &[&str]| {
        let mut worker = program.start(arguments);
        worker.error_line("Cannot connect");
        worker.signal("TERM");
        worker.wait().output
    };
    let program = Program::new();
    program.write("celeriac.toml", &format!("broker_url = '{}'\nworker_concurrency = 3\n", url(1)));
    let text = shown(&program, &["worker"]);
    assert!(text.contains("/1\n") && text.contains("3 (tokio)"), "the file: {text}");
    let text = shown(&program, &["worker", "-c", "5", ".concurrency=4"]);
    assert!(text.contains("5 (tokio)"), "an option over an argument: {text}");
    let program = program.with("CELERY_BROKER_URL", &url(2));
    assert!(shown(&program, &["worker"]).contains("/2\n"), "the environment over the file");
    let third = url(3);
    assert!(shown(&program, &["-b", &third, "worker"]).contains("/3\n"), "-b over the environment");
}

#[test]
fn settings_without_effect_are_named() {
    let program = Program::new();
    program.write("celeriac.toml", "worker_pool_restarts = true\n");
    let url = format!("redis://127.0.0.1:{}", free_port());
    let mut worker = program.start(&["-b", &url, "worker"]);
    let line = worker.error_line("worker_pool_restarts");
    assert!(line.ends_with("the setting worker_pool_restarts is not supported yet and has no effect"), "{line}");
    // It hears signals before it connects.
    worker.error_line("Cannot connect");
    worker.signal("TERM");
    assert_eq!(worker.wait().code, "exit code 0");
}

#[test]
fn what_may_surprise_is_said_once_at_the_start() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let said = |program: &Program, queue: &str| {
        let mut worker = program.start(&["-q", "-b", &url, "worker", "-l", "INFO", "-Q", queue]);
        worker.error_line("Cannot connect");
        worker.signal("TERM");
        worker.wait().errors
    };
    let (elsewhere, no_results) =
        ("sent to the queue celery, which this worker does not consume", "results are not kept");
    let program = Program::new();
    let text = said(&program, "rust");
    assert!(text.matches(elsewhere).count() == 1 && text.matches(no_results).count() == 1, "{text}");
    assert!(!said(&program, "rust,celery").contains(elsewhere));
    program
        .write("celeriac.toml", "result_backend = 'redis://localhost'\n[task_routes]\n'rust.*' = { queue = 'rust' }\n");
    let text = said(&program, "rust");
    assert!(!text.contains(elsewhere) && !text.contains(no_results), "{text}");
}

#[test]
fn an_empty_option_is_none() {
    let url = format!("redis://127.0.0.1:{}/7", free_port());
    let program = Program::new().with("CELERY_BROKER_URL", &url);
    let mut worker = program.start(&["-b", "", "--result-backend", "", "worker"]);
    assert!(worker.error_line("Cannot connect").contains("/7: "));
    worker.signal("TERM");
    assert_eq!(worker.wait().code, "exit code 0");
}

#[tokio::test]
async fn a_wrong_password_is_one_line_and_is_tried_again_unless_that_is_switched_off() {
    let Some(server) = RedisServer::start_with_password("right").await else { return };
    let url = format!("redis://:wrong@127.0.0.1:{}/0", server.port());
    let mut worker = Program::new().start(&["-q", "-b", &url, "worker"]);
    let line = worker.error_line("Cannot connect");
    assert!(line.contains("the user name or password was refused"), "{line}");
    worker.signal("TERM");
    assert_eq!(worker.wait().code, "exit code 0");

    let ended = Program::new().run(&["-q", "-b", &url, "worker", "broker.connection_retry_on_startup=no"]);
    assert_eq!(ended.code, "exit code 1");
    assert_eq!(ended.errors.lines().count(), 2, "{}", ended.errors);
    let why = "CRITICAL/MainProcess] Retrying to establish a connection to the message broker after a connection loss has \
               been disabled (app.conf.broker_connection_retry_on_startup=False). Shutting down...\n";
    assert!(ended.errors.contains(why), "{}", ended.errors);
    assert!(ended.errors.contains("CRITICAL/MainProcess] Unrecoverable error: cannot connect to"), "{}", ended.errors);
    assert!(!ended.errors.contains("wrong"), "{}", ended.errors);
}

/// A message as Celery's producer puts it into the list of the queue `celery`.
fn message(task: &str, arguments: &str) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(format!("[{arguments}, {{}}, {{}}]"));
    format!(
        r#"{{"body": "{body}", "content-encoding": "utf-8", "content-type": "application/json",
            "headers": {{"lang": "py", "task": "{task}", "id": "an-id", "root_id": "an-id"}},
            "properties": {{"correlation_id": "an-id", "delivery_mode": 2, "body_encoding": "base64", "priority": 0,
                "delivery_info": {{"exchange": "", "routing_key": "celery"}}, "delivery_tag": "a-tag"}}}}"#
    )
}

#[tokio::test]
async fn purge_empties_the_queues_first_and_says_how_much_that_was() {
    let Some(server) = RedisServer::start().await else { return };
    let mut redis = server.connection().await;
    let push = |queue: &str| redis::cmd("LPUSH").arg(queue).arg(message("rust.noop", "[]")).to_owned();
    for queue in ["celery", "celery", "other"] {
        push(queue).query_async::<i64>(&mut redis).await.unwrap();
    }
    let mut worker = Program::new().start(&["-q", "-b", &server.url(0), "worker", "-l", "INFO", "--purge"]);
    worker.error_line(" ready.");
    worker.signal("TERM");
    let ended = worker.wait();
    assert!(ended.output.starts_with("purge: Erased 2 messages from the queue.\n"), "{}", ended.output);
    assert!(!ended.errors.contains("received"), "{}", ended.errors);
    let left: i64 = redis::cmd("LLEN").arg("other").query_async(&mut redis).await.unwrap();
    assert_eq!(left, 1, "a queue that is not consumed keeps its messages");
}

#[tokio::test]
async fn a_soft_shutdown_waits_its_time_and_a_signal_shows_what_runs() {
    let Some(server) = RedisServer::start().await else { return };
    let mut redis = server.connection().await;
    let sleep = message("rust.sleep", "[600]");
    redis::cmd("LPUSH").arg("celery").arg(sleep).query_async::<i64>(&mut redis).await.unwrap();
    let mut worker =
        Program::new().start(&["-q", "-b", &server.url(0), "worker", "-l", "INFO", ".soft_shutdown_timeout=0.1"]);
    worker.error_line("Task rust.sleep[an-id] received");
    worker.signal("USR1");
    let line = worker.error_line("running");
    assert!(line.contains("1 running, 0 reserved, 0 scheduled"), "{line}");
    worker.signal("QUIT");
    worker.error_line("Initiating Soft Shutdown, terminating in 0.1 seconds");
    worker.error_line("Cold shutdown");
    let ended = worker.wait();
    assert_eq!(ended.code, "exit code 0");
    assert!(ended.output.contains("worker: Cold shutdown (MainProcess)"), "{}", ended.output);
}

#[tokio::test]
async fn a_key_that_is_no_list_is_told_once_and_the_worker_is_ready_once() {
    let Some(server) = RedisServer::start().await else { return };
    let mut redis = server.connection().await;
    let _: () = redis::cmd("SET").arg("wrong").arg("x").query_async(&mut redis).await.unwrap();
    let mut worker = Program::new().start(&["-q", "-b", &server.url(0), "worker", "-l", "INFO", "-Q", "wrong,celery"]);
    let line = worker.error_line("Cannot consume");
    assert!(line.contains("from the queue wrong: its key \"wrong\" at redis://127.0.0.1:"), "{line}");
    assert!(line.contains("holds something else than a list (WRONGTYPE)"), "{line}");
    for _ in 0..3 {
        let _: i64 =
            redis::cmd("LPUSH").arg("celery").arg(message("rust.noop", "[]")).query_async(&mut redis).await.unwrap();
        worker.error_line("succeeded in");
    }
    let _: () = redis::cmd("DEL").arg("wrong").query_async(&mut redis).await.unwrap();
    let _: i64 =
        redis::cmd("LPUSH").arg("wrong").arg(message("rust.noop", "[]")).query_async(&mut redis).await.unwrap();
    worker.error_line("is in nobody's way any more");
    worker.signal("TERM");
    let errors = worker.wait().errors;
    assert_eq!(errors.matches("Cannot consume").count(), 1, "{errors}");
    assert_eq!(errors.matches(" ready.").count(), 1, "{errors}");
    assert!(!errors.contains("onnection to broker lost"), "{errors}");
}
