//! Random sequences of events: invariants hold after each, and in the end all is as asked.

use super::{World, jobs::Watch, replicated, world::id};
use crate::types::{Availability, JobTally, Mode, ServiceId, Task, TaskState};
use proptest::prelude::*;
use std::time::Duration;

fn disturb(world: &mut World, services: &[ServiceId], nodes: u128) {
    let number = 1 + u128::from(world.random(u64::try_from(nodes).expect("few")));
    let service = &services[usize::try_from(world.random(3)).expect("few")];
    let action = world.random(18);
    if (3..=6).contains(&action) {
        // Who asks here waits for the answer.
        world.commits = true;
        world.commit();
    }
    match action {
        0 => world.cut(number),
        1 | 2 => world.link(number),
        3 => world.set_availability(number, Availability::Drain),
        4 => world.set_availability(number, Availability::Active),
        5 => {
            let replicas = world.random(6);
            world.update(service, |spec| match &mut spec.mode {
                Mode::Replicated { replicas: wanted }
                | Mode::ReplicatedJob { total_completions: wanted, .. } => *wanted = replicas,
                Mode::Global | Mode::GlobalJob => {}
            });
        }
        6 => {
            let images = ["good:1", "good:2", "bad:1", "crash:1", "done:1"];
            let image = images[usize::try_from(world.random(5)).expect("few")];
            world.update(service, |spec| spec.task.container.image = image.to_owned());
        }
        7 => {
            let wanted = world.wanted();
            if let Some(task) = wanted.iter().find(|t| t.status.state == TaskState::Running) {
                world.report(&task.id, TaskState::Failed, "exit status 1");
            }
        }
        8 => {
            let term = 1 + world.leader.term();
            world.fail_over(term);
        }
        9 => {
            if world.commits {
                world.work();
            }
        }
        10 => world.commits = false,
        11 => world.commit(),
        12 => drop(world.fail_proposal()),
        13 => {
            let late = world.fail_proposal();
            let time = Duration::from_millis(world.random(2_000));
            world.advance(time);
            if let Some(entry) = late {
                world.commit_entry(&entry);
            }
        }
        14 | 15 => {
            let wanted = world.wanted();
            let runs = |t: &&Task| t.is_job() && t.status.state == TaskState::Running;
            if let Some(task) = wanted.iter().find(runs) {
                world.report(&task.id, TaskState::Complete, "");
            }
        }
        16 => {
            let time = Duration::from_millis(world.random(8_000));
            world.advance(time);
        }
        _ => {
            let time = Duration::from_millis(100 + world.random(20_000));
            world.commits = true;
            world.commit();
            world.run(time);
        }
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_cluster_comes_to_what_was_asked(seed in any::<u64>()) {
        let nodes = 4;
        let mut world = World::new(nodes);
        for _ in 0..seed % 97 {
            world.random(2);
        }
        let mut global = replicated("agent", 1);
        global.mode = Mode::Global;
        let mut job = replicated("job", 1);
        job.mode = Mode::ReplicatedJob { max_concurrent: 2, total_completions: 4 };
        let services =
            [world.create(replicated("web", 3)), world.create(global), world.create(job)];
        let mut watch = Watch::default();
        let steps = 10 + seed % 50;
        for step in 0..steps {
            let _: u64 = world.random(1 + (seed >> (step % 60)) % 7);
            disturb(&mut world, &services, nodes);
            watch.look(&world, &services[2]);
        }
        world.commits = true;
        world.commit();
        for number in 0..=nodes {
            if number > 0 {
                world.set_availability(number, Availability::Active);
            }
            world.link(number);
        }
        for (service, image) in services.iter().zip(["good:9", "good:9", "done:9"]) {
            world.update(service, |spec| spec.task.container.image = image.to_owned());
        }
        world.run(Duration::from_secs(400));
        let web = world.service(&services[0]);
        let Mode::Replicated { replicas } = web.spec.mode else { panic!("replicated") };
        let runs = |service: &ServiceId| {
            let tasks = world.state.tasks_of_service(service);
            tasks.filter(|t| t.is_active() && t.status.state == TaskState::Running
                && t.spec.container.image == "good:9").count()
        };
        prop_assert_eq!(runs(&services[0]), usize::try_from(replicas).unwrap(), "{}", world.tasks());
        prop_assert_eq!(runs(&services[1]), 4, "{}", world.tasks());
        watch.look(&world, &services[2]);
        let job = world.service(&services[2]);
        let Mode::ReplicatedJob { total_completions, .. } = job.spec.mode else { panic!("a job") };
        let tally = JobTally::of(&job, world.state.tasks_of_service(&job.id)).expect("a job");
        let all = JobTally { complete: total_completions, ..JobTally::default() };
        prop_assert_eq!(tally, all, "{}", world.tasks());
        for number in 1..=nodes {
            prop_assert!(world.state.tasks_on_node(&id(number)).all(|t| {
                t.is_active()
                    || t.status.state > TaskState::Running
                    || t.status.state < TaskState::Assigned
            }), "{}", world.tasks());
        }
        let before = world.proposals;
        world.run(Duration::from_secs(120));
        prop_assert_eq!(world.proposals, before, "an idle cluster rests");
    }
}
