//! Images.

use super::{
    super::{
        convert::{date, joined_architecture},
        dto,
        error::{invalid, unsupported},
        filter::Filters,
        local::PullOptions,
        route::{Call, Reply, json, streaming},
        stream::{progress_lines, streamed, upload},
    },
    chore::{self, odd},
};
use crate::{
    cluster::Refusal,
    types::{
        Chore, ChoreDone, Platform, RemovedImage, StoredImage, StoredImageDetail,
        image::{Reference, is_digest},
    },
};

/// The filters of images that midge has.
const FILTERS: &[&str] = &["reference", "label", "dangling"];

pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::parse(call.query.get("filters"), FILTERS)?;
    chore::ask(&call, Chore::Images, |done| match done {
        ChoreDone::Images(images) => Ok(listed(images, &filters)),
        _ => Err(odd("a list of images")),
    })
    .await
}

fn listed(mut images: Vec<StoredImage>, filters: &Filters) -> Vec<dto::ImageSummary> {
    images.retain(|image| {
        filters.fits("reference", |wanted| {
            image.tags.iter().any(|tag| {
                tag == wanted || tag.rsplit_once(':').is_some_and(|(name, _)| name == wanted)
            })
        }) && filters.fits("dangling", |wanted| image.tags.is_empty() == (wanted == "true"))
            && filters.labels("label", &image.labels)
    });
    images.iter().map(summary).collect()
}

/// Removes what nothing uses: without a tag, or all where `dangling` says so.
pub(crate) async fn prune(call: Call) -> Reply {
    let filters =
        Filters::parse(call.query.get("filters"), &["dangling", "until", "label", "label!"])?;
    let all =
        filters.values("dangling").iter().any(|value| matches!(value.as_str(), "false" | "0"));
    let prune = chore::prune(&filters, all)?;
    chore::ask(&call, Chore::PruneImages(prune), |done| match done {
        ChoreDone::ImagesRemoved { removed, freed } => {
            Ok(dto::ImagesPruned { images_deleted: gone(removed), space_reclaimed: freed })
        }
        _ => Err(odd("pruned images")),
    })
    .await
}

pub(super) fn summary(image: &StoredImage) -> dto::ImageSummary {
    dto::ImageSummary {
        id: image.id.clone(),
        parent_id: String::new(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        created: image.created.unix_seconds(),
        size: image.size,
        shared_size: image.shared.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1),
        labels: image.labels.clone(),
        containers: image.containers,
        platforms: image.platforms.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) async fn inspect(call: Call) -> Reply {
    let chore = Chore::Image { name: call.name().to_owned() };
    chore::ask(&call, chore, |done| match done {
        ChoreDone::Image(detail) => Ok(inspected(*detail)),
        _ => Err(odd("an image")),
    })
    .await
}

fn inspected(detail: StoredImageDetail) -> dto::ImageInspect {
    let keys = |names: Vec<String>| names.into_iter().map(|name| (name, dto::Empty {})).collect();
    dto::ImageInspect {
        id: detail.image.id,
        repo_tags: detail.image.tags,
        repo_digests: detail.image.digests,
        parent: String::new(),
        created: date(detail.image.created),
        author: detail.author,
        config: dto::ImageConfig {
            user: detail.user,
            exposed_ports: keys(detail.exposed_ports),
            env: detail.env,
            cmd: detail.command,
            volumes: keys(detail.volumes),
            working_dir: detail.dir,
            entrypoint: detail.entrypoint,
            labels: detail.image.labels,
            stop_signal: detail.stop_signal,
        },
        architecture: detail.platform.architecture,
        variant: detail.platform.variant,
        os: detail.platform.os,
        size: detail.image.size,
        root_fs: dto::RootFs { r#type: "layers".to_owned(), layers: detail.layers },
        platforms: detail.image.platforms.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) async fn remove(call: Call) -> Reply {
    let (name, force) = (call.name().to_owned(), call.query.flag("force"));
    chore::ask(&call, Chore::RemoveImage { name, force }, |done| match done {
        ChoreDone::ImagesRemoved { removed, .. } => Ok(gone(removed)),
        _ => Err(odd("removed images")),
    })
    .await
}

fn gone(removed: Vec<RemovedImage>) -> Vec<dto::ImageRemoved> {
    let shown = removed.into_iter().map(|what| match what {
        RemovedImage::Untagged(name) => dto::ImageRemoved { untagged: name, ..Default::default() },
        RemovedImage::Deleted(digest) => {
            dto::ImageRemoved { deleted: digest, ..Default::default() }
        }
    });
    shown.collect()
}

pub(crate) async fn pull(call: Call) -> Reply {
    let query = &call.query;
    if query.get("fromSrc").is_some() {
        return Err(unsupported("\"docker import\" (fromSrc) is not supported yet"));
    }
    let name = query.get("fromImage").ok_or_else(|| invalid("fromImage must be given"))?;
    // Docker's client sends a tag, or a digest, beside the name.
    let image = match query.get("tag") {
        None => name.to_owned(),
        Some(digest) if is_digest(digest) => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
    };
    Reference::parse(&image).map_err(|error| invalid(error.to_string()))?;
    let platform = query.get("platform").map(to_platform).transpose()?;
    let credential = super::credential(&call)?;
    let steps = call.node.image_pull(PullOptions { image, platform, credential }).await?;
    Ok(streaming("application/json", streamed(progress_lines(steps))))
}

fn to_platform(text: &str) -> Result<Platform, Refusal> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [os, architecture] => Ok(Platform::normalized(os, architecture, "")),
        [os, architecture, variant] => Ok(Platform::normalized(os, architecture, variant)),
        _ => Err(invalid(format!(
            "invalid platform {text:?}: OS/ARCHITECTURE[/VARIANT] is expected"
        ))),
    }
}

pub(crate) async fn load(call: Call) -> Reply {
    let nodes = chore::nodes(&call)?.unwrap_or_default();
    let steps = call.node.image_load(nodes, upload(call.body)).await?;
    Ok(streaming("application/json", streamed(progress_lines(steps))))
}

pub(crate) async fn resolve(call: Call) -> Reply {
    let image = call.name().to_owned();
    Reference::parse(&image).map_err(|error| invalid(error.to_string()))?;
    let found = call.node.image_resolve(image, super::credential(&call)?).await?;
    // Docker's client forgets variants and blanks a bare `arm`: they travel in one word.
    let platforms = found.platforms.iter().map(|platform| dto::OciPlatform {
        architecture: joined_architecture(platform),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
    });
    json(&dto::Distribution {
        descriptor: dto::Descriptor {
            media_type: found.media_type,
            digest: found.digest,
            size: found.size,
        },
        platforms: platforms.collect(),
    })
}
