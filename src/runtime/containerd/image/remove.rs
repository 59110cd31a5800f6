//! Names come and go; content goes with the last of them.

use super::{
    Images,
    link::{SLOW_CALL_LIMIT, absent, call, code_is},
};
use crate::{
    runtime::image::{ImageError, Removal, RuntimeError, document::short},
    types::image::Reference,
};
use containerd_client::services::v1::DeleteImageRequest;
use tonic::Code;

impl Images {
    /// Removes a name, or, where it was the last or an id was given, the image. `force` also
    /// takes the names of an image that has several or is in use; containers go on running,
    /// their snapshots hold what they need.
    ///
    /// # Errors
    ///
    /// There is none, it is in use or has several names and `force` is not set, or containerd
    /// fails.
    pub async fn remove(&self, name: &str, force: bool) -> Result<Vec<Removal>, ImageError> {
        let found = self.find(name).await?;
        let id = found.image.id();
        let records = match &found.named {
            Some(record) => {
                let doomed = with_digest_names(&found.image.records, record);
                if !force && doomed.len() == found.image.records.len() {
                    let action = format!("remove repository reference {name:?}");
                    self.refuse_in_use(&doomed, action, "force").await?;
                }
                doomed
            }
            None => {
                let tags = tags(&found.image.records);
                let action = || format!("delete {}", short(&id));
                if tags.len() > 1 && !force {
                    return Err(ImageError::Conflict {
                        action: action(),
                        remedy: "be forced",
                        reason: "image is referenced in multiple repositories".to_owned(),
                    });
                }
                if !force {
                    self.refuse_in_use(&found.image.records, action(), "be forced").await?;
                }
                found.image.records.clone()
            }
        };
        let mut removals = Vec::new();
        for (number, record) in records.iter().enumerate() {
            // The last one waits for the collector, so that the space is free when we say so.
            self.unname(record, number + 1 == records.len()).await?;
            if let Ok(reference) = Reference::parse(record) {
                removals.push(Removal::Untagged(reference.to_string()));
            }
        }
        if records.len() == found.image.records.len() {
            removals.push(Removal::Deleted(id));
        }
        Ok(removals)
    }

    async fn refuse_in_use(
        &self,
        records: &[String],
        action: String,
        remedy: &'static str,
    ) -> Result<(), ImageError> {
        let users = self.users().await.map_err(ImageError::Runtime)?;
        let user = records.iter().filter_map(|record| users.get(record)).flatten().next();
        match user {
            None => Ok(()),
            Some(user) => {
                let id: String = user.chars().take(12).collect();
                let reason = format!("container {id} is using its referenced image");
                Err(ImageError::Conflict { action, remedy, reason })
            }
        }
    }

    pub(super) async fn unname(&self, record: &str, sync: bool) -> Result<(), RuntimeError> {
        let mut images = self.link.images().await?;
        let message = DeleteImageRequest { name: record.to_owned(), sync, ..Default::default() };
        let delete = images.delete(self.link.request(message));
        let delete = call("remove an image", SLOW_CALL_LIMIT, delete);
        absent(code_is(Code::NotFound), delete).await.map(drop)
    }
}

/// Returns the records that go when `record` does: with the last tag of a repository go the
/// names by digest of that repository, as in Docker.
fn with_digest_names(records: &[String], record: &str) -> Vec<String> {
    let parse = |text: &str| Reference::parse(text).ok();
    let mut doomed = vec![record.to_owned()];
    let Some(named) = parse(record).filter(|named| named.tag.is_some()) else { return doomed };
    let siblings = || {
        records.iter().filter(|other| *other != record).filter_map(|other| {
            let same = parse(other).filter(|other| {
                other.registry == named.registry && other.repository == named.repository
            })?;
            Some((other, same))
        })
    };
    if siblings().all(|(_, other)| other.tag.is_none()) {
        doomed.extend(siblings().map(|(other, _)| other.clone()));
    }
    doomed
}

fn tags(records: &[String]) -> Vec<Reference> {
    let parsed = records.iter().filter_map(|record| Reference::parse(record).ok());
    parsed.filter(|reference| reference.tag.is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_digest_go_with_the_last_tag_of_their_repository() {
        let digest = format!("docker.io/library/bb@sha256:{}", "1".repeat(64));
        let other = format!("docker.io/library/aa@sha256:{}", "1".repeat(64));
        let tag = "docker.io/library/bb:1".to_owned();
        let second = "docker.io/library/bb:2".to_owned();
        let one = [tag.clone(), digest.clone(), other.clone()];
        assert_eq!(with_digest_names(&one, &tag), [tag.clone(), digest.clone()]);
        let two = [tag.clone(), second, digest.clone()];
        assert_eq!(with_digest_names(&two, &tag), std::slice::from_ref(&tag));
        assert_eq!(with_digest_names(&two, &digest), [digest]);
    }
}
