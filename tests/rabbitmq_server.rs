//! The RabbitMQ of the tests does what the tests rely on: it keeps what it holds, and outlives nobody.

#![allow(clippy::unwrap_used, reason = "a test fails where its broker does")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::eventually;
use support::rabbitmq_server::{Depth, RabbitServer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_what_it_holds() {
    let Some(server) = RabbitServer::start().await else { return };
    let vhost = server.vhost();
    let declare = |kind: &str, durable: bool| {
        format!(
            "{{resource, _, queue, _}} = Name = rabbit_misc:r(<<\"{}\">>, queue, <<\"{kind}\">>), \
             {{new, _}} = rabbit_amqqueue:declare(Name, {durable}, false, \
             [{{<<\"x-queue-type\">>, longstr, <<\"{kind}\">>}}], none, <<\"tests\">>), ok.",
            vhost.name()
        )
    };
    assert_eq!(server.ask(&declare("classic", true)), "ok");
    assert_eq!(server.ask(&declare("quorum", true)), "ok");
    let depth = |queue: &str| Depth { queue: queue.to_owned(), ..Depth::default() };
    assert_eq!(vhost.depths(), [depth("classic"), depth("quorum")]);
    server.kill();
    server.start_again().await;
    assert_eq!(vhost.depths(), [depth("classic"), depth("quorum")]);
    server.stop();
    server.start_again().await;
    assert_eq!(vhost.depths(), [depth("classic"), depth("quorum")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut() {
    let Some(server) = RabbitServer::shared().await else { return };
    let (vhost, other) = (server.vhost(), server.vhost());
    assert_ne!(vhost.url(), other.url());
    assert_eq!((vhost.cut(), other.close("goodbye")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_ends_with_its_test_however_that_ends() {
    let marker = "a_node_is_left_to_itself";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", marker, "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut left = command.spawn().unwrap();
    let output = std::io::BufReader::new(left.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output).map_while(Result::ok);
    let found = lines.find_map(|line| Some(line.split_once("node: ")?.1.to_owned()));
    let checked = found.as_ref().map(|found| found.split_once(' ').unwrap());
    if let Some((process, folder)) = checked {
        assert!(runs(process) && Path::new(folder).exists());
    }
    left.kill().unwrap();
    left.wait().unwrap();
    let Some((process, folder)) = checked else { return }; // RabbitMQ is not installed, as it has said.
    eventually("the node has ended, and removed its files", || async { !runs(process) && !Path::new(folder).exists() })
        .await;
}

/// Whether the process is there, and not only its exit code.
fn runs(process: &str) -> bool {
    let command = std::fs::read(Path::new("/proc").join(process).join("cmdline"));
    command.is_ok_and(|command| !command.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is run by another test, which kills it"]
async fn a_node_is_left_to_itself() {
    let Some(server) = RabbitServer::start().await else { return };
    let process = server.ask("list_to_integer(os:getpid()).");
    let folder = server.ask("{ok, [[Folder]]} = init:get_argument(own_folder), list_to_atom(Folder).");
    println!("node: {process} {}", folder.trim_matches('\''));
    tokio::time::sleep(Duration::from_secs(60)).await;
}
