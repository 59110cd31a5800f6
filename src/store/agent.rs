//! The agent's file: the tasks it must bring back after a power cut.

use super::{
    file::{OpenError, StoreFile, disk, existing},
    notes::Notes,
};
use crate::{
    agent::{Record, StoredTask},
    types::Sequence,
};
use redb::{ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
};

const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const SEQUENCE: &str = "sequence";

/// The first byte of every record: its format.
const RECORD: u8 = 1;

/// The agent's file.
#[derive(Debug)]
pub struct AgentStore {
    file: StoreFile,
    /// Without it notes are dropped.
    notes: Option<Notes>,
}

impl AgentStore {
    /// Opens, or makes, the file at `path`.
    ///
    /// # Errors
    ///
    /// Another daemon has it, a newer midge wrote it, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { file: StoreFile::open(path)?, notes: None })
    }

    /// Keeps notes in `dir`, which a restart of the machine should empty.
    #[must_use]
    pub fn noting_in(self, dir: PathBuf) -> Self {
        Self { notes: Some(Notes(dir)), ..self }
    }

    /// Opens, or makes, the file on a disk that is not the file system's. A clone of `backend` is
    /// opened now, and another after each failure.
    ///
    /// # Errors
    ///
    /// As [`AgentStore::open`].
    #[cfg(test)]
    pub(crate) fn open_on(backend: impl redb::StorageBackend + Clone) -> Result<Self, OpenError> {
        Ok(Self { file: StoreFile::open_on(backend)?, notes: None })
    }

    /// Reads everything: the last sequence that was taken, and every task, by id.
    ///
    /// # Errors
    ///
    /// The disk failed, or holds what no midge wrote.
    pub fn load(&self) -> io::Result<(Sequence, Vec<StoredTask>)> {
        let (sequence, mut tasks) = self.file.read(|read| {
            let mut sequence = Sequence::default();
            if let Some(table) = existing(read.open_table(STATE))?
                && let Some(bytes) = table.get(SEQUENCE).map_err(disk)?
            {
                sequence = decode(bytes.value())?;
            }
            let mut tasks: Vec<StoredTask> = Vec::new();
            if let Some(table) = existing(read.open_table(TASKS))? {
                for row in table.iter().map_err(disk)? {
                    tasks.push(decode(row.map_err(disk)?.1.value())?);
                }
            }
            Ok((sequence, tasks))
        })?;
        if let Some(notes) = &self.notes {
            notes.retain(&tasks.iter().map(|stored| stored.task.id.as_str()).collect());
            for stored in &mut tasks {
                recall(notes, stored);
            }
        }
        Ok((sequence, tasks))
    }

    /// Writes everything in one commit; on disk when it returns. What is only noted is not.
    ///
    /// # Errors
    ///
    /// The disk failed: all of it is written, or nothing. The same records can be committed again.
    pub fn commit(&self, records: &[Record]) -> io::Result<()> {
        if records.iter().any(|record| !matches!(record, Record::NoteTask(_))) {
            self.commit_durably(records)?;
        }
        let Some(notes) = &self.notes else { return Ok(()) };
        for record in records {
            match record {
                Record::NoteTask(task) => {
                    let id = task.task.id.as_str();
                    if let Err(error) = notes.write(id, &encode(task.as_ref())?) {
                        // The next life of this daemon then sees it run, and says so anew.
                        tracing::warn!(%error, task = id, "cannot note that a task runs");
                    }
                }
                Record::RemoveTask(id) => notes.remove(id.as_str()),
                Record::PutTask(_) | Record::Sequence(_) => {}
            }
        }
        Ok(())
    }

    fn commit_durably(&self, records: &[Record]) -> io::Result<()> {
        self.file.write(|write| {
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
                    Record::NoteTask(_) => {}
                }
            }
            Ok(())
        })
    }
}

/// Makes of a task what was noted of it since it was written; states never fall, so an older note
/// is known by its state.
fn recall(notes: &Notes, stored: &mut StoredTask) {
    let note = notes.read(stored.task.id.as_str());
    let Some(note) = note.and_then(|note| decode::<StoredTask>(&note).ok()) else { return };
    if note.task.id == stored.task.id && note.status.state > stored.status.state {
        stored.status = note.status;
        stored.reported = note.reported;
    }
}

fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_extend(value, vec![RECORD]).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    match bytes.split_first() {
        Some((&RECORD, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged("a stored task has bytes to spare".to_owned())),
            Err(error) => Err(damaged(format!("a stored task is damaged: {error}"))),
        },
        Some((format, _)) => {
            Err(damaged(format!("a stored task was written by a newer midge (format {format})")))
        }
        None => Err(damaged("a stored task is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::sample::{Sampler, check_recorded, show};
    use std::fmt::Debug;

    fn samples<T: Serialize + DeserializeOwned + PartialEq + Debug>(
        sampler: &mut Sampler,
        name: &str,
    ) -> Vec<(String, String)> {
        let sample = |(label, value): (String, T)| {
            let bytes = encode(&value).unwrap();
            assert_eq!(decode::<T>(&bytes).unwrap(), value, "{label}");
            (label, show(&bytes))
        };
        sampler.samples(name).into_iter().map(sample).collect()
    }

    /// Where this fails, [`RECORD`] is another format, with a reader for this one.
    #[test]
    fn every_record_has_the_bytes_that_were_recorded() {
        let mut sampler = Sampler::default();
        let mut all = samples::<StoredTask>(&mut sampler, "StoredTask");
        all.extend(samples::<Sequence>(&mut sampler, "Sequence"));
        all.extend(sampler.shapes());
        check_recorded("tests/data/agent/record-1.txt", &all);
    }
}
