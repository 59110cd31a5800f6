//! `midge image`.

use super::{
    client::{self, Call, Client, encode},
    exit::{CliError, Exit},
    human::{self, decimal_size, list, number, short_id, text},
    output::{self, column},
    service,
    upload::Upload,
};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs::File, io::Read, path::PathBuf};

/// The longest line of progress that is believed.
const LINE_MAX: usize = 1 << 20;

/// Bring images to nodes, look at them, remove them
#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// List the images of this node
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Bring an image from its registry to this node
    Pull(PullArgs),
    /// Bring images from an archive of `docker save`, or of OCI layout, to nodes
    Load(LoadArgs),
    /// Show everything about images of this node
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// `json`, or a template such as '{{.Id}}'
        #[arg(short, long)]
        format: Option<String>,
    },
    /// Remove images from this node
    #[command(visible_alias = "remove")]
    Rm {
        /// Remove an image even while containers use it
        #[arg(short, long)]
        force: bool,
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only images of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// `table`, `json`, or a template such as '{{.Repository}} {{.Size}}'
    #[arg(long)]
    format: Option<String>,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The image
    image: String,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// The archive; standard input where none is named
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where to: `all`, or ids or host names (this node where none is named)
    #[arg(long, value_name = "all|NODE,...")]
    nodes: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(client: &Client, command: ImageCommand) -> Result<Exit, CliError> {
    match command {
        ImageCommand::Ls(args) => ls(client, &args)?,
        ImageCommand::Pull(args) => pull(client, &args)?,
        ImageCommand::Load(args) => return load(client, &args),
        ImageCommand::Inspect { images, format } => {
            let mut found = Vec::new();
            let exit = super::each(&images, |image| {
                found.push(client.get(&format!("/images/{}/json", encode(image)))?);
                Ok(())
            });
            output::objects(format.as_deref(), &found)?;
            return exit;
        }
        ImageCommand::Rm { force, images } => {
            return super::each(&images, |image| {
                let path = format!("/images/{}?force={force}", encode(image));
                for removed in human::items(client.delete(&path)?)? {
                    for word in ["Untagged", "Deleted"] {
                        if let Some(name) = removed[word].as_str() {
                            output::line(&format!("{word}: {name}"))?;
                        }
                    }
                }
                Ok(())
            });
        }
    }
    Ok(Exit::Ok)
}

fn ls(client: &Client, args: &LsArgs) -> Result<(), CliError> {
    let query = match &args.name {
        Some(name) => client::filters(&[format!("reference={name}")])?,
        None => String::new(),
    };
    let images = human::items(client.get(&format!("/images/json?{query}"))?)?;
    if args.quiet {
        return images
            .iter()
            .try_for_each(|image| output::line(&short_id(text(image, "/Id"), args.no_trunc)));
    }
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for image in &images {
        let names: Vec<&str> = list(image, "/RepoTags").iter().filter_map(Value::as_str).collect();
        let names = if names.is_empty() { vec!["<none>:<none>"] } else { names };
        for name in names {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
            let created = crate::types::Date::from_unix_seconds(number(image, "/Created"));
            let row = json!({
                "Repository": repository,
                "Tag": tag,
                "ID": short_id(text(image, "/Id"), args.no_trunc),
                "CreatedSince": human::ago(&json!(created.to_string())),
                "Size": decimal_size(number(image, "/Size")),
            });
            rows.extend(row.as_object().cloned());
        }
    }
    let columns = [
        column("Repository", "REPOSITORY"),
        column("Tag", "TAG"),
        column("ID", "IMAGE ID"),
        column("CreatedSince", "CREATED"),
        column("Size", "SIZE"),
    ];
    output::rows(args.format.as_deref(), &columns, &rows)
}

fn pull(client: &Client, args: &PullArgs) -> Result<(), CliError> {
    let auth = service::registry_auth(&args.image)?;
    let path = format!("/images/create?fromImage={}", encode(&args.image));
    let call = Call { registry_auth: auth, body: None };
    let mut progress = Lines::new(args.quiet);
    client.stream(Method::POST, &path, &call, None, |bytes| progress.feed(bytes))?;
    progress.finish()
}

fn load(client: &Client, args: &LoadArgs) -> Result<Exit, CliError> {
    let input: Box<dyn Read + Send> = match &args.input {
        Some(path) => {
            let file = File::open(path).map_err(|error| {
                CliError::failure(format!("cannot open {}: {error}", path.display()))
            })?;
            Box::new(Upload::new(file, args.quiet))
        }
        None if std::io::IsTerminal::is_terminal(&std::io::stdin()) => {
            return Err(CliError::usage("requested load from stdin, but stdin is a terminal")
                .hint("name the archive: midge image load --input FILE"));
        }
        None => Box::new(std::io::stdin()),
    };
    let path = match &args.nodes {
        Some(nodes) => format!("/midge/images/load?nodes={}", encode(nodes)),
        None => "/images/load".to_owned(),
    };
    let mut progress = Lines::new(args.quiet);
    let each = |bytes: &[u8]| progress.feed(bytes);
    client.stream(Method::POST, &path, &Call::default(), Some(input), each)?;
    progress.finish()?;
    Ok(Exit::Ok)
}

/// Shows the JSON lines of a long work: a bar a layer on a terminal, a line a step elsewhere.
struct Lines {
    quiet: bool,
    rest: Vec<u8>,
    order: Vec<String>,
    bars: BTreeMap<String, String>,
    drawn: usize,
    error: Option<String>,
}

impl Lines {
    fn new(quiet: bool) -> Self {
        let (order, bars) = (Vec::new(), BTreeMap::new());
        Self { quiet, rest: Vec::new(), order, bars, drawn: 0, error: None }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<bool, CliError> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if let Ok(message) = serde_json::from_slice::<Value>(&line) {
                self.show(&message)?;
            }
        }
        if self.rest.len() > LINE_MAX {
            return Err(CliError::failure("unreadable progress"));
        }
        Ok(true)
    }

    fn show(&mut self, message: &Value) -> Result<(), CliError> {
        if let Some(error) = message["error"].as_str() {
            self.error = Some(error.to_owned());
            return Ok(());
        }
        if let Some(stream) = message["stream"].as_str() {
            return if self.quiet { Ok(()) } else { output::raw(stream.as_bytes()) };
        }
        let status = text(message, "/status");
        if self.quiet || status.is_empty() {
            return Ok(());
        }
        let id = text(message, "/id");
        let (current, total) =
            (number(message, "/progressDetail/current"), number(message, "/progressDetail/total"));
        if id.is_empty() {
            return output::line(status);
        }
        if !output::stdout_is_terminal() {
            // Only the steps: without a terminal every percent would be a line.
            let step = format!("{id}: {status}");
            if total > 0 || self.bars.get(id) == Some(&step) {
                return Ok(());
            }
            self.bars.insert(id.to_owned(), step.clone());
            return output::line(&step);
        }
        if !self.bars.contains_key(id) {
            self.order.push(id.to_owned());
        }
        self.bars.insert(id.to_owned(), bar(id, status, current, total));
        self.draw()
    }

    fn draw(&mut self) -> Result<(), CliError> {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for id in &self.order {
            let line = self.bars.get(id).map_or("", String::as_str);
            text.push_str(&format!("\x1b[2K{line}\n"));
        }
        self.drawn = self.order.len();
        output::raw(text.as_bytes())
    }

    fn finish(self) -> Result<(), CliError> {
        self.error.map_or(Ok(()), |error| Err(CliError::failure(error)))
    }
}

fn bar(id: &str, status: &str, current: u64, total: u64) -> String {
    if total == 0 {
        return format!("{id}: {status}");
    }
    let done = usize::try_from(current.min(total) * 40 / total).unwrap_or(0);
    let filled = "=".repeat(done);
    let sizes = format!("{}/{}", decimal_size(current), decimal_size(total));
    format!("{id}: {status} [{:<41}] {sizes}", format!("{filled}>"))
}
