//! What openraft demands of a storage, tested by openraft itself.

use super::memory::Memory;
use crate::consensus::{
    Notice, OnSmol,
    machine::Machine,
    storage::{SNAPSHOT_MAX, Storage},
    types::{StoredMembership, Types},
};
use openraft::{
    StorageError,
    storage::RaftStateMachine as _,
    testing::log::{StoreBuilder, Suite},
};
use std::sync::Arc;

/// A machine on a log in memory whose driver gives a state of so many bytes.
fn machine(state_len: usize) -> (smol::Task<()>, Storage<OnSmol>, Machine<OnSmol>) {
    let (notices, told) = async_channel::bounded(16);
    let (storage, _heard) = Storage::<OnSmol>::new(Arc::<Memory>::default(), notices.clone());
    let driver = smol::spawn(async move {
        while let Ok(notice) = told.recv().await {
            match notice {
                Notice::Apply { done, .. } | Notice::Install { done, .. } => {
                    done.send(()).await.ok();
                }
                Notice::Snapshot { reply } => {
                    reply.send(vec![7; state_len]).await.ok();
                }
                Notice::Leadership(_) | Notice::Fatal { .. } => {}
            }
        }
    });
    let machine = Machine {
        storage: storage.clone(),
        notices,
        applied: None,
        membership: StoredMembership::<OnSmol>::default(),
    };
    (driver, storage, machine)
}

struct Builder;

impl StoreBuilder<Types<OnSmol>, Storage<OnSmol>, Machine<OnSmol>, smol::Task<()>> for Builder {
    async fn build(
        &self,
    ) -> Result<(smol::Task<()>, Storage<OnSmol>, Machine<OnSmol>), StorageError<Types<OnSmol>>>
    {
        Ok(machine(5))
    }
}

#[test]
fn the_storage_is_as_the_engine_needs_one() {
    smol::block_on(Suite::test_all(Builder)).unwrap();
}

#[test]
fn a_state_that_no_manager_would_read_is_not_made_a_snapshot_of() {
    for (len, made) in [(SNAPSHOT_MAX, true), (SNAPSHOT_MAX + 1, false)] {
        let (_driver, _storage, mut machine) = machine(len);
        let builder = smol::block_on(machine.try_create_snapshot_builder(false));
        assert_eq!(builder.is_some(), made, "of {len} bytes");
    }
}
