//! A client that keeps creating and changing services, and remembers what was acknowledged.

use crate::host::{Network, eventually, midge_binary};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

/// How many services are made through each manager: their containers share the machine with all
/// managers.
const SERVICES_MAX: u64 = 2;

/// How long an answer is waited for, in seconds: a daemon may stand still.
const DEADLINE: &str = "8";

/// The pause between two attempts: nothing is waited for, the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(200);

/// Numbers that follow from a seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Returns a number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Returns an index below `end`.
    pub(super) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }
}

/// What a service was asked to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    replicas: u64,
    /// The value of a variable: a new one replaces the containers.
    generation: u64,
}

/// What is known of one service.
#[derive(Debug, Clone, Default)]
struct Written {
    /// Every wish that was sent, by its number, which is the service's label.
    wishes: Vec<Wish>,
    /// The number of the newest that was acknowledged.
    acknowledged: Option<usize>,
}

/// What the client did.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    services: BTreeMap<String, Written>,
    pub(super) attempts: usize,
    pub(super) acknowledged: usize,
    /// What the last refusal said.
    refusal: String,
}

impl Record {
    /// Says what is wrong with these services, as the API shows them.
    pub(super) fn check(&self, services: &Value) -> Result<(), String> {
        let found: BTreeMap<&str, &Value> = services
            .as_array()
            .ok_or("no list of services")?
            .iter()
            .map(|service| (service["Spec"]["Name"].as_str().unwrap(), &service["Spec"]))
            .collect();
        for (name, written) in &self.services {
            let Some(spec) = found.get(name.as_str()) else {
                match written.acknowledged {
                    Some(number) => return Err(format!("{name} was acknowledged ({number})")),
                    None => continue,
                }
            };
            let number = spec["Labels"]["wish"].as_str().unwrap().parse::<usize>().unwrap();
            let wish = written.wishes.get(number);
            let wish = wish.ok_or_else(|| format!("{name} is as nobody wished: {number}"))?;
            if written.acknowledged.is_some_and(|newest| number < newest) {
                return Err(format!("{name} is {number}, and acknowledged is {written:?}"));
            }
            let generation = format!("GENERATION={}", wish.generation);
            let variables = &spec["TaskTemplate"]["ContainerSpec"]["Env"];
            if spec["Mode"]["Replicated"]["Replicas"] != wish.replicas
                || *variables != Value::from(vec![generation])
            {
                return Err(format!("{name} should be {wish:?}: {spec}"));
            }
        }
        Ok(())
    }
}

/// The client: a thread for each manager, so that one that does not answer holds up no other. They
/// end when it is dropped.
#[derive(Debug)]
pub(super) struct Client {
    record: Arc<Mutex<Record>>,
    threads: Vec<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Client {
    /// Begins to write through these managers; what it writes follows from `seed`.
    pub(super) fn start(network: &Network, managers: usize, seed: u64) -> Self {
        let record = Arc::<Mutex<Record>>::default();
        let hosts = network.hosts[..managers].iter();
        let threads = (0..).zip(hosts).map(|(number, host)| {
            let (socket, shared) = (host.dir.join("midge.sock"), Arc::clone(&record));
            let mut dice = Dice(seed << 8 | number);
            let (stop, stopped) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                while stopped.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let name = format!("s{number}-{}", dice.below(SERVICES_MAX));
                    write(&socket, name, &mut dice, &shared);
                }
            });
            (stop, thread)
        });
        Self { record: Arc::clone(&record), threads: threads.collect() }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }

    /// Waits until so many more writes are acknowledged.
    pub(super) fn await_progress(&self, writes: usize) {
        let wanted = self.record().acknowledged + writes;
        eventually(&format!("{writes} more writes to be acknowledged"), || {
            (self.record().acknowledged >= wanted).then_some(())
        });
    }

    /// Waits until one more write was tried in vain.
    pub(super) fn await_refusal(&self) {
        let before = self.record().clone();
        eventually("a write to be refused", || {
            let now = self.record();
            (now.attempts - now.acknowledged > before.attempts - before.acknowledged).then_some(())
        });
    }

    /// Ends it and returns what it did.
    pub(super) fn stop(mut self) -> Record {
        self.end();
        self.record().clone()
    }

    fn end(&mut self) {
        let (stops, threads): (Vec<_>, Vec<_>) = self.threads.drain(..).unzip();
        drop(stops);
        for thread in threads {
            // One that panicked has said so.
            thread.join().ok();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::thread::panicking() {
            crate::host::note(&format!("the client: {:?}", self.record()));
        }
        self.end();
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes or changes one service.
fn write(socket: &Path, name: String, dice: &mut Dice, record: &Mutex<Record>) {
    let before = lock(record).services.get(&name).cloned().unwrap_or_default();
    let last = before.wishes.last();
    let generation = last.map_or(0, |wish| wish.generation) + u64::from(dice.below(8) == 0);
    let wish = Wish { replicas: 1 + dice.below(2), generation };
    let number = before.wishes.len();
    // One that was never acknowledged may be there or not.
    let create = before.acknowledged.is_none() && number.is_multiple_of(2);
    {
        let mut record = lock(record);
        record.attempts += 1;
        record.services.entry(name.clone()).or_default().wishes.push(wish.clone());
    }
    let (label, replicas) = (format!("wish={number}"), wish.replicas.to_string());
    let variable = format!("GENERATION={generation}");
    let shared = ["-d", "-q", "--replicas", &replicas];
    let create_only = ["--name", &name, "--label", &label, "--env", &variable];
    let quick = ["--stop-signal", "KILL", "--restart-delay", "100ms", "bb:1", "sleep", "99999"];
    let update_only = ["--label-add", &label, "--env-add", &variable, &name];
    let arguments = if create {
        [&["create"], &shared[..], &create_only, &quick].concat()
    } else {
        [&["update"], &shared[..], &update_only].concat()
    };
    let mut midge = Command::new("timeout");
    midge.args(["-s", "KILL", DEADLINE]).arg(midge_binary()).arg("service").args(arguments);
    midge.env("MIDGE_HOST", format!("unix://{}", socket.display())).stdin(Stdio::null());
    let output = midge.output().unwrap();
    let mut record = lock(record);
    if output.status.success() {
        record.acknowledged += 1;
        record.services.get_mut(&name).unwrap().acknowledged = Some(number);
    } else {
        record.refusal = String::from_utf8_lossy(&output.stderr).into_owned();
    }
}
