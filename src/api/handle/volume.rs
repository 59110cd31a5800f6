//! Volumes, and what takes a node's disk.

use super::{
    super::{
        convert::date,
        dto,
        error::unsupported,
        filter::Filters,
        route::{Call, Reply, empty},
    },
    chore::{self, odd},
};
use crate::types::{
    Chore, ChoreDone, NewVolume, StorageUse, StoredContainer, StoredVolume, VolumeOptions,
};
use http::StatusCode;

fn volume(volume: &StoredVolume, counted: bool) -> dto::Volume {
    let users = i64::try_from(volume.users.len()).unwrap_or(i64::MAX);
    let size = volume.size.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1);
    dto::Volume {
        created_at: date(volume.created),
        driver: "local".to_owned(),
        labels: (!volume.labels.is_empty()).then(|| volume.labels.clone()),
        mountpoint: volume.path.clone(),
        name: volume.name.clone(),
        options: (!volume.options.is_empty()).then(|| volume.options.clone()),
        scope: "local".to_owned(),
        usage_data: counted.then_some(dto::VolumeUsage { ref_count: users, size }),
    }
}

pub(crate) async fn list(call: Call) -> Reply {
    let filters =
        Filters::parse(call.query.get("filters"), &["name", "driver", "label", "dangling"])?;
    let names = filters.patterns("name")?;
    let fits = |volume: &&StoredVolume| {
        let unused = volume.users.is_empty();
        names.fit(&[&volume.name])
            && filters.fits("driver", |wanted| wanted == "local")
            && filters.fits("dangling", |wanted| unused == matches!(wanted, "true" | "1"))
            && filters.labels("label", &volume.labels)
    };
    chore::ask(&call, Chore::Volumes, |done| match done {
        ChoreDone::Volumes(volumes) => Ok(dto::VolumeList {
            volumes: volumes.iter().filter(fits).map(|v| volume(v, false)).collect(),
            warnings: None,
        }),
        _ => Err(odd("a list of volumes")),
    })
    .await
}

pub(crate) async fn inspect(call: Call) -> Reply {
    let chore = Chore::Volume { name: call.name().to_owned() };
    chore::ask(&call, chore, |done| match done {
        ChoreDone::Volume(found) => Ok(volume(&found, false)),
        _ => Err(odd("a volume")),
    })
    .await
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let wanted: dto::VolumeCreate = call.json().await?;
    if !dto::is_unset(&wanted.cluster_volume_spec) {
        return Err(unsupported("cluster volumes are not supported yet"));
    }
    let options = VolumeOptions {
        labels: wanted.labels,
        driver: wanted.driver,
        options: wanted.driver_opts,
        ..VolumeOptions::default()
    };
    let chore = Chore::CreateVolume(NewVolume { name: wanted.name, options });
    chore::ask_with(&call, chore, StatusCode::CREATED, |done| match done {
        ChoreDone::Volume(made) => Ok(volume(&made, false)),
        _ => Err(odd("a new volume")),
    })
    .await
}

pub(crate) async fn remove(call: Call) -> Reply {
    let (name, force) = (call.name().to_owned(), call.query.flag("force"));
    let several = chore::nodes(&call)?.is_some();
    let answer = chore::ask(&call, Chore::RemoveVolume { name, force }, |done| match done {
        ChoreDone::Done => Ok(serde_json::Value::Null),
        _ => Err(odd("a removal")),
    })
    .await?;
    Ok(if several { answer } else { empty(StatusCode::NO_CONTENT) })
}

/// Removes volumes that nothing uses: those that nobody named, or all where the filter says so.
pub(crate) async fn prune(call: Call) -> Reply {
    let filters = Filters::parse(call.query.get("filters"), &["all", "label", "label!"])?;
    let all = filters.values("all").iter().any(|value| matches!(value.as_str(), "true" | "1"));
    let prune = chore::prune(&filters, all)?;
    chore::ask(&call, Chore::PruneVolumes(prune), |done| match done {
        ChoreDone::VolumesRemoved { removed, freed } => {
            Ok(dto::VolumesPruned { volumes_deleted: removed, space_reclaimed: freed })
        }
        _ => Err(odd("pruned volumes")),
    })
    .await
}

pub(crate) async fn disk_usage(call: Call) -> Reply {
    chore::ask(&call, Chore::Usage, |done| match done {
        ChoreDone::Usage(usage) => Ok(shown(&usage)),
        _ => Err(odd("disk use")),
    })
    .await
}

fn shown(usage: &StorageUse) -> dto::DiskUsage {
    let container = |container: &StoredContainer| {
        let image = usage.images.iter().find(|image| image.id == container.image_id);
        let mount = dto::ContainerMount { r#type: "volume".to_owned() };
        dto::ContainerUsage {
            id: container.id.clone(),
            names: vec![format!("/{}", container.name)],
            image: container.image.clone(),
            image_id: container.image_id.clone(),
            command: container.command.join(" "),
            created: container.created.unix_seconds(),
            size_rw: container.size,
            size_root_fs: container.size + image.map_or(0, |image| image.size),
            labels: container.labels.clone(),
            state: container.state.clone(),
            status: container.state.clone(),
            mounts: vec![mount; usize::try_from(container.volumes).unwrap_or(0)],
        }
    };
    dto::DiskUsage {
        layers_size: usage.images_size,
        images: usage.images.iter().map(super::image::summary).collect(),
        containers: usage.containers.iter().map(container).collect(),
        volumes: usage.volumes.iter().map(|v| volume(v, true)).collect(),
        build_cache: Vec::new(),
    }
}
