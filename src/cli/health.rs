//! `health`: the health of the node of this data folder, as an exit status.
//! What containers and supervisors call that have no HTTP client of their own.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::NodeInfo;
use crate::api::client::plain;
use crate::ops::Code;
use clap::Args;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Ask whether it may be given work (/readyz), not only whether it lives (/healthz).
    #[arg(long)]
    ready: bool,
}

/// A node that does not answer by then is not well.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(form: Form, folder: &Path, args: &HealthArgs) -> Result<(), Exit> {
    let info = NodeInfo::read(folder).map_err(|e| Exit::internal(format!("can't read {}: {e}", folder.display())))?;
    let Some(info) = info else {
        let problem = format!("no node runs with the data folder {}", folder.display());
        return Err(Exit::with(Code::Unavailable, format!("{problem}; start one with `taskmesh up`")));
    };
    let path = if args.ready { "readyz" } else { "healthz" };
    let (status, body) = fetch(&format!("{}/{path}", info.metrics_url)).await?;
    let well = status == 200;
    match form {
        Form::Json => output::json(&json!({ "success": well, "check": path, "status": status, "said": body.trim() }))?,
        Form::Human => output::raw(&body)?,
    }
    if well { Ok(()) } else { Err(Exit::Ended { summary: format!("/{path} answers {status}") }) }
}

async fn fetch(url: &str) -> Result<(u16, String), Exit> {
    let silent = |e: reqwest::Error| Exit::with(Code::Unavailable, format!("the node does not answer at {url}: {e}"));
    let client = plain().timeout(PATIENCE).build().map_err(silent)?;
    let response = client.get(url).send().await.map_err(silent)?;
    let status = response.status().as_u16();
    Ok((status, response.text().await.map_err(silent)?))
}
