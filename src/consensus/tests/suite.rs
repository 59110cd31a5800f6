//! What openraft demands of a storage, tested by openraft itself.

use super::memory::Memory;
use crate::consensus::{
    Notice, OnSmol,
    machine::Machine,
    storage::Storage,
    types::{StoredMembership, Types},
};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use std::sync::Arc;

struct Builder;

impl StoreBuilder<Types<OnSmol>, Storage<OnSmol>, Machine<OnSmol>, smol::Task<()>> for Builder {
    async fn build(
        &self,
    ) -> Result<(smol::Task<()>, Storage<OnSmol>, Machine<OnSmol>), StorageError<Types<OnSmol>>>
    {
        let (notices, told) = async_channel::bounded(16);
        let (storage, _heard) = Storage::<OnSmol>::new(Arc::<Memory>::default(), notices.clone());
        let driver = smol::spawn(async move {
            while let Ok(notice) = told.recv().await {
                match notice {
                    Notice::Apply { done, .. } | Notice::Install { done, .. } => {
                        done.send(()).await.ok();
                    }
                    Notice::Snapshot { reply } => {
                        reply.send(b"state".to_vec()).await.ok();
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
        Ok((driver, storage, machine))
    }
}

#[test]
fn the_storage_is_as_the_engine_needs_one() {
    smol::block_on(Suite::test_all(Builder)).unwrap();
}
