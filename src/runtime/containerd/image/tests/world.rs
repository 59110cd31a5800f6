//! A containerd, registries and images of a test's own.

use crate::runtime::{
    containerd::image::Images,
    image::document,
    registry::{RegistryConfig, Resolve},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a server of a test may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Containerd {
    child: Child,
    pub(super) dir: tempfile::TempDir,
}

impl Containerd {
    /// Starts one, or says why the test is skipped.
    pub(super) fn start() -> Option<Self> {
        let here = Command::new("containerd").arg("--version").stdout(Stdio::null()).status();
        if here.is_err() || !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs containerd, and root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("midge-image-").tempdir().unwrap();
        let path = dir.path().display();
        let config = format!(
            "version = 2\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{path}/c.sock\"\n[ttrpc]\naddress = \"{path}/t.sock\"\n"
        );
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("containerd")
            .arg("-c")
            .arg(dir.path().join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self { child, dir };
        let socket = containerd.socket();
        wait("containerd", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        Some(containerd)
    }

    pub(super) fn socket(&self) -> String {
        self.dir.path().join("c.sock").display().to_string()
    }

    pub(super) fn images(&self, namespace: &str, config: RegistryConfig) -> Images {
        let resolve: Resolve = Arc::new(|_, _| Err(std::io::ErrorKind::NotFound.into()));
        Images::new(&self.socket(), namespace, config, resolve).unwrap()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Debian's docker-registry.
pub(super) struct RealRegistry {
    child: Child,
    _dir: tempfile::TempDir,
    pub(super) address: String,
}

impl RealRegistry {
    pub(super) fn start(auth: bool) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let path = dir.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\n\
             http: {{addr: \"{address}\"}}\n"
        );
        if auth {
            // user "u", password "p", hashed by bcrypt with the least cost.
            let line = "u:$2y$05$abcdefghijklmnopqrstuuqwWMzKt5N8p.u2GX5MuH1t19BMWuLOW\n";
            std::fs::write(dir.path().join("htpasswd"), line).unwrap();
            config.push_str(&format!("auth: {{htpasswd: {{realm: r, path: {path}/htpasswd}}}}\n"));
        }
        std::fs::write(dir.path().join("c.yml"), config).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("c.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            eprintln!("skipped: needs docker-registry");
            return None;
        };
        let registry = Self { child, _dir: dir, address };
        wait("docker-registry", || TcpStream::connect(&registry.address).is_ok());
        Some(registry)
    }

    /// Pushes blobs and documents by the protocol.
    pub(super) fn push(&self, repository: &str, image: &Built, tag: &str, auth: Option<&str>) {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let base = format!("http://{}/v2/{repository}", self.address);
        for (digest, bytes) in &image.blobs {
            let mut post = agent.post(format!("{base}/blobs/uploads/"));
            if let Some(auth) = auth {
                post = post.header("authorization", auth);
            }
            let upload = post.send_empty().unwrap();
            assert_eq!(upload.status(), 202);
            let location = upload.headers()["location"].to_str().unwrap().to_owned();
            let mut put = agent.put(format!("{location}&digest={digest}"));
            if let Some(auth) = auth {
                put = put.header("authorization", auth);
            }
            assert_eq!(put.send(&bytes[..]).unwrap().status(), 201);
        }
        for (name, media_type, bytes) in image.documents(tag) {
            let mut put =
                agent.put(format!("{base}/manifests/{name}")).header("content-type", media_type);
            if let Some(auth) = auth {
                put = put.header("authorization", auth);
            }
            assert_eq!(put.send(&bytes[..]).unwrap().status(), 201, "{name}");
        }
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An image that was made here.
#[derive(Clone, Default)]
pub(super) struct Built {
    /// Digest and bytes of configurations and layers.
    pub(super) blobs: Vec<(String, Vec<u8>)>,
    /// Media type and bytes of manifests, then of the index; the last one is the root.
    pub(super) manifests: Vec<(String, Vec<u8>)>,
    pub(super) config: String,
    /// Paths of the parts for archives: layers without compression.
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) config_bytes: Vec<u8>,
}

impl Built {
    pub(super) fn root(&self) -> String {
        document::digest(&self.manifests.last().unwrap().1)
    }

    pub(super) fn documents(&self, tag: &str) -> Vec<(String, String, Vec<u8>)> {
        let last = self.manifests.len() - 1;
        let named = self.manifests.iter().enumerate().map(|(at, (media_type, bytes))| {
            let name = if at == last { tag.to_owned() } else { document::digest(bytes) };
            (name, media_type.clone(), bytes.clone())
        });
        named.collect()
    }
}

/// Makes an image of one layer a text, in OCI's or Docker's words.
pub(super) fn build(arch: &str, variant: &str, layers: &[&[u8]], oci: bool) -> Built {
    let tars: Vec<Vec<u8>> = layers
        .iter()
        .enumerate()
        .map(|(at, text)| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("file{at}"), *text).unwrap();
            tar.into_inner().unwrap()
        })
        .collect();
    let diff_ids: Vec<String> = tars.iter().map(|tar| document::digest(tar)).collect();
    let config = json!({
        "os": "linux", "architecture": arch, "variant": variant,
        "created": "2024-02-03T04:05:06.7Z",
        "config": {"Env": ["A=b"], "Cmd": ["/file0"], "Labels": {"k": "v"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config_bytes = config.to_string().into_bytes();
    let (manifest_type, config_type, layer_type) = if oci {
        (document::OCI_MANIFEST, document::OCI_CONFIG, format!("{}+gzip", document::OCI_LAYER))
    } else {
        let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned();
        (document::DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json", layer)
    };
    let mut built = Built { config: document::digest(&config_bytes), ..Built::default() };
    let mut entries = Vec::new();
    for tar in &tars {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(tar).unwrap();
        let bytes = gz.finish().unwrap();
        entries.push(entry(&layer_type, &bytes));
        built.blobs.push((document::digest(&bytes), bytes));
    }
    built.blobs.push((built.config.clone(), config_bytes.clone()));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": entry(config_type, &config_bytes), "layers": entries,
    });
    built.manifests.push((manifest_type.to_owned(), manifest.to_string().into_bytes()));
    built.layers = tars;
    built.config_bytes = config_bytes;
    built
}

/// Puts images of several platforms into one index, with an attestation as buildkit adds.
pub(super) fn index(images: &[(&str, &str, &Built)]) -> Built {
    let mut all = Built::default();
    let mut entries = Vec::new();
    for (arch, variant, image) in images {
        all.blobs.extend(image.blobs.clone());
        all.manifests.extend(image.manifests.clone());
        let (media_type, bytes) = image.manifests.last().unwrap();
        let mut entry = entry(media_type, bytes);
        entry["platform"] = json!({"os": "linux", "architecture": arch, "variant": variant});
        entries.push(entry);
    }
    let mut attestation = entries[0].clone();
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    entries.push(attestation);
    let index = json!({
        "schemaVersion": 2, "mediaType": document::OCI_INDEX, "manifests": entries,
    });
    all.manifests.push((document::OCI_INDEX.to_owned(), index.to_string().into_bytes()));
    all
}

fn entry(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": document::digest(bytes), "size": bytes.len()})
}

/// What a small registry of our own saw and how it behaves.
#[derive(Default)]
pub(super) struct Behaviour {
    /// The value of `WWW-Authenticate` until a request carries `token`; `{base}` is filled in.
    pub(super) challenge: Option<(String, String)>,
    /// Cut this many transfers of blobs after so many bytes.
    pub(super) cuts: Option<(usize, usize)>,
    /// Give blobs whose last byte is wrong, this many times.
    pub(super) corrupt: usize,
    /// Answer without ranges.
    pub(super) no_ranges: bool,
}

/// A registry that misbehaves as told; each request's line, range and authorization are kept.
pub(super) struct SmallRegistry {
    pub(super) address: String,
    pub(super) seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SmallRegistry {
    pub(super) fn start(image: Built, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new((image, Mutex::new(behaviour), address.clone(), Arc::clone(&seen)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let (image, behaviour, address, seen) = &*shared;
                    // A client that went away is its own affair.
                    let _served = serve(stream.unwrap(), image, behaviour, address, seen);
                });
            }
        });
        Self { address, seen, stop, thread: Some(thread) }
    }

    pub(super) fn seen(&self, needle: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.contains(needle)).count()
    }
}

impl Drop for SmallRegistry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(&self.address);
        let _joined = self.thread.take().unwrap().join();
    }
}

fn serve(
    mut stream: TcpStream,
    image: &Built,
    behaviour: &Mutex<Behaviour>,
    address: &str,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("").to_owned();
    let (mut authorization, mut offset, mut length) = (String::new(), 0, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.to_owned(),
            "range" => {
                offset = value.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            }
            "content-length" => length = value.parse().unwrap(),
            _ => (),
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    seen.lock().unwrap().push(format!("{} {authorization} {offset} {body}", line.trim()));
    let mut behaviour = behaviour.lock().unwrap();
    if path.starts_with("/token") {
        let token = &behaviour.challenge.as_ref().unwrap().1;
        let body = json!({"token": token.trim_start_matches("Bearer ")}).to_string();
        return answer(&mut stream, "200 OK", "", body.as_bytes());
    }
    if let Some((challenge, token)) = &behaviour.challenge
        && authorization != *token
    {
        let header = format!("WWW-Authenticate: {}\r\n", challenge.replace("{base}", address));
        return answer(&mut stream, "401 Unauthorized", &header, b"{}");
    }
    if let Some(digest) = path.split("/blobs/").nth(1) {
        return serve_blob(&mut stream, image, &mut behaviour, digest, offset);
    }
    let wanted = path.split("/manifests/").nth(1).unwrap_or("");
    for (name, media_type, bytes) in image.documents("1") {
        if name == wanted || document::digest(&bytes) == wanted {
            let header = format!("Content-Type: {media_type}\r\n");
            return answer(&mut stream, "200 OK", &header, &bytes);
        }
    }
    let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    answer(&mut stream, "404 Not Found", "", body)
}

fn serve_blob(
    stream: &mut TcpStream,
    image: &Built,
    behaviour: &mut Behaviour,
    digest: &str,
    offset: usize,
) -> std::io::Result<()> {
    let Some((_, bytes)) = image.blobs.iter().find(|(d, _)| d == digest) else {
        return answer(stream, "404 Not Found", "", b"{}");
    };
    let mut bytes = bytes.clone();
    let big = bytes.len() > 100_000;
    if big && behaviour.corrupt > 0 {
        behaviour.corrupt -= 1;
        *bytes.last_mut().unwrap() ^= 1;
    }
    let from = if behaviour.no_ranges { 0 } else { offset };
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    let range = if from > 0 { range } else { String::new() };
    if let Some((count, after)) = &mut behaviour.cuts
        && big
        && *count > 0
    {
        *count -= 1;
        let head =
            format!("HTTP/1.1 {status}\r\n{range}Content-Length: {}\r\n\r\n", bytes.len() - from);
        stream.write_all(head.as_bytes())?;
        let end = (from + *after).min(bytes.len());
        return stream.write_all(&bytes[from..end]);
    }
    answer(stream, status, &range, &bytes[from..])
}

fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// An archive of files.
pub(super) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, Path::new(path), &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Bytes that no compression makes small, the same each time.
pub(super) fn noise(length: usize) -> Vec<u8> {
    use rand::{Rng as _, SeedableRng as _};
    let mut bytes = vec![0; length];
    rand::rngs::SmallRng::seed_from_u64(7).fill_bytes(&mut bytes);
    bytes
}

pub(super) fn wait(what: &str, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + START_LIMIT;
    while !ready() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
