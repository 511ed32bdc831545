//! `forget`: an operator's word that nodes are gone for ever.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use super::survey::Survey;
use super::words::count;
use crate::api::forgotten::{PATH, Wanted};
use crate::ops::Code;
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// By its name, its peer id, or the end of that: see `taskmesh members`.
    #[arg(value_name = "NODE", required_unless_present = "list")]
    nodes: Vec<String>,
    /// For the record: what became of it.
    #[arg(long)]
    reason: Option<String>,
    /// Even if it is there: it stops all work, and never comes back under its name.
    #[arg(long)]
    force: bool,
    /// List the nodes that are forgotten.
    #[arg(long, conflicts_with_all = ["nodes", "reason", "force"])]
    list: bool,
}

pub(super) async fn run(node: &Node, args: &ForgetArgs) -> Result<(), Exit> {
    if args.list {
        let answer = node.admin("GET", PATH, None).await?;
        return listed(node.form, &answer);
    }
    let survey = Survey::ask(node).await?;
    let peers: Vec<String> = args.nodes.iter().map(|name| named(&survey, name)).collect::<Result<_, _>>()?;
    for peer_id in peers {
        let wanted = Wanted { peer_id, reason: args.reason.clone(), force: args.force };
        let body = serde_json::to_value(&wanted).map_err(|e| Exit::usage(e.to_string()))?;
        let answer = node.admin("POST", PATH, Some(body)).await?;
        told(node.form, &answer)?;
    }
    Ok(())
}

/// The mesh has forgotten the very node that is asked, as far as it says.
pub(super) async fn is_outcast(node: &Node, survey: &Survey) -> bool {
    let Some(me) = survey.members.iter().find(|member| member.asked) else { return false };
    let Ok(answer) = node.admin("GET", PATH, None).await else { return false };
    answer["forgotten"].as_array().into_iter().flatten().any(|word| word["peer_id"] == me.peer_id.as_str())
}

/// A node that is long gone may be no member any more: its peer id will do.
fn named(survey: &Survey, name: &str) -> Result<String, Exit> {
    match survey.find(name) {
        Ok(member) => Ok(member.peer_id.clone()),
        Err(exit) if exit.is(Code::NotFound) && crate::ops::value::peer(name).is_ok() => Ok(name.to_owned()),
        Err(exit) => Err(exit),
    }
}

fn told(form: Form, answer: &Value) -> Result<(), Exit> {
    if form == Form::Json {
        return output::json(answer);
    }
    output::raw(&in_words(answer))
}

fn in_words(answer: &Value) -> String {
    let number = |field: &str| answer[field].as_u64().unwrap_or(0);
    let (records, bereft) = (number("records"), number("without_majority"));
    let mut text = format!("{} is forgotten, for ever\n", answer["peer_id"].as_str().unwrap_or_default());
    text += &match (records, bereft) {
        (0, _) => "no task that is left had a copy there\n".to_owned(),
        (_, 0) => format!("{} had a copy there; others take its place\n", count(records, "task")),
        _ => format!(
            "{} had a copy there; {bereft} without a majority of holders now: they go on from the copies that are left, \
             as soon as every other node has said what it has, and may run again what had run\n",
            count(records, "task")
        ),
    };
    text += "a task of which no copy is left can't be brought back, and no node is left that could name it\n";
    let silent = answer["silent_nodes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    silent.for_each(|node| text += &format!("{node} did not answer: it learns of it when it is heard again\n"));
    text
}

fn listed(form: Form, answer: &Value) -> Result<(), Exit> {
    if form == Form::Json {
        return output::json(answer);
    }
    let columns = ["peer_id", "forgotten_at", "forgotten_by", "reason"];
    let cell = |value: &Value| value.as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
    let words = answer["forgotten"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = words.map(|word| columns.iter().map(|column| cell(&word[column])).collect()).collect();
    output::raw(&output::plain_table(&columns, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_lost_is_said_plainly() {
        let answer = |records: u64, bereft: u64| json!({"peer_id": "p", "records": records, "without_majority": bereft, "silent_nodes": ["q"]});
        for (records, bereft, part) in [
            (0, 0, "no task that is left had a copy there"),
            (1, 0, "1 task had a copy there; others take its place"),
            (3, 2, "3 tasks had a copy there; 2 without a majority"),
        ] {
            let text = in_words(&answer(records, bereft));
            assert!(text.contains(part), "{text}");
            assert!(
                text.contains("no copy is left can't be brought back") && text.contains("q did not answer"),
                "{text}"
            );
        }
    }
}
