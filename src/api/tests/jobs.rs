//! Jobs and generic resources, as Docker's clients send and read them.

use super::fake::{Server, task};
use crate::{
    api::{convert::service, dto},
    types::{GenericResource, JobStatus, Mode, TaskState},
};
use serde_json::{Value, json};

/// What `docker service create --mode replicated-job --generic-resource gpu=2` sends.
const CREATE: &str = r#"{"Name":"j","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"bb:1","Args":["sh","-c","sleep 1"],"Init":false,"DNSConfig":{}},"Resources":{"Limits":{},"Reservations":{"GenericResources":[{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}]}},"Placement":{},"ForceUpdate":0},"Mode":{"ReplicatedJob":{"MaxConcurrent":2,"TotalCompletions":4}},"EndpointSpec":{"Mode":"vip"}}"#;

fn started(iteration: u64) -> Server {
    let server = Server::start();
    let (status, answer) = server.send("POST /v1.41/services/create", CREATE);
    assert_eq!(status, 201, "{answer}");
    let mut services = server.node.services.lock().unwrap();
    let job = &mut services[0];
    assert_eq!(job.spec.mode, Mode::ReplicatedJob { max_concurrent: 2, total_completions: 4 });
    assert_eq!(job.spec.task.generic["gpu"], 2);
    job.job = Some(JobStatus { iteration, last_execution: job.created });
    let node = server.node.nodes[0].id.clone();
    let made = |slot: u64, state: TaskState| {
        let mut made = task(job, slot, &node);
        made.job_iteration = Some(iteration);
        made.desired = made.goal();
        made.status.state = state;
        let entries = ["gpu=a".to_owned(), "ssd=2".to_owned()];
        made.generic = GenericResource::parse_list(&entries).unwrap();
        made
    };
    let mut failed = made(3, TaskState::Failed);
    failed.desired = crate::types::Desired::Shutdown;
    let mut old = made(4, TaskState::Running);
    old.job_iteration = Some(iteration + 7);
    *server.node.tasks.lock().unwrap() =
        vec![made(1, TaskState::Complete), made(2, TaskState::Running), failed, old];
    drop(services);
    server
}

fn get(server: &Server, path: &str) -> Value {
    let path = path.replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
    let (status, answer) = server.send(&format!("GET {path}"), "");
    assert_eq!(status, 200, "{answer}");
    answer
}

#[test]
fn a_job_shows_its_mode_its_iteration_and_what_is_done() {
    let server = started(0);
    let wanted_mode = server.node.services.lock().unwrap()[0].spec.mode;
    let shown = get(&server, "/v1.41/services/j");
    let wanted: Value = serde_json::from_str(CREATE).unwrap();
    for path in ["/Mode", "/TaskTemplate/Resources"] {
        assert_eq!(shown["Spec"].pointer(path), wanted.pointer(path), "{path}");
    }
    let date = &shown["CreatedAt"];
    assert_eq!(shown["JobStatus"], json!({"JobIteration": {}, "LastExecution": date}));
    let listed = get(&server, "/v1.41/services?status=true");
    assert_eq!(
        listed[0]["ServiceStatus"],
        json!({"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 1, "GivenUpTasks": 1})
    );
    // Docker's client adds what is done to what is wanted where each node has one.
    server.node.services.lock().unwrap()[0].spec.mode = Mode::GlobalJob;
    let listed = get(&server, "/v1.41/services?status=true");
    assert_eq!(
        listed[0]["ServiceStatus"],
        json!({"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 1, "GivenUpTasks": 1})
    );
    server.node.services.lock().unwrap()[0].spec.mode = wanted_mode;
    let filter = |mode: &str| get(&server, &format!("/services?filters={{\"mode\":[\"{mode}\"]}}"));
    assert_eq!(filter("replicated-job").as_array().unwrap().len(), 1);
    assert_eq!(filter("replicated"), json!([]));
}

#[test]
fn tasks_of_a_job_are_counted_from_zero() {
    let server = started(3);
    let current = r#"{"service":["j"],"_up-to-date":["true"]}"#;
    let tasks = get(&server, &format!("/tasks?filters={current}"));
    let tasks = tasks.as_array().unwrap();
    assert_eq!(tasks.len(), 3, "the other iteration's is history");
    assert_eq!(tasks[0]["JobIteration"], json!({"Index": 3}));
    assert_eq!((tasks[0].get("Slot"), &tasks[0]["Name"]), (None, &json!("j.0")));
    assert_eq!((&tasks[1]["Slot"], &tasks[1]["Name"]), (&json!(1), &json!("j.1")));
    assert_eq!(tasks[0]["DesiredState"], "complete");
    let has = json!([
        {"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}},
        {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 2}},
    ]);
    assert_eq!(tasks[0]["GenericResources"], has);
    assert_eq!(tasks[0]["AssignedGenericResources"], has);
    let done = get(&server, r#"/tasks?filters={"desired-state":["complete"]}"#);
    assert_eq!(done.as_array().unwrap().len(), 3);
}

fn spec(change: impl Fn(&mut Value)) -> Result<crate::types::ServiceSpec, String> {
    let mut body: Value = serde_json::from_str(CREATE).unwrap();
    change(&mut body);
    let dto: dto::ServiceSpec = serde_json::from_value(body).unwrap();
    service::to_spec(&dto, None).map_err(|refusal| refusal.message)
}

#[test]
fn what_a_client_leaves_out_is_one() {
    let mode = |mode: Value| spec(|body| body["Mode"] = mode.clone()).map(|spec| spec.mode);
    let job = |max_concurrent, total_completions| {
        Ok(Mode::ReplicatedJob { max_concurrent, total_completions })
    };
    assert_eq!(mode(json!({"ReplicatedJob": {}})), job(1, 1));
    assert_eq!(mode(json!({"ReplicatedJob": {"MaxConcurrent": 3}})), job(3, 3));
    assert_eq!(mode(json!({"ReplicatedJob": {"TotalCompletions": 3}})), job(1, 3));
    assert_eq!(mode(json!({"GlobalJob": {}})), Ok(Mode::GlobalJob));
    let two = mode(json!({"ReplicatedJob": {}, "GlobalJob": {}}));
    assert_eq!(two, Err("must specify only one service mode".to_owned()));
}

#[test]
fn names_of_generic_resources_are_not_asked_for() {
    let generic = |list: Value| {
        let path = "GenericResources";
        let set = |body: &mut Value| {
            body["TaskTemplate"]["Resources"]["Reservations"][path] = list.clone();
        };
        spec(set).map(drop).unwrap_err()
    };
    let named = generic(json!([{"NamedResourceSpec": {"Kind": "gpu", "Value": "a"}}]));
    assert_eq!(
        named,
        "invalid generic-resource request `gpu=a`, Named Generic Resources is not supported for \
         service create or update"
    );
    let one = json!({"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}});
    assert!(generic(json!([one, one])).starts_with("duplicate generic-resource `gpu`"));
    let fewer = json!([{"DiscreteResourceSpec": {"Kind": "gpu", "Value": -1}}]);
    assert_eq!(generic(fewer), "invalid argument for resource gpu");
}
