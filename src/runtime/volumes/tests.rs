use super::*;
use std::sync::Mutex as StdMutex;

/// Volumes in a folder of a test's own. Whatever is mounted there is taken down with it.
struct World {
    dir: tempfile::TempDir,
    volumes: Volumes,
    news: Arc<StdMutex<Vec<VolumeNews>>>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path());
        let news = Arc::new(StdMutex::new(Vec::new()));
        let told = Arc::clone(&news);
        volumes.tell(move |item| told.lock().unwrap().push(item));
        Self { dir, volumes, news }
    }

    fn container(&self, id: &str) {
        fs::create_dir_all(self.dir.path().join("containers").join(id)).unwrap();
    }

    fn end(&self, id: &str) {
        fs::write(self.dir.path().join("containers").join(id).join("exit"), "0 0 0").unwrap();
        self.volumes.let_go(id);
    }

    fn names(&self) -> Vec<String> {
        self.volumes.list().unwrap().into_iter().map(|volume| volume.name).collect()
    }

    fn is_mounted(&self, name: &str) -> bool {
        mounts::is_mounted(&self.volumes.content(name)).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in names_in(&self.dir.path().join("volumes")).unwrap_or_default() {
            mounts::unmount(&self.volumes.content(&name)).ok();
        }
    }
}

fn wanted(name: &str, options: &[(&str, &str)]) -> VolumeWanted {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let options = VolumeOptions {
        labels: [("a".to_owned(), "1".to_owned())].into(),
        options,
        ..VolumeOptions::default()
    };
    VolumeWanted { name: name.to_owned(), options, owner: None }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can mount");
    }
    root
}

#[test]
fn volumes_are_made_once_and_removed_when_unused() {
    let world = World::new();
    let volumes = &world.volumes;
    assert_eq!(world.names(), [""; 0]);
    let made = volumes.create(&wanted("data", &[])).unwrap();
    assert_eq!((made.labels["a"].as_str(), made.users.len()), ("1", 0));
    assert!(made.created > Date::EPOCH && Path::new(&made.path).is_dir());
    let record = fs::metadata(world.dir.path().join("volumes/data/record.json")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&record.permissions());
    assert_eq!(mode & 0o777, 0o600, "options may hold a password");
    let other = VolumeWanted { name: "data".to_owned(), ..VolumeWanted::default() };
    assert_eq!(volumes.create(&other).unwrap(), made, "what is there stays as it is");

    world.container("c1");
    world.container("c2");
    volumes.attach("c1", &[wanted("data", &[]), wanted("more", &[])]).unwrap();
    volumes.attach("c2", &[wanted("data", &[])]).unwrap();
    assert_eq!(volumes.get("data").unwrap().users, ["c1", "c2"]);
    let refused = volumes.remove("data", true).unwrap_err().to_string();
    assert_eq!(refused, "remove data: volume is in use - [c1, c2]");
    world.end("c1");
    assert_eq!(volumes.get("data").unwrap().users, ["c1", "c2"], "history uses it as well");
    volumes.forget("c1").unwrap();
    volumes.forget("c2").unwrap();
    volumes.remove("data", false).unwrap();
    assert_eq!(world.names(), ["more"]);
    assert_eq!(volumes.remove("data", false).unwrap_err().to_string(), "get data: no such volume");
    volumes.remove("data", true).unwrap();
    let name = |name: &str| name.to_owned();
    let news = world.news.lock().unwrap().clone();
    assert_eq!(news[0], VolumeNews::Created(name("data")));
    assert!(news.contains(&VolumeNews::Mounted { name: name("more"), container: name("c1") }));
    assert_eq!(news.last(), Some(&VolumeNews::Removed(name("data"))));
}

#[test]
fn what_nobody_named_goes_with_its_container() {
    let world = World::new();
    world.container("c1");
    let name = own_name("c1", 0);
    assert_eq!((name.len(), &name), (64, &own_name("c1", 0)));
    assert_ne!(name, own_name("c1", 1));
    let own = VolumeWanted { owner: Some("c1".to_owned()), ..wanted(&name, &[]) };
    world.volumes.attach("c1", &[own, wanted("kept", &[])]).unwrap();
    fs::write(world.volumes.content(&name).join("file"), "x").unwrap();
    world.volumes.forget("c1").unwrap();
    world.volumes.forget("c1").unwrap();
    assert_eq!(world.names(), ["kept"]);
}

#[test]
fn what_cannot_be_is_refused() {
    let world = World::new();
    let refused = |wanted: VolumeWanted| world.volumes.create(&wanted).unwrap_err().to_string();
    assert!(refused(wanted("a", &[])).contains("[a-zA-Z0-9][a-zA-Z0-9_.-]"));
    let mut driver = wanted("data", &[]);
    driver.options.driver = "rexray".to_owned();
    assert_eq!(
        refused(driver),
        "error looking up volume plugin rexray: plugin \"rexray\" not found"
    );
    assert_eq!(refused(wanted("data", &[("speed", "9")])), "invalid option: \"speed\"");
    assert_eq!(world.names(), [""; 0], "nothing is left of what was refused");
    let error = world.volumes.get("../../etc").unwrap_err();
    assert!(matches!(error, VolumeError::NotFound(_)), "{error}");
}

#[test]
fn memory_is_mounted_with_the_first_and_unmounted_with_the_last() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let memory = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=0700,noexec")];
    world.volumes.create(&wanted("mem", &memory)).unwrap();
    assert!(!world.is_mounted("mem"), "nobody uses it yet");
    for id in ["c1", "c2"] {
        world.container(id);
        world.volumes.attach(id, &[wanted("mem", &[])]).unwrap();
    }
    assert!(world.is_mounted("mem"));
    let file = world.volumes.content("mem").join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(fs::write(&file, vec![0; 2 << 20]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    world.end("c1");
    assert!(world.is_mounted("mem"), "one still uses it");
    world.end("c2");
    assert!(!world.is_mounted("mem") && !file.exists());
    // A container that is started after a restart of the machine.
    world.container("c3");
    world.volumes.attach("c3", &[wanted("mem", &[])]).unwrap();
    mounts::unmount(&world.volumes.content("mem")).unwrap();
    world.volumes.mount_for("c3").unwrap();
    assert!(world.is_mounted("mem"));
    assert_eq!(world.volumes.size(&world.volumes.get("mem").unwrap()), None);
    for id in ["c1", "c2", "c3"] {
        world.volumes.forget(id).unwrap();
    }
    world.volumes.remove("mem", false).unwrap();
    assert_eq!(world.names(), [""; 0]);
}

#[test]
fn a_folder_of_the_node_is_bound_and_survives_the_volume() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "x").unwrap();
    let device = folder.path().to_str().unwrap();
    let bound = wanted("bound", &[("type", "none"), ("device", device), ("o", "bind,ro")]);
    world.container("c1");
    world.volumes.attach("c1", &[bound]).unwrap();
    let content = world.volumes.content("bound");
    assert!(content.join("precious").exists());
    let error = fs::write(content.join("new"), "x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    world.volumes.forget("c1").unwrap();
    world.volumes.remove("bound", false).unwrap();
    assert!(folder.path().join("precious").exists() && !content.exists());

    let missing = [("type", "none"), ("device", "/nonexistent/midge"), ("o", "bind")];
    world.container("c2");
    let error = world.volumes.attach("c2", &[wanted("gone", &missing)]).unwrap_err();
    let text = crate::util::error::chain(&error);
    assert!(text.contains("failed to mount local volume: mount /nonexistent/midge:"), "{text}");
    assert!(text.contains("No such file or directory"), "{text}");
}

#[test]
fn sizes_count_each_file_once() {
    let world = World::new();
    let volume = world.volumes.create(&wanted("data", &[])).unwrap();
    let content = world.volumes.content("data");
    fs::create_dir(content.join("deep")).unwrap();
    fs::write(content.join("deep/one"), [0; 1_000]).unwrap();
    fs::hard_link(content.join("deep/one"), content.join("two")).unwrap();
    assert_eq!(world.volumes.size(&volume), Some(1_000));
}
