//! [`Memory`]: how much memory the process has had (celery/utils/debug.py `sample_mem`, `memdump`).

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;

/// How many samples are kept.
const SAMPLES: usize = 1000;

const UNITS: [(f64, &str); 4] =
    [(1_099_511_627_776.0, "TB"), (1_073_741_824.0, "GB"), (1_048_576.0, "MB"), (1024.0, "KB")];

/// The samples that were taken since they were told last.
#[derive(Debug, Default)]
pub(super) struct Memory {
    samples: VecDeque<Option<String>>,
}

impl Memory {
    /// The resident memory, for people; `None`: this system does not say.
    pub(super) fn sample(&mut self) -> Option<String> {
        let sample = resident().map(human);
        self.samples.push_back(sample.clone());
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        sample
    }

    /// Tells `count` of the samples, evenly chosen, and what it is now. They are forgotten then.
    pub(super) fn dump(&mut self, count: usize) -> String {
        let samples = std::mem::take(&mut self.samples);
        let chosen = samples.len().min(count);
        let step = samples.len() / chosen.max(1);
        let mut text = if chosen > 0 { "- rss (sample):\n".to_owned() } else { String::new() };
        for sample in samples.iter().step_by(step.max(1)).take(chosen) {
            // Text always has room for more.
            let _ = writeln!(text, "-    > {},", shown(sample.as_deref()));
        }
        let _ = writeln!(text, "- rss (end): {}.", shown(resident().map(human).as_deref()));
        text
    }
}

fn shown(sample: Option<&str>) -> &str {
    sample.unwrap_or("None")
}

/// In bytes, as Linux tells it (proc_pid_status(5)).
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kilobytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// celery/utils/debug.py `humanbytes`: five digits and the largest unit that fits.
fn human(bytes: u64) -> String {
    let bytes = bytes as f64;
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}{name}", five_digits(bytes / unit)),
        None => format!("{bytes}b"),
    }
}

/// Python's `'{:.5}'`, but for whole numbers.
fn five_digits(number: f64) -> String {
    if number.fract() == 0.0 {
        return number.to_string();
    }
    let whole = number.trunc().to_string().len();
    let text = format!("{number:.*}", 5_usize.saturating_sub(whole));
    match text.trim_end_matches('0') {
        whole if whole.ends_with('.') => format!("{whole}0"),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Celery 5.7.
    #[test]
    fn bytes_are_shown_as_celery_shows_them() {
        let rows = [
            (0, "0b"),
            (1023, "1023b"),
            (1024, "1KB"),
            (1536, "1.5KB"),
            (62_898_176, "59.984MB"),
            (1_073_741_000, "1024.0MB"),
            (5_000_000_000, "4.6566GB"),
        ];
        for (bytes, expected) in rows {
            assert_eq!(human(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn samples_are_told_once() {
        let mut memory = Memory::default();
        let taken: Vec<_> = (0..4).map(|_| memory.sample()).collect();
        assert!(taken.iter().all(|sample| sample.as_deref().is_some_and(|sample| sample.ends_with('B'))), "{taken:?}");
        let text = memory.dump(2);
        let lines: Vec<_> = text.lines().collect();
        let rows = format!("-    > {},", shown(taken[0].as_deref()));
        assert_eq!((lines.len(), lines[0], lines[1]), (4, "- rss (sample):", rows.as_str()));
        let again = memory.dump(10);
        assert!(again.starts_with("- rss (end): ") && again.ends_with(".\n") && again.lines().count() == 1, "{again}");
    }
}
