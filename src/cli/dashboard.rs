//! `dashboard`: the address of the page, with a token that ends by itself.
//!
//! The token is in the fragment of the address, which browsers send to no
//! server, and the page takes it out of the address as soon as it has it. Since
//! the address may stay in a browser's history all the same, it is never the
//! node's own token.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use super::token::{role, span};
use crate::api::auth::admin::{Limits, PATH as TOKENS, Wanted};
use crate::api::auth::{from_text, to_text};
use crate::api::dashboard::PATH;
use crate::api::http::PATH as MCP;
use crate::driver::wall_clock;
use clap::Args;
use serde_json::json;
use taskmesh_core::Millis;
use taskmesh_core::authority::{Caveats, Role};

#[derive(Debug, Args)]
pub(super) struct DashboardArgs {
    /// What it may do, at most. viewer: looks; operator: and cancels, retries, pauses and drains; admin: all.
    #[arg(long, value_parser = role, default_value = "operator")]
    role: Role,
    /// How long it may be used, such as 15m or 8h; at most 366d.
    #[arg(long, value_name = "SPAN", default_value = "8h", value_parser = span)]
    expires: Millis,
    /// Whose it is: what is done on the page is in the audit log under this name.
    #[arg(long, default_value = "dashboard")]
    name: String,
}

/// Prints the address. `given` is the token that was named for this call.
pub(super) async fn run(node: &Node, given: Option<&str>, args: &DashboardArgs) -> Result<(), Exit> {
    let page = page(node.url().ok_or_else(|| Exit::usage("a browser does not go by --via: give --url"))?);
    let token = match given.map(from_text) {
        // Whoever has a token of the mesh can make less of it, and need be no admin.
        Some(Ok(own)) => {
            let caveats =
                Caveats { role: Some(args.role), expires: Some(wall_clock() + args.expires), ..Caveats::default() };
            to_text(&own.attenuate(&caveats).map_err(|e| Exit::usage(format!("--token: {e}")))?)
        }
        Some(Err(_)) | None => made(node, args).await?,
    };
    let url = format!("{page}#token={token}");
    if node.form == Form::Json {
        return output::json(&json!({ "success": true, "url": url, "role": args.role.name() }));
    }
    output::tell_person("open this in a browser; whoever has it may look until it ends (`taskmesh token list`):");
    output::raw(&format!("{url}\n"))
}

async fn made(node: &Node, args: &DashboardArgs) -> Result<String, Exit> {
    let wanted = Wanted {
        name: args.name.clone(),
        role: args.role.name().to_owned(),
        expires_in: Some(args.expires.0 / 1_000),
        limits: Limits::default(),
    };
    let body = serde_json::to_value(&wanted).map_err(|e| Exit::internal(e.to_string()))?;
    let made = node.admin("POST", TOKENS, Some(body)).await?;
    let token = made["token"].as_str().map(str::to_owned);
    token.ok_or_else(|| Exit::internal("the node made no token"))
}

/// Where the page of the node is whose MCP endpoint is at `mcp`.
fn page(mcp: &str) -> String {
    format!("{}{PATH}", mcp.strip_suffix(MCP).unwrap_or(mcp).trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_beside_the_mcp_endpoint() {
        for (mcp, expected) in [
            ("http://127.0.0.1:4780/mcp", "http://127.0.0.1:4780/dashboard/"),
            ("https://mesh.example/team/mcp", "https://mesh.example/team/dashboard/"),
            ("https://mesh.example/", "https://mesh.example/dashboard/"),
        ] {
            assert_eq!(page(mcp), expected);
        }
    }
}
