//! Mounts, both ways.

use crate::{
    api::{
        dto::{self, is_unset},
        error::{invalid, unsupported},
    },
    cluster::Refusal,
    types::{BindOptions, Mount, MountKind, Propagation, TmpfsOptions, VolumeOptions},
};

pub(super) fn to_mount(dto: &dto::Mount) -> Result<Mount, Refusal> {
    let kind = if dto.r#type.is_empty() { "volume" } else { dto.r#type.as_str() };
    if matches!(kind, "npipe" | "cluster" | "image")
        || !is_unset(&dto.image_options)
        || !is_unset(&dto.cluster_options)
    {
        return Err(unsupported(format!(
            "\"--mount type={kind}\" (Mounts.Type) is not supported yet"
        )));
    }
    if !matches!(dto.consistency.as_str(), "" | "default" | "consistent" | "cached" | "delegated") {
        let other = &dto.consistency;
        return Err(invalid(format!("invalid mount consistency: {other:?}")));
    }
    for (given, prefix) in [
        (dto.bind_options.as_ref().is_some_and(|o| *o != Default::default()), "bind"),
        (dto.volume_options.as_ref().is_some_and(|o| *o != Default::default()), "volume"),
        (dto.tmpfs_options.as_ref().is_some_and(|o| *o != Default::default()), "tmpfs"),
    ] {
        if given && prefix != kind {
            return Err(invalid(format!(
                "cannot mix '{prefix}-*' options with mount type '{kind}'"
            )));
        }
    }
    let source = dto.source.clone();
    let kind = match kind {
        "bind" => {
            let options = dto.bind_options.as_ref().map(to_bind).transpose()?.unwrap_or_default();
            MountKind::Bind { source, options }
        }
        "volume" => {
            let options = dto.volume_options.as_ref().map(to_volume).transpose()?;
            MountKind::Volume { name: source, options: options.unwrap_or_default() }
        }
        "tmpfs" if source.is_empty() => {
            let options = dto.tmpfs_options.as_ref().map(to_tmpfs).transpose()?.unwrap_or_default();
            MountKind::Tmpfs { options }
        }
        "tmpfs" => return Err(invalid("invalid tmpfs source, source must be empty")),
        other => return Err(invalid(format!("invalid MountType: {other:?}"))),
    };
    Ok(Mount { kind, target: dto.target.clone(), read_only: dto.read_only })
}

fn to_bind(dto: &dto::BindOptions) -> Result<BindOptions, Refusal> {
    let propagation = match dto.propagation.as_str() {
        "" | "rprivate" => Propagation::RPrivate,
        "private" => Propagation::Private,
        "rshared" => Propagation::RShared,
        "shared" => Propagation::Shared,
        "rslave" => Propagation::RSlave,
        "slave" => Propagation::Slave,
        other => return Err(invalid(format!("invalid MountPropagation: {other:?}"))),
    };
    Ok(BindOptions {
        propagation,
        non_recursive: dto.non_recursive,
        read_only_non_recursive: dto.read_only_non_recursive,
        read_only_force_recursive: dto.read_only_force_recursive,
        create_source: dto.create_mountpoint,
    })
}

fn to_volume(dto: &dto::VolumeOptions) -> Result<VolumeOptions, Refusal> {
    let driver = dto.driver_config.clone().unwrap_or_default();
    if !matches!(driver.name.as_str(), "" | "local") {
        return Err(unsupported(format!(
            "volume driver {:?} (--mount volume-driver) is not supported yet: only local is known",
            driver.name
        )));
    }
    Ok(VolumeOptions {
        no_copy: dto.no_copy,
        subpath: dto.subpath.clone(),
        labels: dto.labels.clone(),
        driver: driver.name,
        options: driver.options,
    })
}

fn to_tmpfs(dto: &dto::TmpfsOptions) -> Result<TmpfsOptions, Refusal> {
    if !is_unset(&dto.options) {
        return Err(unsupported(
            "tmpfs options (Mounts.TmpfsOptions.Options) are not supported yet",
        ));
    }
    let size_bytes = u64::try_from(dto.size_bytes).map_err(|_| {
        invalid(format!("invalid tmpfs size {}: cannot be negative", dto.size_bytes))
    })?;
    Ok(TmpfsOptions { size_bytes, mode: dto.mode.filter(|mode| *mode != 0) })
}

pub(super) fn from_mount(mount: &Mount) -> dto::Mount {
    let mut dto = dto::Mount {
        target: mount.target.clone(),
        read_only: mount.read_only,
        ..Default::default()
    };
    match &mount.kind {
        MountKind::Bind { source, options } => {
            "bind".clone_into(&mut dto.r#type);
            dto.source.clone_from(source);
            dto.bind_options = (*options != BindOptions::default()).then(|| from_bind(*options));
        }
        MountKind::Volume { name, options } => {
            "volume".clone_into(&mut dto.r#type);
            dto.source.clone_from(name);
            dto.volume_options =
                (*options != VolumeOptions::default()).then(|| from_volume(options));
        }
        MountKind::Tmpfs { options } => {
            "tmpfs".clone_into(&mut dto.r#type);
            dto.tmpfs_options = (*options != TmpfsOptions::default()).then(|| dto::TmpfsOptions {
                size_bytes: i64::try_from(options.size_bytes).unwrap_or(i64::MAX),
                mode: options.mode,
                options: serde_json::Value::Null,
            });
        }
    }
    dto
}

fn from_bind(options: BindOptions) -> dto::BindOptions {
    let default = options.propagation == Propagation::default();
    let propagation = if default { "" } else { options.propagation.as_str() };
    dto::BindOptions {
        propagation: propagation.to_owned(),
        non_recursive: options.non_recursive,
        create_mountpoint: options.create_source,
        read_only_non_recursive: options.read_only_non_recursive,
        read_only_force_recursive: options.read_only_force_recursive,
    }
}

fn from_volume(options: &VolumeOptions) -> dto::VolumeOptions {
    let driver = dto::Driver { name: options.driver.clone(), options: options.options.clone() };
    dto::VolumeOptions {
        no_copy: options.no_copy,
        labels: options.labels.clone(),
        driver_config: (driver != dto::Driver::default()).then_some(driver),
        subpath: options.subpath.clone(),
    }
}
