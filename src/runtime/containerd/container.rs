//! Container records: what containerd remembers of a container whether it runs or not.

use super::link::{CALL_LIMIT, CallError, Link, date, found};
use crate::types::Date;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
    ListContainersRequest, container::Runtime as ShimRuntime, containers_client::ContainersClient,
};
use prost::Message as _;
use std::{collections::HashMap, path::PathBuf};

/// The shim that runs every container, in containerd 1.6 to 2.x.
const SHIM: &str = "io.containerd.runc.v2";

/// How containerd names the OCI runtime specification among its types.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// A container as containerd remembers it.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Record {
    pub(in crate::runtime) id: String,
    pub(in crate::runtime) image: String,
    pub(in crate::runtime) labels: HashMap<String, String>,
    pub(in crate::runtime) snapshotter: String,
    pub(in crate::runtime) created: Option<Date>,
    /// The OCI runtime specification, as JSON.
    pub(in crate::runtime) spec: Vec<u8>,
    /// The program that starts it; none is the shim's own choice, runc.
    pub(in crate::runtime) oci_runtime: Option<PathBuf>,
}

/// The name of [`ShimOptions`] among containerd's types.
const OPTIONS_TYPE: &str = "containerd.runc.v1.Options";

/// What the shim is told besides: the one field of `containerd.runc.v1.Options` that is used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ShimOptions {
    /// The program that is called as runc is.
    #[prost(string, tag = "6")]
    binary_name: String,
}

/// Records a container; its snapshot has the same name.
pub(in crate::runtime) async fn create(link: &Link, record: Record) -> Result<(), CallError> {
    let options = record.oci_runtime.map(|path| prost_types::Any {
        type_url: OPTIONS_TYPE.to_owned(),
        value: ShimOptions { binary_name: path.to_string_lossy().into_owned() }.encode_to_vec(),
    });
    let runtime = ShimRuntime { name: SHIM.to_owned(), options };
    let spec = prost_types::Any { type_url: SPEC_TYPE.to_owned(), value: record.spec };
    let container = Container {
        snapshot_key: record.id.clone(),
        id: record.id,
        labels: record.labels,
        image: record.image,
        runtime: Some(runtime),
        spec: Some(spec),
        snapshotter: record.snapshotter,
        ..Container::default()
    };
    let request = link.request(CreateContainerRequest { container: Some(container) });
    let made = link.call("containers.create", CALL_LIMIT, |channel| async move {
        ContainersClient::with_origin(channel, Link::origin()).create(request).await
    });
    match made.await {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_there() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the container `id`, where there is one.
pub(in crate::runtime) async fn get(link: &Link, id: &str) -> Result<Option<Record>, CallError> {
    let request = link.request(GetContainerRequest { id: id.to_owned() });
    let response = link.call("containers.get", CALL_LIMIT, |channel| async move {
        ContainersClient::with_origin(channel, Link::origin()).get(request).await
    });
    Ok(found(response.await)?.and_then(|response| response.container).map(from_wire))
}

/// Returns every container of the namespace. They come one by one: in one message, some hundred
/// specifications are more than a message may hold.
pub(in crate::runtime) async fn list(link: &Link) -> Result<Vec<Record>, CallError> {
    let request = link.request(ListContainersRequest { filters: Vec::new() });
    let records = link.call("containers.list", CALL_LIMIT, |channel| async move {
        let mut client = ContainersClient::with_origin(channel, Link::origin());
        let mut stream = client.list_stream(request).await?.into_inner();
        let mut records = Vec::new();
        while let Some(message) = stream.message().await? {
            records.extend(message.container.map(from_wire));
        }
        Ok(tonic::Response::new(records))
    });
    records.await
}

/// Forgets the container `id`; one that is not there is forgotten.
pub(in crate::runtime) async fn delete(link: &Link, id: &str) -> Result<(), CallError> {
    let request = link.request(DeleteContainerRequest { id: id.to_owned() });
    let deleted = link.call("containers.delete", CALL_LIMIT, |channel| async move {
        ContainersClient::with_origin(channel, Link::origin()).delete(request).await
    });
    found(deleted.await).map(|_| ())
}

fn from_wire(container: Container) -> Record {
    let options = container.runtime.and_then(|runtime| runtime.options);
    let options = options.filter(|options| options.type_url.ends_with(OPTIONS_TYPE));
    let options = options.and_then(|options| ShimOptions::decode(&*options.value).ok());
    Record {
        id: container.id,
        image: container.image,
        labels: container.labels,
        snapshotter: container.snapshotter,
        created: date(container.created_at),
        spec: container.spec.map(|spec| spec.value).unwrap_or_default(),
        oci_runtime: options
            .map(|options| PathBuf::from(options.binary_name))
            .filter(|path| !path.as_os_str().is_empty()),
    }
}
