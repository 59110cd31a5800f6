//! `midge cp`: files between here and a container, as Docker copies them.

use super::{
    client::{Call, Client, encode},
    exit::{CliError, Exit},
    human::decimal_size,
    output,
};
use crate::util::{
    error::chain,
    tree::{self, Asked, Owner, PieceReader, PieceWriter, Root, Rules},
};
use base64::Engine as _;
use clap::Args;
use hyper::Method;
use serde_json::Value;
use std::{
    io::{self, IsTerminal, Read},
    path::Path,
    thread,
};

/// Pieces of an archive between the thread that packs or unpacks and the daemon's connection.
const PIECES_MAX: usize = 4;

/// The header that says what a path in a container is.
const STAT: &str = "x-docker-container-path-stat";

/// Go's bits for a folder and for a symbolic link.
const MODE_FOLDER: u64 = 1 << 31;
const MODE_LINK: u64 = 1 << 27;

#[derive(Debug, Args)]
pub(super) struct CpArgs {
    /// Keep owners: the archive's here, the container's user there
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// What to copy: PATH, TASK:PATH, or - for an archive from standard input
    #[arg(value_name = "SRC", allow_hyphen_values = true)]
    from: String,
    /// Where to: PATH, TASK:PATH, or - for an archive to standard output
    #[arg(value_name = "DST", allow_hyphen_values = true)]
    to: String,
}

/// Splits `TASK:PATH`; none for a path of this machine.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('/') {
        return None;
    }
    let (container, path) = text.split_once(':')?;
    (!container.starts_with('.') && !container.is_empty()).then_some((container, path))
}

pub(super) fn run(client: &Client, args: &CpArgs) -> Result<Exit, CliError> {
    match (split(&args.from), split(&args.to)) {
        (Some((container, path)), None) => download(client, args, container, path)?,
        (None, Some((container, path))) => upload(client, args, container, path)?,
        (Some(_), Some(_)) => {
            return Err(CliError::usage("copying between containers is not supported")
                .hint("copy to this machine first, and from here to the other container"));
        }
        (None, None) => {
            return Err(CliError::usage("must specify at least one container source")
                .hint("a path in a container is written TASK:PATH, such as web.1:/etc/hosts"));
        }
    }
    Ok(Exit::Ok)
}

/// A path in a container, as the daemon describes it.
#[derive(Debug, Clone)]
struct There {
    is_folder: bool,
    name: String,
    link: Option<String>,
}

fn archive_path(container: &str, path: &str) -> String {
    format!("/containers/{}/archive?path={}", encode(container), encode(path))
}

/// Looks at a path in a container; none where nothing is there.
fn look(client: &Client, container: &str, path: &str) -> Result<Option<There>, CliError> {
    let Some(header) = client.head(&archive_path(container, path), STAT)? else {
        // A HEAD cannot say what is missing, the container or the path.
        client.get(&format!("/containers/{}/json", encode(container)))?;
        return Ok(None);
    };
    let unreadable = || CliError::failure("unreadable answer: what the path is");
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(header).map_err(|_| unreadable())?;
    let stat: Value = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    let mode = stat["mode"].as_u64().unwrap_or_default();
    let target = stat["linkTarget"].as_str().unwrap_or_default().to_owned();
    Ok(Some(There {
        is_folder: mode & MODE_FOLDER != 0,
        name: stat["name"].as_str().unwrap_or_default().to_owned(),
        link: (mode & MODE_LINK != 0).then_some(target),
    }))
}

/// As [`look`], but follows a symbolic link; returns the path that it leads to as well.
fn look_through(
    client: &Client,
    container: &str,
    path: &str,
) -> Result<(String, Option<There>), CliError> {
    let there = look(client, container, path)?;
    match there.as_ref().and_then(|there| there.link.clone()) {
        Some(target) => {
            let found = look(client, container, &target)?;
            Ok((target, found))
        }
        None => Ok((path.to_owned(), there)),
    }
}

/// Where an archive goes, and what its first part becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    folder: String,
    rename: Option<String>,
}

/// Docker's rules: into a folder that is there; else under the name that was given.
fn plan(source_is_folder: bool, to: &str, there: Option<bool>) -> Result<Plan, CliError> {
    let asked = Asked::new(to);
    let path = asked.path();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let folder = if folder.is_empty() { "/" } else { folder };
    let renamed = Plan { folder: folder.to_owned(), rename: Some(name.to_owned()) };
    match there {
        Some(true) => Ok(Plan { folder: path, rename: None }),
        Some(false) if source_is_folder => Err(CliError::failure("cannot copy directory")
            .hint(format!("{to} is a file; name a folder, or a name that is free"))),
        None if !source_is_folder && (to.ends_with('/') || to.ends_with("/.")) => {
            Err(CliError::failure(format!("no such directory: {to}")))
        }
        Some(false) | None => Ok(renamed),
    }
}

/// Makes a path of this machine absolute; what its end says stays.
fn absolute(path: &str) -> Result<String, CliError> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let current = std::env::current_dir()
        .map_err(|error| CliError::failure(format!("cannot tell the current folder: {error}")))?;
    Ok(format!("{}/{path}", current.display()))
}

fn download(client: &Client, args: &CpArgs, container: &str, path: &str) -> Result<(), CliError> {
    let (path, there) = match args.follow_link {
        true => look_through(client, container, path)?,
        false => (path.to_owned(), look(client, container, path)?),
    };
    let there = there.ok_or_else(|| missing(container, &path))?;
    let get = archive_path(container, &path);
    if args.to == "-" {
        if io::stdout().is_terminal() {
            return Err(CliError::usage("refusing to write an archive to a terminal")
                .hint("redirect it: midge cp TASK:PATH - > archive.tar"));
        }
        return client.stream(Method::GET, &get, &Call::default(), None, |bytes| {
            output::raw(bytes).map(|()| true)
        });
    }
    let to = absolute(&args.to)?;
    // Through a link, as a shell would.
    let found = std::fs::metadata(&to).ok().map(|metadata| metadata.is_dir());
    let plan = plan(there.is_folder, &to, found)?;
    // The folder is the root: no symbolic link of the archive leads out of it.
    let root = Root::open(Path::new(&plan.folder))
        .map_err(|error| CliError::failure(format!("cannot copy to {}: {error}", plan.folder)))?;
    let owner = if args.archive { Owner::Archived } else { Owner::Own };
    let rename = plan.rename.map(|name| (there.name.clone(), name));
    let rules = Rules { keep_kinds: true, owner, rename };
    let (sender, pieces) = async_channel::bounded(PIECES_MAX);
    let worker = thread::spawn(move || tree::unpack(&root, "/", &rules, PieceReader::new(pieces)));
    let mut size = 0;
    let got = client.stream(Method::GET, &get, &Call::default(), None, |bytes| {
        size += u64::try_from(bytes.len()).unwrap_or_default();
        // Closed where it was refused, or where only the archive's end follows.
        Ok(sender.send_blocking(Ok(bytes.to_vec())).is_ok())
    });
    if got.is_err() {
        drop(sender.send_blocking(Err(io::ErrorKind::UnexpectedEof.into())));
    }
    drop(sender);
    let unpacked = worker.join().map_err(|_| CliError::failure("unpacking failed"))?;
    got?;
    unpacked.map_err(|error| CliError::failure(chain(&error)))?;
    done(args, size);
    Ok(())
}

fn upload(client: &Client, args: &CpArgs, container: &str, path: &str) -> Result<(), CliError> {
    let (path, there) = look_through(client, container, path)?;
    let found = there.as_ref().map(|there| there.is_folder);
    let put = |folder: &str| {
        let owner = if args.archive { "&copyUIDGID=true" } else { "" };
        format!("{}&noOverwriteDirNonDir=true{owner}", archive_path(container, folder))
    };
    if args.from == "-" {
        if found != Some(true) {
            return Err(CliError::failure(format!(
                "destination \"{container}:{path}\" must be a directory"
            )));
        }
        let input: Box<dyn Read + Send> = Box::new(io::stdin());
        return client
            .stream(Method::PUT, &put(&path), &Call::default(), Some(input), |_| Ok(true));
    }
    let mut from = absolute(&args.from)?;
    let name = Asked::new(&from).name().to_owned();
    if args.follow_link {
        let real = std::fs::canonicalize(&from);
        let real = real.map_err(|error| CliError::failure(format!("{}: {error}", args.from)))?;
        from = real.to_string_lossy().into_owned();
    }
    let reading = |error: io::Error| CliError::failure(format!("{}: {error}", args.from));
    let root = Root::open(Path::new("/")).map_err(reading)?;
    let asked = Asked::new(&from);
    let (metadata, _) = asked.stat(&root).map_err(reading)?;
    let plan = plan(metadata.is_dir(), &path, found)?;
    let top = plan.rename.unwrap_or(name);
    let (sender, pieces) = async_channel::bounded(PIECES_MAX);
    let worker = thread::spawn(move || {
        let out = PieceWriter::new(sender.clone());
        let packed = tree::pack(&root, &asked, &top, out);
        if packed.is_err() {
            // So that the daemon does not take a part for the whole.
            drop(sender.send_blocking(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        packed
    });
    let counter = Counter { inner: PieceReader::new(pieces), count: std::sync::Arc::default() };
    let count = std::sync::Arc::clone(&counter.count);
    let input: Box<dyn Read + Send> = Box::new(counter);
    let sent =
        client.stream(Method::PUT, &put(&plan.folder), &Call::default(), Some(input), |_| Ok(true));
    let packed = worker.join().map_err(|_| CliError::failure("packing failed"))?;
    match (packed, sent) {
        // Where the daemon refused, it did not take the archive.
        (Err(tree::PackError::Write(_)) | Ok(()), Err(error)) => return Err(error),
        (Err(error), _) => return Err(CliError::failure(chain(&error))),
        (Ok(()), Ok(())) => {}
    }
    done(args, count.load(std::sync::atomic::Ordering::Relaxed));
    Ok(())
}

/// Counts what is read.
struct Counter<R> {
    inner: R,
    count: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl<R: Read> Read for Counter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let more = u64::try_from(n).unwrap_or_default();
        self.count.fetch_add(more, std::sync::atomic::Ordering::Relaxed);
        Ok(n)
    }
}

fn done(args: &CpArgs, size: u64) {
    if !args.quiet {
        output::note(&format!("Successfully copied {} to {}", decimal_size(size), args.to));
    }
}

fn missing(container: &str, path: &str) -> CliError {
    CliError::failure(format!("Could not find the file {path} in container {container}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_from_paths() {
        assert_eq!(split("web.1:/etc"), Some(("web.1", "/etc")));
        assert_eq!(split("web.1:"), Some(("web.1", "")));
        for local in ["/a:b", "./a:b", "a", "-", ":x", "../a:b"] {
            assert_eq!(split(local), None, "{local}");
        }
    }

    #[test]
    fn destinations_follow_dockers_rules() {
        let into = |folder: &str| Some((folder.to_owned(), None));
        let named = |folder: &str, name: &str| Some((folder.to_owned(), Some(name.to_owned())));
        for (source_is_folder, to, there, expected) in [
            (false, "/d", Some(true), into("/d")),
            (true, "/d/", Some(true), into("/d")),
            (true, "/f", Some(false), None),
            (false, "/d/f", Some(false), named("/d", "f")),
            (true, "/d/new", None, named("/d", "new")),
            (true, "/new/", None, named("/", "new")),
            (false, "/d/new", None, named("/d", "new")),
            (false, "/d/new/", None, None),
        ] {
            let found = plan(source_is_folder, to, there).ok().map(|p| (p.folder, p.rename));
            assert_eq!(found, expected, "{source_is_folder} {to} {there:?}");
        }
    }
}
