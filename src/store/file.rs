//! One redb file with a format version.

use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};
use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The format that this version writes, and the newest it reads.
pub const FORMAT: u64 = 1;

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
    },
}

/// Opens, or makes, the file at `path`, readable by its owner only.
pub(super) fn open(path: &Path) -> Result<Database, OpenError> {
    let failed = |message: String| OpenError::Failed { path: path.to_owned(), message };
    // Looked at before it is opened for writing, which already changes its head: a file of a newer
    // midge is left exactly as it is. What cannot be read so is repaired below, or said to be
    // damaged.
    if let Ok(database) = redb::ReadOnlyDatabase::open(path)
        && let Ok(Some(found)) = read_format(&database)
        && found > FORMAT
    {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(error.to_string()))?;
    let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(path);
    let database = database.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        other => failed(other.to_string()),
    })?;
    check_format(database, path)
}

/// Opens, or makes, a file on a disk that is not the file system's.
pub(super) fn open_on(backend: impl StorageBackend) -> Result<Database, OpenError> {
    let path = Path::new("(backend)");
    let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
    let database = database
        .map_err(|error| OpenError::Failed { path: path.to_owned(), message: error.to_string() })?;
    check_format(database, path)
}

fn check_format(database: Database, path: &Path) -> Result<Database, OpenError> {
    let failed =
        |error: io::Error| OpenError::Failed { path: path.to_owned(), message: error.to_string() };
    let found = read_format(&database).map_err(failed)?;
    match found {
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found }),
        Some(_) => Ok(database),
        None => {
            write_format(&database).map_err(failed)?;
            Ok(database)
        }
    }
}

fn read_format(database: &impl ReadableDatabase) -> io::Result<Option<u64>> {
    let read = database.begin_read().map_err(disk)?;
    let table = match read.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(disk(error)),
    };
    Ok(table.get(FORMAT_KEY).map_err(disk)?.map(|value| value.value()))
}

fn write_format(database: &Database) -> io::Result<()> {
    let write = database.begin_write().map_err(disk)?;
    write.open_table(META).map_err(disk)?.insert(FORMAT_KEY, FORMAT).map_err(disk)?;
    write.commit().map_err(disk)
}

/// Turns an error of the database into one of the disk, keeping what kind it is.
pub(super) fn disk(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
