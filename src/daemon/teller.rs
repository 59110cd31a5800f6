//! Tells what happens on this node: to its containers, images and volumes.
//!
//! Knows Docker's words for it, and that each is said once although an exit may be seen by several:
//! by whoever asked for it, by the watcher, and by the next inventory.

use super::machine::host::wall_clock;
use crate::{
    agent::Phase,
    runtime::{ContainerInfo, VolumeNews},
    types::{Labels, Occurrence, OccurrenceKind, TaskId, image::Reference, signal},
    util::board::{Board, BoardLimits},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What is kept for `--since`, as many as Docker keeps; what may wait for one reader, which is a
/// burst of every container of a node at about 1 KB each; and how many may read at once, each of
/// which costs that much where it does not keep up.
const LIMITS: BoardLimits = BoardLimits { recent: 256, waiting: 1_024, readers: 64 };

/// Labels of midge's own, which are no user's affair.
const OWN_LABELS: &str = "io.midge.";

/// How long a container has lived, as far as has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Created,
    /// Since when; none where it ran before this process did.
    Started(Option<Instant>),
    Died,
}

#[derive(Debug)]
struct Known {
    attributes: Labels,
    told: Told,
}

/// Tells what happens.
#[derive(Debug)]
pub(super) struct Teller {
    board: Board<Occurrence>,
    containers: Mutex<BTreeMap<TaskId, Known>>,
}

impl Teller {
    pub(super) fn new() -> Self {
        Self { board: Board::new(LIMITS), containers: Mutex::default() }
    }

    /// Returns the board that everything is told on; the cluster's occurrences go there as well.
    pub(super) fn board(&self) -> &Board<Occurrence> {
        &self.board
    }

    fn tell(&self, kind: OccurrenceKind, action: &str, id: &str, attributes: Labels) {
        let (action, id) = (action.to_owned(), id.to_owned());
        self.board.post(Occurrence { date: wall_clock(), kind, action, id, attributes });
    }

    /// Takes in a container that was there before, without telling of it.
    pub(super) fn adopt(&self, info: &ContainerInfo) {
        let told = match info.phase {
            Phase::Created => Told::Created,
            Phase::Running { .. } => Told::Started(None),
            Phase::Exited { .. } => Told::Died,
        };
        let attributes = attributes(info);
        let mut known = self.lock();
        known.entry(info.task.clone()).or_insert(Known { attributes, told });
    }

    /// A container was made; said once.
    pub(super) fn created(&self, info: &ContainerInfo) {
        let fresh = {
            let mut known = self.lock();
            let fresh = !known.contains_key(&info.task);
            known
                .entry(info.task.clone())
                .or_insert_with(|| Known { attributes: attributes(info), told: Told::Created });
            fresh
        };
        if fresh {
            self.container(&info.task, "create", &[]);
        }
    }

    /// A container was started; said once.
    pub(super) fn started(&self, task: &TaskId) {
        if self.turn(task, |told| (told == Told::Created).then(|| Told::Started(Some(now()))))
            == Some(Told::Created)
        {
            self.container(task, "start", &[]);
        }
    }

    /// A container ended; said once.
    pub(super) fn died(&self, task: &TaskId, phase: &Phase) {
        let Phase::Exited { code, out_of_memory, .. } = phase else { return };
        let before = self.turn(task, |told| match told {
            Told::Started(_) => Some(Told::Died),
            Told::Created | Told::Died => None,
        });
        let Some(Told::Started(since)) = before else { return };
        if *out_of_memory {
            self.container(task, "oom", &[]);
        }
        let mut extra = Vec::new();
        if let Some(since) = since {
            extra.push(("execDuration", since.elapsed().as_secs().to_string()));
        }
        extra.extend(code.map(|code| ("exitCode", code.to_string())));
        self.container(task, "die", &extra);
    }

    /// A container that runs is about to be asked to stop.
    pub(super) fn stopping(&self, task: &TaskId, given: &str) {
        let number = signal::parse(given).unwrap_or(signal::TERM);
        if self.runs(task) {
            self.container(task, "kill", &[("signal", number.to_string())]);
        }
    }

    /// A container that was asked to stop has ended, after so long. One that took its whole grace
    /// period was killed.
    pub(super) fn stopped(&self, task: &TaskId, phase: &Phase, took: Duration, grace: Duration) {
        if took >= grace {
            self.container(task, "kill", &[("signal", signal::KILL.to_string())]);
        }
        self.died(task, phase);
        self.container(task, "stop", &[]);
    }

    /// Tells whether a container runs, as far as has been told.
    pub(super) fn runs(&self, task: &TaskId) -> bool {
        self.lock().get(task).is_some_and(|known| matches!(known.told, Told::Started(_)))
    }

    /// A container is gone; said once.
    pub(super) fn removed(&self, task: &TaskId) {
        let known = self.lock().remove(task);
        if let Some(known) = known {
            self.tell(OccurrenceKind::Container, "destroy", task.as_str(), known.attributes);
        }
    }

    /// A command was started in a container.
    pub(super) fn exec_started(&self, task: &TaskId, command: &[String]) {
        let command = command.join(" ");
        self.container(task, &format!("exec_create: {command}"), &[]);
        self.container(task, &format!("exec_start: {command}"), &[]);
    }

    /// It ended.
    pub(super) fn exec_ended(&self, task: &TaskId, code: i32) {
        self.container(task, "exec_die", &[("exitCode", code.to_string())]);
    }

    /// Something happened to a container that is known.
    pub(super) fn container(&self, task: &TaskId, action: &str, extra: &[(&str, String)]) {
        let attributes = self.lock().get(task).map(|known| known.attributes.clone());
        let Some(mut attributes) = attributes else { return };
        let extra = extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        attributes.extend(extra);
        self.tell(OccurrenceKind::Container, action, task.as_str(), attributes);
    }

    /// Something happened to an image. `id` is the image's, or a reference where it was pulled.
    pub(super) fn image(&self, action: &str, id: &str, name: &str) {
        let attributes = Labels::from([("name".to_owned(), name.to_owned())]);
        self.tell(OccurrenceKind::Image, action, id, attributes);
    }

    /// An image was brought from its registry.
    pub(super) fn pulled(&self, reference: &Reference) {
        self.image("pull", &reference.to_string(), &reference.familiar_repository());
    }

    /// Something happened to a volume.
    pub(super) fn volume(&self, news: &VolumeNews) {
        let mut attributes = Labels::from([("driver".to_owned(), "local".to_owned())]);
        let (action, name) = match news {
            VolumeNews::Created(name) => ("create", name),
            VolumeNews::Removed(name) => ("destroy", name),
            VolumeNews::Mounted { name, container } => {
                attributes.insert("container".to_owned(), container.clone());
                ("mount", name)
            }
            VolumeNews::Unmounted { name, container } => {
                attributes.insert("container".to_owned(), container.clone());
                ("unmount", name)
            }
        };
        self.tell(OccurrenceKind::Volume, action, name, attributes);
    }

    /// Moves a container on where `next` says so; returns what was told before.
    fn turn(&self, task: &TaskId, next: impl Fn(Told) -> Option<Told>) -> Option<Told> {
        let mut known = self.lock();
        let known = known.get_mut(task)?;
        let before = known.told;
        known.told = next(before)?;
        Some(before)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, Known>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Instant {
    Instant::now()
}

/// Returns what Docker says of a container with everything that happens to it: its labels, image
/// and name.
fn attributes(info: &ContainerInfo) -> Labels {
    let foreign = info.labels.iter().filter(|(key, _)| !key.starts_with(OWN_LABELS));
    let mut attributes: Labels = foreign.map(|(k, v)| (k.clone(), v.clone())).collect();
    let image =
        Reference::parse(&info.image).map_or_else(|_| info.image.clone(), |r| r.to_string());
    let name = info.labels.get("com.docker.swarm.task.name").unwrap_or(&info.container).clone();
    attributes.insert("image".to_owned(), image);
    attributes.insert("name".to_owned(), name);
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Date;
    use expect_test::expect;

    fn info(number: u128, phase: Phase) -> ContainerInfo {
        let task = TaskId::from_bits(number);
        let labels = [
            ("com.docker.swarm.task.name", format!("web.{number}.x")),
            ("io.midge.task", "secret".to_owned()),
        ];
        ContainerInfo {
            container: task.to_string(),
            task,
            image: "docker.io/library/bb:1".to_owned(),
            command: Vec::new(),
            created: Date::EPOCH,
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            log_path: std::path::PathBuf::new(),
            health: crate::types::ImageHealth::default(),
            mounts: Vec::new(),
            phase,
        }
    }

    fn exited(code: i32, out_of_memory: bool) -> Phase {
        Phase::Exited { code: Some(code), date: None, out_of_memory }
    }

    fn told(teller: &Teller) -> String {
        let mut text = String::new();
        for occurrence in teller.board().read().unwrap().recent {
            let attributes = occurrence.attributes.iter().filter(|(key, _)| {
                !key.starts_with("com.docker") && !matches!(key.as_str(), "execDuration" | "image")
            });
            let attributes: Vec<String> = attributes.map(|(k, v)| format!("{k}={v}")).collect();
            text.push_str(&format!("{} ({})\n", occurrence.action, attributes.join(", ")));
        }
        text
    }

    #[test]
    fn everything_is_said_once_and_in_order() {
        let teller = Teller::new();
        let container = info(1, Phase::Created);
        let task = container.task.clone();
        let grace = Duration::from_secs(10);
        teller.died(&task, &exited(0, false));
        teller.created(&container);
        teller.created(&container);
        teller.started(&task);
        teller.started(&task);
        teller.stopping(&task, "SIGQUIT");
        teller.died(&task, &exited(137, true));
        teller.stopped(&task, &exited(137, true), grace, grace);
        teller.stopping(&task, "");
        teller.removed(&task);
        teller.removed(&task);
        expect![[r#"
            create (name=web.1.x)
            start (name=web.1.x)
            kill (name=web.1.x, signal=3)
            oom (name=web.1.x)
            die (exitCode=137, name=web.1.x)
            kill (name=web.1.x, signal=9)
            stop (name=web.1.x)
            destroy (name=web.1.x)
        "#]]
        .assert_eq(&told(&teller));
        let first = &teller.board().read().unwrap().recent[0];
        assert_eq!(first.attributes["image"], "bb:1");
        assert!(!first.attributes.contains_key("io.midge.task"), "{first:?}");
    }

    #[test]
    fn what_ran_before_is_told_when_it_ends() {
        let teller = Teller::new();
        let running = info(1, Phase::Running { pid: 1, ports: Vec::new() });
        let ended = info(2, exited(0, false));
        for container in [&running, &ended] {
            teller.adopt(container);
            teller.died(&container.task, &exited(0, false));
        }
        expect!["die (exitCode=0, name=web.1.x)\n"].assert_eq(&told(&teller));
    }
}
