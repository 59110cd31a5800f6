//! One redb file: its format version, its transactions, and what becomes of it when the disk fails.
//!
//! redb refuses to go on after an I/O error, since it no longer knows what is on disk. Here such a
//! database is closed and opened anew, with redb's own repair, by the next call: a disk that was full
//! for a while costs no restart.

use crate::util::disk::{advice, may_pass, replace_by};
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};
use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Brings a file from one format to the next, inside the transaction that also says so.
pub(super) type Migration = fn(&WriteTransaction) -> io::Result<()>;

/// `MIGRATIONS[n]` leads from format `n + 1` to `n + 2`. There was only one format so far.
const MIGRATIONS: &[Migration] = &[];

/// The format that this version writes, and the newest it reads.
pub const FORMAT: u64 = 1 + MIGRATIONS.len() as u64;

/// Pages kept in memory: both files together stay below the budget of a small board.
const CACHE_BYTES: usize = 2 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";

/// A file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another midge daemon uses {path}")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is of a newer midge.
    #[error("{path} was written by a newer midge (format {found}); this one reads up to {FORMAT}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// It cannot be read, or is damaged.
    #[error("cannot open {path}: {message}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
        /// What kind of error that is.
        kind: io::ErrorKind,
    },
}

impl OpenError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => {
                Some("stop the other daemon, or give this one a data directory of its own")
            }
            Self::Newer { .. } => Some("install the midge that wrote it, or a newer one"),
            Self::Failed { kind, .. } => advice(*kind),
        }
    }
}

/// How a database is opened, the first time and after each failure.
type Opener = Box<dyn Fn() -> Result<Open, Unopened> + Send + Sync>;

/// Why a database is not open, and what kind of error it is: some pass.
struct Unopened {
    error: OpenError,
    kind: io::ErrorKind,
}

impl Unopened {
    fn failed(path: &Path, error: &io::Error) -> Self {
        let (path, message) = (path.to_owned(), error.to_string());
        let kind = error.kind();
        Self { error: OpenError::Failed { path, message, kind }, kind }
    }
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        Self { error, kind: io::ErrorKind::Other }
    }
}

/// An open database. redb writes when it is dropped, and where the file is damaged it panics in the
/// midst of that: a panic here would end the daemon for a database that nobody needs any more.
struct Open(Option<Database>);

impl Open {
    fn get(&self) -> &Database {
        self.0.as_ref().expect("it is taken out by drop only")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let database = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::error!("a database could not be closed: it contradicts itself");
        }
    }
}

/// The database of a file.
enum Slot {
    Open(Arc<Open>),
    /// It failed, and is opened anew once nobody else uses it: redb has a file open only once.
    Failed(Arc<Open>),
    Closed,
}

/// A redb file.
pub(super) struct StoreFile {
    opener: Opener,
    database: Mutex<Slot>,
    /// Woken when somebody is done with a database that failed.
    let_go: Condvar,
    commits: Mutex<Commits>,
}

/// How the commits of a file went.
#[derive(Debug, Clone, Default)]
struct Commits {
    begun: Option<Instant>,
    /// Since when nothing can be written; who writes the log tries again until it can.
    failing: Option<Instant>,
    failure: Option<String>,
}

impl fmt::Debug for StoreFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFile").finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StoreFile {
    /// Opens, or makes, the file at `path`, readable by its owner only.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let path = path.to_owned();
        Self::open_by(Box::new(move || open_path(&path)))
    }

    /// Opens, or makes, a file on a disk that is not the file system's: on a clone of `backend`, now
    /// and again after each failure.
    #[cfg(test)]
    pub(super) fn open_on(backend: impl redb::StorageBackend + Clone) -> Result<Self, OpenError> {
        Self::open_by(Box::new(move || {
            let path = Path::new("(backend)");
            let database = builder().create_with_backend(backend.clone());
            let database = database.map_err(|error| Unopened::failed(path, &disk(error)))?;
            check_format(database, path)
        }))
    }

    fn open_by(opener: Opener) -> Result<Self, OpenError> {
        let open = guard_open(&opener).map_err(|unopened| unopened.error)?;
        let database = Mutex::new(Slot::Open(Arc::new(open)));
        let let_go = Condvar::new();
        Ok(Self { opener, database, let_go, commits: Mutex::default() })
    }

    /// Returns for how long what is to be written has not been: by the commit under way, or by all
    /// since the first of those that failed. A disk that hangs shows here and nowhere else.
    pub(super) fn commit_under_way(&self) -> Option<Duration> {
        let commits = locked(&self.commits);
        commits.failing.or(commits.begun).map(|since| since.elapsed())
    }

    /// Returns why the last commit failed, where it did.
    pub(super) fn failure(&self) -> Option<String> {
        locked(&self.commits).failure.clone()
    }

    /// Reads one consistent state of the file.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> io::Result<T>,
    ) -> io::Result<T> {
        self.with(|database| work(&database.begin_read().map_err(disk)?))
    }

    /// Writes in one transaction, on disk when this returns. After an error it is there whole or
    /// not at all.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> io::Result<T>,
    ) -> io::Result<T> {
        let begun = Instant::now();
        locked(&self.commits).begun = Some(begun);
        let result = self.with(|database| commit(database, work));
        let failure = result.as_ref().err().map(ToString::to_string);
        let mut commits = locked(&self.commits);
        let passes = result.as_ref().is_err_and(|error| may_pass(error.kind()));
        let failing = passes.then(|| commits.failing.unwrap_or(begun));
        *commits = Commits { begun: None, failing, failure };
        drop(commits);
        result
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> io::Result<T>) -> io::Result<T> {
        let database = self.database()?;
        // A disk that returns nonsense can make redb panic; that must not take the daemon along.
        let result = catch_unwind(AssertUnwindSafe(|| work(database.get())));
        let result = result.unwrap_or_else(|_| Err(contradiction()));
        let mut slot = locked(&self.database);
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::InvalidInput)
            && matches!(&*slot, Slot::Open(current) if Arc::ptr_eq(current, &database))
        {
            *slot = Slot::Failed(Arc::clone(&database));
        }
        // With the lock held: whoever looks at how many use it does so before, or is woken.
        drop(database);
        self.let_go.notify_all();
        drop(slot);
        result
    }

    fn database(&self) -> io::Result<Arc<Open>> {
        let mut slot = locked(&self.database);
        loop {
            match &*slot {
                Slot::Open(database) => return Ok(Arc::clone(database)),
                Slot::Failed(before) if Arc::strong_count(before) > 1 => {
                    slot = self.let_go.wait(slot).unwrap_or_else(PoisonError::into_inner);
                }
                Slot::Failed(_) => *slot = Slot::Closed,
                Slot::Closed => break,
            }
        }
        let open = guard_open(&self.opener);
        let open = open.map_err(|unopened| io::Error::new(unopened.kind, unopened.error))?;
        let database = Arc::new(open);
        *slot = Slot::Open(Arc::clone(&database));
        Ok(database)
    }
}

fn contradiction() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the database contradicts itself")
}

fn guard_open(opener: &Opener) -> Result<Open, Unopened> {
    catch_unwind(AssertUnwindSafe(opener))
        .unwrap_or_else(|_| Err(Unopened::failed(Path::new("the database"), &contradiction())))
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_path(path: &Path) -> Result<Open, Unopened> {
    let failed = |error: io::Error| Unopened::failed(path, &error);
    // Looked at before it is opened for writing, which already changes its head: a file of a newer
    // midge is left exactly as it is. What cannot be read so is repaired below, or said to be
    // damaged.
    if let Ok(database) = redb::ReadOnlyDatabase::open(path)
        && let Ok(Some(found)) = read_format(&database)
        && found > FORMAT
    {
        return Err(OpenError::Newer { path: path.to_owned(), found }.into());
    }
    if !path.try_exists().map_err(failed)? {
        create(path).map_err(failed)?;
    }
    let database = builder().create_file(open_file(path).map_err(failed)?);
    let database = database.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            OpenError::InUse { path: path.to_owned() }.into()
        }
        other => failed(disk(other)),
    })?;
    check_format(database, path)
}

fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes an empty file of this format. Under another name first: redb refuses a file whose making
/// a power cut interrupted, and nobody would dare to delete it.
fn create(path: &Path) -> io::Result<()> {
    replace_by(path, |unfinished| {
        let database = builder().create_file(open_file(unfinished)?).map_err(disk)?;
        write_format(&database)
    })
}

fn check_format(database: Database, path: &Path) -> Result<Open, Unopened> {
    let database = Open(Some(database));
    let failed = |error: io::Error| Unopened::failed(path, &error);
    match read_format(database.get()).map_err(failed)? {
        Some(found) if found > FORMAT => {
            return Err(OpenError::Newer { path: path.to_owned(), found }.into());
        }
        Some(FORMAT) => {}
        Some(found) => migrate(database.get(), found, MIGRATIONS).map_err(failed)?,
        None => write_format(database.get()).map_err(failed)?,
    }
    Ok(database)
}

/// Carries out what leads from format `found` to the end of `migrations`, all of it or nothing.
pub(super) fn migrate(database: &Database, found: u64, migrations: &[Migration]) -> io::Result<()> {
    let done = usize::try_from(found).ok().and_then(|found| found.checked_sub(1));
    let due = done.and_then(|done| migrations.get(done..)).ok_or_else(contradiction)?;
    commit(database, |write| {
        for migration in due {
            migration(write)?;
        }
        let format = found + u64::try_from(due.len()).map_err(io::Error::other)?;
        write.open_table(META).map_err(disk)?.insert(FORMAT_KEY, format).map_err(disk)?;
        Ok(())
    })
}

pub(super) fn read_format(database: &impl ReadableDatabase) -> io::Result<Option<u64>> {
    let read = database.begin_read().map_err(disk)?;
    let Some(table) = existing(read.open_table(META))? else { return Ok(None) };
    Ok(table.get(FORMAT_KEY).map_err(disk)?.map(|value| value.value()))
}

fn write_format(database: &Database) -> io::Result<()> {
    commit(database, |write| {
        write.open_table(META).map_err(disk)?.insert(FORMAT_KEY, FORMAT).map_err(disk)?;
        Ok(())
    })
}

fn commit<T>(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> io::Result<T>,
) -> io::Result<T> {
    let write = database.begin_write().map_err(disk)?;
    let value = work(&write)?;
    write.commit().map_err(disk)?;
    Ok(value)
}

/// A table that nothing was written to yet does not exist.
pub(super) fn existing<T>(opened: Result<T, redb::TableError>) -> io::Result<Option<T>> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(disk(error)),
    }
}

/// Turns an error of the database into one of the disk, keeping what kind it is.
pub(super) fn disk(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        redb::Error::Corrupted(what) => io::Error::new(io::ErrorKind::InvalidData, what),
        other => io::Error::other(other.to_string()),
    }
}
