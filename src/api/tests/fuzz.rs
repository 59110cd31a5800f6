//! Requests and the bodies of services.

use super::{
    fake::{node, task},
    recorded::exchanges,
};
use crate::{
    api::{
        convert::{service, show},
        decode, dto,
        local::*,
        serve,
    },
    cluster::{Class, Query, Refusal, Request, Response},
    types::*,
    util::{board::Reading, fuzz},
};
use bytes::Bytes;
use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Nothing takes longer; a request that does never ends.
const WAIT: Duration = Duration::from_secs(10);

/// The socket of a daemon whose node refuses whatever is no read.
static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = tempfile::tempdir().unwrap().keep().join("midge.sock");
    let listener = crate::api::bind(&path).unwrap();
    smol::spawn(serve(listener, Arc::new(Reluctant), std::future::pending())).detach();
    path
});

/// Sends a request: its first line is method and path, its second a registry login, the rest the
/// body. Returns the answer.
fn ask(bytes: &[u8]) -> Option<String> {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let mut line = || {
        let text = std::str::from_utf8(parts.next()?).ok()?;
        // The rest is hyper's own affair.
        text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ').then_some(text)
    };
    let (request, login) = (line()?, line()?);
    let body = parts.next()?;
    let mut stream = UnixStream::connect(&*SOCKET).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: {login}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses early may close before all is sent; its answer counts.
    let _sent = stream.write_all(&[head.as_bytes(), body].concat());
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(error.kind() != io::ErrorKind::WouldBlock, "there is no answer in {WAIT:?}");
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn requests() {
    let seeds: Vec<_> = exchanges()
        .iter()
        .map(|exchange| format!("{}\n\n{}", exchange.request, exchange.body).into_bytes())
        .collect();
    fuzz::check("requests", &seeds, |bytes| {
        let answer = ask(bytes)?;
        assert!(!answer.contains("which is a defect"), "{answer}");
        answer.starts_with("HTTP/1.1 ").then_some(())
    });
}

#[test]
fn service_specs() {
    let bodies: Vec<_> = exchanges()
        .into_iter()
        .filter(|exchange| exchange.request.contains("/services/create"))
        .map(|exchange| exchange.body.into_bytes())
        .collect();
    fuzz::check("service_specs", &bodies, |bytes| {
        let dto: dto::ServiceSpec = decode::from_slice(bytes).ok()?;
        let spec = service::to_spec(&dto, None).ok()?;
        // What a client reads and sends back is what was there.
        for defaults in [false, true] {
            let shown = serde_json::to_vec(&show::from_spec(&spec, defaults)).unwrap();
            let read: dto::ServiceSpec = serde_json::from_slice(&shown).unwrap();
            assert_eq!(service::to_spec(&read, Some(&spec)).as_ref(), Ok(&spec));
        }
        Some(())
    });
}

/// A node with one service and its task, on which nothing can be done: how requests are read is
/// what counts.
struct Reluctant;

fn refused<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(Refusal::new(Class::Conflict, "no")) })
}

fn web() -> Service {
    Service {
        id: ServiceId::from_bits(1),
        version: Version { epoch: 1, index: 2 },
        created: Date::EPOCH,
        updated: Date::EPOCH,
        spec: ServiceSpec { name: "web".to_owned(), ..ServiceSpec::default() },
        spec_version: Version { epoch: 1, index: 2 },
        previous_spec: None,
        update: None,
        job: None,
    }
}

impl LocalNode for Reluctant {
    fn request(&self, request: Request) -> Answer<'_, Response> {
        let manager = node(1, "m1", Role::Manager);
        let response = match request {
            Request::Read(Query::Cluster) => Response::Cluster(Box::new(super::fake::cluster())),
            Request::Read(Query::Nodes | Query::NodesNamed(_)) => Response::Nodes(vec![manager]),
            Request::Read(Query::Services | Query::ServicesNamed(_)) => {
                Response::Services(vec![web()])
            }
            Request::Read(Query::Tasks { .. } | Query::TasksNamed(_)) => {
                Response::Tasks(vec![task(&web(), 1, &manager.id)])
            }
            _ => return refused(),
        };
        Box::pin(async { Ok(response) })
    }

    fn standing(&self) -> Standing {
        Standing { swarm: SwarmState::Active, ..Standing::default() }
    }

    fn info(&self) -> BoxFuture<'_, Info> {
        Box::pin(async { Info { standing: self.standing(), ..Info::default() } })
    }

    fn swarm_init(&self, _: InitOptions) -> Answer<'_, NodeId> {
        refused()
    }

    fn swarm_join(&self, _: JoinOptions) -> Answer<'_, ()> {
        refused()
    }

    fn swarm_leave(&self, _: bool) -> Answer<'_, ()> {
        refused()
    }

    fn swarm_unlock(&self, _: String) -> Answer<'_, ()> {
        refused()
    }

    fn unlock_key(&self, _: &Cluster) -> String {
        String::new()
    }

    fn backup(&self, _: String) -> Answer<'_, Vec<u8>> {
        refused()
    }

    fn restore(&self, _: RestoreOptions, _: Vec<u8>) -> Answer<'_, NodeId> {
        refused()
    }

    fn join_token(&self, _: &Cluster, _: Role) -> String {
        String::new()
    }

    fn next_root(&self, _: &Cluster, _: Option<(String, String)>) -> Result<RootRotation, Refusal> {
        Err(Refusal::new(Class::Unavailable, "nothing is here"))
    }

    fn root_pem(&self, _: &Cluster) -> String {
        String::new()
    }

    fn image_pull(&self, _: PullOptions) -> Answer<'_, BoxStream<Progress>> {
        refused()
    }

    fn image_load(
        &self,
        _: NodeSelector,
        _: BoxStream<io::Result<Bytes>>,
    ) -> Answer<'_, BoxStream<Progress>> {
        refused()
    }

    fn image_resolve(&self, _: String, _: Option<RegistryCredential>) -> Answer<'_, Resolved> {
        refused()
    }

    fn registry_login(&self, _: String, _: RegistryCredential) -> Answer<'_, ()> {
        refused()
    }

    fn containers(&self) -> Answer<'_, Vec<Container>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn containers_with_images(&self) -> Answer<'_, Vec<Container>> {
        self.containers()
    }

    fn chore(&self, _: NodeSelector, _: Chore) -> Answer<'_, Vec<NodeAnswer>> {
        refused()
    }

    fn occurrences(&self) -> Answer<'_, Reading<Occurrence>> {
        refused()
    }

    fn logs(&self, _: LogOptions) -> Answer<'_, BoxStream<LogItem>> {
        refused()
    }

    fn exec_create(&self, _: Place, _: ExecSpec) -> Answer<'_, String> {
        refused()
    }

    fn exec_start(&self, _: String, _: StartOptions) -> Answer<'_, Started> {
        refused()
    }

    fn exec_resize(&self, _: String, _: TerminalSize) -> Answer<'_, ()> {
        refused()
    }

    fn exec_state(&self, _: String) -> Answer<'_, ExecState> {
        refused()
    }

    fn path_stat(&self, _: Place, _: String) -> Answer<'_, PathStat> {
        refused()
    }

    fn pack(&self, _: Place, _: String) -> Answer<'_, (PathStat, Archive)> {
        refused()
    }

    fn unpack(&self, _: Place, _: String, _: UnpackOptions, _: Archive) -> Answer<'_, ()> {
        refused()
    }

    fn usage(&self, _: Place, _: Option<u32>) -> Answer<'_, BoxStream<Usage>> {
        refused()
    }

    fn processes(&self, _: Place, _: String) -> Answer<'_, ProcessTable> {
        refused()
    }

    fn signal(&self, _: Place, _: u32) -> Answer<'_, ()> {
        refused()
    }

    fn stop(&self, _: Place, _: StopOptions) -> Answer<'_, ()> {
        refused()
    }

    fn end(
        &self,
        _: Place,
        _: bool,
    ) -> Answer<'_, BoxFuture<'static, Result<ContainerExit, Refusal>>> {
        refused()
    }
}
