//! `doctor`: looks at a node, its machine and its mesh, and says of everything
//! whether it is well and, where it is not, what to do. With its node down it
//! looks at what is left to look at.

mod machine;
mod mesh;
mod network;
mod paths;

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::{self, NodeInfo};
use super::survey::Survey;
use super::tree::Global;
use super::{monitors, words};
use crate::config::Config;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    /// It could not be found out from here.
    Unknown,
    /// It goes on, and should be looked at.
    Warning,
    /// It does not do what it is for.
    Problem,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Unknown => "unknown",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        }
    }
}

/// What one look has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    says: String,
    /// What to do, where something is to be done.
    next: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, says: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Ok, says: says.into(), next: None }
    }

    fn unknown(check: &'static str, says: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Unknown, ..Finding::ok(check, says) }
    }

    fn warning(check: &'static str, says: impl Into<String>, next: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Warning, next: Some(next.into()), ..Finding::ok(check, says) }
    }

    fn problem(check: &'static str, says: impl Into<String>, next: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Problem, ..Finding::warning(check, says, next) }
    }
}

pub(super) async fn run(global: &Global) -> Result<(), Exit> {
    if global.url.is_some() || global.via.is_some() {
        let next = "run it where the node is, or ask `taskmesh status` from here";
        return Err(Exit::usage(format!(
            "doctor looks at a data folder of this machine: leave out --url and --via; {next}"
        )));
    }
    let config = super::load(global, &[])?;
    let folder = config.node.data_dir.clone();
    let mut findings = machine::folder(&folder);
    findings.extend(machine::disk(&folder));
    let info = NodeInfo::read(&folder).ok().flatten();
    let up = match &info {
        Some(info) => network::node(info, &mut findings).await,
        None => {
            findings.push(network::down(&folder));
            false
        }
    };
    match info.filter(|_| up) {
        Some(info) => with_node(global, &config, &info, &mut findings).await?,
        None => {
            findings.extend(network::own_ports(&config));
            findings.extend(network::seeds_from_here(&network::seeds(&config)).await);
        }
    }
    let form = Form::of(global.json);
    match form {
        Form::Json => output::json(&object(&findings))?,
        Form::Human => output::raw(&sheet(&findings))?,
    }
    verdict(&findings)
}

/// The checks that need a node that answers.
async fn with_node(global: &Global, config: &Config, info: &NodeInfo, findings: &mut Vec<Finding>) -> Result<(), Exit> {
    let node = reach::find(global)?;
    findings.extend(network::listening(info).await);
    findings.extend(network::seeds_by_node(&node, info, &network::seeds(config)).await);
    let survey = Survey::ask(&node).await?;
    let monitors = monitors::ask(info).await.unwrap_or_default();
    let own = monitors.get(&info.peer_id).and_then(|monitor| monitor.read.as_ref());
    findings.extend(paths::look(config, own, network::reachability(config, info)));
    findings.extend(mesh::look(&survey, &monitors, config));
    Ok(())
}

fn verdict(findings: &[Finding]) -> Result<(), Exit> {
    let problems = findings.iter().filter(|f| f.verdict == Verdict::Problem).count() as u64;
    match problems {
        0 => Ok(()),
        n => Err(Exit::Ended { summary: format!("{} found", words::count(n, "problem")) }),
    }
}

fn object(findings: &[Finding]) -> Value {
    let entry = |f: &Finding| json!({"check": f.check, "verdict": f.verdict.name(), "says": f.says, "next": f.next});
    let worst = findings.iter().map(|f| f.verdict).max().unwrap_or(Verdict::Ok);
    json!({"success": worst < Verdict::Problem, "worst": worst.name(), "checks": findings.iter().map(entry).collect::<Vec<_>>()})
}

fn sheet(findings: &[Finding]) -> String {
    let wide = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(text, "{:<7}  {:wide$}  {}", finding.verdict.name(), finding.check, finding.says);
        if let Some(next) = &finding.next {
            let _ = writeln!(text, "{:<7}  {:wide$}  → {next}", "", "");
        }
    }
    let counts = [Verdict::Ok, Verdict::Unknown, Verdict::Warning, Verdict::Problem];
    let counts = counts.map(|v| (findings.iter().filter(|f| f.verdict == v).count(), v.name()));
    let counts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
    let _ = writeln!(text, "\n{}", counts.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_shown_with_what_to_do() {
        let findings = [
            Finding::ok("disk room", "12 GiB free"),
            Finding::warning("versions", "two of them", "upgrade the others"),
            Finding::unknown("clock", "not told"),
        ];
        let wanted = "\
ok       disk room  12 GiB free
warning  versions   two of them
                    → upgrade the others
unknown  clock      not told

1 ok, 1 unknown, 1 warning
";
        assert_eq!(sheet(&findings), wanted);
        assert_eq!(object(&findings)["worst"], "warning");
        assert!(verdict(&findings).is_ok());
    }

    #[test]
    fn only_a_problem_makes_it_end_badly() {
        let findings = [Finding::problem("seeds", "none answers", "start one")];
        let exit = verdict(&findings).expect_err("a problem");
        assert_eq!((exit.status(), exit.to_string()), (1, "1 problem found".to_owned()));
        assert_eq!(object(&findings)["success"], false);
    }
}
