//! containerd's content store: reading, and writing that can be taken up where it broke off.

use super::link::{
    CALL_LIMIT, CallError, Lease, Link, SLOW_CALL_LIMIT, absent, call, code_is, refusal, refused,
    within,
};
use crate::runtime::image::RuntimeError;
use containerd_client::services::v1::{
    AbortRequest, Info, InfoRequest, ListContentRequest, ReadContentRequest, UpdateRequest,
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tonic::{Code, Streaming};

/// The size of one message of content: large enough that the round trip does not count, small
/// enough that three layers at a time cost a small board little memory.
pub(super) const CHUNK: usize = 256 << 10;

pub(super) type ContentLabels = BTreeMap<String, String>;

impl Link {
    /// Returns a blob, or `None` where it is not here.
    pub(super) async fn read(
        &self,
        digest: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, RuntimeError> {
        let mut content = self.content().await?;
        let message =
            ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() };
        let read = call("read content", CALL_LIMIT, content.read(self.request(message)));
        let Some(mut stream) = absent(code_is(Code::NotFound), read).await? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        loop {
            let next = within("read content", CALL_LIMIT, stream.message());
            // The store finds out about a missing blob only when it reads.
            match absent(code_is(Code::NotFound), next).await? {
                None => return Ok(None),
                Some(None) => return Ok(Some(bytes)),
                Some(Some(part)) => bytes.extend_from_slice(&part.data),
            }
            if bytes.len() as u64 > limit {
                return Err(refused("read content", "a document beyond its limit"));
            }
        }
    }

    /// Tells whether a blob is here, complete.
    pub(super) async fn holds(&self, digest: &str) -> Result<bool, RuntimeError> {
        let mut content = self.content().await?;
        let info = content.info(self.request(InfoRequest { digest: digest.to_owned() }));
        let info = call("look for content", CALL_LIMIT, info);
        Ok(absent(code_is(Code::NotFound), info).await?.is_some())
    }

    /// Returns every blob of our namespace with its size.
    pub(super) async fn blobs(&self) -> Result<BTreeMap<String, u64>, RuntimeError> {
        let mut content = self.content().await?;
        let list = content.list(self.request(ListContentRequest::default()));
        let mut stream = call("list content", CALL_LIMIT, list).await?;
        let mut blobs = BTreeMap::new();
        while let Some(part) = within("list content", CALL_LIMIT, stream.message()).await? {
            let parts = part.info.into_iter();
            blobs.extend(parts.map(|info| (info.digest, u64::try_from(info.size).unwrap_or(0))));
        }
        Ok(blobs)
    }

    /// Adds labels to a blob; containerd's collector follows some of them.
    pub(super) async fn label(
        &self,
        digest: &str,
        labels: &ContentLabels,
    ) -> Result<(), RuntimeError> {
        if labels.is_empty() {
            return Ok(());
        }
        let mut content = self.content().await?;
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let message = UpdateRequest {
            info: Some(Info {
                digest: digest.to_owned(),
                labels: labels.clone().into_iter().collect(),
                ..Info::default()
            }),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        call("label content", CALL_LIMIT, content.update(self.request(message))).await?;
        Ok(())
    }

    /// Writes a small blob, with labels; where it is here already, its labels are added.
    pub(super) async fn put(
        &self,
        lease: &Lease,
        digest: &str,
        bytes: &[u8],
        labels: &ContentLabels,
    ) -> Result<(), RuntimeError> {
        let _alone = self.exclusive(format!("blob {digest}")).await;
        let reference = format!("midge-{digest}");
        let size = bytes.len() as u64;
        match self.writer(lease, &reference, Some((digest, size))).await? {
            None => self.label(digest, labels).await,
            Some(mut writer) => {
                let done = usize::try_from(writer.offset()).unwrap_or(usize::MAX);
                for chunk in bytes.get(done..).unwrap_or(&[]).chunks(CHUNK) {
                    writer.write(chunk.to_vec()).await?;
                }
                match writer.commit(digest, size, labels).await? {
                    Committed::Yes => Ok(()),
                    Committed::Existed => self.label(digest, labels).await,
                    Committed::Mismatch(message) => {
                        self.abort(&reference).await?;
                        Err(RuntimeError::Refused {
                            action: "keep content",
                            message,
                            temporary: true,
                        })
                    }
                }
            }
        }
    }

    /// Forgets what was written under `reference` so far.
    pub(super) async fn abort(&self, reference: &str) -> Result<(), RuntimeError> {
        let mut content = self.content().await?;
        let message = AbortRequest { r#ref: reference.to_owned() };
        let abort = call("drop content", CALL_LIMIT, content.abort(self.request(message)));
        absent(code_is(Code::NotFound), abort).await.map(drop)
    }

    /// Begins or continues to write under `reference`; `None` where the expected blob is here
    /// already, which the lease then holds.
    pub(super) async fn writer(
        &self,
        lease: &Lease,
        reference: &str,
        expected: Option<(&str, u64)>,
    ) -> Result<Option<Writer>, RuntimeError> {
        let mut content = self.content().await?;
        let (sender, receiver) = async_channel::bounded(1);
        let first = WriteContentRequest {
            action: WriteAction::Stat as i32,
            r#ref: reference.to_owned(),
            total: expected.map_or(0, |(_, size)| i64::try_from(size).unwrap_or(i64::MAX)),
            expected: expected.map_or_else(String::new, |(digest, _)| digest.to_owned()),
            ..WriteContentRequest::default()
        };
        let action = "write content";
        let _sent = sender.send(first.clone()).await;
        let write = call(action, CALL_LIMIT, content.write(self.leased(receiver, lease)));
        let Some(answers) = absent(code_is(Code::AlreadyExists), write).await? else {
            return Ok(None);
        };
        let mut writer = Writer { sender, answers, template: first, offset: 0 };
        match absent(code_is(Code::AlreadyExists), writer.first_answer(action)).await? {
            None => Ok(None),
            Some(status) => {
                writer.offset = u64::try_from(status.offset).unwrap_or(0);
                Ok(Some(writer))
            }
        }
    }
}

/// What a commit came to.
pub(super) enum Committed {
    /// The blob is here now.
    Yes,
    /// It came by another way meanwhile.
    Existed,
    /// The bytes are not what was expected; holds containerd's words.
    Mismatch(String),
}

/// A blob being written. Dropping it leaves what was written, to be continued.
pub(super) struct Writer {
    sender: async_channel::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    template: WriteContentRequest,
    offset: u64,
}

impl Writer {
    /// How many bytes are there.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) async fn write(&mut self, data: Vec<u8>) -> Result<(), RuntimeError> {
        let action = "write content";
        let length = data.len() as u64;
        let message = WriteContentRequest {
            action: WriteAction::Write as i32,
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            data,
            ..self.template.clone()
        };
        self.exchange(message, action, CALL_LIMIT).await?;
        self.offset += length;
        Ok(())
    }

    pub(super) async fn commit(
        mut self,
        digest: &str,
        size: u64,
        labels: &ContentLabels,
    ) -> Result<Committed, RuntimeError> {
        let message = WriteContentRequest {
            action: WriteAction::Commit as i32,
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            total: i64::try_from(size).unwrap_or(i64::MAX),
            labels: labels.clone().into_iter().collect::<HashMap<_, _>>(),
            ..self.template.clone()
        };
        match self.exchange(message, "keep content", SLOW_CALL_LIMIT).await {
            Ok(answer) if answer.digest == digest => Ok(Committed::Yes),
            Ok(answer) => Ok(Committed::Mismatch(format!("{} instead of {digest}", answer.digest))),
            Err(CallError { code: Some(Code::AlreadyExists), .. }) => Ok(Committed::Existed),
            Err(CallError { code: Some(Code::FailedPrecondition | Code::OutOfRange), error }) => {
                Ok(Committed::Mismatch(error.to_string()))
            }
            Err(error) => Err(error.error),
        }
    }

    /// Sends a message and waits for its answer; the stream may be at a standstill for either.
    async fn exchange(
        &mut self,
        message: WriteContentRequest,
        action: &'static str,
        limit: Duration,
    ) -> Result<WriteContentResponse, CallError> {
        let both = async {
            // A stream that ended says why when it is asked for the answer.
            let _sent = self.sender.send(message).await;
            self.answers.message().await
        };
        let answer = within(action, limit, both).await?;
        answer.ok_or_else(|| refusal(action, &tonic::Status::unavailable("the stream ended")))
    }

    async fn first_answer(
        &mut self,
        action: &'static str,
    ) -> Result<WriteContentResponse, CallError> {
        let answer = within(action, CALL_LIMIT, self.answers.message()).await?;
        answer.ok_or_else(|| refusal(action, &tonic::Status::unavailable("the stream ended")))
    }
}
