//! Random sequences of events: invariants hold after each, and in the end all is as asked.

use super::{World, replicated, world::id};
use crate::types::{Availability, Mode, ServiceId, TaskState};
use proptest::prelude::*;
use std::time::Duration;

fn disturb(world: &mut World, services: &[ServiceId], nodes: u128) {
    let number = 1 + u128::from(world.random(u64::try_from(nodes).expect("few")));
    let service = &services[usize::try_from(world.random(2)).expect("few")];
    match world.random(12) {
        0 => world.cut(number),
        1 | 2 => world.link(number),
        3 => world.set_availability(number, Availability::Drain),
        4 => world.set_availability(number, Availability::Active),
        5 => {
            let replicas = world.random(6);
            world.update(service, |spec| {
                if let Mode::Replicated { replicas: wanted } = &mut spec.mode {
                    *wanted = replicas;
                }
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
            let term = 2 + u64::from(world.leader.term());
            world.fail_over(term);
        }
        9 => world.work(),
        _ => {
            let time = Duration::from_millis(100 + world.random(20_000));
            world.run(time);
        }
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_cluster_comes_to_what_was_asked(seed in any::<u64>()) {
        let nodes = 4;
        let mut world = World::new(nodes);
        for _ in 0..seed % 97 {
            world.random(2);
        }
        let mut global = replicated("agent", 1);
        global.mode = Mode::Global;
        let services = [world.create(replicated("web", 3)), world.create(global)];
        let steps = 10 + seed % 50;
        for step in 0..steps {
            let _: u64 = world.random(1 + (seed >> (step % 60)) % 7);
            disturb(&mut world, &services, nodes);
        }
        for number in 0..=nodes {
            if number > 0 {
                world.set_availability(number, Availability::Active);
            }
            world.link(number);
        }
        for service in &services {
            world.update(service, |spec| spec.task.container.image = "good:9".to_owned());
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
