//! Against a containerd of our own, Debian's registry, and one that misbehaves.

mod world;

use super::{local::record_name, *};
use crate::runtime::image::{ImageError, LoadError, Progress, Removal, Step, document::Descriptor};
use std::io::Cursor;
use world::{
    Behaviour, Built, Containerd, RealRegistry, SmallRegistry, archive, build, index, noise,
};

fn node() -> Platform {
    Platform::normalized("linux", "amd64", "")
}

fn parse(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn quiet(_: Progress) {}

impl Images {
    /// Gives an image another name, as whoever else works with the containerd may.
    async fn tag(&self, name: &str, tag: &str) -> Result<(), ImageError> {
        let reference = Reference::parse(tag)?;
        let found = self.find(name).await?;
        let digest = found.target().to_owned();
        let Some((_, media_type)) = self.root(&digest).await? else {
            return Err(ImageError::NotFound(name.to_owned()));
        };
        let size = self.link.blobs().await?.get(&digest).copied().unwrap_or(0);
        let media_type = media_type.to_string();
        let (platform, annotations) = (None, BTreeMap::new());
        let target = Descriptor { media_type, digest, size, platform, annotations };
        self.name(&record_name(&reference), &target, true).await?;
        Ok(())
    }
}

fn credential(username: &str, secret: &str, is_token: bool) -> RegistryCredential {
    RegistryCredential { username: username.into(), secret: secret.into(), is_token }
}

#[test]
fn every_format_is_pulled_listed_and_removed() {
    let Some(containerd) = Containerd::start() else { return };
    let Some(registry) = RealRegistry::start(false) else { return };
    let host = &registry.address;
    let amd = build("amd64", "", &[b"one", b"two", b"two"], true);
    let v6 = build("arm", "v6", &[b"six"], true);
    let v7 = build("arm", "v7", &[b"seven"], true);
    let docker = build("amd64", "", &[b"docker"], false);
    registry.push("bb", &docker, "docker", None);
    registry.push("bb", &amd, "oci", None);
    let all = index(&[("amd64", "", &amd), ("arm", "v6", &v6), ("arm", "v7", &v7)]);
    registry.push("bb", &all, "all", None);
    registry.push("bb", &v7, "v7", None);
    let images = containerd.images("midge-test", RegistryConfig::default());
    smol::block_on(async {
        for (tag, built) in [("docker", &docker), ("oci", &amd), ("all", &all)] {
            let name = format!("{host}/bb:{tag}");
            let pulled = images.pull(&parse(&name), None, &node(), quiet).await.unwrap();
            assert_eq!((pulled.digest, pulled.changed), (built.root(), true), "{tag}");
            let again = images.pull(&parse(&name), None, &node(), quiet).await.unwrap();
            assert!(!again.changed, "{tag}");
            let prepared = images.ensure(&name, None, &node(), quiet).await.unwrap();
            assert_eq!(prepared.config.env, ["A=b"]);
            assert_eq!(prepared.digest, built.root());
            assert!(images.is_unpacked(&prepared.chain_id).await.unwrap());
        }
        let resolved = images.resolve(&parse(&format!("{host}/bb:all")), None).await.unwrap();
        let platforms: Vec<_> = resolved.platforms.iter().map(ToString::to_string).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm/v6", "linux/arm/v7"]);
        let resolved = images.resolve(&parse(&format!("{host}/bb:v7")), None).await.unwrap();
        assert_eq!(resolved.platforms, [Platform::normalized("linux", "arm", "v7")]);
        assert_eq!(resolved.digest, v7.root());

        // The variant of the node decides; a newer one does not run.
        let old = Platform::normalized("linux", "arm", "v6");
        let other = containerd.images("midge-arm", RegistryConfig::default());
        let name = format!("{host}/bb:all");
        let prepared = other.ensure(&name, None, &old, quiet).await.unwrap();
        assert_eq!(prepared.chain_id, document::digest(&v6.layers[0]));
        let failure = other.ensure(&format!("{host}/bb:v7"), None, &old, quiet).await.unwrap_err();
        let expected = "it is made for linux/arm/v7";
        assert!(failure.message.contains(expected) && failure.message.contains("linux/arm/v6"));
        assert!(!failure.temporary);
        let gone = format!("{host}/bb:none");
        let failure = images.ensure(&gone, None, &node(), quiet).await.unwrap_err();
        assert_eq!(failure.message, format!("No such image: {gone}"));
        assert!(!failure.temporary);

        let held = images.held().await.unwrap();
        let names: Vec<_> = held.iter().map(|held| held.name.clone()).collect();
        assert_eq!(names, ["all", "docker", "oci"].map(|tag| format!("{host}/bb:{tag}")));
        assert_eq!(held[0].platforms, [node()]);
        let list = images.list().await.unwrap();
        assert_eq!(list.len(), 3);
        assert!(list.iter().all(|image| image.created.to_string() == "2024-02-03T04:05:06.7Z"));
        remove_and_collect(&images, host, &amd, &docker).await;
    });
}

async fn remove_and_collect(images: &Images, host: &str, amd: &Built, docker: &Built) {
    // By an id that two names share: refused, until forced.
    images.tag(&format!("{host}/bb:docker"), "again:1").await.unwrap();
    let refused = images.remove(&docker.config, false).await.unwrap_err();
    assert!(refused.to_string().contains("must be forced"), "{refused}");
    let short = &docker.config[7..19];
    assert_eq!(images.inspect(short).await.unwrap().config.cmd, ["/file0"]);
    let removed = images.remove(short, true).await.unwrap();
    assert_eq!(removed.last(), Some(&Removal::Deleted(docker.config.clone())));
    assert_eq!(removed.len(), 3);
    let blobs = images.link.blobs().await.unwrap();
    assert!(!blobs.contains_key(&docker.root()) && !blobs.contains_key(&docker.blobs[0].0));
    let chain = document::digest(&docker.layers[0]);
    assert!(!images.is_unpacked(&chain).await.unwrap());

    // The index holds the same manifest: its content outlives the other name.
    let removed = images.remove(&format!("{host}/bb:oci"), false).await.unwrap();
    assert_eq!(removed[0], Removal::Untagged(format!("{host}/bb:oci")));
    let held = images.held().await.unwrap();
    assert_eq!(held.len(), 1);
    assert!(images.link.blobs().await.unwrap().contains_key(&amd.blobs[0].0));
    let prepared = images.ensure(&amd.config, None, &node(), quiet).await.unwrap();
    assert!(images.is_unpacked(&prepared.chain_id).await.unwrap());
    images.remove(&format!("{host}/bb:all"), false).await.unwrap();
    assert_eq!(images.link.blobs().await.unwrap().len(), 0);
    assert!(matches!(
        images.inspect("x").await,
        Err(crate::runtime::image::ImageError::NotFound(_))
    ));
}

#[test]
fn what_is_here_needs_no_registry() {
    let Some(containerd) = Containerd::start() else { return };
    let built = build("amd64", "", &[b"here"], true);
    let registry = SmallRegistry::start(built.clone(), Behaviour::default());
    let images = containerd.images("midge-a", RegistryConfig::default());
    let name = format!("{}/bb:1", registry.address);
    let pinned = format!("{name}@{}", built.root());
    smol::block_on(async {
        let prepared = images.ensure(&pinned, None, &node(), quiet).await.unwrap();
        assert_eq!(prepared.name, format!("{}/bb@{}", registry.address, built.root()));
        let asked = registry.seen("GET");
        assert!(asked > 0);
        for image in [&pinned, &built.config, &built.config[7..19].to_owned()] {
            images.ensure(image, None, &node(), quiet).await.unwrap();
        }
        assert_eq!(registry.seen("GET"), asked);
        // Another node of this containerd shares the content, not the transfer.
        let other = containerd.images("midge-b", RegistryConfig::default());
        let blobs = registry.seen(&built.blobs[0].0);
        other.ensure(&name, None, &node(), quiet).await.unwrap();
        assert_eq!(registry.seen(&built.blobs[0].0), blobs);

        let changes = images.changes();
        drop(registry);
        // Away: the tag that came with the pinned reference serves.
        images.ensure(&name, None, &node(), quiet).await.unwrap();
        let failure = images.ensure("127.0.0.1:1/none:1", None, &node(), quiet).await.unwrap_err();
        assert!(failure.temporary, "{}", failure.message);
        let unknown = format!("sha256:{}", "5".repeat(64));
        let failure = images.ensure(&unknown, None, &node(), quiet).await.unwrap_err();
        assert_eq!(failure.message, format!("No such image: {unknown}"));
        assert!(!failure.temporary);
        // A subscription begins at some time: change until it is seen.
        let hint = async { changes.recv().await.is_ok() };
        let change = async {
            for number in 0..200 {
                images.tag(&name, &format!("other:{number}")).await.unwrap();
                smol::Timer::after(std::time::Duration::from_millis(50)).await;
            }
            false
        };
        assert!(futures_lite::future::or(hint, change).await);
        drop(changes);

        // The pin goes with the last tag of its repository, and the content with the last name.
        images.remove(&name, true).await.unwrap();
        images.remove(&built.config, true).await.unwrap();
        assert_eq!(images.link.blobs().await.unwrap().len(), 0);
    });
}

#[test]
fn registries_are_given_what_they_ask_for() {
    let Some(containerd) = Containerd::start() else { return };
    let Some(basic) = RealRegistry::start(true) else { return };
    let built = build("amd64", "", &[b"secret"], true);
    let (user, wrong) = (credential("u", "p", false), credential("u", "q", false));
    basic.push("bb", &built, "1", Some(&crate::runtime::registry::auth::basic(&user)));
    let images = containerd.images("midge-test", RegistryConfig::default());
    let name = parse(&format!("{}/bb:1", basic.address));
    let challenge = |service: &str| {
        Some((
            format!(r#"Bearer realm="http://{{base}}/token",service="{service}""#),
            "Bearer good".to_owned(),
        ))
    };
    let behaviour = Behaviour { challenge: challenge("s"), ..Behaviour::default() };
    let bearer = SmallRegistry::start(built.clone(), behaviour);
    let behaviour = Behaviour { challenge: challenge("m"), ..Behaviour::default() };
    let mirror = SmallRegistry::start(
        Built { manifests: vec![Default::default()], ..Default::default() },
        behaviour,
    );
    smol::block_on(async {
        let denied = images.pull(&name, None, &node(), quiet).await.unwrap_err();
        assert!(!denied.is_temporary(), "{denied}");
        let denied = images.pull(&name, Some(&wrong), &node(), quiet).await.unwrap_err();
        assert!(!denied.is_temporary(), "{denied}");
        images.pull(&name, Some(&user), &node(), quiet).await.unwrap();

        let name = parse(&format!("{}/bb:1", bearer.address));
        let mut config = RegistryConfig::default();
        config.mirrors.insert(bearer.address.clone(), vec![mirror.address.clone()]);
        let mirrored = containerd.images("midge-mirror", config);
        mirrored.pull(&name, Some(&user), &node(), quiet).await.unwrap();
        // One token served all requests; the mirror was asked first and saw no password.
        assert_eq!(bearer.seen("/token"), 1);
        assert_eq!(bearer.seen("scope=repository%3Abb%3Apull"), 1);
        assert_eq!(bearer.seen("account=u"), 1);
        assert!(mirror.seen("/manifests/1") > 0);
        assert_eq!(mirror.seen("account=u") + mirror.seen("Basic"), 0);
        let token = credential("", "refresh", true);
        mirrored.resolve(&name, Some(&token)).await.unwrap();
        assert_eq!(bearer.seen("grant_type=refresh_token"), 1);
        assert_eq!(bearer.seen("refresh_token=refresh"), 1);
    });
}

#[test]
fn a_cut_transfer_goes_on_where_it_broke_off() {
    let Some(containerd) = Containerd::start() else { return };
    let noise = noise(1_200_000);
    let built = build("amd64", "", &[&noise], true);
    for no_ranges in [false, true] {
        let behaviour = Behaviour { cuts: Some((2, 500_000)), no_ranges, ..Behaviour::default() };
        let registry = SmallRegistry::start(built.clone(), behaviour);
        let images =
            containerd.images(&format!("midge-cut-{no_ranges}"), RegistryConfig::default());
        let name = parse(&format!("{}/bb:1", registry.address));
        let steps = Mutex::new(Vec::new());
        smol::block_on(async {
            let record = |p: Progress| steps.lock().unwrap().push(p.step);
            images.pull(&name, None, &node(), record).await.unwrap();
            // Leave nothing that the next round would find.
            images.remove(&name.to_string(), true).await.unwrap();
        });
        assert!(steps.lock().unwrap().contains(&Step::Retrying(1)));
        let seen = registry.seen.lock().unwrap();
        let layer: Vec<_> = seen.iter().filter(|line| line.contains(&built.blobs[0].0)).collect();
        assert_eq!(layer.len(), 3);
        assert!(layer[0].contains("  0 ") && layer[1].contains("  500000 "), "{layer:?}");
    }
    dropped_pull_is_resumed(&containerd, &built);
    // Wrong bytes are dropped and fetched anew, not built upon.
    let behaviour = Behaviour { corrupt: 1, ..Behaviour::default() };
    let registry = SmallRegistry::start(built.clone(), behaviour);
    let images = containerd.images("midge-corrupt", RegistryConfig::default());
    let name = parse(&format!("{}/bb:1", registry.address));
    smol::block_on(async {
        images.pull(&name, None, &node(), quiet).await.unwrap();
        assert_eq!(registry.seen(&built.blobs[0].0), 2);
    });
}

/// What a dropped pull fetched survives the collector, and the next one asks only for the rest.
fn dropped_pull_is_resumed(containerd: &Containerd, built: &Built) {
    let behaviour = Behaviour { cuts: Some((1, 500_000)), ..Behaviour::default() };
    let registry = SmallRegistry::start(built.clone(), behaviour);
    let images = containerd.images("midge-dropped", RegistryConfig::default());
    let name = parse(&format!("{}/bb:1", registry.address));
    let small = build("amd64", "", &[b"small"], true);
    let here = node();
    smol::block_on(async {
        let (sender, broke) = async_channel::bounded(1);
        let watch = move |p: Progress| {
            if matches!(p.step, Step::Retrying(_)) {
                sender.try_send(()).unwrap();
            }
        };
        let pull = async { images.pull(&name, None, &here, watch).await.is_ok() };
        let broke = async { broke.recv().await.is_err() };
        assert!(!futures_lite::future::or(pull, broke).await);
        // Removing an image waits for the collector.
        images.load(Cursor::new(docker_archive(&small)), &here, quiet).await.unwrap();
        images.remove(&small.config, true).await.unwrap();
        images.pull(&name, None, &here, quiet).await.unwrap();
        let seen = registry.seen.lock().unwrap().clone();
        let layer: Vec<_> = seen.iter().filter(|line| line.contains(&built.blobs[0].0)).collect();
        assert_eq!(layer.len(), 2);
        assert!(layer[1].contains("  500000 "), "{layer:?}");
        images.remove(&name.to_string(), true).await.unwrap();
        assert_eq!(images.link.blobs().await.unwrap().len(), 0);
    });
}

#[test]
fn archives_of_both_kinds_are_loaded() {
    let Some(containerd) = Containerd::start() else { return };
    let images = containerd.images("midge-load", RegistryConfig::default());
    let built = build("amd64", "", &[b"one", b"two"], true);
    let docker = docker_archive(&built);
    let foreign = build("arm64", "", &[b"foreign"], true);
    let multi = index(&[("amd64", "", &built), ("arm64", "", &foreign)]);
    let oci = oci_archive(&multi, &[("docker.io/library/multi:1", "1"), ("x.y/z:2", "2")]);
    smol::block_on(async {
        let here = node();
        let load = |bytes: Vec<u8>| images.load(Cursor::new(bytes), &here, quiet);
        let loaded = load(docker.clone()).await.unwrap();
        let names: Vec<_> = loaded.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["bb:1", "bb:2"]);
        assert_eq!(load(docker.clone()).await.unwrap(), loaded);
        let prepared = images.ensure(&built.config, None, &node(), quiet).await.unwrap();
        assert!(images.is_unpacked(&prepared.chain_id).await.unwrap());
        assert_eq!(images.list().await.unwrap()[0].names, ["bb:1", "bb:2"]);

        let loaded = load(oci.clone()).await.unwrap();
        assert_eq!(loaded.len(), 2);
        assert!(loaded.iter().all(|image| image.digest == multi.root()));
        let held = images.held().await.unwrap();
        let both = held.iter().find(|held| held.name == "multi:1").unwrap();
        assert_eq!(both.platforms.len(), 2);

        // What no image answers for is refused, and leaves nothing that stays.
        let unnamed = load(oci_archive(&foreign, &[("", "")])).await.unwrap();
        assert_eq!(unnamed[0].name, foreign.root());
        let cut = load(oci[..oci.len() / 2].to_vec()).await.unwrap_err();
        assert!(matches!(cut, LoadError::Invalid(_) | LoadError::Read(_)), "{cut:?}");
        let mut broken = oci.clone();
        let at = broken.windows(4).position(|w| w == [0x1f, 0x8b, 8, 0]).unwrap();
        broken[at + 12] ^= 1;
        let broken = load(broken).await.unwrap_err().to_string();
        assert!(broken.contains("does not match its digest"), "{broken}");
        let none = load(archive(&[("a".into(), b"b".to_vec())])).await.unwrap_err().to_string();
        assert!(none.contains("neither manifest.json nor index.json"), "{none}");
        let lie = build("amd64", "", &[b"other"], true);
        let lie = Built { layers: lie.layers, ..build("amd64", "", &[b"claimed"], true) };
        let lied = load(docker_archive(&lie)).await.unwrap_err();
        assert!(crate::util::error::chain(&lied).contains("unpacked layer"), "{lied:?}");
        for name in ["bb:1", "bb:2", "multi:1", "x.y/z:2", foreign.root().as_str()] {
            images.remove(name, true).await.unwrap();
        }
        assert_eq!(images.link.blobs().await.unwrap().len(), 0);
    });
}

fn docker_archive(built: &Built) -> Vec<u8> {
    let config = format!("{}.json", &built.config[7..]);
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut layers = Vec::new();
    for (at, layer) in built.layers.iter().enumerate() {
        files.push((format!("{at}/layer.tar"), layer.clone()));
        layers.push(format!("{at}/layer.tar"));
    }
    files.push((config.clone(), built.config_bytes.clone()));
    let entry = serde_json::json!([
        {"Config": config, "RepoTags": ["bb:1", "bb:2"], "Layers": layers}
    ]);
    files.push(("manifest.json".into(), entry.to_string().into_bytes()));
    archive(&files)
}

fn oci_archive(built: &Built, names: &[(&str, &str)]) -> Vec<u8> {
    let path = |digest: &str| format!("blobs/sha256/{}", &digest[7..]);
    let mut files: Vec<(String, Vec<u8>)> =
        vec![("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    files.extend(built.blobs.iter().map(|(digest, bytes)| (path(digest), bytes.clone())));
    let documents = built.manifests.iter();
    files.extend(documents.map(|(_, bytes)| (path(&document::digest(bytes)), bytes.clone())));
    let (media_type, bytes) = built.manifests.last().unwrap();
    let manifests: Vec<_> = names
        .iter()
        .map(|(name, tag)| {
            serde_json::json!({
                "mediaType": media_type, "digest": built.root(), "size": bytes.len(),
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": tag,
                },
            })
        })
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    files.push(("index.json".into(), index.to_string().into_bytes()));
    archive(&files)
}

#[test]
fn room_is_asked_for_before_anything_is_fetched() {
    let Some(containerd) = Containerd::start() else { return };
    let layer = noise(3 << 20);
    let registry = SmallRegistry::start(build("amd64", "", &[&layer], true), Behaviour::default());
    let name = format!("{}/bb:1", registry.address);
    let images = containerd.images("midge-room", RegistryConfig::default());
    let asked = Arc::new(Mutex::new((Vec::new(), 0_u64)));
    let told = Arc::clone(&asked);
    images.ask_for_room(Box::new(move |needed| {
        let mut asked = told.lock().unwrap();
        asked.0.push(needed);
        let free = asked.1;
        Box::pin(async move { Some(free) })
    }));
    smol::block_on(async {
        let failure = images.ensure(&name, None, &node(), quiet).await.unwrap_err();
        assert!(failure.temporary, "room may be made");
        let text = &failure.message;
        assert!(text.starts_with(&format!("no room for image {name}: it needs about ")), "{text}");
        assert!(text.ends_with(" MB, 0.0 MB free"), "{text}");
        assert_eq!(images.list().await.unwrap(), [], "and nothing was fetched");
        let needed = asked.lock().unwrap().0[0];
        // Three MiB packed, at most three times that unpacked, and what stays free beside.
        assert!((16 + 3..16 + 4 * 3 + 1).contains(&(needed >> 20)), "{needed}");
        asked.lock().unwrap().1 = needed;
        images.ensure(&name, None, &node(), quiet).await.unwrap();
        assert_eq!(asked.lock().unwrap().0.len(), 2);
        images.ensure(&name, None, &node(), quiet).await.unwrap();
        assert_eq!(asked.lock().unwrap().0.len(), 2, "what is here needs no room");
    });
}

#[test]
fn disk_use_counts_what_is_shared_once_and_forgetting_frees_it() {
    let Some(containerd) = Containerd::start() else { return };
    let Some(registry) = RealRegistry::start(false) else { return };
    let host = &registry.address;
    let (base, own) = (noise(200_000), noise(50_000));
    let small = build("amd64", "", &[&base], true);
    let large = build("amd64", "", &[&base, &own], true);
    registry.push("bb", &small, "small", None);
    registry.push("bb", &large, "large", None);
    let images = containerd.images("midge-disk", RegistryConfig::default());
    smol::block_on(async {
        for tag in ["small", "large"] {
            let name = parse(&format!("{host}/bb:{tag}"));
            images.pull(&name, None, &node(), quiet).await.unwrap();
        }
        images.tag(&format!("{host}/bb:small"), "again:1").await.unwrap();
        let disk = images.disk().await.unwrap();
        let of = |disk: &crate::runtime::image::ImageDisk, built: &Built| {
            disk.images.iter().find(|image| image.target == built.root()).cloned().unwrap()
        };
        let (s, l) = (of(&disk, &small), of(&disk, &large));
        assert_eq!(s.shared, l.shared, "the base");
        assert!(s.shared.unwrap() >= 400_000, "packed and unpacked: {s:?}");
        assert!(l.size - l.shared.unwrap() >= 100_000, "{l:?}");
        assert_eq!(disk.total, s.size + l.size - s.shared.unwrap());
        assert_eq!(s.users, [""; 0]);

        let gone = images.forget(&small.root()).await.unwrap();
        assert_eq!(gone.len(), 3, "both names and the image: {gone:?}");
        assert_eq!(images.forget(&small.root()).await.unwrap(), []);
        let left = images.disk().await.unwrap();
        assert_eq!(left.images.len(), 1);
        assert_eq!(of(&left, &large).shared, Some(0));
        assert!(disk.total - left.total < 10_000, "the base is still used: {}", left.total);
        images.forget(&large.root()).await.unwrap();
        assert_eq!(images.disk().await.unwrap().total, 0);
        let root = images.root_dir().await.unwrap().expect("containerd names its folder");
        assert!(root.starts_with(containerd.dir.path()) && root.is_dir(), "{root:?}");
        assert!(images.open_root().await.is_some(), "what is unpacked is brought to the disk");
    });
}
