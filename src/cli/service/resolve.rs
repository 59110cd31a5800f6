//! Pins an image to the digest that its tag has now, before a service is sent.

use crate::cli::{
    client::{Call, Client, encode},
    exit::CliError,
    human::text,
};
use crate::{types::image::Reference, util::docker_config};
use base64::Engine;
use serde_json::{Value, json};

/// Docker's words where no registry answers.
fn unpinned(image: &str) -> String {
    format!(
        "image {image} could not be accessed on a registry to record\n\
         its digest. Each node will access {image} independently,\n\
         possibly leading to different nodes running different\n\
         versions of the image.\n"
    )
}

/// Returns the login for the image's registry from Docker's configuration, as the API takes it.
pub(crate) fn registry_auth(image: &str) -> Result<Option<String>, CliError> {
    let reference = Reference::parse(image).map_err(|error| CliError::usage(error.to_string()))?;
    let credential = docker_config::credential_for(&reference.registry)
        .map_err(|error| CliError::failure(error.to_string()))?;
    Ok(credential.map(|docker_config::Login { username, secret, is_token }| {
        let secret_field = if is_token { "identitytoken" } else { "password" };
        let login = json!({
            "username": username,
            secret_field: secret,
            "serveraddress": reference.registry,
        });
        base64::engine::general_purpose::URL_SAFE.encode(login.to_string())
    }))
}

/// Asks the registry, through the daemon, for the digest and the platforms of the spec's image,
/// and writes them into the spec. Returns what to warn of where it does not answer, once the service
/// is written: a refusal is not to be buried under warnings.
pub(super) fn pin(
    client: &Client,
    spec: &mut Value,
    registry_auth: Option<&String>,
) -> Result<Option<String>, CliError> {
    let image = text(spec, "/TaskTemplate/ContainerSpec/Image").to_owned();
    // The id of an image: nothing to ask a registry for. What is no name the daemon refuses.
    let Ok(reference) = Reference::parse(&image) else { return Ok(None) };
    if reference.digest.is_some() {
        return Ok(None);
    }
    let path = format!("/distribution/{}/json", encode(&reference.to_string()));
    let call = Call { registry_auth: registry_auth.cloned(), body: None };
    match client.json(hyper::Method::GET, &path, call) {
        Ok(answer) => {
            let digest = text(&answer, "/Descriptor/digest");
            if !digest.is_empty() {
                let pinned = reference.with_digest(digest).to_string();
                spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(pinned);
            }
            if let Some(platforms) = answer["Platforms"].as_array().filter(|p| !p.is_empty()) {
                let platforms: Vec<Value> = platforms
                    .iter()
                    .map(|p| {
                        json!({
                            "Architecture": text(p, "/architecture"),
                            "OS": text(p, "/os"),
                            "Variant": text(p, "/variant"),
                        })
                    })
                    .collect();
                spec["TaskTemplate"]["Placement"]["Platforms"] = json!(platforms);
            }
            Ok(None)
        }
        Err(error) if error.exit == crate::cli::exit::Exit::Unreachable => Err(error),
        Err(_) => {
            if let Some(placement) = spec["TaskTemplate"]["Placement"].as_object_mut() {
                placement.remove("Platforms");
            }
            Ok(Some(unpinned(&image)))
        }
    }
}
