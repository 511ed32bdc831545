//! The templates that come with the program, each run on a real node.

use crate::fleet::{Fleet, Node, binary, code, eventually};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs the command line with the data folder of `node`: its status, and what it
/// printed on both.
fn command(node: &Node, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.arg("--data-dir").arg(node.data_dir()).args(arguments);
    let done = command.stdin(Stdio::null()).output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

/// The same, where anything but success is a failure of the test.
fn taskmesh(node: &Node, arguments: &[&str]) -> String {
    let (status, out, err) = command(node, arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {err}");
    out
}

/// Nodes that have the templates that come with the program.
async fn start() -> Fleet {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/templates");
    Fleet::with(1, &[("node.templates_dir", &folder.display().to_string())]).await
}

async fn submit(node: &Node, id: &str, template: &str, parameters: Value) {
    let template = json!({"template_id": template, "version": "^1", "parameters": parameters});
    let taken = node.ask("workflow_submit", json!({"workflow_id": id, "name": id, "template": template})).await;
    assert_eq!((&taken["status"], &taken["workflow_id"]), (&json!("submitted"), &json!(id)), "{taken:#}");
}

async fn ended(node: &Node, workflow: &str) -> Value {
    eventually(Duration::from_secs(60), format!("{workflow} ends"), async || {
        let seen = node.call("workflow_status", json!({"workflow_id": workflow})).await.ok()?;
        seen["end_time"].is_string().then_some(seen)
    })
    .await
}

async fn completed(node: &Node, workflow: &str) {
    let seen = ended(node, workflow).await;
    assert_eq!(seen["status"], "completed", "{seen:#}");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn map_reduce_hands_all_parts_on_in_order() {
    let fleet = start().await;
    let (node, folder) = (&fleet.nodes[0], fleet.folder());
    let files: Vec<_> = (0..12).map(|n| folder.join(format!("file ${{{n}}}"))).collect();
    for (n, file) in files.iter().enumerate() {
        // One is larger than what a record holds.
        let rest = if n == 7 { "more\n".repeat(10_000) } else { String::new() };
        std::fs::write(file, format!("{n} $x ${{y}}\n{rest}")).expect("a file");
    }
    let map = "test \"${1##*/}\" && cat \"$1\"";
    let parameters = json!({"files": files, "map": map, "reduce": "cat; echo end", "parallel": 3});
    submit(node, "words", "map-reduce", parameters).await;
    completed(node, "words").await;
    let parts: String = files.iter().map(|file| read(file)).collect();
    assert_eq!(taskmesh(node, &["task", "wait", "words/reduce"]), format!("{parts}end\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_its_table_and_nothing_else() {
    let fleet = start().await;
    let (node, folder) = (&fleet.nodes[0], fleet.folder());
    let (work, table) = (folder.join("work"), folder.join("table"));
    let points = json!([{"x": 5}, {"x": -2}, {"x": 9}]);
    let script = "read -r p; echo looking at \"$p\"; echo \"$p\" | tr -dc '0-9-'";
    let parameters = json!({"points": points, "script": script, "goal": "greatest", "output": table, "work_dir": work});
    submit(node, "sweep", "parameter-sweep", parameters).await;
    completed(node, "sweep").await;
    assert_eq!(read(&table), "9\t{\"x\":9}\n5\t{\"x\":5}\n-2\t{\"x\":-2}\n");
    let left: Vec<_> = std::fs::read_dir(&work).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
    let beside = std::fs::read_dir(folder).expect("the folder").flatten();
    let strays: Vec<_> = beside.map(|e| e.file_name()).filter(|n| n.to_string_lossy().starts_with("table.")).collect();
    assert!(strays.is_empty(), "{strays:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fanned_out_comes_in_again_in_order() {
    let fleet = start().await;
    let node = &fleet.nodes[0];
    let items = json!(["a ${b}", {"c": [1, null]}, 3]);
    submit(node, "fan", "fan-out-fan-in", json!({"items": items, "options": {"o": "$${p}"}})).await;
    completed(node, "fan").await;
    let left = node.ask("workflow_result", json!({"workflow_id": "fan"})).await;
    let options = json!({"o": "$${p}"});
    let worked = |n: usize| json!({"item": items[n], "index": n, "options": options});
    let wanted = json!({"results": [worked(0), worked(1), worked(2)], "options": options});
    assert_eq!(left["outputs"]["gather"], wanted, "{left:#}");
}

/// Scripts that write down when they ran.
fn noted(log: &Path) -> impl Fn(&str) -> String {
    let log = log.display().to_string();
    move |word| format!("echo {word} \"$1\" >>'{log}'")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_for_good_is_undone_in_reverse_order() {
    let fleet = start().await;
    let (node, log) = (&fleet.nodes[0], fleet.folder().join("log"));
    let note = noted(&log);
    let parameters = json!({
        "prepare": note("prepare"), "apply": note("apply"), "verify": format!("{}; exit 1", note("verify")),
        "undo_apply": note("undo_apply"), "undo_prepare": note("undo_prepare"), "argument": "$${x}", "retries": 1, "delay_ms": 1,
    });
    submit(node, "saga", "retry-with-compensation", parameters).await;
    assert_eq!(ended(node, "saga").await["status"], "failed");
    let words = ["prepare", "apply", "verify", "verify", "undo_apply", "undo_prepare"];
    eventually(Duration::from_secs(30), "all is undone", async || {
        (read(&log).lines().count() >= words.len()).then_some(())
    })
    .await;
    assert_eq!(read(&log), words.map(|word| format!("{word} $${{x}}\n")).concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_published_when_a_person_says_so() {
    let fleet = start().await;
    let (node, log) = (&fleet.nodes[0], fleet.folder().join("log"));
    let note = noted(&log);
    for (id, answer) in [("yes", None), ("no", Some("--reject"))] {
        let parameters = json!({
            "what": "prices", "jobs": [note("job"), note("job")], "report": note("report"), "publish": note("publish"),
            "withdraw": note("withdraw"),
        });
        submit(node, id, "nightly-batch", parameters).await;
        let step = format!("{id}/approve");
        eventually(Duration::from_secs(60), "it asks", async || {
            let seen = node.call("task_status", json!({"task_id": step})).await.ok()?;
            (seen["task_type"] == "approve" && seen["status"] == "blocked").then_some(())
        })
        .await;
        let written = |words: &[&str]| words.iter().map(|word| format!("{word} {id}\n")).collect::<String>();
        assert_eq!(read(&log), written(&["job", "job", "report"]), "nothing is public yet");
        let arguments = ["workflow", "approve", &step].into_iter().chain(answer).collect::<Vec<_>>();
        taskmesh(node, &arguments);
        let seen = ended(node, id).await;
        match answer {
            None => {
                assert_eq!(seen["status"], "completed", "{seen:#}");
                assert_eq!(read(&log), written(&["job", "job", "report", "publish"]));
            }
            Some(_) => {
                assert_eq!(seen["status"], "failed", "{seen:#}");
                assert_eq!(read(&log), written(&["job", "job", "report"]));
            }
        }
        std::fs::remove_file(&log).expect("the log");
    }
}

/// A template that is as good as any, and what it includes.
fn greeting(version: &str) -> [(String, Value); 2] {
    let inner = json!({
        "template_id": "inner", "version": "1.0.0", "parameters": {"text": {"type": "string"}},
        "steps": [{"step_id": "say", "action": "echo", "inputs": {"text": "${text}"}}],
    });
    let outer = json!({
        "template_id": "greet", "version": version, "parameters": {"who": {"type": "string"}},
        "includes": [{"template_id": "inner", "prefix": "in_", "parameters": {"text": "hello ${who}"}}],
        "steps": [{"step_id": "sub", "action": "workflow", "depends_on": ["in_say"], "inputs": {
            "template": {"template_id": "inner", "parameters": {"text": "${steps.in_say.result.text}!"}},
        }}],
    });
    [("inner.json".to_owned(), inner), (format!("greet-{version}.json"), outer)]
}

fn put(node: &Node, files: &[(String, Value)]) {
    let folder = node.data_dir().join("templates");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, document) in files {
        std::fs::write(folder.join(name), document.to_string()).expect("a template");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_a_template_that_another_one_has() {
    let fleet = Fleet::start(2).await;
    let (here, there) = (&fleet.nodes[0], &fleet.nodes[1]);
    put(there, &greeting("1.2.0"));
    put(there, &greeting("1.10.0"));
    let template = json!({"template_id": "greet", "version": "^1", "parameters": {"who": "you"}});
    let planned = eventually(Duration::from_secs(30), "the template is known", async || {
        let call = here.call("workflow_submit", json!({"name": "n", "template": template, "dry_run": true}));
        match call.await {
            Ok(planned) => Some(planned),
            Err(e) => {
                assert_eq!(code(&e), "not_found", "{e}");
                None
            }
        }
    })
    .await;
    assert_eq!(planned["levels"], json!([["in_say"], ["sub"]]));
    here.ask("workflow_submit", json!({"workflow_id": "w", "name": "n", "template": template})).await;
    completed(here, "w").await;
    let left = here.ask("workflow_result", json!({"workflow_id": "w"})).await;
    assert_eq!(left["result"]["sub"], json!({"say": {"text": "hello you!"}}), "{left:#}");

    // A step of anybody may name one too; and what is here comes before what is there.
    put(here, &greeting("1.0.0")[1..]);
    let steps = json!([{"step_id": "s", "action": "workflow", "inputs": {"template": template}}]);
    here.ask("workflow_submit", json!({"workflow_id": "v", "name": "n", "steps": steps})).await;
    completed(here, "v").await;
    let newer = json!({"template_id": "greet", "version": ">=1.10", "parameters": {"who": "you"}});
    let made = |id: &str, template: &Value| json!({"workflow_id": id, "name": "n", "template": template});
    here.ask("workflow_submit", made("x", &newer)).await;
    let none = here.call("workflow_submit", made("y", &json!({"template_id": "greet", "version": "^2"}))).await;
    assert_eq!(none.map_err(|e| code(&e)), Err("not_found"));
}

/// Submissions of templates that are refused: what is said of the template, the
/// code, and how the message begins.
fn refused() -> Vec<(Value, &'static str, &'static str)> {
    let of = |parameters: Value| json!({"template_id": "t", "parameters": parameters});
    let good = json!({"n": 1, "mode": "a", "word": "abc"});
    let with = |name: &str, value: Value| {
        let mut given = good.clone();
        given[name] = value;
        of(given)
    };
    vec![
        (json!({}), "invalid_argument", "/template: has no `template_id`"),
        (json!({"template_id": 7}), "invalid_argument", "/template/template_id: must be a string"),
        (json!({"template_id": "a b"}), "invalid_argument", "/template/template_id: \"a b\" is no name here"),
        (json!({"template_id": "t", "more": 1}), "invalid_argument", "/template/more: is no field here"),
        (json!({"template_id": "nobody"}), "not_found", "/template/template_id: there is no template `nobody`"),
        (
            json!({"template_id": "t", "version": "^2"}),
            "not_found",
            "/template/template_id: there is no template `t` in the range ^2; versions of it: 1.9.0, 1.10.0",
        ),
        (json!({"template_id": "t", "version": "new"}), "invalid_argument", "/template/version: \"new\" is no range"),
        (json!({"template_id": "t", "version": 1}), "invalid_argument", "/template/version: must be a range"),
        (json!({"template_id": "t", "parameters": []}), "invalid_argument", "/template/parameters: must be an object"),
        (of(json!({})), "invalid_argument", "/template/parameters: needs the parameter `n`, a whole number"),
        (with("x", json!(1)), "invalid_argument", "/template/parameters/x: is no parameter of t@1.10.0; there are n"),
        (with("n", json!("1")), "invalid_argument", "/template/parameters/n: must be a whole number"),
        (with("n", json!(1.5)), "invalid_argument", "/template/parameters/n: must be a whole number"),
        (
            with("mode", json!("c")),
            "invalid_argument",
            "/template/parameters/mode: is the string \"c\"; it must be one of",
        ),
        (with("word", json!("ab1")), "invalid_argument", "/template/parameters/word: \"ab1\" does not match"),
        (with("list", json!("[]")), "invalid_argument", "/template/parameters/list: must be an array"),
        (with("flag", json!(0)), "invalid_argument", "/template/parameters/flag: must be true or false"),
        (with("map", json!([])), "invalid_argument", "/template/parameters/map: must be an object"),
        (with("rate", json!("fast")), "invalid_argument", "/template/parameters/rate: must be a number"),
        (with("list", json!(vec!["x".repeat(100_000); 30])), "payload_too_large", "bytes when it is rendered"),
        (
            json!({"template_id": "me"}),
            "invalid_argument",
            "me@1.0.0 at /includes/0: includes itself: me@1.0.0 -> me@1.0.0",
        ),
        (
            json!({"template_id": "you"}),
            "invalid_argument",
            "them@1.0.0 at /includes/0: includes itself: you@1.0.0 -> them",
        ),
        (json!({"template_id": "lost"}), "not_found", "lost@1.0.0 at /includes/0: there is no template `gone`"),
        (
            json!({"template_id": "clash"}),
            "invalid_argument",
            "clash@1.0.0 at /steps/0/step_id: the step `p_s` is there already",
        ),
        // Files that are wrong give no template.
        (json!({"template_id": "undefined"}), "not_found", "/template/template_id: there is no template `undefined`"),
        (json!({"template_id": "unused"}), "not_found", "/template/template_id: there is no template `unused`"),
        // What a template makes is checked as if it had been written.
        (json!({"template_id": "unordered"}), "invalid_argument", "steps[0].depends_on: x is no step of this workflow"),
        (json!({"template_id": "unknown"}), "invalid_argument", "steps[0].action: teleport is unknown"),
    ]
}

/// The templates that these are about.
fn of_the_refused() -> Vec<(String, Value)> {
    let step = |extra: Value| {
        let mut step = json!({"step_id": "s", "action": "echo"});
        step.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        json!([step])
    };
    let typed = json!({
        "n": {"type": "integer"}, "mode": {"type": "string", "enum": ["a", "b"]}, "word": {"type": "string", "regex": "[a-z]+"},
        "list": {"type": "array", "default": []}, "flag": {"type": "boolean", "default": true},
        "map": {"type": "object", "default": {}}, "rate": {"type": "number", "default": 0.5},
    });
    let inputs = typed.as_object().expect("an object").keys().map(|name| (name.clone(), json!(format!("${{{name}}}"))));
    let inputs = step(json!({"inputs": inputs.collect::<serde_json::Map<_, _>>()}));
    let plain = |id: &str, more: Value| {
        let mut document = json!({"template_id": id, "version": "1.0.0", "steps": step(json!({}))});
        document.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        document
    };
    let include = |id: &str| json!({"includes": [{"template_id": id, "prefix": "p_"}]});
    let all = vec![
        json!({"template_id": "t", "version": "1.9.0", "parameters": typed, "steps": inputs}),
        json!({"template_id": "t", "version": "1.10.0", "parameters": typed, "steps": inputs}),
        plain("me", include("me")),
        plain("you", include("them")),
        plain("them", include("you")),
        plain("lost", include("gone")),
        plain("base", json!({})),
        plain(
            "clash",
            json!({"includes": [{"template_id": "base", "prefix": "p_"}], "steps": [{"step_id": "p_s", "action": "echo"}]}),
        ),
        plain("undefined", json!({"steps": step(json!({"inputs": {"x": "${x}"}}))})),
        plain("unused", json!({"parameters": {"x": {"type": "string"}}})),
        plain("unordered", json!({"steps": step(json!({"depends_on": ["x"]}))})),
        plain("unknown", json!({"steps": step(json!({"action": "teleport"}))})),
    ];
    all.into_iter().enumerate().map(|(n, document)| (format!("{n}.json"), document)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_a_template_has_its_code_and_place_and_stores_nothing() {
    let fleet = Fleet::start(1).await;
    let node = &fleet.nodes[0];
    put(node, &of_the_refused());
    let mut wrong = Vec::new();
    for (template, wanted, begin) in refused() {
        let shown = template.to_string().chars().take(120).collect::<String>();
        let inner = json!([{"step_id": "a", "action": "workflow", "inputs": {"template": template}}]);
        for (arguments, prefix) in [
            (json!({"name": "w", "template": template}), "/template"),
            (json!({"name": "w", "template": template, "dry_run": true}), "/template"),
            (json!({"name": "w", "steps": inner}), "/steps/0/inputs/template"),
        ] {
            // A step's template is wrong in the same way, in another place.
            let begin = begin.replacen("/template", prefix, 1);
            let begin = begin.split(": ").last().unwrap_or_default();
            match node.call("workflow_submit", arguments).await {
                Err(e) if code(&e) == wanted && e.to_string().contains(begin) => {}
                Err(e) => wrong.push(format!("{shown} in {prefix}: {} {e}\n  and not {wanted} {begin}", code(&e))),
                Ok(answer) => wrong.push(format!("{shown} in {prefix}: taken: {answer}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (arguments, wanted, begin) in [
        (
            json!({"template": {"template_id": "base"}, "steps": [{"step_id": "a", "action": "echo"}]}),
            "invalid_argument",
            "/steps: is there, and a template as well",
        ),
        (
            json!({"template": {"template_id": "base"}, "params": {"x": 1}}),
            "invalid_argument",
            "/params: is there, and a template as well",
        ),
        (json!({"template": "base"}), "invalid_argument", "/template: must be an object"),
        (json!({}), "invalid_argument", "name: is required"),
    ] {
        let Err(e) = node.call("workflow_submit", arguments.clone()).await else { panic!("{arguments} was taken") };
        assert!(code(&e) == wanted && e.to_string().starts_with(begin), "{arguments}: {} {e}", code(&e));
    }
    for list in ["workflow_list", "task_list"] {
        assert_eq!(node.ask(list, json!({})).await["total_count"], 0, "something was stored");
    }
    // And the same in a right one is taken: with the name that it has of its template.
    let taken = node.ask("workflow_submit", json!({"workflow_id": "w", "template": {"template_id": "base"}})).await;
    assert_eq!(taken["status"], "submitted");
    assert_eq!(node.ask("workflow_status", json!({"workflow_id": "w"})).await["name"], "base");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_is_run_from_a_file_and_followed_to_its_end() {
    let fleet = start().await;
    let (node, folder) = (&fleet.nodes[0], fleet.folder());
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let good = file(
        "good.yaml",
        "name: good\nsteps:\n  - {step_id: a, action: echo, inputs: {n: 1}}\n  \
         - {step_id: b, action: echo, depends_on: [a], inputs: {n: '${steps.a.result.n}'}}\n",
    );
    let (status, out, err) = command(node, &["workflow", "run", &good, "--follow", "--workflow-id", "good"]);
    assert_eq!((status, out.as_str()), (Some(0), "{\"b\":{\"n\":1}}\n"), "{err}");
    let ends: Vec<_> = err.lines().filter(|line| line.contains("completed")).collect();
    assert!(ends.len() == 2 && ends[0].starts_with("a: completed") && ends[1].starts_with("b: completed"), "{err}");
    let bad = json!({"workflow_id": "bad", "name": "bad", "steps": [
        {"step_id": "a", "action": "exec", "inputs": {"argv": ["sh", "-c", "exit 3"]}, "retry_policy": {"max_retries": 0}},
        {"step_id": "b", "action": "echo", "depends_on": ["a"]},
    ]});
    let bad = file("bad.json", &bad.to_string());
    let (status, _, err) = command(node, &["workflow", "run", &bad, "--follow"]);
    assert_eq!(status, Some(1), "{err}");
    assert!(
        err.contains("\na: failed") && err.contains("\nb: skipped") && err.contains("workflow bad ended as failed"),
        "{err}"
    );
    let (status, _, err) = command(node, &["workflow", "run", &good, "--param", "a=b"]);
    assert!(status == Some(2) && err.contains("templates have parameters"), "{err}");
    assert_eq!(command(node, &["workflow", "run", "./nothing.yaml"]).0, Some(3));
    assert_eq!(command(node, &["workflow", "run", &file("list.json", "[]")]).0, Some(2));

    let fan = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/templates/fan-out-fan-in.yaml").display().to_string();
    let wanted = json!({"gather": {"results": [{"item": "a", "index": 0, "options": {}}], "options": {}}});
    for from in [&[fan.as_str()][..], &["--template", "fan-out-fan-in@^1"]] {
        let line = ["workflow", "run", "--follow", "--param", "items=[\"a\"]"];
        let out = taskmesh(node, &[&line[..], from].concat());
        assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON"), wanted);
    }
    let planned = taskmesh(node, &["--json", "workflow", "run", &fan, "--param", "items=[]", "--dry-run"]);
    assert_eq!(serde_json::from_str::<Value>(&planned).expect("JSON")["status"], "planned");

    let shown = taskmesh(node, &["workflow", "graph", "bad"]);
    assert!(shown.contains("   1  a  failed") && shown.contains("   2  b  skipped"), "{shown}");
    let drawn = taskmesh(node, &["workflow", "graph", "bad", "--svg"]);
    assert!(
        drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n") && drawn.contains(">exec, failed</text>"),
        "{drawn}"
    );
}
