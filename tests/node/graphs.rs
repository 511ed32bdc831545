//! Graphs of real workflows in every form. With `TASKMESH_GRAPHS` set to a folder
//! they stay there as files, for the programs that they are meant for.

use crate::fleet::{Fleet, Node, eventually};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Workflows with names that mean something to Graphviz or mermaid, and with every
/// kind of step.
fn workflows() -> Vec<Value> {
    let echo = |id: &str, after: &[&str]| json!({"step_id": id, "action": "echo", "depends_on": after});
    let words = [
        "graph", "subgraph", "end", "class", "default", "click", "node", "edge", "strict", "0", "-a-", "--", "_", "o",
        "x",
    ];
    let mut odd: Vec<_> = words.iter().map(|id| echo(id, &[])).collect();
    odd.extend([echo(&"l".repeat(64), &words), echo("style", &["end"])]);
    let inner = json!({"name": "inner", "steps": [echo("end", &[]), echo("b", &["end"])]});
    let exec = |id: &str, script: &str, more: Value| {
        let mut step = json!({"step_id": id, "action": "exec", "inputs": {"argv": ["sh", "-c", script]}, "retry_policy": {"max_retries": 0}});
        step.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        step
    };
    let mixed = json!([
        {"step_id": "each", "action": "echo", "for_each": [1, 2, 3], "inputs": {"i": "${item}"}},
        {"step_id": "inner", "action": "workflow", "inputs": {"definition": inner}},
        exec("done", "true", json!({"on_failure": "compensate:undo"})),
        exec("fails", "exit 1", json!({"depends_on": ["done"]})),
        exec("undo", "true", json!({})),
        echo("skipped", &["fails"]),
        {"step_id": "never", "action": "echo", "when": "1 > 2"},
        {"step_id": "ask", "action": "approve", "depends_on": ["each", "inner"]},
        echo("after", &["ask"]),
    ]);
    vec![
        json!({"workflow_id": "odd", "name": "a \"name\" {of} \\ <b>odd</b> & %%{sort}%%\n-->", "steps": odd}),
        json!({"workflow_id": "mixed", "name": "mixed", "steps": mixed}),
        json!({"workflow_id": "single", "name": "single", "steps": [echo("a", &[])]}),
    ]
}

/// Takes the graph of `workflow` as it is now: its text in both forms.
async fn taken(node: &Node, workflow: &str, moment: &str) -> (Value, String, String) {
    let mut texts = Vec::new();
    let mut last = Value::Null;
    for (form, ending) in [("dot", "dot"), ("mermaid", "mmd")] {
        last = node.ask("workflow_dependencies", json!({"workflow_id": workflow, "fmt": form})).await;
        let dag = last["dag"].as_str().expect("text").to_owned();
        if let Some(folder) = std::env::var_os("TASKMESH_GRAPHS").map(PathBuf::from) {
            std::fs::create_dir_all(&folder).expect("a folder");
            let name = format!("{}-{moment}.{ending}", workflow.replace('/', "-"));
            std::fs::write(folder.join(name), &dag).expect("a file");
        }
        texts.push(dag);
    }
    let mermaid = texts.pop().expect("two");
    (last, texts.pop().expect("two"), mermaid)
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_have_every_step_and_edge_in_every_form_and_state() {
    let fleet = Fleet::start(1).await;
    let node = &fleet.nodes[0];
    for workflow in workflows() {
        let id = workflow["workflow_id"].as_str().expect("an id").to_owned();
        let steps = workflow["steps"].as_array().expect("steps").len();
        node.ask("workflow_submit", workflow.clone()).await;
        let (_, dot, mermaid) = taken(node, &id, "begun").await;
        assert_eq!(dot.matches("fillcolor").count(), steps, "{dot}");
        assert_eq!(mermaid.matches("<br/>").count(), steps, "{mermaid}");
        eventually(Duration::from_secs(60), format!("{id} has ended, or waits"), async || {
            let seen = node.call("workflow_status", json!({"workflow_id": id})).await.ok()?;
            let open = |s: &Value| s["end_time"].is_null() && s["status"] != "skipped" && s["status"] != "waiting";
            let open: Vec<_> =
                seen["steps"].as_array()?.iter().filter(|s| open(s)).map(|s| s["status"].clone()).collect();
            (seen["end_time"].is_string() || open == [json!("input_required")]).then_some(())
        })
        .await;
        let (seen, dot, mermaid) = taken(node, &id, "later").await;
        let edges = seen["edges"].as_array().expect("edges").len();
        assert_eq!(
            (dot.matches("\" -> \"").count(), mermaid.matches("--> s").count() + mermaid.matches("==> s").count()),
            (edges, edges)
        );
    }
    let (seen, _, mermaid) = taken(node, "mixed", "asking").await;
    let states: Vec<_> = seen["nodes"].as_array().expect("nodes").iter().map(|n| n["status"].clone()).collect();
    let wanted =
        ["completed", "completed", "completed", "failed", "waiting", "skipped", "skipped", "input_required", "waiting"];
    assert_eq!(json!(states), json!(wanted));
    for state in ["completed", "failed", "waiting", "skipped", "input_required"] {
        assert!(mermaid.contains(&format!("classDef {state} ")), "{mermaid}");
    }
    // The steps of a step are a graph of their own.
    let (seen, _, _) = taken(node, "mixed/each", "ended").await;
    assert_eq!(seen["nodes"].as_array().map(Vec::len), Some(3));
    let (seen, _, _) = taken(node, "mixed/inner", "ended").await;
    assert_eq!(seen["edges"], json!([{"from": "end", "to": "b"}]));
    node.ask("workflow_cancel", json!({"workflow_id": "mixed"})).await;
    taken(node, "mixed", "cancelled").await;
}
