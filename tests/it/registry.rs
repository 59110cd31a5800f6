//! A registry on one of the hosts, and images in it.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{Host, busybox_archive, eventually};
use std::fs;

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

/// Puts the test image into the registry as `name:tag`, by hand: two blobs and what names them.
pub(crate) fn push(host: &Host, registry: &str, name: &str, tag: &str) {
    let dir = host.dir.join("push");
    fs::create_dir_all(&dir).unwrap();
    busybox_archive(&dir, &["unused:1"]);
    let script = format!(
        r#"
cd {dir}
put() {{ # FILE
  digest=sha256:$(sha256sum "$1" | cut -d' ' -f1)
  url=$(curl -sS -u fleet:secret -X POST -D - -o /dev/null http://{registry}/v2/{name}/blobs/uploads/ |
    tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  curl -sSf -u fleet:secret -X PUT -H 'Content-Type: application/octet-stream' \
    --data-binary @"$1" "$url&digest=$digest"
  echo "$digest"
}}
config=$(put config.json)
layer=$(put layer.tar)
type=application/vnd.oci.image
printf '{{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{{"mediaType":"%s.config.v1+json","digest":"%s","size":%s}},"layers":[{{"mediaType":"%s.layer.v1.tar","digest":"%s","size":%s}}]}}' \
  $type $type "$config" "$(stat -c%s config.json)" $type "$layer" "$(stat -c%s layer.tar)" >manifest
curl -sSf -u fleet:secret -X PUT -H "Content-Type: $type.manifest.v1+json" \
  --data-binary @manifest http://{registry}/v2/{name}/manifests/{tag}
"#,
        dir = dir.display()
    );
    host.sh(&script);
}
