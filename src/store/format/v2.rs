//! What came with the second version of some kinds, frozen as [`v1`](super::v1)
//! is: the submitter of a task, and the register of tokens.

use super::Flaw;
use super::v1::{self, bounded};
use bincode::{BorrowDecode, Encode};
use std::sync::Arc;
use taskmesh_core::authority::{Role, TokenId};
use taskmesh_core::register::Issued;
use taskmesh_core::{Spec as CoreSpec, Unix, limits};

/// Version 2 of a spec.
#[derive(Encode, BorrowDecode)]
pub(super) struct Spec<'a> {
    first: v1::Spec<'a>,
    submitter: Option<&'a str>,
}

impl<'a> From<&'a CoreSpec> for Spec<'a> {
    fn from(spec: &'a CoreSpec) -> Spec<'a> {
        Spec { first: v1::Spec::from(spec), submitter: spec.submitter.as_deref() }
    }
}

impl TryFrom<Spec<'_>> for CoreSpec {
    type Error = Flaw;

    fn try_from(spec: Spec<'_>) -> Result<CoreSpec, Flaw> {
        bounded("submitter", spec.submitter.map_or(0, str::len), limits::TEXT_BYTES)?;
        Ok(CoreSpec { submitter: spec.submitter.map(Arc::from), ..spec.first.try_into()? })
    }
}

/// Version 1 of a token's entry.
#[derive(Encode, BorrowDecode)]
pub(super) struct Token<'a> {
    id: [u8; 16],
    subject: &'a str,
    /// The role's number; 0: not known.
    role: u8,
    limits: &'a str,
    by: &'a str,
    at: u64,
    expires: u64,
    revoked: Option<u64>,
}

impl<'a> From<&'a Issued> for Token<'a> {
    fn from(entry: &'a Issued) -> Token<'a> {
        Token {
            id: entry.id.0,
            subject: &entry.subject,
            role: entry.role.map_or(0, |role| role as u8),
            limits: &entry.limits,
            by: &entry.by,
            at: entry.at.0,
            expires: entry.expires.0,
            revoked: entry.revoked.map(|at| at.0),
        }
    }
}

impl TryFrom<Token<'_>> for Issued {
    type Error = Flaw;

    fn try_from(token: Token<'_>) -> Result<Issued, Flaw> {
        for text in [token.subject, token.limits, token.by] {
            bounded("text", text.len(), limits::TEXT_BYTES)?;
        }
        let role = Role::ALL.into_iter().find(|role| *role as u8 == token.role);
        if role.is_none() && token.role != 0 {
            return Err(Flaw::Damaged(format!("{} is no role", token.role)));
        }
        Ok(Issued {
            id: TokenId(token.id),
            subject: token.subject.into(),
            role,
            limits: token.limits.into(),
            by: token.by.into(),
            at: Unix(token.at),
            expires: Unix(token.expires),
            revoked: token.revoked.map(Unix),
        })
    }
}
