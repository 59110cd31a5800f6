use super::*;
use proptest::prelude::*;
use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::PathBuf,
};

const PLAIN: Rules = Rules { keep_kinds: true, owner: Owner::Own, rename: None };

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// A tree beside a file that nobody in it may reach.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("secret"), "out").unwrap();
        Self { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("in").join(path)
    }

    fn root(&self) -> Root {
        Root::open(&self.at("")).unwrap()
    }

    fn pack(&self, path: &str) -> Vec<u8> {
        let asked = Asked::new(path);
        let mut out = Vec::new();
        pack(&self.root(), &asked, asked.name(), &mut out).unwrap();
        out
    }

    fn unpack(&self, path: &str, rules: &Rules, archive: &[u8]) -> Result<(), UnpackError> {
        unpack(&self.root(), path, rules, archive)
    }

    fn secret(&self) -> String {
        fs::read_to_string(self.dir.path().join("secret")).unwrap()
    }
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let mut text = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            if let Some(link) = entry.link_name_bytes() {
                text.push_str(" -> ");
                text.push_str(std::str::from_utf8(&link).unwrap());
            }
            text
        })
        .collect()
}

fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_mtime(1_000);
        let linked = matches!(kind, tar::EntryType::Link | tar::EntryType::Symlink);
        let data = if linked { "" } else { content };
        if linked {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(data.len().try_into().unwrap());
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

use tar::EntryType::{Directory as Folder, Link, Regular as Plain, Symlink};

#[test]
fn nothing_leads_out() {
    let tree = Tree::new();
    fs::write(tree.at("file"), "in").unwrap();
    symlink("/file", tree.at("absolute")).unwrap();
    symlink("../secret", tree.at("out")).unwrap();
    symlink("../../../file", tree.at("up")).unwrap();
    let root = tree.root();
    for path in ["file", "/file", "absolute", "up", "../file", "./../../absolute"] {
        assert_eq!(root.read(path, 100).unwrap(), b"in", "{path}");
    }
    for path in ["out", "../secret", "/../secret", "/proc/self/root"] {
        assert!(root.read(path, 100).is_err(), "{path}");
    }
    assert_eq!(root.read("file", 1).unwrap(), b"i");
    assert!(root.read("", 100).is_err());
}

#[test]
fn the_ends_of_paths_mean_what_docker_means() {
    for (path, folder, last, name) in [
        ("/a/b", "/a", "b", "b"),
        ("a/b", "/a", "b", "b"),
        ("/a/b/", "/a/b", "", "b"),
        ("/a/b/.", "/a/b", "", "."),
        ("/a/../b", "/", "b", "b"),
        ("/../..", "/", "", "/"),
        ("/", "/", "", "/"),
        ("", "/", "", "/"),
        (".", "/", "", "."),
        ("/a/./b/..", "/", "a", "a"),
    ] {
        let asked = Asked::new(path);
        assert_eq!((asked.folder.as_str(), asked.last.as_str()), (folder, last), "{path}");
        assert_eq!(asked.name(), name, "{path}");
    }
    assert_eq!(Asked::new("/a/b/.").path(), "/a/b");
    assert_eq!(Asked::new("b").path(), "/b");
}

#[test]
fn links_are_looked_at_unless_the_path_asks_for_a_folder() {
    let tree = Tree::new();
    fs::create_dir_all(tree.at("real/inner")).unwrap();
    symlink("real", tree.at("link")).unwrap();
    symlink("../real/inner", tree.at("real/up")).unwrap();
    let stat = |path: &str| {
        let (metadata, target) = Asked::new(path).stat(&tree.root()).unwrap();
        (metadata.is_dir(), target)
    };
    assert_eq!(stat("/link"), (false, "/real".to_owned()));
    assert_eq!(stat("/link/"), (true, String::new()));
    assert_eq!(stat("/link/up"), (false, "/real/inner".to_owned()));
    assert_eq!(stat("/"), (true, String::new()));
    assert!(Asked::new("/nope").stat(&tree.root()).is_err());
}

#[test]
fn archives_hold_the_tree_under_its_name() {
    let tree = Tree::new();
    let long = "n".repeat(120);
    fs::create_dir_all(tree.at("a/b")).unwrap();
    fs::write(tree.at("a/file"), "text").unwrap();
    fs::hard_link(tree.at("a/file"), tree.at("a/same")).unwrap();
    fs::write(tree.at("a/b").join(&long), "x").unwrap();
    symlink(&long, tree.at("a/link")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(tree.at("a/socket")).unwrap());
    let inside = |top: &str| {
        [
            format!("{top}/"),
            format!("{top}/file"),
            format!("{top}/link -> {long}"),
            format!("{top}/same -> {top}/file"),
        ]
    };
    let found = names(&tree.pack("/a"));
    for name in inside("a") {
        assert!(found.contains(&name), "{name} in {found:?}");
    }
    assert!(found.contains(&format!("a/b/{long}")) && found.len() == 6, "{found:?}");
    let found = names(&tree.pack("/a/."));
    assert!(inside(".").iter().all(|name| found.contains(name)), "{found:?}");
    assert_eq!(names(&tree.pack("/"))[..2], ["/", "/a/"]);
    assert_eq!(names(&tree.pack("a/file")), ["file"]);
    let gone = pack(&tree.root(), &Asked::new("/a/nope"), "nope", std::io::sink());
    assert!(matches!(gone, Err(PackError::NotFound(_))));
}

#[test]
fn what_was_packed_is_unpacked_the_same() {
    let tree = Tree::new();
    fs::create_dir_all(tree.at("a/b")).unwrap();
    let content = vec![7; 300_000];
    fs::write(tree.at("a/b/file"), &content).unwrap();
    fs::hard_link(tree.at("a/b/file"), tree.at("a/same")).unwrap();
    fs::set_permissions(tree.at("a/b/file"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("b/file", tree.at("a/link")).unwrap();
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.at("a/fifo"),
        rustix::fs::FileType::Fifo,
        Mode::RWXU,
        0,
    );
    fifo.unwrap();
    let packed = tree.pack("/a");
    fs::create_dir(tree.at("to")).unwrap();
    // Twice: what is there is replaced.
    for _ in 0..2 {
        tree.unpack("/to", &PLAIN, &packed).unwrap();
    }
    let (old, new) = (tree.at("a/b/file"), tree.at("to/a/b/file"));
    assert_eq!(fs::read(&new).unwrap(), content);
    let (old, new) = (fs::metadata(old).unwrap(), fs::metadata(new).unwrap());
    assert_eq!((old.mode(), old.mtime()), (new.mode(), new.mtime()));
    assert_eq!(new.ino(), fs::metadata(tree.at("to/a/same")).unwrap().ino());
    assert_eq!(fs::read_link(tree.at("to/a/link")).unwrap(), PathBuf::from("b/file"));
    assert!(fs::metadata(tree.at("to/a/fifo")).unwrap().file_type().is_fifo());
    let times = ["a", "to/a"].map(|path| fs::metadata(tree.at(path)).unwrap().mtime());
    assert_eq!(times[0], times[1]);
    let rename = |from: &str| Rules { rename: Some((from.to_owned(), "new".to_owned())), ..PLAIN };
    tree.unpack("/to", &rename("a"), &packed).unwrap();
    assert!(tree.at("to/new/b/file").exists());
    assert_eq!(fs::metadata(tree.at("to/new/same")).unwrap().nlink(), 2);
    tree.unpack("/to/new", &rename("."), &tree.pack("/a/.")).unwrap();
    assert!(tree.at("to/new/new/b/file").exists());
}

#[test]
fn wicked_archives_stay_inside() {
    let tree = Tree::new();
    fs::create_dir(tree.at("to")).unwrap();
    for name in ["../secret", "a/../../secret", "/../secret"] {
        let wicked = archive(&[(name, Plain, "broken")]);
        let result = tree.unpack("/to", &PLAIN, &wicked);
        assert!(matches!(result, Err(UnpackError::Escapes(_))), "{name}: {result:?}");
    }
    // A link to the outside, and something written through it.
    let through = archive(&[("l", Symlink, "../.."), ("l/secret", Plain, "broken")]);
    tree.unpack("/to", &PLAIN, &through).unwrap();
    assert_eq!(fs::read_to_string(tree.at("secret")).unwrap(), "broken");
    let over = archive(&[("s", Symlink, "../../secret"), ("s", Plain, "broken")]);
    tree.unpack("/to", &PLAIN, &over).unwrap();
    assert!(fs::symlink_metadata(tree.at("to/s")).unwrap().is_file());
    let hard = archive(&[("h", Link, "../../secret")]);
    assert!(tree.unpack("/to", &PLAIN, &hard).is_err());
    let absolute = archive(&[("/abs/file", Plain, "fine")]);
    tree.unpack("/to", &PLAIN, &absolute).unwrap();
    assert!(tree.at("to/abs/file").exists());
    assert_eq!(tree.secret(), "out");
}

#[test]
fn kinds_are_kept_where_that_is_asked() {
    let tree = Tree::new();
    fs::create_dir_all(tree.at("to/d/deep")).unwrap();
    fs::write(tree.at("to/f"), "").unwrap();
    symlink("../..", tree.at("to/d/deep/link")).unwrap();
    let file_over_folder = archive(&[("d", Plain, "new")]);
    let folder_over_file = archive(&[("f", Folder, "")]);
    for refused in [&file_over_folder, &folder_over_file] {
        let result = tree.unpack("/to", &PLAIN, refused);
        assert!(matches!(result, Err(UnpackError::OtherKind(_))), "{result:?}");
    }
    let rules = Rules { keep_kinds: false, ..PLAIN };
    tree.unpack("/to", &rules, &file_over_folder).unwrap();
    tree.unpack("/to", &rules, &folder_over_file).unwrap();
    assert_eq!(fs::read_to_string(tree.at("to/d")).unwrap(), "new");
    assert!(tree.at("to/f").is_dir());
    let into_file = tree.unpack("/to/d", &PLAIN, &folder_over_file);
    assert!(matches!(into_file, Err(UnpackError::NotAFolder(_))), "{into_file:?}");
    let nowhere = tree.unpack("/none", &PLAIN, &folder_over_file);
    assert!(matches!(nowhere, Err(UnpackError::NotFound(_))), "{nowhere:?}");
    let cut = tree.unpack("/to", &PLAIN, &file_over_folder[..600]);
    assert!(matches!(cut, Err(UnpackError::OtherKind(_) | UnpackError::Archive(_))), "{cut:?}");
}

proptest! {
    #[test]
    fn any_bytes_are_unpacked_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let tree = Tree::new();
        drop(tree.unpack("/", &PLAIN, &bytes));
        prop_assert_eq!(tree.secret(), "out");
    }

    #[test]
    fn any_names_stay_inside(names in proptest::collection::vec("[a./l]{1,12}", 1..8)) {
        let tree = Tree::new();
        let kinds = [Plain, Folder, Symlink];
        let entries: Vec<_> = names
            .iter()
            .zip(kinds.into_iter().cycle())
            .map(|(name, kind)| (name.as_str(), kind, "../../secret"))
            .collect();
        let rules = Rules { keep_kinds: false, ..PLAIN };
        drop(tree.unpack("/", &rules, &archive(&entries)));
        prop_assert_eq!(tree.secret(), "out");
        prop_assert_eq!(fs::read_dir(tree.dir.path()).unwrap().count(), 2);
    }
}
