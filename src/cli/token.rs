//! Tokens for those who call: made, listed and revoked by the node; narrowed
//! and looked into without one.

use super::exit::Exit;
use super::output::{self, Form};
use super::reach::Node;
use crate::api::auth::admin::{Limits, PATH, Wanted, in_words};
use crate::api::auth::{from_text, to_text};
use crate::driver::wall_clock;
use crate::ops::value::time;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::Path;
use taskmesh_core::Millis;
use taskmesh_core::authority::{Authority, Caveats, Role, TokenId};
use taskmesh_core::token::{LIFETIME, RootKey, Token, TokenError};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is printed once, and kept nowhere.
    Create(CreateArgs),
    /// List the tokens that were made: names, roles, ends, never the tokens.
    List,
    /// Refuse a token from now on, on every node, and all that were made from it.
    Revoke {
        /// The id that `list`, `create` or `inspect` shows.
        id: String,
    },
    /// Make a token that may do less out of one; asks no node.
    Attenuate(AttenuateArgs),
    /// Show what a token says; asks no node.
    ///
    /// Whether it is of this mesh is said where the data folder holds the
    /// mesh's key; whether it was revoked, a node knows: see `list`.
    Inspect {
        /// The token; `-`: read it from standard input, where `ps` does not show it.
        #[arg(default_value = "-")]
        token: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Whose it is; tasks that it submits are kept under this name.
    #[arg(long)]
    name: String,
    /// viewer: looks; submitter: and submits; operator: and changes all tasks, the queue and workers; admin: all.
    #[arg(long, value_parser = role)]
    role: Role,
    /// How long it lives, such as 15m, 8h or 30d; at most 366d.
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span)]
    expires: Millis,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Args)]
pub(super) struct AttenuateArgs {
    /// The token; `-`: read it from standard input, where `ps` does not show it.
    #[arg(default_value = "-")]
    token: String,
    /// At most this role.
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// It ends after this span, such as 15m or 8h, if it does not end before.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    expires: Option<Millis>,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Args)]
struct LimitArgs {
    /// Tasks of this type alone; repeatable.
    #[arg(long, value_name = "TYPE")]
    task_type: Vec<String>,
    /// Tasks that carry this tag, or another that is given, alone; repeatable.
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// It gives no task a greater priority.
    #[arg(long, value_name = "NUMBER")]
    priority_max: Option<f64>,
    /// Calls in a minute, on each node.
    #[arg(long, value_name = "CALLS")]
    rate: Option<u32>,
    /// Its own tasks alone, to look at as well.
    #[arg(long)]
    own: bool,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits {
            task_types: self.task_type.clone(),
            tags: self.tag.clone(),
            priority_max: self.priority_max,
            calls_per_minute: self.rate,
            own: self.own,
        }
    }
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|e| format!("{e}"))
}

/// `90s`, `15m`, `8h`, `30d`.
pub(super) fn span(text: &str) -> Result<Millis, String> {
    let problem = || "must be a whole number and s, m, h or d, such as 15m".to_owned();
    let unit = text.chars().next_back().ok_or_else(problem)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(problem()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| problem())?;
    let span = count.checked_mul(seconds * 1_000).map(Millis).filter(|span| span.0 > 0 && *span <= LIFETIME);
    span.ok_or_else(|| "must be 1s to 366d".to_owned())
}

/// Those that ask the node.
pub(super) async fn run(node: &Node, command: &TokenCommand) -> Result<(), Exit> {
    match command {
        TokenCommand::Create(args) => {
            let wanted = Wanted {
                name: args.name.clone(),
                role: args.role.name().to_owned(),
                expires_in: Some(args.expires.0 / 1_000),
                limits: args.limits.limits(),
            };
            let body = serde_json::to_value(&wanted).map_err(|e| Exit::usage(e.to_string()))?;
            let made = node.admin("POST", PATH, Some(body)).await?;
            created(node.form, &made)
        }
        TokenCommand::List => {
            let answer = node.admin("GET", PATH, None).await?;
            listed(node.form, &answer)
        }
        TokenCommand::Revoke { id } => {
            let id: TokenId = id.parse().map_err(|e| Exit::usage(format!("ID {e}")))?;
            let answer = node.admin("DELETE", &format!("{PATH}/{id}"), None).await?;
            match node.form {
                Form::Json => output::json(&answer),
                Form::Human => output::raw(&format!("{id} is revoked on the nodes that can be reached\n")),
            }
        }
        TokenCommand::Attenuate(_) | TokenCommand::Inspect { .. } => Err(Exit::usage("this asks no node".to_owned())),
    }
}

fn created(form: Form, made: &Value) -> Result<(), Exit> {
    if form == Form::Json {
        return output::json(made);
    }
    output::tell_person(&format!(
        "token {} of {}, {}; it is shown this once:",
        made["id"].as_str().unwrap_or_default(),
        made["name"].as_str().unwrap_or_default(),
        made["role"].as_str().unwrap_or_default()
    ));
    output::raw(&format!("{}\n", made["token"].as_str().unwrap_or_default()))
}

fn listed(form: Form, answer: &Value) -> Result<(), Exit> {
    if form == Form::Json {
        return output::json(answer);
    }
    let columns = ["id", "name", "role", "status", "expires_at", "limits", "created_by"];
    let text = |row: &Value, column: &str| row[column].as_str().filter(|t| !t.is_empty()).unwrap_or("-").to_owned();
    let rows: Vec<Vec<String>> = answer["tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| columns.iter().map(|column| text(row, column)).collect())
        .collect();
    output::raw(&output::plain_table(&columns, &rows))
}

/// Makes less of a token, on this machine.
pub(super) fn attenuate(form: Form, args: &AttenuateArgs) -> Result<(), Exit> {
    let token = read(&args.token)?;
    let limits = args.limits.limits().caveats().map_err(|e| Exit::with(e.code, e.error))?;
    let caveats = Caveats { role: args.role, expires: args.expires.map(|span| wall_clock() + span), ..limits };
    if caveats == Caveats::default() {
        return Err(Exit::usage("say what the new token is limited to: --role, --expires, --own, …".to_owned()));
    }
    let narrowed = token.attenuate(&caveats).map_err(|e| bad(&e))?;
    match form {
        Form::Json => output::json(&json!({"id": narrowed.id().to_string(), "token": to_text(&narrowed)})),
        Form::Human => output::raw(&format!("{}\n", to_text(&narrowed))),
    }
}

/// Shows what a token says; `mesh_key` is where the key is that it may have
/// been made with.
pub(super) fn inspect(form: Form, text: &str, mesh_key: &Path) -> Result<(), Exit> {
    let token = read(text)?;
    let key = crate::store::identity::load(mesh_key).ok().flatten();
    let (authority, standing) = standing(&token, key.as_ref())?;
    let blocks = token.blocks();
    let shown = json!({
        "id": token.id().to_string(),
        "made_from": authority.ids.iter().rev().skip(1).map(ToString::to_string).collect::<Vec<_>>(),
        "blocks": blocks,
        "name": &*authority.subject,
        "role": authority.role.name(),
        "limits": in_words(&authority),
        "expires_at": time(authority.expires),
        "signature": standing,
    });
    match form {
        Form::Json => output::json(&shown),
        Form::Human => {
            let line = |(name, value): (&String, &Value)| format!("{name:12} {}\n", plain(value));
            output::raw(&shown.as_object().into_iter().flatten().map(line).collect::<String>())
        }
    }
}

/// What it says, and whether that is so, as far as is known here.
fn standing(token: &Token, key: Option<&[u8; 32]>) -> Result<(Authority, &'static str), Exit> {
    let claims = token.claims().map_err(|e| bad(&e))?;
    let Some(key) = key else { return Ok((claims, "not checked: the mesh's key is not in the data folder")) };
    match RootKey::of_mesh(key).verify(token.clone(), wall_clock()) {
        Ok(bearer) => Ok((bearer.authority().clone(), "valid")),
        Err(TokenError::Expired) => Ok((claims, "expired")),
        Err(TokenError::Forged) => Ok((claims, "not of this mesh, or changed")),
        Err(error) => Err(bad(&error)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // A name may come from anywhere, and must not steer the terminal.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn read(token: &str) -> Result<Token, Exit> {
    let mut text = token.to_owned();
    if token == "-" {
        text.clear();
        let mut limited = std::io::stdin().take(2 * Token::MAX_BYTES as u64);
        limited.read_to_string(&mut text).map_err(|e| Exit::usage(format!("can't read the token: {e}")))?;
    }
    from_text(text.trim()).map_err(|e| bad(&e))
}

fn bad(error: &TokenError) -> Exit {
    Exit::usage(format!("TOKEN: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_unit() {
        assert_eq!(span("90s"), Ok(Millis(90_000)));
        assert_eq!(span("366d"), Ok(LIFETIME));
        for bad in ["", "s", "1", "1w", "-1d", "0h", "367d", "99999999999999999999d", "1ä"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
