//! Tests of what a node has before it starts.
#![allow(clippy::unwrap_used)]

use super::node::*;
use super::output::Form;
use super::reach::{NodeInfo, token_path};
use crate::config::{Config, Inputs};
use crate::net::invite::Invite;
use crate::ops::Code;
use crate::store::identity::{IDENTITY_FILE, MESH_FILE, Origin};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use taskmesh_core::NodeId;

const ADDRESS: &str = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn config(folder: &Path, more: &[(&str, &str)]) -> Config {
    let flag = |key: &str, value: &str| ("--set".to_owned(), key.to_owned(), value.to_owned());
    let flags =
        more.iter().map(|(key, value)| flag(key, value)).chain([flag("node.data_dir", folder.to_str().unwrap())]);
    Config::load(&Inputs { flags: flags.collect(), host: "box".to_owned(), ..Inputs::default() }).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn code(exit: &super::exit::Exit) -> Code {
    exit.code().unwrap()
}

#[test]
fn the_first_start_makes_all_and_the_second_finds_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("a/data");
    let first = prepare(config(&folder, &[]), None, Form::Human).unwrap();
    assert_eq!(first.origin, Origin::Created);
    assert_eq!(mode(&folder), 0o700);
    for file in [folder.join(IDENTITY_FILE), folder.join(MESH_FILE), token_path(&folder), folder.join("lock")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let kept = (first.identity, first.mesh_key, first.token.clone());
    assert_ne!(first.identity, first.mesh_key);
    drop(first);
    let second = prepare(config(&folder, &[]), None, Form::Human).unwrap();
    assert_eq!((second.identity, second.mesh_key, second.token.clone()), kept);
    assert_eq!(second.origin, Origin::Found);
}

#[test]
fn one_node_uses_a_folder_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = prepare(config(folder.path(), &[]), None, Form::Human).unwrap();
    let second = prepare(config(folder.path(), &[]), None, Form::Human).unwrap_err();
    assert_eq!(code(&second), Code::FailedPrecondition);
    assert!(second.to_string().contains(&format!("(process {})", std::process::id())), "{second}");
    drop(first);
    assert!(prepare(config(folder.path(), &[]), None, Form::Human).is_ok());
}

#[test]
fn an_invite_brings_the_key_and_addresses_that_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = tempfile::tempdir().unwrap();
    let inviting = prepare(config(first.path(), &[]), None, Form::Human).unwrap();
    let addresses = vec![ADDRESS.to_owned()];
    let invite = inviting.invite(&addresses).unwrap();

    let joined = prepare(config(folder.path(), &[]), Some(&invite), Form::Human).unwrap();
    assert_eq!((joined.mesh_key, &joined.config.net.seeds), (inviting.mesh_key, &addresses));
    assert!(joined.config.core().joins);
    drop(joined);
    let again = prepare(config(folder.path(), &[]), None, Form::Human).unwrap();
    assert_eq!((again.mesh_key, &again.config.net.seeds), (inviting.mesh_key, &addresses));
    drop(again);
    assert!(prepare(config(folder.path(), &[]), Some(&invite), Form::Human).is_ok());
}

#[test]
fn a_given_key_is_the_key_of_the_mesh_and_no_other_takes_its_place() {
    let home = tempfile::tempdir().unwrap();
    let (folder, file) = (home.path().join("data"), home.path().join("given.key"));
    let given = config(&folder, &[("net.mesh_key_file", file.to_str().unwrap())]);
    let missing = prepare(given.clone(), None, Form::Human).unwrap_err();
    assert_eq!(code(&missing), Code::FailedPrecondition);
    std::fs::write(&file, "07".repeat(32)).unwrap();
    assert_eq!(prepare(given.clone(), None, Form::Human).unwrap().mesh_key, [7; 32]);
    let kept = prepare(config(&folder, &[]), None, Form::Human).unwrap().mesh_key;
    assert_eq!(kept, [7; 32], "commands find it in the data folder");
    let invite = Invite { mesh_key: [9; 32], seeds: vec![ADDRESS.to_owned()] }.encode().unwrap();
    assert!(prepare(given.clone(), Some(&invite), Form::Human).is_err());
    std::fs::write(&file, "08".repeat(32)).unwrap();
    let refused = prepare(given, None, Form::Human).unwrap_err();
    assert!(refused.to_string().contains("another key"), "{refused}");
}

#[test]
fn an_invite_of_another_mesh_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let own = prepare(config(folder.path(), &[]), None, Form::Human).unwrap().mesh_key;
    let invite = Invite { mesh_key: [9; 32], seeds: vec![ADDRESS.to_owned()] }.encode().unwrap();
    let refused = prepare(config(folder.path(), &[]), Some(&invite), Form::Human).unwrap_err();
    assert_eq!(code(&refused), Code::FailedPrecondition);
    assert!(refused.to_string().contains("belongs to another mesh"), "{refused}");
    let after = prepare(config(folder.path(), &[]), None, Form::Human).unwrap();
    assert_eq!((after.mesh_key, after.config.net.seeds.len()), (own, 0));

    let fresh = tempfile::tempdir().unwrap();
    let untouched = fresh.path().join("new");
    let nonsense = prepare(config(&untouched, &[]), Some("nonsense"), Form::Human).unwrap_err();
    assert_eq!(code(&nonsense), Code::InvalidArgument);
    assert!(!untouched.exists());
}

#[test]
fn a_port_that_nobody_chose_gives_way() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let defaults = config(folder.path(), &[]);
    let other = listener(&defaults, "api.listen", address).unwrap().local_addr().unwrap();
    assert_ne!(other.port(), address.port());
    let chosen = config(folder.path(), &[("api.listen", &address.to_string())]);
    let refused = listener(&chosen, "api.listen", address).unwrap_err();
    assert!(refused.to_string().ends_with("change api.listen"), "{refused}");
}

#[test]
fn default_addresses_for_other_nodes_give_way_too() {
    // Whoever has them, they are taken now.
    let _tcp = TcpListener::bind("127.0.0.1:4770");
    let _udp = UdpSocket::bind("127.0.0.1:4770");
    let folder = tempfile::tempdir().unwrap();
    let listen = prepare(config(folder.path(), &[]), None, Form::Human).unwrap().config.net.listen;
    assert!(listen.iter().all(|address| address.contains("/0")), "{listen:?}");
    let fixed = config(folder.path(), &[("net.listen", "/ip4/127.0.0.1/tcp/4770")]);
    assert_eq!(prepare(fixed, None, Form::Human).unwrap().config.net.listen, ["/ip4/127.0.0.1/tcp/4770"]);
}

#[test]
fn the_worker_of_a_node_is_as_its_settings_say() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("worker.slots", "3"), ("worker.labels", "zone=a"), ("worker.resources", "cpus=1.5,licence=2")];
    let prepared = prepare(config(folder.path(), &settings), None, Form::Human).unwrap();
    let worker = prepared.worker(NodeId::test(1), vec!["echo".into(), "exec:ls".into()]).unwrap();
    assert_eq!(Some(worker.worker), Prepared::worker_id(NodeId::test(1)));
    assert_eq!((worker.slots, worker.capabilities.len()), (3, 2));
    let labels: Vec<_> = worker.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(labels, [("node", "box"), ("zone", "a")]);
    let resources = worker.resources.unwrap();
    assert_eq!((resources.cpu_milli, resources.gpu_milli), (1_500, 0));
    assert_eq!(resources.named.get("licence"), Some(&2_000));
    drop(prepared);
    let none = prepare(config(folder.path(), &[("worker.slots", "0")]), None, Form::Human).unwrap();
    assert!(none.worker(NodeId::test(1), vec!["echo".into()]).is_none());
}

#[test]
fn a_node_is_found_by_its_file_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = prepare(config(folder.path(), &[]), None, Form::Json).unwrap();
    let local = SocketAddr::from(([127, 0, 0, 1], 9));
    let running = Running {
        node: NodeId::test(1),
        addresses: vec![ADDRESS.to_owned()],
        api: local,
        fingerprint: None,
        socket: false,
        metrics: SocketAddr::from(([0, 0, 0, 0], 7)),
    };
    let announced = announce(&prepared, &running).unwrap();
    let info = NodeInfo::read(folder.path()).unwrap().unwrap();
    assert_eq!((info.pid, info.api_url.as_str()), (std::process::id(), "http://127.0.0.1:9/mcp"));
    assert_eq!(info.metrics_url, "http://127.0.0.1:7", "for processes of this machine");
    assert_eq!(mode(&NodeInfo::path(folder.path())), 0o600);
    assert_eq!(Invite::decode(&info.invite).unwrap().mesh_key, prepared.mesh_key);
    for secret in [&prepared.token, &info.invite] {
        let told = |reader| banner(&prepared, &info, reader).contains(secret.as_str());
        assert!(told(Reader::Person) && !told(Reader::Log), "a log is read by others");
    }
    drop(announced);
    assert_eq!(NodeInfo::read(folder.path()).unwrap(), None);
}

#[test]
fn a_node_listens_again_where_others_saw_it() {
    for (listen, seen) in
        [("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/PORT"), ("/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/tcp/PORT")]
    {
        let folder = tempfile::tempdir().unwrap();
        let settings = [("net.listen", listen)];
        let first = prepare(config(folder.path(), &settings), None, Form::Human).unwrap();
        assert_eq!(first.config.net.listen, [listen]);
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        remember(&first, &[seen.replace("PORT", &port)]).unwrap();
        drop((first, free));
        let again = prepare(config(folder.path(), &settings), None, Form::Human).unwrap();
        assert_eq!(again.config.net.listen, [listen.replace("/tcp/0", &format!("/tcp/{port}"))]);
    }
}
