//! Reports: the news of tasks, numbered, repeated until the manager has taken them.
//!
//! One report is under way at a time; what happens meanwhile goes into the next, so a busy node
//! batches by itself. Knows nothing of how a task came to its status.

use super::task::Entry;
use crate::types::{FromWorker, Moment, TaskId, TaskReport};
use std::{collections::BTreeMap, time::Duration};

/// How many tasks one report carries at most: with errors and ports about 500 bytes each, so that
/// a report stays far below the limit on messages.
const REPORT_TASKS_MAX: usize = 256;

/// The wait for an answer: a commit on a slow SD card takes a second.
const REPORT_RETRY: Duration = Duration::from_secs(3);

/// The reports of one session.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The last number used.
    number: u64,
    under_way: Option<(Vec<TaskReport>, Moment)>,
}

impl Reports {
    /// Returns what to send now, if anything.
    pub(super) fn poll(
        &mut self,
        session: u64,
        tasks: &BTreeMap<TaskId, Entry>,
        now: Moment,
    ) -> Option<FromWorker> {
        match &mut self.under_way {
            Some((_, at)) if *at > now => return None,
            Some((_, at)) => *at = now + REPORT_RETRY,
            None => {
                // A task that no manager has taken over yet is news only to the next register.
                let news = tasks.values().filter(|e| !e.reported && e.local.is_none());
                let news: Vec<TaskReport> = news
                    .take(REPORT_TASKS_MAX)
                    .map(|e| TaskReport { task: e.task.id.clone(), status: e.status.clone() })
                    .collect();
                if news.is_empty() {
                    return None;
                }
                self.number += 1;
                self.under_way = Some((news, now + REPORT_RETRY));
            }
        }
        let (tasks, _) = self.under_way.clone()?;
        Some(FromWorker::Report { session, number: self.number, tasks })
    }

    /// The manager has taken the report of this number.
    pub(super) fn taken(&mut self, number: u64, tasks: &mut BTreeMap<TaskId, Entry>) {
        if number != self.number {
            return;
        }
        let Some((reports, _)) = self.under_way.take() else { return };
        for report in reports {
            if let Some(entry) = tasks.get_mut(&report.task)
                && entry.status == report.status
            {
                // Not worth a write: a status that is reported twice does no harm.
                entry.reported = true;
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.under_way.as_ref().map(|(_, at)| *at)
    }
}
