//! `midge login` and `midge logout`: a user's logins to registries, in Docker's own file.

use super::{
    client::{Call, Client},
    exit::{CliError, Exit},
    output, secret,
};
use crate::util::{
    docker_config::{self, DockerConfigError, Login},
    error::chain,
};
use clap::Args;
use hyper::Method;
use serde_json::json;
use std::io::{self, IsTerminal as _};

#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// The user
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password from standard input, all of it
    #[arg(long)]
    password_stdin: bool,
    /// Refused: whoever is on the machine could read it
    #[arg(short, long, hide = true)]
    password: Option<String>,
    /// The registry, HOST[:PORT]; the Docker Hub where none is given
    #[arg(value_name = "SERVER", default_value = "", hide_default_value = true)]
    server: String,
}

#[derive(Debug, Args)]
pub(super) struct LogoutArgs {
    /// The registry, HOST[:PORT]; the Docker Hub where none is given
    #[arg(value_name = "SERVER", default_value = "", hide_default_value = true)]
    server: String,
}

pub(super) fn login(client: &Client, args: LoginArgs) -> Result<Exit, CliError> {
    if args.password.is_some() {
        return Err(CliError::usage(
            "--password is not supported: everybody on this machine could \
             read it in the list of processes",
        )
        .hint("--password-stdin reads it from standard input; without, the terminal asks for it"));
    }
    let registry = docker_config::registry_of(&args.server);
    let username = match args.username {
        Some(username) => username,
        None if io::stdin().is_terminal() && !args.password_stdin => secret::visible("Username: ")?,
        None => return Err(CliError::usage("no user was given").hint("--username names the user")),
    };
    let password = if args.password_stdin {
        secret::all_input()?
    } else if io::stdin().is_terminal() {
        secret::from_input("Password: ")?
    } else {
        return Err(CliError::usage("no password was given")
            .hint("--password-stdin reads it from standard input"));
    };
    if username.is_empty() || password.is_empty() {
        return Err(CliError::usage("user and password must not be empty"));
    }
    let body = json!({"username": username, "password": password, "serveraddress": registry});
    let answer =
        client.json(Method::POST, "/auth", Call { body: Some(body), ..Call::default() })?;
    let login = Login { username, secret: password, is_token: false };
    let (path, _) = docker_config::store(registry, Some(&login)).map_err(unkept)?;
    output::note(&format!("The password is in {}, not encrypted", path.display()));
    output::line(answer["Status"].as_str().unwrap_or_default())?;
    Ok(Exit::Ok)
}

/// Forgets a login. Asks no daemon: there may be none any more.
pub(super) fn logout(args: &LogoutArgs) -> Result<Exit, CliError> {
    let registry = docker_config::registry_of(&args.server);
    let (path, had) = docker_config::store(registry, None).map_err(unkept)?;
    let path = path.display();
    output::line(&if had {
        format!("Removed the login for {registry} from {path}")
    } else {
        format!("Not logged in to {registry}, says {path}")
    })?;
    Ok(Exit::Ok)
}

fn unkept(error: DockerConfigError) -> CliError {
    CliError::failure(chain(&error))
}
