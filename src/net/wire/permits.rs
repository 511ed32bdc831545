//! Limits of the mesh on the wire: part of `proto/taskmesh/v1/mesh.proto`.

use super::check::{self, Checked};
use super::proto;
use super::task::owned;
use proto::ask_permits::Ask;
use taskmesh_core::message::{Permit, PermitAsk};
use taskmesh_core::{Millis, limits};

pub(super) fn asks_to(asks: &[PermitAsk]) -> proto::AskPermits {
    let ask = |ask: &PermitAsk| Ask {
        limit: owned(&ask.limit),
        asked_ms: ask.asked.0,
        used: ask.used,
        wanted: ask.wanted,
        holds: ask.holds,
    };
    proto::AskPermits { asks: asks.iter().map(ask).collect() }
}

pub(super) fn asks_from(asks: &proto::AskPermits) -> Checked<Vec<PermitAsk>> {
    check::list("asks", &asks.asks, limits::LIMITS, |ask| {
        Ok(PermitAsk {
            limit: check::text("ask.limit", &ask.limit, NAME_BYTES)?,
            asked: Millis(check::count("ask.asked", ask.asked_ms)?),
            used: check::count("ask.used", ask.used)?,
            wanted: check::count("ask.wanted", ask.wanted)?,
            holds: check::count("ask.holds", ask.holds)?,
        })
    })
}

pub(super) fn permits_to(permits: &[Permit]) -> proto::Permits {
    let permit = |permit: &Permit| proto::permits::Permit {
        limit: owned(&permit.limit),
        asked_ms: permit.asked.0,
        allowed: permit.allowed,
    };
    proto::Permits { permits: permits.iter().map(permit).collect() }
}

pub(super) fn permits_from(permits: &proto::Permits) -> Checked<Vec<Permit>> {
    check::list("permits", &permits.permits, limits::LIMITS, |permit| {
        Ok(Permit {
            limit: check::text("permit.limit", &permit.limit, NAME_BYTES)?,
            asked: Millis(check::count("permit.asked", permit.asked_ms)?),
            allowed: check::count("permit.allowed", permit.allowed)?,
        })
    })
}

/// A subject's name, and its bound.
const NAME_BYTES: usize = limits::TEXT_BYTES + 64;
