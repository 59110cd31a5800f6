use super::*;
use crate::{
    runtime::{ImageConfig, tests::task},
    types::TmpfsOptions,
};
use expect_test::expect;

const ABLE: Abilities = Abilities { kernel: (6, 1), recursive_read_only: true };

fn planned(mounts: &[Mount], abilities: Abilities) -> Result<Vec<Planned>, String> {
    let mut task = task(1, "true");
    task.spec_mut().container.mounts = mounts.to_vec();
    let config = ImageConfig { volumes: vec!["/anon".into(), "/vol/".into()], ..<_>::default() };
    let image = PreparedImage { config, ..PreparedImage::default() };
    let volumes = Volumes::new(Path::new("/data"));
    let places = Places { volumes: &volumes, parts: Path::new("/run/parts/c") };
    plan(&task, &image, &places, abilities).map_err(|failure| failure.message)
}

fn mount(kind: MountKind, read_only: bool) -> Mount {
    Mount { kind, target: "/vol".into(), read_only }
}

fn bind_of(options: BindOptions, read_only: bool) -> Mount {
    mount(MountKind::Bind { source: "/src".into(), options }, read_only)
}

fn volume_of(name: &str, options: VolumeOptions) -> Mount {
    mount(MountKind::Volume { name: name.into(), options }, false)
}

#[test]
fn equal_targets_are_seen_to_be() {
    assert_eq!(clean("/a//b/./c/../").unwrap(), "/a/b");
    for target in ["a", "/", "", "/a/.."] {
        assert!(clean(target).is_err(), "{target}");
    }
    let twice = [
        volume_of("one", VolumeOptions::default()),
        Mount { target: "/x/../vol/".into(), ..volume_of("two", VolumeOptions::default()) },
    ];
    assert_eq!(planned(&twice, ABLE).unwrap_err(), "duplicate mount point: /vol");
}

#[test]
fn every_kind_of_mount_is_planned() {
    let subpath = VolumeOptions { subpath: "a/b/".into(), ..VolumeOptions::default() };
    let all = planned(&[volume_of("named", subpath)], ABLE).unwrap();
    expect![[r#"
        [MountPoint { source: Path { path: "/run/parts/c/0", recursive: true, propagation: RPrivate }, target: "/vol", access: Write }, MountPoint { source: Path { path: "/data/volumes/ce982c4cdc24d05a34bc7957498dbf6801dcfc3b15eee1734f11ca35411590e4/_data", recursive: true, propagation: RPrivate }, target: "/anon", access: Write }]
    "#]]
    .assert_eq(&format!("{:?}\n", all.iter().map(|p| &p.mount).collect::<Vec<_>>()));
    let no_copy = VolumeOptions { no_copy: true, ..VolumeOptions::default() };
    let all = planned(&[volume_of("named", no_copy)], ABLE).unwrap();
    let fills: Vec<bool> =
        all.iter().map(|p| matches!(&p.need, Need::Volume(VolumeUse { fill: true, .. }))).collect();
    assert_eq!(fills, [false, true]);
    let tmpfs = MountKind::Tmpfs { options: TmpfsOptions { size_bytes: 9, mode: Some(0o700) } };
    let all = planned(&[mount(tmpfs, false)], ABLE).unwrap();
    assert_eq!(all[0].mount.source, MountSource::Memory { size: 9, mode: Some(0o700) });
}

#[test]
fn read_only_reaches_below_where_it_can() {
    let access = |options, abilities| {
        planned(&[bind_of(options, true)], abilities).map(|all| all[0].mount.access)
    };
    let plain = BindOptions::default();
    let force = BindOptions { read_only_force_recursive: true, ..plain };
    let flat = BindOptions { non_recursive: true, ..plain };
    let open = BindOptions { read_only_non_recursive: true, ..plain };
    let old = Abilities { kernel: (5, 11), ..ABLE };
    let unable = Abilities { recursive_read_only: false, ..ABLE };
    assert_eq!(access(plain, ABLE), Ok(Access::ReadAll));
    assert_eq!(access(force, ABLE), Ok(Access::ReadAll));
    assert_eq!(access(flat, ABLE), Ok(Access::Read));
    assert_eq!(access(open, ABLE), Ok(Access::Read));
    assert_eq!(access(plain, old), Ok(Access::Read));
    let error = access(force, old).unwrap_err();
    assert!(error.contains("it needs kernel 5.12 or later, and this node has 5.11"), "{error}");
    assert!(access(force, unable).unwrap_err().contains("OCI runtime"));
    let shared = BindOptions { propagation: Propagation::RShared, ..force };
    assert!(access(shared, ABLE).unwrap_err().contains("bind-propagation=rprivate"));
    let writable = planned(&[bind_of(force, false)], ABLE).unwrap_err();
    assert!(writable.contains("needs a read-only mount"), "{writable}");
}

#[test]
fn what_cannot_be_mounted_is_refused() {
    let driver = VolumeOptions { driver: "nfs".into(), ..VolumeOptions::default() };
    let error = planned(&[volume_of("v1", driver)], ABLE).unwrap_err();
    assert_eq!(error, "error looking up volume plugin nfs: plugin \"nfs\" not found");
    for subpath in ["../x", "/x", "a/../../b"] {
        let options = VolumeOptions { subpath: subpath.into(), ..VolumeOptions::default() };
        let error = planned(&[volume_of("v1", options)], ABLE).unwrap_err();
        assert!(error.contains("must be a relative path"), "{error}");
    }
    let subpath = VolumeOptions { subpath: "a".into(), ..VolumeOptions::default() };
    assert!(planned(&[volume_of("", subpath)], ABLE).unwrap_err().contains("anonymous"));
    assert!(planned(&[volume_of("../x", VolumeOptions::default())], ABLE).is_err());
    let options = [("fly".to_owned(), "1".to_owned())].into();
    let options = VolumeOptions { options, ..VolumeOptions::default() };
    let error = planned(&[volume_of("v1", options)], ABLE).unwrap_err();
    assert_eq!(error, "invalid option: \"fly\"");
    let relative = MountKind::Bind { source: "src".into(), options: BindOptions::default() };
    assert!(planned(&[mount(relative, false)], ABLE).unwrap_err().contains("must be absolute"));
}

#[test]
fn propagation_needs_a_shared_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(dir.path()).unwrap();
    let kind = |propagation, create_source| MountKind::Bind {
        source: path.join("x").display().to_string(),
        options: BindOptions { propagation, create_source, ..BindOptions::default() },
    };
    let check = |propagation, create, is_shared, is_slave| {
        let plan = planned(&[mount(kind(propagation, create), false)], ABLE).unwrap();
        let on = Mounted { path: path.clone(), is_shared, is_slave };
        let result = plan[0].check(&[on]).map_err(|failure| failure.message);
        result.map(|()| plan[0].make().unwrap())
    };
    let missing = check(Propagation::RPrivate, false, false, false).unwrap_err();
    assert!(missing.contains("bind source path does not exist: "), "{missing}");
    check(Propagation::RPrivate, true, false, false).unwrap();
    assert!(path.join("x").is_dir());
    check(Propagation::RShared, false, true, false).unwrap();
    check(Propagation::RSlave, false, false, true).unwrap();
    let error = check(Propagation::Shared, false, false, true).unwrap_err();
    assert!(error.ends_with("but it is not a shared mount"), "{error}");
    let error = check(Propagation::Slave, false, false, false).unwrap_err();
    assert!(error.ends_with("but it is not a shared or slave mount"), "{error}");
}
