//! Which containers a list has: the filters of `docker ps`, and its limit.

use super::{
    super::{
        error::{invalid, not_found},
        filter::Filters,
        local::{Container, ContainerState},
        query::Query,
    },
    container::health_of,
};
use crate::{
    cluster::Refusal,
    types::{Date, PortConfig, image::Reference},
};
use std::ops::RangeInclusive;

/// The filters of containers that midge has.
const FILTERS: &[&str] = &[
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name",
    "network", "publish", "since", "status", "volume",
];

/// The beginning of an image's id that counts as one has at least so many digits: shorter ones are
/// names.
const ID_DIGITS_MIN: usize = 4;

/// Picks what a request asks for, the newest first.
pub(super) fn select(
    query: &Query,
    mut containers: Vec<Container>,
) -> Result<Vec<Container>, Refusal> {
    let filters = Filters::parse(query.get("filters"), FILTERS)?;
    let limit: Option<usize> = query.get("limit").and_then(|limit| limit.parse().ok());
    let limit = limit.filter(|limit| *limit > 0);
    // As Docker: who asks for the last few, or for a state, does not mean those that run alone.
    let all = query.flag("all") || limit.is_some() || !filters.values("status").is_empty();
    let names = filters.patterns("name")?;
    let codes: Vec<i32> = read(&filters, "exited", |code| code.parse().ok())?;
    let published = read(&filters, "publish", ports)?;
    let exposed = read(&filters, "expose", ports)?;
    let before = made(&filters, "before", &containers)?;
    let since = made(&filters, "since", &containers)?;
    containers.retain(|container| {
        (all || container.state == ContainerState::Running)
            && filters.fits("id", |id| container.id.starts_with(id))
            && names.fit(&[&container.name, &format!("/{}", container.name)])
            && filters.fits("status", |status| container.state.as_str() == status)
            && filters.fits("ancestor", |image| is_of(container, image))
            && filters.fits("health", |health| health_of(container) == health)
            && filters.fits("is-task", |truth| matches!(truth, "true" | "1"))
            && filters.fits("network", |name| container.network() == name)
            && filters.fits("volume", |volume| mounts(container, volume))
            && filters.labels("label", &container.labels)
            && (codes.is_empty() || has_ended_with(container, &codes))
            && has_port(container, &published, |port| port.published)
            && has_port(container, &exposed, |port| port.target)
            && before.iter().all(|date| container.created < *date)
            && since.iter().all(|date| container.created > *date)
    });
    containers.sort_by_key(|container| std::cmp::Reverse(container.created));
    containers.truncate(limit.unwrap_or(usize::MAX));
    Ok(containers)
}

/// Reads each value of a filter.
fn read<'f, T>(
    filters: &'f Filters,
    name: &str,
    value: impl Fn(&'f str) -> Option<T>,
) -> Result<Vec<T>, Refusal> {
    let wrong = |text: &str| invalid(format!("invalid filter '{name}={text}'"));
    let values = filters.values(name).iter();
    values.map(|text| value(text).ok_or_else(|| wrong(text))).collect()
}

/// Returns when the containers of a filter were made.
fn made(filters: &Filters, name: &str, containers: &[Container]) -> Result<Vec<Date>, Refusal> {
    let date = |text: &String| {
        let is = |container: &&Container| {
            container.name == text.trim_start_matches('/') || container.id.starts_with(text)
        };
        let found = containers.iter().find(is).map(|container| container.created);
        found.ok_or_else(|| not_found(format!("No such container: {text}")))
    };
    filters.values(name).iter().map(date).collect()
}

/// Reads ports with their protocol: `80`, `8000-8080/udp`.
fn ports(text: &str) -> Option<(RangeInclusive<u16>, &str)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some((first.parse().ok()?..=last.parse().ok()?, protocol))
}

/// Tells whether one of the ranges, where there are any, has one of the container's ports.
fn has_port(
    container: &Container,
    ranges: &[(RangeInclusive<u16>, &str)],
    number: fn(&PortConfig) -> u16,
) -> bool {
    let fits = |port: &PortConfig| {
        ranges.iter().any(|(range, protocol)| {
            range.contains(&number(port)) && port.protocol.as_str() == *protocol
        })
    };
    ranges.is_empty() || container.ports.iter().any(fits)
}

fn has_ended_with(container: &Container, codes: &[i32]) -> bool {
    container.state == ContainerState::Exited
        && container.exit_code.is_some_and(|code| codes.contains(&code))
}

/// Tells whether a volume, a path of the node or one inside is mounted.
fn mounts(container: &Container, volume: &str) -> bool {
    container.mounts.iter().any(|mount| {
        mount.target == volume
            || (mount.kind == "volume" && mount.name == volume)
            || (mount.kind == "bind" && mount.source == volume)
    })
}

/// Tells whether a container is of an image: its id, the beginning of it, or its name. Without a tag
/// that is the tag `latest`, as everywhere.
fn is_of(container: &Container, image: &str) -> bool {
    let own = container.image();
    let digits = image.strip_prefix("sha256:").unwrap_or(image);
    let id = container.image_id.strip_prefix("sha256:").unwrap_or(&container.image_id);
    if own == image || (digits.len() >= ID_DIGITS_MIN && id.starts_with(digits)) {
        return true;
    }
    let (Ok(own), Ok(wanted)) = (Reference::parse(own), Reference::parse(image)) else {
        return false;
    };
    let same =
        if wanted.digest.is_some() { own.digest == wanted.digest } else { own.tag == wanted.tag };
    same && (own.registry, own.repository) == (wanted.registry, wanted.repository)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{local::MountPoint, tests::fake},
        types::{
            Health, HealthState, NetworkMode, NodeId, Service, ServiceId, ServiceSpec, TaskState,
            Version,
        },
    };
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn container(number: u64, name: &str, image: &str, state: TaskState) -> Container {
        let version = Version { epoch: 1, index: 2 };
        let mut service = Service {
            id: ServiceId::from_bits(1),
            version,
            created: Date::EPOCH,
            updated: Date::EPOCH,
            spec: ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() },
            spec_version: version,
            previous_spec: None,
            update: None,
            job: None,
        };
        image.clone_into(&mut service.spec.task.container.image);
        let mut task = fake::task(&service, number, &NodeId::from_bits(1));
        task.created = Date::from_unix_seconds(number);
        task.status.state = state;
        Container::of_task(&task, &task.status)
    }

    fn all() -> Vec<Container> {
        let digest = "a".repeat(64);
        let mut web =
            container(1, "web", &format!("nginx:1.25@sha256:{digest}"), TaskState::Running);
        web.image_id = format!("sha256:{}", "c".repeat(64));
        web.ports = vec![fake::port(8080, 80)];
        let mount = |kind, name: &str, source: &str, target: &str| MountPoint {
            kind,
            name: name.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: false,
        };
        web.mounts = vec![mount("volume", "data", "/x", "/data"), mount("bind", "", "/etc", "/e")];
        web.health = Some(Health { state: HealthState::Healthy, ..Health::default() });
        let mut web2 = container(2, "web-2", "nginx", TaskState::Failed);
        web2.exit_code = Some(3);
        let mut db = container(3, "db", "reg.lan:5000/db:1", TaskState::Complete);
        db.exit_code = Some(0);
        Arc::make_mut(&mut db.spec).network = NetworkMode::Host;
        vec![web, web2, db]
    }

    /// Returns the first parts of the names that a query finds.
    fn found(query: &str) -> Result<Vec<String>, String> {
        let found = select(&Query::parse(query), all()).map_err(|refusal| refusal.message)?;
        Ok(found.iter().map(|c| c.name.split('.').next().unwrap_or("").to_owned()).collect())
    }

    fn check(filters: &Value, expected: &[&str]) {
        let query = format!("all=1&filters={filters}");
        assert_eq!(found(&query).unwrap(), expected, "{filters}");
    }

    #[test]
    fn the_newest_come_first_and_a_limit_means_all() {
        assert_eq!(found("").unwrap(), ["web"]);
        assert_eq!(found("all=1").unwrap(), ["db", "web-2", "web"]);
        assert_eq!(found("limit=2").unwrap(), ["db", "web-2"]);
        assert_eq!(found("limit=-1").unwrap(), ["web"]);
    }

    #[test]
    fn every_filter_picks_what_dockers_picks() {
        check(&json!({"name": [r"^web\.1"]}), &["web"]);
        check(&json!({"name": ["^/web"]}), &["web-2", "web"]);
        check(&json!({"name": ["/db"]}), &["db"]);
        check(&json!({"name": ["eb"]}), &["web-2", "web"]);
        check(&json!({"status": ["exited"]}), &["db", "web-2"]);
        check(&json!({"exited": ["3"]}), &["web-2"]);
        check(&json!({"exited": ["0", "3"]}), &["db", "web-2"]);
        check(&json!({"is-task": ["true"]}), &["db", "web-2", "web"]);
        check(&json!({"is-task": ["false"]}), &[]);
        check(&json!({"network": ["host"]}), &["db"]);
        check(&json!({"publish": ["8080"]}), &["web"]);
        check(&json!({"publish": ["8000-9000/tcp"]}), &["web"]);
        check(&json!({"publish": ["8080/udp"]}), &[]);
        check(&json!({"publish": ["80"]}), &[]);
        check(&json!({"expose": ["80/tcp"]}), &["web"]);
        check(&json!({"volume": ["data"]}), &["web"]);
        check(&json!({"volume": ["/data"]}), &["web"]);
        check(&json!({"volume": ["/etc"]}), &["web"]);
        check(&json!({"volume": [""]}), &[]);
        check(&json!({"health": ["healthy"]}), &["web"]);
        let name = all()[1].name.clone();
        check(&json!({"before": [name]}), &["web"]);
        check(&json!({"since": [name]}), &["db"]);
    }

    #[test]
    fn images_are_found_by_name_and_by_id() {
        for (image, expected) in [
            ("nginx:1.25", &["web"][..]),
            ("docker.io/library/nginx:1.25", &["web"]),
            ("nginx", &["web-2"]),
            ("nginx:latest", &["web-2"]),
            ("reg.lan:5000/db:1", &["db"]),
            ("db:1", &[]),
            ("sha256:cccc", &["web"]),
            ("cccccc", &["web"]),
            ("ccc", &[]),
        ] {
            check(&json!({"ancestor": [image]}), expected);
        }
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        check(&json!({"ancestor": [digest]}), &["web"]);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for filters in [
            json!({"exited": ["x"]}),
            json!({"publish": ["x"]}),
            json!({"expose": ["80-"]}),
            json!({"name": ["(web"]}),
            json!({"before": ["nope"]}),
            json!({"zork": ["1"]}),
        ] {
            assert!(found(&format!("filters={filters}")).is_err(), "{filters}");
        }
    }
}
