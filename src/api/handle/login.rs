//! Logins to registries.

use super::{
    super::{
        dto,
        error::invalid,
        route::{Call, Reply, json},
    },
    Auth,
};
use crate::util::docker_config::registry_of;

/// Asks the registry whether it takes a login. Keeps nothing: the client does.
pub(crate) async fn check(mut call: Call) -> Reply {
    let auth: Auth = call.json().await?;
    let registry = registry_of(&auth.serveraddress).to_owned();
    let credential =
        auth.credential().ok_or_else(|| invalid("a user or an identity token must be given"))?;
    call.node.registry_login(registry, credential).await?;
    json(&dto::LoggedIn {
        status: "Login Succeeded".to_owned(),
        // Docker's clients keep the password where there is none.
        identity_token: String::new(),
    })
}
