//! Logs of tasks: this node's to another, and the whole cluster's to a user.

use crate::{
    api::local::{BoxStream, LogItem, LogLine, LogOptions, LogSource, LogTask},
    cluster::{Query, Refusal, Request, Response},
    daemon::{
        remote::{self, Unanswered},
        shared::Shared,
    },
    runtime::{self, LogStream},
    transport::{ByteSender, StreamError},
    types::{Date, NodeId, TaskId},
    wire::{LogFrame, LogsRequest, StreamRequest},
};
use async_channel::Sender;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// Lines on their way to the user: a reader that is slow makes the nodes wait.
const LINES_MAX: usize = 64;

/// How often a followed service is looked at for new tasks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a node may be out of touch before that is told: its session goes to another manager where
/// one is restarted.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENT_LOOK: Duration = Duration::from_millis(100);

/// Why a log cannot be read that is not kept, in Docker's words.
const UNREADABLE: &str = "configured logging driver does not support reading";

/// How long looking may take.
const READ_LIMIT: Duration = Duration::from_secs(5);

fn options(request: &LogsRequest) -> runtime::LogOptions {
    runtime::LogOptions {
        stdout: request.stdout,
        stderr: request.stderr,
        follow: request.follow,
        tail: request.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX)),
        since: request.since,
    }
}

/// Sends this node's lines of the tasks that a manager asked for.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    request: &LogsRequest,
    mut sender: ByteSender,
) -> Result<(), StreamError> {
    let (lines, frames) = async_channel::bounded(LINES_MAX);
    let mut readers = Vec::new();
    for task in request.tasks.clone() {
        if !shared.containers.runtime().keeps_log(&task) {
            let reason = UNREADABLE.to_owned();
            sender.send(&LogFrame::Unreadable { task, reason }).await?;
            continue;
        }
        let source = shared.containers.runtime().logs(&task, options(request));
        let lines = lines.clone();
        readers.push(smol::spawn(async move {
            while let Ok(line) = source.recv().await {
                let frame = LogFrame::Line {
                    task: task.clone(),
                    stderr: line.stream == LogStream::Stderr,
                    date: line.date,
                    line: line.line,
                    attributes: line.attributes,
                };
                if lines.send(frame).await.is_err() {
                    return;
                }
            }
        }));
    }
    drop(lines);
    while let Ok(frame) = frames.recv().await {
        let is_late = matches!(
            (&frame, request.until),
            (LogFrame::Line { date, .. }, Some(until)) if *date >= until
        );
        if !is_late {
            sender.send(&frame).await?;
        }
    }
    sender.finish().await
}

/// Where the logs of a cluster are read from.
pub(crate) struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) own: NodeId,
}

impl Reader {
    /// Reads the logs of all the tasks that were asked for.
    pub(crate) fn read(self, options: LogOptions) -> BoxStream<LogItem> {
        let (sender, items) = async_channel::bounded(LINES_MAX);
        let work = smol::spawn(async move { self.run(options, sender).await });
        streams_of(items, work)
    }

    async fn run(self, options: LogOptions, sender: Sender<LogItem>) {
        let this = Arc::new(self);
        let mut known: BTreeSet<TaskId> = BTreeSet::new();
        let mut readers = Vec::new();
        let mut tasks = options.tasks.clone();
        loop {
            tasks.retain(|task| known.insert(task.task.clone()));
            for (node, tasks) in by_node(tasks) {
                let (this, options, sender) = (Arc::clone(&this), options.clone(), sender.clone());
                readers.push(smol::spawn(async move {
                    this.read_node(&node, &tasks, &options, &sender).await;
                }));
            }
            // New tasks come only to services.
            if !options.follow || options.service.is_none() {
                break;
            }
            smol::Timer::after(LOOK_AGAIN).await;
            if sender.is_closed() {
                return;
            }
            tasks = this.new_tasks(&options).await.unwrap_or_default();
        }
        for reader in readers {
            reader.await;
        }
    }

    async fn new_tasks(&self, options: &LogOptions) -> Result<Vec<LogTask>, Refusal> {
        let Some(service) = &options.service else { return Ok(Vec::new()) };
        let query = Query::Tasks { services: vec![service.clone()], nodes: Vec::new() };
        let answer = self.shared.ask(Request::Read(query), READ_LIMIT).await?;
        let Response::Tasks(tasks) = answer else { return Ok(Vec::new()) };
        let placed = tasks.into_iter().filter_map(|task| {
            let node = task.node?;
            Some(LogTask { task: task.id, service: task.service, node })
        });
        Ok(placed.collect())
    }

    /// Reads the logs of the tasks on one node. One that is followed and gets out of touch is asked
    /// again until it is back, for what came since.
    async fn read_node(
        &self,
        node: &NodeId,
        tasks: &[LogTask],
        options: &LogOptions,
        sender: &Sender<LogItem>,
    ) {
        let mut request = LogsRequest {
            tasks: tasks.iter().map(|task| task.task.clone()).collect(),
            follow: options.follow,
            tail: options.tail,
            since: options.since,
            until: options.until,
            stdout: options.stdout,
            stderr: options.stderr,
            timestamps: true,
            details: false,
        };
        if *node == self.own {
            self.read_here(tasks, &request, sender).await;
            return;
        }
        let mut seen = Seen::default();
        let mut told = false;
        let mut away_since = None;
        loop {
            let before = seen.0.clone();
            let read = self.read_there(node, tasks, request.clone(), sender, &mut seen).await;
            let Err(error) = read else { return };
            if seen.0 != before {
                away_since = None;
            }
            let away = away_since.get_or_insert_with(Instant::now).elapsed();
            let patient = away < PATIENCE && error.may_pass();
            if !told && !patient {
                // The user has gone where nobody takes it.
                sender.send(LogItem::Incomplete(error.to_string())).await.ok();
                told = true;
            }
            if !(patient || options.follow) || sender.is_closed() {
                return;
            }
            if let Some(since) = seen.oldest(tasks) {
                request.since = Some(since);
            }
            if !seen.0.is_empty() {
                request.tail = None;
            }
            smol::Timer::after(if patient { PATIENT_LOOK } else { LOOK_AGAIN }).await;
        }
    }

    async fn read_here(&self, tasks: &[LogTask], request: &LogsRequest, sender: &Sender<LogItem>) {
        let mut readers = Vec::new();
        for from in tasks.iter().cloned() {
            if !self.shared.containers.runtime().keeps_log(&from.task) {
                // The user has gone where nobody takes it.
                sender.send(unreadable(&from.task, UNREADABLE)).await.ok();
                continue;
            }
            let source = self.shared.containers.runtime().logs(&from.task, options(request));
            let (sender, until) = (sender.clone(), request.until);
            readers.push(smol::spawn(async move {
                while let Ok(line) = source.recv().await {
                    let wanted = until.is_none_or(|until| line.date < until);
                    let stderr = line.stream == LogStream::Stderr;
                    let item = item(&from, stderr, line.date, line.line, line.attributes);
                    if wanted && sender.send(item).await.is_err() {
                        return;
                    }
                }
            }));
        }
        for reader in readers {
            reader.await;
        }
    }

    async fn read_there(
        &self,
        node: &NodeId,
        tasks: &[LogTask],
        request: LogsRequest,
        sender: &Sender<LogItem>,
        seen: &mut Seen,
    ) -> Result<(), Unanswered> {
        let request = StreamRequest::Logs(Box::new(request));
        let mut line = remote::ask(&self.shared, node, request).await?;
        let sources: BTreeMap<&TaskId, &LogTask> =
            tasks.iter().map(|task| (&task.task, task)).collect();
        // What was read before the connection broke comes once more, and is not told again.
        let before = seen.clone();
        while let Some(frame) = line.answers().next::<LogFrame>().await? {
            let item = match frame {
                LogFrame::Line { task, stderr, date, line, attributes } => {
                    let Some(from) = sources.get(&task) else { continue };
                    if before.0.get(&task).is_some_and(|last| date <= *last) {
                        continue;
                    }
                    seen.0.insert(task, date);
                    item(from, stderr, date, line, attributes)
                }
                LogFrame::Unreadable { task, reason } => unreadable(&task, &reason),
            };
            if sender.send(item).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The date of the last line that came of each task.
#[derive(Debug, Clone, Default)]
struct Seen(BTreeMap<TaskId, Date>);

impl Seen {
    /// Since when all the tasks have to be asked again; none where one of them said nothing yet.
    fn oldest(&self, tasks: &[LogTask]) -> Option<Date> {
        let dates: Option<Vec<Date>> =
            tasks.iter().map(|task| self.0.get(&task.task).copied()).collect();
        dates?.into_iter().min()
    }
}

fn unreadable(task: &TaskId, reason: &str) -> LogItem {
    LogItem::Incomplete(format!("task {task}: {reason}"))
}

fn item(
    from: &LogTask,
    stderr: bool,
    date: Date,
    line: Vec<u8>,
    attributes: BTreeMap<String, String>,
) -> LogItem {
    LogItem::Line(LogLine {
        from: from.clone(),
        source: if stderr { LogSource::Stderr } else { LogSource::Stdout },
        date,
        line: line.into(),
        attributes,
    })
}

fn by_node(tasks: Vec<LogTask>) -> BTreeMap<NodeId, Vec<LogTask>> {
    let mut nodes: BTreeMap<NodeId, Vec<LogTask>> = BTreeMap::new();
    for task in tasks {
        nodes.entry(task.node.clone()).or_default().push(task);
    }
    nodes
}

/// Returns the items as a stream; the work that makes them ends when it is dropped.
pub(crate) fn streams_of<T: Send + 'static>(
    items: async_channel::Receiver<T>,
    work: smol::Task<()>,
) -> BoxStream<T> {
    let items = Box::pin(items);
    Box::pin(futures_lite::stream::unfold((items, work), |(mut items, work)| async move {
        let item = futures_lite::StreamExt::next(&mut items).await?;
        Some((item, (items, work)))
    }))
}
