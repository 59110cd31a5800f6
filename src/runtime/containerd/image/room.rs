//! Whether an image fits before any of it is fetched.

use super::Images;
use crate::{
    runtime::image::{
        PullError, RuntimeError,
        document::{self, Config, Descriptor, Manifest},
    },
    types::image::Reference,
};

/// How much larger a layer is unpacked than packed, in tenths. Layers of gzip grow 2.3 times
/// (Alpine, Debian) to 2.8 times (nginx, Python) with files' own overhead; of zstd, which packs a
/// sixth tighter, to a sixth more. Estimated on the upper side: a disk that is filled to its end
/// hurts everything on it, a pull that is put off only itself.
const GZIP_GROWTH: u64 = 30;
const ZSTD_GROWTH: u64 = 35;
const PLAIN_GROWTH: u64 = 10;

/// What stays free beside an image: containerd's own records, logs, and the first minutes of the
/// containers that are started from it.
const SPARE: u64 = 16 << 20;

impl Images {
    /// Refuses an image that does not fit, after whoever makes room has tried to.
    pub(super) async fn check_room(
        &self,
        reference: &Reference,
        manifest: &Manifest,
        config: &Config,
    ) -> Result<(), PullError> {
        let Some(room) = self.room.get() else { return Ok(()) };
        let needed = self.missing(manifest, config).await?;
        if needed == 0 {
            return Ok(());
        }
        let needed = needed.saturating_add(SPARE);
        match room(needed).await {
            Some(free) if free < needed => {
                Err(PullError::NoRoom { image: reference.to_string(), needed, free })
            }
            _ => Ok(()),
        }
    }

    /// Estimates how many bytes an image adds to what is here.
    async fn missing(&self, manifest: &Manifest, config: &Config) -> Result<u64, RuntimeError> {
        let chains = document::chain_ids(&config.diff_ids);
        let mut needed = 0_u64;
        for (layer, chain) in manifest.layers.iter().zip(chains) {
            if !self.link.holds(&layer.digest).await? {
                needed = needed.saturating_add(layer.size);
            }
            if !self.is_unpacked(&chain).await? {
                needed = needed.saturating_add(unpacked(layer));
            }
        }
        Ok(needed)
    }
}

fn unpacked(layer: &Descriptor) -> u64 {
    let growth = if layer.media_type.ends_with("zstd") {
        ZSTD_GROWTH
    } else if layer.media_type.ends_with("gzip") {
        GZIP_GROWTH
    } else {
        PLAIN_GROWTH
    };
    layer.size.saturating_mul(growth) / 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn layers_grow_as_they_are_packed() {
        let layer = |media_type: &str| Descriptor {
            media_type: media_type.to_owned(),
            digest: String::new(),
            size: 1_000,
            platform: None,
            annotations: BTreeMap::new(),
        };
        for (media_type, expected) in [
            ("application/vnd.oci.image.layer.v1.tar+gzip", 3_000),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", 3_000),
            ("application/vnd.oci.image.layer.v1.tar+zstd", 3_500),
            ("application/vnd.oci.image.layer.v1.tar", 1_000),
        ] {
            assert_eq!(unpacked(&layer(media_type)), expected, "{media_type}");
        }
    }
}
