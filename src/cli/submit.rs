//! `submit`: a program, or any task, from the arguments and the lines of files.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use super::tree::pair;
use super::wait::{self, Patience};
use crate::ops::Code;
use crate::ops::schedule::Schedule;
use clap::{Args, ValueHint};
use serde_json::{Map, Value, json};
use std::io::Read as _;
use taskmesh_core::limits;

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// Wait for the end, print what was printed, and exit accordingly.
    #[arg(long)]
    wait: bool,
    /// With --wait, seconds; the task goes on.
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    wait_timeout: Option<u64>,
    /// The type of the task; with a program it is `exec`.
    #[arg(long = "type", value_name = "TYPE")]
    task_type: Option<String>,
    /// The input of a task of another type than `exec`: a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object, conflicts_with = "argv")]
    payload: Option<Map<String, Value>>,
    /// One task for each line of the file (`-`: standard input); repeatable.
    ///
    /// With a program, the line takes the place of `{}` in its arguments, or
    /// becomes the last one. With --type, the line is a JSON object that is laid
    /// over the payload.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    items_from: Vec<String>,
    /// The task's id; default: a new UUID. Repeating it with the same work is safe.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Above 0; higher runs earlier.
    #[arg(long, value_name = "NUMBER")]
    priority: Option<f64>,
    /// For filters; repeatable.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Seconds that one attempt may run.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Attempts after the first; default 3.
    #[arg(long, value_name = "NUMBER")]
    retries: Option<u32>,
    /// A variable for the program; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, requires = "argv")]
    env: Vec<(String, String)>,
    /// What the program reads: a text file, or `-` for standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "argv")]
    stdin: Option<String>,
    /// A capability that a worker must have; repeatable.
    #[arg(long, value_name = "CAPABILITY")]
    capability: Vec<String>,
    /// A label that a worker must have; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Cores that it holds while it runs.
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Memory that it holds while it runs, MiB.
    #[arg(long, value_name = "MIB")]
    memory_mb: Option<u64>,
    /// A task that must complete first; repeatable.
    #[arg(long, value_name = "TASK_ID")]
    depends_on: Vec<String>,
    /// It expires if it has not ended by then: RFC 3339, such as 2030-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// Never two runs at once; slower to start.
    #[arg(long)]
    exclusive: bool,
    #[command(flatten)]
    schedule: Option<Schedule>,
    /// The program and its arguments, after `--`. No shell reads them.
    #[arg(last = true, value_name = "PROGRAM", value_hint = ValueHint::CommandWithArguments)]
    argv: Vec<String>,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|e| format!("it must be a JSON object: {e}"))
}

/// `submit`.
pub(super) async fn run(node: &Node, args: &SubmitArgs) -> Result<(), Exit> {
    let texts = args.items_from.iter().map(|name| read(name)).collect::<Result<Vec<_>, _>>()?;
    let stdin = args.stdin.as_deref().map(read).transpose()?;
    let arguments = args.arguments(&texts, stdin)?;
    let id = arguments["task_id"].as_str().unwrap_or_default().to_owned();
    let answer = node.call("task_submit", arguments).await.map_err(|exit| repeatable(exit, &id))?;
    if !args.wait {
        return accepted(node, &answer);
    }
    warn_of_infeasible(&answer);
    output::tell_person(&format!("task {id}"));
    let patience = Patience::of(args.wait_timeout);
    match answer["array"]["count"].as_u64() {
        Some(count) if count <= limits::ITEMS as u64 => wait::array(node, &id, count, patience).await,
        // A large one has a record of its own, which ends with the last item.
        Some(_) | None => wait::task(node, &id, patience).await,
    }
}

fn accepted(node: &Node, answer: &Value) -> Result<(), Exit> {
    if node.form == Form::Json {
        return output::json(answer);
    }
    warn_of_infeasible(answer);
    output::raw(&format!("{}\n", answer["task_id"].as_str().unwrap_or_default()))
}

fn warn_of_infeasible(answer: &Value) {
    if let Some(reason) = answer["feasible"]["reason"].as_str() {
        output::note(&format!("accepted; {reason}"));
    }
}

/// Where the outcome is unknown, the same id finds it out.
fn repeatable(exit: Exit, id: &str) -> Exit {
    match exit {
        Exit::Failed { code: code @ (Code::Unavailable | Code::DeadlineExceeded), mut envelope } => {
            let error = envelope.get("error").and_then(Value::as_str).unwrap_or_default();
            let error = format!("{error} (to repeat it safely, add --id {id})");
            envelope.insert("error".into(), error.into());
            Exit::Failed { code, envelope }
        }
        other => other,
    }
}

fn read(name: &str) -> Result<String, Exit> {
    let mut text = String::new();
    let done = match name {
        "-" => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        path => std::fs::read_to_string(path).map(|content| text = content),
    };
    done.map_err(|e| Exit::usage(format!("can't read {name}: {e}")))?;
    Ok(text)
}

impl SubmitArgs {
    /// The arguments of `task_submit`. `texts`: the contents of the files.
    fn arguments(&self, texts: &[String], stdin: Option<String>) -> Result<Value, Exit> {
        let task_type = match (self.task_type.as_deref(), self.argv.is_empty()) {
            (None | Some("exec"), false) => "exec",
            (Some(_), false) => {
                return Err(Exit::usage("a program after `--` is a task of type exec; leave out --type"));
            }
            (Some(given), true) => given,
            (None, true) => return Err(Exit::usage("give a program after `--`, or --type and --payload")),
        };
        let mut fields = Map::new();
        let id = self.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        fields.insert("task_id".into(), id.into());
        fields.insert("task_type".into(), task_type.into());
        fields.insert("payload".into(), self.base_payload(stdin));
        if !self.items_from.is_empty() {
            fields.insert("items".into(), self.items(texts)?.into());
        }
        let retries = self.retries.map(|n| json!({ "max_retries": n }));
        let optional = [
            ("priority", self.priority.map(Value::from)),
            ("timeout", self.timeout.map(Value::from)),
            ("deadline", self.deadline.clone().map(Value::from)),
            ("retry_policy", retries),
            ("tags", some_list(&self.tag)),
            ("depends_on", some_list(&self.depends_on)),
            ("requirements", self.requirements()),
            ("exclusive", self.exclusive.then_some(Value::Bool(true))),
            ("schedule", self.schedule.as_ref().map(|schedule| json!(schedule))),
        ];
        fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Ok(Value::Object(fields))
    }

    fn base_payload(&self, stdin: Option<String>) -> Value {
        let mut payload = self.payload.clone().unwrap_or_default();
        if !self.argv.is_empty() {
            payload.insert("argv".into(), self.argv.clone().into());
        }
        if !self.env.is_empty() {
            payload.insert("env".into(), texts(&self.env));
        }
        if let Some(stdin) = stdin {
            payload.insert("stdin".into(), stdin.into());
        }
        Value::Object(payload)
    }

    fn requirements(&self) -> Option<Value> {
        let parts = [
            ("capabilities", some_list(&self.capability)),
            ("labels", (!self.label.is_empty()).then(|| texts(&self.label))),
            ("cpus", self.cpus.map(Value::from)),
            ("memory_mb", self.memory_mb.map(Value::from)),
        ];
        let given: Map<_, _> = parts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        (!given.is_empty()).then_some(Value::Object(given))
    }

    fn items(&self, texts: &[String]) -> Result<Vec<Value>, Exit> {
        let named = self.items_from.iter().zip(texts);
        let lines = named.flat_map(|(name, text)| text.lines().enumerate().map(move |(n, line)| (name, n + 1, line)));
        let lines = lines.filter(|(_, _, line)| !line.trim().is_empty());
        let items = lines.map(|(name, n, line)| self.item(line).map_err(|e| Exit::usage(format!("{name}:{n}: {e}"))));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        match items.len() {
            0 => Err(Exit::usage("--items-from: there is no line in it")),
            n if n > limits::ARRAY_ITEMS => {
                let most = limits::ARRAY_ITEMS;
                Err(Exit::usage(format!(
                    "--items-from: {n} lines; one array has at most {most} (`split -l {most}` helps)"
                )))
            }
            _ => Ok(items),
        }
    }

    /// What a line lays over the payload.
    fn item(&self, line: &str) -> Result<Value, String> {
        if self.argv.is_empty() {
            return object(line).map(Value::Object);
        }
        let mut argv: Vec<String> = self.argv.iter().map(|argument| argument.replace(PLACE, line)).collect();
        if !self.argv.iter().any(|argument| argument.contains(PLACE)) {
            argv.push(line.to_owned());
        }
        Ok(json!({ "argv": argv }))
    }
}

/// As in `xargs -I{}`.
const PLACE: &str = "{}";

fn some_list(values: &[String]) -> Option<Value> {
    (!values.is_empty()).then(|| values.to_vec().into())
}

fn texts(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: SubmitArgs,
    }

    fn built(line: &[&str], texts: &[&str]) -> Result<Value, String> {
        let args = Only::try_parse_from([&["submit"], line].concat()).map_err(|e| e.to_string())?.args;
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        args.arguments(&texts, None).map_err(|e| e.to_string())
    }

    #[test]
    fn a_program_becomes_a_task_of_type_exec() {
        let line = [
            "--id",
            "a",
            "--tag",
            "x",
            "--label",
            "zone=a",
            "--cpus",
            "0.5",
            "--env",
            "K=V",
            "--retries",
            "0",
            "--",
            "ls",
            "-l",
        ];
        let wanted = json!({
            "task_id": "a", "task_type": "exec", "payload": {"argv": ["ls", "-l"], "env": {"K": "V"}},
            "retry_policy": {"max_retries": 0}, "tags": ["x"],
            "requirements": {"labels": {"zone": "a"}, "cpus": 0.5},
        });
        assert_eq!(built(&line, &[]).unwrap(), wanted);
    }

    #[test]
    fn each_line_is_a_task() {
        let last = built(&["--id", "a", "--items-from", "f", "--", "sha256sum"], &["/a b\n\n/c\n"]).unwrap();
        assert_eq!(last["items"], json!([{"argv": ["sha256sum", "/a b"]}, {"argv": ["sha256sum", "/c"]}]));
        let placed =
            built(&["--items-from", "f", "--items-from", "g", "--", "cp", "{}", "/x/{}"], &["1", "2"]).unwrap();
        assert_eq!(placed["items"], json!([{"argv": ["cp", "1", "/x/1"]}, {"argv": ["cp", "2", "/x/2"]}]));
        let echo = built(&["--type", "echo", "--payload", "{\"a\":1}", "--items-from", "f"], &["{\"n\": 1}"]).unwrap();
        assert_eq!((&echo["items"], &echo["payload"]), (&json!([{"n": 1}]), &json!({"a": 1})));
    }

    #[test]
    fn an_id_is_made_so_that_a_repetition_is_safe() {
        let id = |value: Value| value["task_id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
        let (one, two) = (built(&["--", "true"], &[]).unwrap(), built(&["--", "true"], &[]).unwrap());
        assert_ne!(id(one), id(two));
    }

    #[test]
    fn what_makes_no_task_is_refused() {
        let many = "x\n".repeat(limits::ARRAY_ITEMS + 1);
        let table: [(&[&str], &[&str], &str); 6] = [
            (&[], &[], "give a program after `--`, or --type and --payload"),
            (&["--type", "echo", "--", "ls"], &[], "leave out --type"),
            (&["--items-from", "f", "--", "ls"], &["\n"], "there is no line in it"),
            (&["--items-from", "f", "--", "ls"], &[&many], "at most 100000"),
            (&["--type", "echo", "--items-from", "f"], &["{}\nx"], "f:2: it must be a JSON object"),
            (&["--type", "echo", "--payload", "[]"], &[], "it must be a JSON object"),
        ];
        for (line, texts, problem) in table {
            let error = built(line, texts).unwrap_err();
            assert!(error.contains(problem), "{line:?}: {error}");
        }
    }
}
