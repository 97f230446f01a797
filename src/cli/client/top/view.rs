//! [`View`]: what of a [`Cluster`] is shown, and how: a frame from a state, and nothing else.

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use crate::events::{Cluster, SeenTask, SeenWorker, WINDOW};
use crate::time::zone;

/// What is shown beside the cluster itself.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// How many tasks stand above the first that is shown.
    skipped: usize,
    /// Why nothing is heard now.
    pub(super) trouble: Option<String>,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    End,
}

/// The longest list of workers, in lines.
const WORKERS: u16 = 12;

impl View {
    /// Heeds a key.
    pub(super) fn key(&mut self, key: KeyEvent, cluster: &Cluster) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        let last = cluster.tasks().len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Asked::End,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Asked::End,
            KeyCode::Down => self.skipped += 1,
            KeyCode::Up => self.skipped = self.skipped.saturating_sub(1),
            KeyCode::PageDown => self.skipped += 20,
            KeyCode::PageUp => self.skipped = self.skipped.saturating_sub(20),
            KeyCode::Home => self.skipped = 0,
            KeyCode::End => self.skipped = last,
            _ => {}
        }
        self.skipped = self.skipped.min(last);
        Asked::Nothing
    }

    /// Draws everything; `now` is the time in seconds since the epoch.
    pub(super) fn draw(&self, frame: &mut Frame<'_>, cluster: &Cluster, now: f64) {
        let workers = cluster.workers();
        let lines = u16::try_from(workers.len()).unwrap_or(WORKERS).clamp(1, WORKERS);
        let areas = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(lines + 2),
            Constraint::Min(3),
            Constraint::Length(1),
        ]);
        let [head, middle, rest, foot] = areas.areas(frame.area());
        frame.render_widget(Paragraph::new(summary(cluster, &workers, now)), head);
        draw_workers(frame, middle, &workers, now);
        self.draw_tasks(frame, rest, cluster);
        let foot_line = match &self.trouble {
            Some(trouble) => Line::styled(trouble.clone(), Style::new().fg(Color::Red)),
            None => Line::styled("q: end   arrows: scroll the tasks", Style::new().add_modifier(Modifier::DIM)),
        };
        frame.render_widget(Paragraph::new(foot_line), foot);
    }

    fn draw_tasks(&self, frame: &mut Frame<'_>, area: Rect, cluster: &Cluster) {
        let widths = [
            Constraint::Length(8),
            Constraint::Length(36),
            Constraint::Fill(2),
            Constraint::Fill(1),
            Constraint::Length(9),
            Constraint::Length(9),
        ];
        let shown = cluster.tasks().skip(self.skipped).take(usize::from(area.height));
        let table = Table::new(shown.map(task_row), widths)
            .header(header(["TIME", "UUID", "TASK", "WORKER", "STATE", "RUNTIME"]))
            .block(titled(format!(" Tasks ({}) ", cluster.tasks().len())));
        frame.render_widget(table, area);
    }
}

fn summary(cluster: &Cluster, workers: &[&SeenWorker], now: f64) -> Vec<Line<'static>> {
    let alive = workers.iter().filter(|worker| worker.is_alive(now));
    let (online, active) = alive.fold((0, 0), |(online, active), worker| (online + 1, active + worker.active));
    let (succeeded, failed) = cluster.rates(now);
    let times = |times: Option<(f64, f64)>| match times {
        Some((median, slow)) => format!("{} / {}", seconds(median), seconds(slow)),
        None => "-".to_owned(),
    };
    vec![
        Line::from(format!(
            "celeriac top   workers {online} of {}   active {active}   succeeded {succeeded:.1}/s   failed {failed:.1}/s   over {WINDOW:.0} s",
            workers.len()
        )),
        Line::from(format!(
            "events {}   runtime p50 / p95: {}   wait in the worker: {}",
            cluster.events(),
            times(cluster.runtimes()),
            times(cluster.waits())
        )),
    ]
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, workers: &[&SeenWorker], now: f64) {
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Fill(1),
    ];
    let table = Table::new(workers.iter().map(|worker| worker_row(worker, now)), widths)
        .header(header(["WORKER", "STATUS", "ACTIVE", "PROCESSED", "SUCCEEDED", "FAILED", "LOAD", "SOFTWARE"]))
        .block(titled(format!(" Workers ({}) ", workers.len())));
    frame.render_widget(table, area);
}

fn worker_row(worker: &SeenWorker, now: f64) -> Row<'static> {
    let (status, color) = if worker.is_alive(now) { ("online", Color::Green) } else { ("offline", Color::Red) };
    Row::new([
        Cell::from(worker.hostname.clone()),
        Cell::from(status).style(Style::new().fg(color)),
        Cell::from(worker.active.to_string()),
        Cell::from(worker.processed.to_string()),
        Cell::from(worker.succeeded.to_string()),
        Cell::from(worker.failed.to_string()),
        Cell::from(worker.load.map_or_else(|| "-".to_owned(), |load| format!("{load:.2}"))),
        Cell::from(worker.software.clone()),
    ])
}

fn task_row(task: &SeenTask) -> Row<'static> {
    let color = match task.state.as_str() {
        "SUCCESS" => Color::Green,
        "FAILURE" | "REVOKED" | "REJECTED" => Color::Red,
        "RETRY" => Color::Yellow,
        "STARTED" => Color::Cyan,
        _ => Color::Reset,
    };
    Row::new([
        Cell::from(time_of_day(task.timestamp)),
        Cell::from(task.uuid.clone()),
        Cell::from(task.name.clone()),
        Cell::from(task.worker.clone()),
        Cell::from(task.state.clone()).style(Style::new().fg(color)),
        Cell::from(task.runtime.map_or_else(String::new, seconds)),
    ])
}

fn header<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names).style(Style::new().add_modifier(Modifier::BOLD))
}

fn titled(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

fn seconds(seconds: f64) -> String {
    match seconds {
        short if short < 1.0 => format!("{:.1} ms", short * 1000.0),
        long => format!("{long:.2} s"),
    }
}

/// In local time.
fn time_of_day(seconds: f64) -> String {
    let time = Timestamp::from_microsecond((seconds * 1e6) as i64);
    time.map_or_else(|_| "-".to_owned(), |time| time.to_zoned(zone::local()).strftime("%H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::super::plain;
    use super::*;
    use crate::protocol::json;

    fn cluster() -> Cluster {
        let events = r#"[
            {"type": "worker-heartbeat", "hostname": "rust@h", "local_received": 100.0, "freq": 2.0, "active": 1,
             "processed": 12, "loadavg": [0.25, 1, 2], "sw_ident": "celeriac", "sw_ver": "0.1.0"},
            {"type": "worker-heartbeat", "hostname": "py@h", "local_received": 90.0, "freq": 2.0, "processed": 3},
            {"type": "task-received", "hostname": "rust@h", "uuid": "id-1", "name": "shop.add", "timestamp": "x", "local_received": 99},
            {"type": "task-succeeded", "hostname": "rust@h", "uuid": "id-1", "runtime": 0.0125, "local_received": 99},
            {"type": "task-failed", "hostname": "py@h", "uuid": "id-2", "local_received": 99}]"#;
        let mut cluster = Cluster::default();
        for event in json::parse(events.as_bytes()).unwrap().into_list().unwrap() {
            cluster.apply(&event.into_map().unwrap());
        }
        cluster
    }

    #[test]
    fn a_frame_shows_the_whole_fleet() {
        let frame = plain(&View::default(), &cluster(), 101.0, (120, 14));
        let lines: Vec<_> = frame.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let time = time_of_day(99.0);
        let expected = [
            "celeriac top workers 1 of 2 active 1 succeeded 0.1/s failed 0.1/s over 10 s",
            "events 5 runtime p50 / p95: 12.5 ms / 12.5 ms wait in the worker: -",
            &format!("─ Workers (2) {}", "─".repeat(106)),
            "WORKER STATUS ACTIVE PROCESSED SUCCEEDED FAILED LOAD SOFTWARE",
            "py@h offline 0 3 0 1 -",
            "rust@h online 1 12 1 0 0.25 celeriac 0.1.0",
            &format!("─ Tasks (2) {}", "─".repeat(108)),
            "TIME UUID TASK WORKER STATE RUNTIME",
            &format!("{time} id-2 py@h FAILURE"),
            &format!("{time} id-1 shop.add rust@h SUCCESS 12.5 ms"),
            "",
            "",
            "",
            "q: end arrows: scroll the tasks",
        ];
        let got: Vec<_> = lines.iter().map(|line| line.trim_start_matches('─').to_owned()).collect();
        let want: Vec<_> = expected.iter().map(|line| line.trim_start_matches('─').to_owned()).collect();
        assert_eq!(got.len(), want.len(), "{frame}");
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got.trim_end_matches('─').trim(), want.trim_end_matches('─').trim(), "{frame}");
        }
    }

    #[test]
    fn no_size_of_a_terminal_is_too_small() {
        for size in [(0, 0), (1, 1), (3, 2), (20, 5), (500, 300)] {
            plain(&View::default(), &cluster(), 101.0, size);
        }
    }

    #[test]
    fn keys_scroll_and_end() {
        let (mut view, cluster) = (View::default(), cluster());
        let key = |code, modifiers| KeyEvent::new(code, modifiers);
        for (code, skipped) in
            [(KeyCode::Up, 0), (KeyCode::Down, 1), (KeyCode::Down, 1), (KeyCode::Home, 0), (KeyCode::End, 1)]
        {
            assert_eq!(view.key(key(code, KeyModifiers::NONE), &cluster), Asked::Nothing);
            assert_eq!(view.skipped, skipped, "{code:?}");
        }
        assert!(!plain(&view, &cluster, 101.0, (120, 14)).contains("id-2"));
        assert_eq!(view.key(key(KeyCode::Char('c'), KeyModifiers::NONE), &cluster), Asked::Nothing);
        assert_eq!(view.key(key(KeyCode::Char('c'), KeyModifiers::CONTROL), &cluster), Asked::End);
        assert_eq!(view.key(key(KeyCode::Char('q'), KeyModifiers::NONE), &cluster), Asked::End);
    }
}
