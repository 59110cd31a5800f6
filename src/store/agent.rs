//! The agent's file: the tasks it must bring back after a power cut.

use super::file::{self, OpenError, disk};
use crate::{
    agent::{Record, StoredTask},
    types::Sequence,
};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, path::Path};

const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const SEQUENCE: &str = "sequence";

/// The first byte of every record: its format.
const RECORD: u8 = 1;

/// The agent's file.
#[derive(Debug)]
pub struct AgentStore {
    database: Database,
}

impl AgentStore {
    /// Opens, or makes, the file at `path`.
    ///
    /// # Errors
    ///
    /// Another daemon has it, a newer midge wrote it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { database: file::open(path)? })
    }

    /// Opens, or makes, the file on a disk that is not the file system's.
    ///
    /// # Errors
    ///
    /// As [`AgentStore::open`].
    pub fn open_on(backend: impl StorageBackend) -> Result<Self, OpenError> {
        Ok(Self { database: file::open_on(backend)? })
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// The disk failed, or holds what no midge wrote.
    pub fn load(&self) -> io::Result<(Sequence, Vec<StoredTask>)> {
        let read = self.database.begin_read().map_err(disk)?;
        let sequence = match read.open_table(STATE) {
            Ok(table) => match table.get(SEQUENCE).map_err(disk)? {
                Some(bytes) => decode(bytes.value())?,
                None => Sequence::default(),
            },
            Err(redb::TableError::TableDoesNotExist(_)) => Sequence::default(),
            Err(error) => return Err(disk(error)),
        };
        let mut tasks = Vec::new();
        match read.open_table(TASKS) {
            Ok(table) => {
                for row in table.iter().map_err(disk)? {
                    tasks.push(decode(row.map_err(disk)?.1.value())?);
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(disk(error)),
        }
        Ok((sequence, tasks))
    }

    /// Writes everything in one commit; on disk when it returns.
    ///
    /// # Errors
    ///
    /// The disk failed: nothing of it is written.
    pub fn commit(&self, records: &[Record]) -> io::Result<()> {
        let write = self.database.begin_write().map_err(disk)?;
        {
            let mut tasks = write.open_table(TASKS).map_err(disk)?;
            let mut state = write.open_table(STATE).map_err(disk)?;
            for record in records {
                match record {
                    Record::Sequence(sequence) => {
                        state.insert(SEQUENCE, encode(sequence)?.as_slice()).map_err(disk)?;
                    }
                    Record::PutTask(task) => {
                        let bytes = encode(task.as_ref())?;
                        let id = task.task.id.as_str();
                        tasks.insert(id, bytes.as_slice()).map_err(disk)?;
                    }
                    Record::RemoveTask(id) => {
                        tasks.remove(id.as_str()).map_err(disk)?;
                    }
                }
            }
        }
        write.commit().map_err(disk)
    }
}

fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_extend(value, vec![RECORD]).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    match bytes.split_first() {
        Some((&RECORD, body)) => postcard::from_bytes(body)
            .map_err(|error| damaged(format!("a stored task is damaged: {error}"))),
        Some((format, _)) => {
            Err(damaged(format!("a stored task was written by a newer midge (format {format})")))
        }
        None => Err(damaged("a stored task is empty".to_owned())),
    }
}
