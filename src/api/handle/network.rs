//! The networks that every node has.

use super::super::{
    convert::date,
    dto,
    error::not_found,
    filter::Filters,
    route::{Call, Reply, json},
};

/// Name and driver of each network.
const NETWORKS: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// Docker's filters of networks.
const FILTERS: &[&str] = &["name", "id", "driver", "scope", "type", "label", "dangling"];

fn network(name: &str, driver: &str) -> dto::Network {
    dto::Network {
        name: name.to_owned(),
        // The name is the id, so that a service that names the id reads well everywhere.
        id: name.to_owned(),
        created: date(crate::types::Date::EPOCH),
        scope: "local".to_owned(),
        driver: driver.to_owned(),
        ..Default::default()
    }
}

pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::parse(call.query.get("filters"), FILTERS)?;
    let names = filters.patterns("name")?;
    let networks = NETWORKS.iter().filter(|(name, driver)| {
        names.fit(&[name])
            && filters.fits("id", |wanted| name.starts_with(wanted))
            && filters.fits("driver", |wanted| *driver == wanted)
            && filters.fits("scope", |wanted| wanted == "local")
            && filters.fits("type", |wanted| wanted == "builtin")
            && filters.fits("dangling", |wanted| wanted == "false")
            && filters.labels("label", &crate::types::Labels::new())
    });
    json(&networks.map(|(name, driver)| network(name, driver)).collect::<Vec<_>>())
}

pub(crate) async fn inspect(call: Call) -> Reply {
    let found = NETWORKS.iter().find(|(name, _)| *name == call.name());
    match found {
        Some((name, driver)) => json(&network(name, driver)),
        None => Err(not_found(format!("network {} not found", call.name()))),
    }
}
