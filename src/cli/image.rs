//! `midge image`.

use super::{
    client::{self, Call, Client, encode},
    exit::{CliError, Exit},
    human::{self, ago_unix, decimal_size, list, number, short_id, text},
    nodes::{self, Pruning, ask},
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
    /// List images
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Bring an image from its registry to this node
    Pull(PullArgs),
    /// Bring images from an archive of `docker save`, or of OCI layout, to nodes
    Load(LoadArgs),
    /// Show everything about images
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// `json`, or a template such as '{{.Id}}'
        #[arg(short, long)]
        format: Option<String>,
        /// Ask these nodes instead of this one
        #[arg(long, value_name = "all|NODE,...")]
        nodes: Option<String>,
    },
    /// Remove images that nothing uses
    Prune(PruneArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm {
        /// Remove an image even while containers use it
        #[arg(short, long)]
        force: bool,
        /// On these nodes instead of this one
        #[arg(long, value_name = "all|NODE,...")]
        nodes: Option<String>,
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
    /// Ask these nodes instead of this one
    #[arg(long, value_name = "all|NODE,...")]
    nodes: Option<String>,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Also images that have a tag
    #[arg(short, long)]
    all: bool,
    /// Only images that fit (can be repeated): until, label, label!
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// On these nodes instead of this one
    #[arg(long, value_name = "all|NODE,...")]
    nodes: Option<String>,
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
        ImageCommand::Ls(args) => return ls(client, &args),
        ImageCommand::Pull(args) => pull(client, &args)?,
        ImageCommand::Load(args) => return load(client, &args),
        ImageCommand::Inspect { images, format, nodes } => {
            let path = |image: &str| format!("/images/{}/json", encode(image));
            return nodes::inspect(client, &images, path, nodes.as_deref(), format.as_deref());
        }
        ImageCommand::Prune(args) => return prune(client, &args),
        ImageCommand::Rm { force, nodes, images } => {
            let path = |image: &str| format!("/images/{}", encode(image));
            let query = format!("force={force}");
            return nodes::remove(client, &images, path, &query, nodes.as_deref(), |_, answer| {
                Ok(removed_lines(&human::items(answer)?))
            });
        }
    }
    Ok(Exit::Ok)
}

fn removed_lines(removed: &[Value]) -> Vec<String> {
    let mut lines = Vec::new();
    for removed in removed {
        for word in ["Untagged", "Deleted"] {
            lines.extend(removed[word].as_str().map(|name| format!("{word}: {name}")));
        }
    }
    lines
}

fn prune(client: &Client, args: &PruneArgs) -> Result<Exit, CliError> {
    let which = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let mut filter = args.filter.clone();
    filter.push(format!("dangling={}", !args.all));
    let pruning = Pruning {
        what: which.to_owned(),
        force: args.force,
        path: "/images/prune",
        filter,
        nodes: args.nodes.as_deref(),
        heading: "Deleted Images:",
    };
    nodes::prune(client, &pruning, |answer| {
        let removed = removed_lines(list(answer, "/ImagesDeleted")).into_iter();
        let lower = |line: String| {
            line.replacen("Untagged", "untagged", 1).replacen("Deleted", "deleted", 1)
        };
        removed.map(lower).collect()
    })
}

fn ls(client: &Client, args: &LsArgs) -> Result<Exit, CliError> {
    let query = match &args.name {
        Some(name) => client::filters(&[format!("reference={name}")])?,
        None => String::new(),
    };
    let nodes = args.nodes.as_deref();
    let (answers, exit) = ask(client, Method::GET, "/images/json", &query, None, nodes)?;
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for answer in answers {
        for image in human::items(answer.value)? {
            if args.quiet {
                output::line(&short_id(text(&image, "/Id"), args.no_trunc))?;
                continue;
            }
            rows.extend(image_rows(&image, answer.node.as_deref(), args.no_trunc));
        }
    }
    if args.quiet {
        return Ok(exit);
    }
    let mut columns = vec![
        column("Repository", "REPOSITORY"),
        column("Tag", "TAG"),
        column("ID", "IMAGE ID"),
        column("CreatedSince", "CREATED"),
        column("Size", "SIZE"),
    ];
    if nodes.is_some() {
        columns.insert(0, column("Node", "NODE"));
    }
    output::rows(args.format.as_deref(), &columns, &rows)?;
    Ok(exit)
}

/// Returns a row for each name of an image.
fn image_rows(image: &Value, node: Option<&str>, no_trunc: bool) -> Vec<Map<String, Value>> {
    let names: Vec<&str> = list(image, "/RepoTags").iter().filter_map(Value::as_str).collect();
    let names = if names.is_empty() { vec!["<none>:<none>"] } else { names };
    let row = |name: &str| {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        let row = json!({
            "Node": node,
            "Repository": repository,
            "Tag": tag,
            "ID": short_id(text(image, "/Id"), no_trunc),
            "CreatedSince": ago_unix(number(image, "/Created")),
            "Size": decimal_size(number(image, "/Size")),
            "Containers": number(image, "/Containers").to_string(),
        });
        row.as_object().cloned().unwrap_or_default()
    };
    names.into_iter().map(row).collect()
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
