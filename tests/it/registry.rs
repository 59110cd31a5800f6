//! A registry on one of the hosts, and images in it.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{Host, busybox_archive, eventually};
use serde_json::json;
use std::{fmt::Write as _, fs, path::Path};

/// The registry's only user is `fleet` with the password `secret`.
const HTPASSWD: &str = "fleet:$2b$04$hBoSOSHGUgtssIoW35byuu5BUawwu7svc3jacb9mzdDWrq.4gSDdm\n";

/// Who may use a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever asks.
    Open,
    /// The user `fleet`, with the password `secret`.
    Login,
}

/// Starts a registry on this host's port 5000, and returns its address.
pub(crate) fn start_registry(host: &mut Host, access: Access) -> String {
    let dir = host.dir.join("registry");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
    let shown = dir.display();
    let config = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {shown}/data\n\
         http:\n  addr: {address}:5000\n{auth}",
        address = host.address,
        auth = match access {
            Access::Open => String::new(),
            Access::Login => {
                format!("auth:\n  htpasswd:\n    realm: fleet\n    path: {shown}/htpasswd\n")
            }
        }
    );
    fs::write(dir.join("config.yml"), config).unwrap();
    let config = dir.join("config.yml").display().to_string();
    host.run_beside("docker-registry", &["serve", &config]);
    let address = format!("{}:5000", host.address);
    eventually("the registry to answer", || {
        let code = host
            .sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' http://{address}/v2/ || true"));
        matches!(code.as_str(), "200" | "401").then_some(())
    });
    address
}

/// Puts the test image into the registry as `name:tag`.
pub(crate) fn push(host: &Host, registry: &str, name: &str, tag: &str) {
    let dir = host.dir.join("push");
    fs::create_dir_all(&dir).unwrap();
    busybox_archive(&dir, &["unused:1"]);
    let script = format!(
        "cd {}\nimage config.json layer.tar >manifest\nstore manifest manifest.v1 {tag}",
        dir.display()
    );
    run(host, registry, name, &script);
}

/// A program as one platform's part of an image.
pub(crate) struct Part<'a> {
    pub(crate) architecture: &'a str,
    pub(crate) variant: &'a str,
    /// The file, linked statically.
    pub(crate) program: &'a Path,
}

/// Puts an image of several platforms into the registry as `name:tag`; its command is `/program`.
pub(crate) fn push_index(host: &Host, registry: &str, name: &str, tag: &str, parts: &[Part<'_>]) {
    let dir = host.dir.join("push-index");
    let mut script = format!("mkdir -p {0}\ncd {0}\n>manifests\n", dir.display());
    for Part { architecture, variant, program } in parts {
        let platform = json!({"os": "linux", "architecture": architecture, "variant": variant});
        let config = json!({
            "os": "linux", "architecture": architecture, "variant": variant,
            "config": {"Cmd": ["/program"]},
            "rootfs": {"type": "layers", "diff_ids": ["LAYER"]},
        });
        let script = &mut script;
        writeln!(script, "install -D {} root/program", program.display()).unwrap();
        writeln!(script, "tar -C root --owner=0 --group=0 --mtime=@0 -cf layer.tar .").unwrap();
        writeln!(script, "echo '{config}' | sed \"s/LAYER/$(digest layer.tar)/\" >config.json")
            .unwrap();
        writeln!(script, "image config.json layer.tar >manifest").unwrap();
        writeln!(script, "store manifest manifest.v1 \"$(digest manifest)\"").unwrap();
        writeln!(
            script,
            r#"described manifest manifest.v1+json | sed 's|}}$|,"platform":{platform}}}|' >>manifests"#
        )
        .unwrap();
    }
    writeln!(
        script,
        r#"printf '{{"schemaVersion":2,"mediaType":"%s","manifests":[%s]}}' \
  $type.index.v1+json "$(paste -sd, manifests)" >index
store index index.v1 {tag}"#
    )
    .unwrap();
    run(host, registry, name, &script);
}

/// Runs a script that fills the repository `name`, by hand: blobs, and what names them.
fn run(host: &Host, registry: &str, name: &str, script: &str) {
    host.sh(&format!(
        r#"
type=application/vnd.oci.image
digest() {{ # FILE
  printf sha256:
  sha256sum "$1" | cut -d' ' -f1 | tr -d '\n'
}}
described() {{ # FILE TYPE
  printf '{{"mediaType":"%s","digest":"%s","size":%s}}\n' $type.$2 "$(digest $1)" "$(stat -c%s $1)"
}}
put() {{ # FILE: stores a blob
  url=$(curl -sS -u fleet:secret -X POST -D - -o /dev/null http://{registry}/v2/{name}/blobs/uploads/ |
    tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  curl -sSf -u fleet:secret -X PUT -H 'Content-Type: application/octet-stream' \
    --data-binary @"$1" "$url&digest=$(digest $1)"
}}
image() {{ # CONFIG LAYER: stores both and prints a manifest of them
  put $1
  put $2
  printf '{{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}}' \
    $type.manifest.v1+json "$(described $1 config.v1+json)" "$(described $2 layer.v1.tar)"
}}
store() {{ # FILE TYPE REFERENCE: stores a manifest
  curl -sSf -u fleet:secret -X PUT -H "Content-Type: $type.$2+json" \
    --data-binary @$1 http://{registry}/v2/{name}/manifests/$3
}}
{script}
"#
    ));
}
