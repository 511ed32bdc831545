//! Callers and the register of tokens on the wire.

use super::check::{self, Checked};
use super::task::owned;
use super::{WireError, proto};
use proto::peer_request as asked;
use taskmesh_core::authority::{Role, TokenId};
use taskmesh_core::message::By;
use taskmesh_core::register::Issued;
use taskmesh_core::token::Token;
use taskmesh_core::{Message, Unix, limits};

pub(super) fn by_to(by: &By) -> asked::By {
    match by {
        By::Node => asked::By::Itself(proto::Itself {}),
        By::Token(token) => asked::By::Token(token.to_vec()),
    }
}

pub(super) fn by_from(by: Option<&asked::By>) -> Checked<By> {
    Ok(match by {
        Some(asked::By::Token(token)) => By::Token(check::bytes("request.token", token, Token::MAX_BYTES)?),
        Some(asked::By::Itself(proto::Itself {})) | None => By::Node,
    })
}

pub(super) fn tokens_to(digest: u64, entries: &[Issued], answer: bool) -> proto::Tokens {
    proto::Tokens { digest, entries: entries.iter().map(entry_to).collect(), answer }
}

pub(super) fn tokens_from(tokens: &proto::Tokens) -> Checked<Message> {
    let entries = check::list("tokens.entries", &tokens.entries, limits::REGISTER, entry_from)?;
    Ok(Message::Tokens { digest: tokens.digest, entries, answer: tokens.answer })
}

fn entry_to(entry: &Issued) -> proto::Token {
    proto::Token {
        id: entry.id.0.to_vec(),
        subject: owned(&entry.subject),
        role: entry.role.map_or(proto::Role::Unspecified, role_to).into(),
        limits: owned(&entry.limits),
        by: owned(&entry.by),
        at: entry.at.0,
        expires: entry.expires.0,
        revoked: entry.revoked.map(|at| at.0),
    }
}

fn entry_from(entry: &proto::Token) -> Checked<Issued> {
    let id = entry.id.as_slice().try_into();
    let id = id.map_err(|_| WireError::Range { field: "tokens.id", problem: "is not 16 bytes long" })?;
    let text = |field, text: &str| check::text(field, text, limits::TEXT_BYTES);
    Ok(Issued {
        id: TokenId(id),
        subject: text("tokens.subject", &entry.subject)?,
        role: role_from(entry.role)?,
        limits: text("tokens.limits", &entry.limits)?,
        by: text("tokens.by", &entry.by)?,
        at: Unix(check::count("tokens.at", entry.at)?),
        expires: Unix(check::count("tokens.expires", entry.expires)?),
        revoked: entry.revoked.map(|at| check::count("tokens.revoked", at).map(Unix)).transpose()?,
    })
}

fn role_to(role: Role) -> proto::Role {
    match role {
        Role::Viewer => proto::Role::Viewer,
        Role::Submitter => proto::Role::Submitter,
        Role::Operator => proto::Role::Operator,
        Role::Admin => proto::Role::Admin,
    }
}

fn role_from(role: i32) -> Checked<Option<Role>> {
    Ok(match proto::Role::try_from(role) {
        Ok(proto::Role::Unspecified) => None,
        Ok(proto::Role::Viewer) => Some(Role::Viewer),
        Ok(proto::Role::Submitter) => Some(Role::Submitter),
        Ok(proto::Role::Operator) => Some(Role::Operator),
        Ok(proto::Role::Admin) => Some(Role::Admin),
        Err(_) => return Err(WireError::Unknown { what: "tokens.role" }),
    })
}
