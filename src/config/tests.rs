//! Tests of the settings: who wins, what is refused and how it is said.
#![allow(clippy::unwrap_used)]

use super::example::example;
use super::settings::SETTINGS;
use super::*;

fn inputs(file: Option<&str>, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Inputs {
    let home = [("HOME".to_owned(), "/home/ada".to_owned())];
    Inputs {
        flags: flags.iter().map(|(k, v)| (format!("--set {k}"), (*k).to_owned(), (*v).to_owned())).collect(),
        env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).chain(home).collect(),
        file: file.map(|text| (PathBuf::from("c.toml"), text.to_owned())),
        cores: 4,
        host: "box".to_owned(),
    }
}

fn shown(config: &Config, key: &str) -> String {
    settings::find(key).unwrap().value(config).to_string()
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = Some("[mesh]\nholders = 1\nlease_ms = 6000\nbeat_ms = 500\n");
    let env = [("TASKMESH_MESH_HOLDERS", "3"), ("TASKMESH_MESH_LEASE_MS", "7000")];
    let flags = [("mesh.holders", "5")];
    let config = Config::load(&inputs(file, &env, &flags)).unwrap();
    let table = [
        ("mesh.holders", "5", "--set mesh.holders"),
        ("mesh.lease_ms", "7000", "TASKMESH_MESH_LEASE_MS"),
        ("mesh.beat_ms", "500", "c.toml:4"),
        ("mesh.away_ms", "30000", "default"),
    ];
    for (key, value, source) in table {
        assert_eq!(
            (shown(&config, key), config.source(key).to_string()),
            (value.to_owned(), source.to_owned()),
            "{key}"
        );
    }
    assert_eq!(config.core().holders, 5);
}

#[test]
fn each_kind_of_value_is_read_from_text_as_from_a_file() {
    let table = [
        ("net.seeds", "/ip4/1.2.3.4/tcp/1,/dns/a.example/tcp/2", r#"["/ip4/1.2.3.4/tcp/1", "/dns/a.example/tcp/2"]"#),
        ("net.seeds", r#"["/ip4/1.2.3.4/tcp/1"]"#, r#"["/ip4/1.2.3.4/tcp/1"]"#),
        ("net.seeds", "", "[]"),
        ("net.mdns", "true", "true"),
        ("net.max_connections", "0x10", "16"),
        ("worker.labels", "zone=a,disk=ssd", r#"{ disk = "ssd", zone = "a" }"#),
        ("worker.resources", "cpus=1.5,gpus=2", "{ cpus = 1.5, gpus = 2.0 }"),
        ("worker.resources", "{ cpus = 1.5 }", "{ cpus = 1.5 }"),
        ("exec.allow", "sha256sum, *", r#"["sha256sum", "*"]"#),
        ("log.level", "info,taskmesh::net=debug", r#""info,taskmesh::net=debug""#),
        ("node.name", "\"quoted\"", r#""quoted""#),
        ("api.listen", "[::1]:0", r#""[::1]:0""#),
        ("mesh.scheduling", "priority_deadline", r#""priority_deadline""#),
        ("mesh.fairness_weights", "ann=2,bob=0.5", "{ ann = 2.0, bob = 0.5 }"),
        ("mesh.limits", "type:exec=20 100/60s,key:ann=3", r#"{ "key:ann" = "3", "type:exec" = "20 100/60s" }"#),
        ("metrics.advertise", "box:4781", r#""box:4781""#),
    ];
    for (key, text, value) in table {
        let from_flag = Config::load(&inputs(None, &[], &[(key, text)])).unwrap();
        assert_eq!(shown(&from_flag, key), value, "{key} = {text}");
        let (section, name) = key.split_once('.').unwrap();
        let file = format!("[{section}]\n{name} = {value}\n");
        let from_file = Config::load(&inputs(Some(&file), &[], &[])).unwrap();
        assert_eq!(shown(&from_file, key), value, "{file}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
    let files = [
        ("[mesh]\nholder = 3\n", "c.toml:2: unknown key `mesh.holder`; did you mean `mesh.holders`?"),
        ("[net]\n\nholders = 3\n", "c.toml:3: unknown key `net.holders`; did you mean `mesh.holders`?"),
        ("holders = 3\n", "c.toml:1: unknown key `holders`; did you mean `mesh.holders`?"),
        ("[exe]\nallow = []\n", "c.toml:2: unknown key `exe.allow`; did you mean `exec.allow`?"),
        ("[zoo]\nx = 1\n", "c.toml:2: unknown key `zoo.x`; `taskmesh config show` lists what there is"),
        ("[mesh]\nholders = 2\n", "c.toml:2: mesh.holders is 2; it must be one of 1, 3, 5"),
        ("[worker]\nslots = -1\n", "c.toml:2: worker.slots is -1; it must be a whole number from 0 to 10000"),
        ("[worker]\nslots = \"4\"\n", "c.toml:2: worker.slots is \"4\"; it must be a whole number from 0 to 10000"),
        (
            "[net]\nlisten = \"/ip4/1.2.3.4/tcp/1\"\n",
            "c.toml:2: net.listen is \"/ip4/1.2.3.4/tcp/1\"; it must be a list of at most 16 texts",
        ),
        (
            "[net]\nlisten = [\"1.2.3.4:1\"]\n",
            "c.toml:2: net.listen has \"1.2.3.4:1\"; it must have multiaddresses, such as /ip4/0.0.0.0/tcp/4770",
        ),
        (
            "[net]\nallow = [\"me\"]\n",
            "c.toml:2: net.allow has \"me\", which is not an Ed25519 peer id (it starts with 12D3KooW)",
        ),
        (
            "[api]\nlisten = \"4780\"\n",
            "c.toml:2: api.listen is \"4780\"; it must be an address and a port, such as 127.0.0.1:4780",
        ),
        ("[log]\nformat = \"xml\"\n", "c.toml:2: log.format is \"xml\"; it must be one of \"human\", \"json\""),
        (
            "[worker]\nresources = { cpus = -1 }\n",
            "c.toml:2: worker.resources is { cpus = -1 }; it must be a table of at most 64 names with numbers from 0",
        ),
        (
            "[mesh]\nlease_ms = 1000\n",
            "c.toml:2: mesh.lease_ms is 1000; it must be at least 3 × mesh.beat_ms (1000), or one lost beat costs a lease",
        ),
        (
            "[mesh]\nlimits = { exec = \"20\" }\n",
            "c.toml:2: mesh.limits has \"exec\"; it must be type:…, tag:… or key:…",
        ),
        (
            "[mesh]\nlimits = { \"type:exec\" = \"5/60\" }\n",
            "c.toml:2: mesh.limits has \"5/60\"; it must be like 20 or 100/60s",
        ),
        ("[node]\nname = 2026-01-01\n", "c.toml:2: node.name is a date or a number that is too large"),
    ];
    for (file, message) in files {
        assert_eq!(Config::load(&inputs(Some(file), &[], &[])).unwrap_err().to_string(), message, "{file}");
    }
    let variables = [
        ("TASKMESH_EXEC_ALOW", "x", "TASKMESH_EXEC_ALOW: unknown variable; did you mean `TASKMESH_EXEC_ALLOW`?"),
        ("TASKMESH_NET_MDNS", "yes", "TASKMESH_NET_MDNS: net.mdns is yes; it must be true or false"),
        (
            "TASKMESH_MESH_BEAT_MS",
            "1e3",
            "TASKMESH_MESH_BEAT_MS: mesh.beat_ms is 1000.0; it must be a whole number from 50 to 60000",
        ),
    ];
    for (name, value, message) in variables {
        assert_eq!(Config::load(&inputs(None, &[(name, value)], &[])).unwrap_err().to_string(), message);
    }
    let flag = Config::load(&inputs(None, &[], &[("api.hosts", "http://here")])).unwrap_err().to_string();
    assert!(flag.starts_with("--set api.hosts: api.hosts has \"http://here\", which is no host name"), "{flag}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let error = Config::load(&inputs(Some("[net]\nlisten = [\n"), &[], &[])).unwrap_err().to_string();
    assert!(error.starts_with("c.toml:"), "{error}");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let error = Config::load(&inputs(Some("[mesh]\nholders = 2\nbeat = 1\n"), &[], &[("x.y", "1")])).unwrap_err();
    let ConfigError::Wrong(problems) = error else { panic!("{error}") };
    assert_eq!(problems.len(), 3);
}

#[test]
fn variables_of_tasks_and_of_kubernetes_are_no_mistake() {
    let env = [
        ("TASKMESH_TASK_ID", "t"),
        ("TASKMESH_FENCE", "1.2.3"),
        ("TASKMESH_PORT_4780_TCP", "tcp://10.0.0.1:4780"),
        ("TASKMESH_SERVICE_HOST", "10.0.0.1"),
    ];
    assert!(Config::load(&inputs(None, &env, &[])).is_ok());
}

#[test]
fn a_supervisor_says_by_the_environment_where_it_listens() {
    let supervisor = |env: &[(&str, &str)]| Config::load(&inputs(None, env, &[])).unwrap().supervisor;
    assert_eq!(supervisor(&[("WATCHDOG_USEC", "5")]), None);
    let deaf = Some(Supervisor { socket: "@x".to_owned(), watchdog_us: None });
    assert_eq!(supervisor(&[("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "soon")]), deaf);
    let watching = Some(Supervisor { socket: "/run/s".to_owned(), watchdog_us: Some(30_000_000) });
    assert_eq!(supervisor(&[("NOTIFY_SOCKET", "/run/s"), ("WATCHDOG_USEC", "30000000")]), watching);
}

#[test]
fn the_data_folder_follows_the_home_and_its_lack_is_said() {
    let home = Config::load(&inputs(None, &[], &[])).unwrap();
    assert_eq!(home.node.data_dir, Path::new("/home/ada/.local/share/taskmesh"));
    let tilde = Config::load(&inputs(None, &[], &[("node.data_dir", "~/mesh")])).unwrap();
    assert_eq!(tilde.node.data_dir, Path::new("/home/ada/mesh"));
    let xdg = Config::load(&inputs(None, &[("XDG_DATA_HOME", "/data")], &[])).unwrap();
    assert_eq!(xdg.node.data_dir, Path::new("/data/taskmesh"));
    let homeless = Config::load(&Inputs::default()).unwrap_err().to_string();
    assert!(homeless.contains("give --data-dir"), "{homeless}");
}

#[test]
fn a_node_with_seeds_waits_for_one_of_them() {
    assert!(!Config::load(&inputs(None, &[], &[])).unwrap().core().joins);
    assert!(Config::load(&inputs(None, &[], &[("net.seeds", "/ip4/1.2.3.4/tcp/1")])).unwrap().core().joins);
}

#[test]
fn every_setting_shows_what_was_set_and_has_a_name_of_its_own() {
    let defaults = Config::load(&inputs(None, &[], &[])).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for setting in SETTINGS {
        assert!(names.insert(setting.env()), "{} is there twice", setting.key);
        let text = setting.value(&defaults).to_string();
        // A file that is not set.
        if text == "\"\"" {
            continue;
        }
        let again = Config::load(&inputs(None, &[], &[(setting.key, &text)])).unwrap();
        assert_eq!(setting.value(&again).to_string(), text, "{}", setting.key);
        assert!(!again.is_default(setting.key));
    }
}

#[test]
fn the_example_lists_every_setting_with_its_default() {
    let wanted = example(&Config::defaults(&inputs(None, &[], &[])));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.toml");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(there, wanted, "config/example.toml is not what the table says; repeat with BLESS=1 to rewrite it");

    let uncommented: String = wanted
        .lines()
        .map(|l| l.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(l))
        .fold(String::new(), |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        });
    let config = Config::load(&inputs(Some(&uncommented), &[], &[])).unwrap();
    let defaults = Config::defaults(&inputs(None, &[], &[]));
    for setting in SETTINGS.iter().filter(|s| s.example.is_none()) {
        assert_eq!(setting.value(&config), setting.value(&defaults), "{}", setting.key);
    }
}

#[test]
fn the_files_that_come_with_the_program_are_right() {
    for name in ["config/solo", "config/mesh", "config/example", "deploy/kubernetes/base/config"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        if let Err(e) = Config::load(&inputs(Some(&text), &[], &[])) {
            panic!("{name}.toml: {e}");
        }
    }
}
