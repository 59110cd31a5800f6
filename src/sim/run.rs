//! One run: a cluster is made, used and disturbed; then it is healed and must come to rest.

use super::{disaster, restore, trust::Papers, world::World};
use crate::types::{NodeId, Role};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long a healed cluster may take to be as its spec says: an update that no node takes waits
/// for the deadline of each of its places, and so does its rollback; and the longest restart delay
/// and the longest local one, twice.
const REST_LIMIT: Duration = Duration::from_secs((2 * PLACES_MAX * 10 + 20) * 60);

/// How many replicas a service has at most.
const PLACES_MAX: u64 = 7;

/// How many seconds in a row everything must be as it should be. Containers that were started in
/// bad weather end up to 30 s later.
const CALM: u64 = 35;

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) managers: u64,
    pub(super) workers: u64,
    pub(super) steps: u64,
    pub(super) idle: Duration,
}

impl Size {
    /// Draws a size: mostly small, since small clusters find most, and some of full size.
    pub(super) fn of(seed: u64) -> Self {
        let managers = [1, 3, 5, 3, 1, 3, 2, 3, 5, 1, 3, 7, 3, 1, 4, 3, 5, 3, 6, 1];
        let managers = managers[usize::try_from(seed % 20).expect("it is below 20")];
        let seconds = Duration::from_secs;
        match seed % 50 {
            0 => Self { managers: 1, workers: 20, steps: 30, idle: seconds(30) },
            1 => Self { managers: 1, workers: 2, steps: 20, idle: seconds(3_600) },
            n if managers > 1 => {
                Self { managers, workers: n % 4, steps: 12 + n % 8, idle: seconds(20) }
            }
            n => Self { managers, workers: 1 + n % 5, steps: 15 + n % 10, idle: seconds(60) },
        }
    }
}

/// Runs a seed. Returns the hash of everything that happened; panics where a rule is broken.
pub(super) fn run(seed: u64, size: Size, verbose: bool) -> u64 {
    let world = World::new(seed, verbose);
    let manager = NodeId::from_bits(u128::from(seed) + 1);
    let own = ([0; 32], Papers::founding());
    world.add(&manager, Role::Manager, world.new_address(), Vec::new(), own);
    world.start(&manager);
    let executor = world.0.executor.clone();

    let there = world.clone();
    executor.block_on(0, Duration::from_secs(600), async move {
        there.bootstrap().await;
        for _ in 1..size.managers {
            there.join(Role::Manager).await;
        }
        for _ in 0..size.workers {
            there.join(Role::Worker).await;
        }
    });

    world.draw_weather();
    // Where there are more managers more goes wrong at once.
    let tasks = if size.managers > 2 { 3 } else { 2 };
    let ends: Vec<_> = (0..tasks).map(|_| flag()).collect();
    for (at, end) in ends.iter().enumerate() {
        let (there, end) = (world.clone(), Arc::clone(end));
        executor.spawn(async move {
            for _ in 0..size.steps {
                let wait = Duration::from_millis(there.0.executor.below(8_000));
                there.0.executor.sleep(wait).await;
                if at == 0 {
                    there.do_something().await;
                } else {
                    there.disturb().await;
                }
            }
            end.store(true, Ordering::Relaxed);
        });
    }
    let all = || ends.iter().all(|end| end.load(Ordering::Relaxed));
    if disaster::strikes(seed) {
        executor.run(executor.now() + world.draw_disaster(), all);
        world.lose_most_managers();
    }
    if restore::strikes(seed) {
        executor.run(executor.now() + world.draw_disaster(), all);
        world.lose_what_is_not_in_a_backup();
    }
    executor.run(executor.now() + Duration::from_secs(1_800), all);
    world.heal();
    // Requests that still wait are answered now.
    let limit = executor.now() + Duration::from_secs(600);
    assert!(executor.run(limit, all), "a request is never answered");
    world.heal();
    let (there, mended) = (world.clone(), flag());
    let done = Arc::clone(&mended);
    executor.spawn(async move {
        there.mend_images().await;
        done.store(true, Ordering::Relaxed);
    });
    let limit = executor.now() + Duration::from_secs(600);
    assert!(executor.run(limit, || mended.load(Ordering::Relaxed)), "no service can be updated");
    rest(&world);
    world.check_history();
    compare(&world);
    idle(&world, size.idle);
    let trace = executor.trace();
    world.end();
    trace
}

fn flag() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

/// Waits until everything is as it should be, and stays so.
fn rest(world: &World) {
    let executor = &world.0.executor;
    let limit = executor.now() + REST_LIMIT;
    let mut calm = 0;
    while calm < CALM {
        executor.run(executor.now() + Duration::from_secs(1), || false);
        match world.unrest() {
            None => calm += 1,
            Some(unrest) => {
                assert!(executor.now() < limit, "the cluster does not come to rest: {unrest}");
                calm = 0;
            }
        }
    }
}

/// Every manager's state is what everything committed makes it, across all its lives.
fn compare(world: &World) {
    let there = world.clone();
    world.0.executor.block_on(0, Duration::from_secs(1), async move {
        for node in there.managers() {
            let handle = there.handle(&node).expect("every manager runs");
            let state = handle.state().await.expect("the manager answers");
            let name = there.name(&node);
            assert!(state == there.checks().state, "the state of {name} is not its log's");
        }
    });
}

/// A cluster at rest writes nothing and says little.
fn idle(world: &World, wait: Duration) {
    let executor = &world.0.executor;
    let writes = || {
        let machines = world.machines();
        let disks = machines.values().flat_map(|m| m.log_disk.iter().chain([&m.agent_disk]));
        disks.map(crate::store::faulty::FaultyDisk::writes).sum::<u64>()
    };
    let (applied, written, sent) = (world.checks().state.applied(), writes(), world.network().sent);
    executor.run(executor.now() + wait, || false);
    assert_eq!(world.checks().state.applied(), applied, "an idle cluster commits");
    assert_eq!(writes(), written, "an idle cluster writes");
    // A heartbeat each 1.8 s and its answer, and some more.
    let nodes = world.machines().len() as u64;
    let most = nodes * (wait.as_secs() * 2 * 2 / 3 + 20);
    let said = world.network().sent - sent;
    assert!(said <= most, "an idle cluster says {said} things in {wait:?}");
}
