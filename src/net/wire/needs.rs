//! What tasks need and workers have, on the wire: part of
//! `proto/taskmesh/v1/task.proto`.

use super::check::{self, Checked};
use super::task::{owned, owned_all, owned_or_none};
use super::{WireError, proto};
use taskmesh_core::limits;
use taskmesh_core::placement::{Alternative, Condition, Placement, Test};
use taskmesh_core::task::{Requirements, Resources};

impl From<&Requirements> for proto::Requirements {
    fn from(requirements: &Requirements) -> Self {
        proto::Requirements {
            capabilities: owned_all(&requirements.capabilities),
            labels: requirements.labels.iter().map(|(k, v)| (owned(k), owned(v))).collect(),
            resources: Some((&requirements.resources).into()),
            selector: requirements.selector.iter().map(condition_to).collect(),
            any_of: requirements.any_of.iter().map(alternative_to).collect(),
            placement: match requirements.placement {
                Placement::Balance => proto::Placement::Unspecified.into(),
                Placement::Spread => proto::Placement::Spread.into(),
                Placement::Pack => proto::Placement::Pack.into(),
            },
            affinity_key: owned_or_none(requirements.affinity_key.as_ref()),
        }
    }
}

pub(super) fn requirements_from(requirements: Option<&proto::Requirements>) -> Checked<Requirements> {
    let requirements = check::need("requirements", requirements)?;
    Ok(Requirements {
        capabilities: check::texts("requirements.capabilities", &requirements.capabilities, limits::ATTRIBUTES)?,
        labels: check::attributes("requirements.labels", &requirements.labels, |value| {
            check::text("requirements.labels", value, limits::TEXT_BYTES)
        })?,
        resources: resources_from(
            check::need("requirements.resources", requirements.resources.as_ref())?,
            limits::AMOUNT,
        )?,
        selector: selector_from(&requirements.selector)?,
        any_of: check::list("requirements.any_of", &requirements.any_of, limits::ALTERNATIVES, alternative_from)?,
        placement: match proto::Placement::try_from(requirements.placement) {
            Ok(proto::Placement::Unspecified) => Placement::Balance,
            Ok(proto::Placement::Spread) => Placement::Spread,
            Ok(proto::Placement::Pack) => Placement::Pack,
            Err(_) => return Err(WireError::Unknown { what: "requirements.placement" }),
        },
        affinity_key: check::text_or_none(
            "requirements.affinity_key",
            requirements.affinity_key.as_deref(),
            limits::TEXT_BYTES,
        )?,
    })
}

fn alternative_to(way: &Alternative) -> proto::Alternative {
    proto::Alternative {
        capabilities: owned_all(&way.capabilities),
        labels: way.labels.iter().map(|(k, v)| (owned(k), owned(v))).collect(),
        resources: Some((&way.resources).into()),
        selector: way.selector.iter().map(condition_to).collect(),
    }
}

fn alternative_from(way: &proto::Alternative) -> Checked<Alternative> {
    Ok(Alternative {
        capabilities: check::texts("any_of.capabilities", &way.capabilities, limits::ATTRIBUTES)?,
        labels: check::attributes("any_of.labels", &way.labels, |value| {
            check::text("any_of.labels", value, limits::TEXT_BYTES)
        })?,
        resources: resources_from(check::need("any_of.resources", way.resources.as_ref())?, limits::AMOUNT)?,
        selector: selector_from(&way.selector)?,
    })
}

fn condition_to(condition: &Condition) -> proto::Condition {
    use proto::condition::Test as To;
    let (test, values) = match &condition.test {
        Test::In(values) => (To::In, owned_all(values)),
        Test::NotIn(values) => (To::NotIn, owned_all(values)),
        Test::Exists => (To::Exists, Vec::new()),
        Test::Missing => (To::Missing, Vec::new()),
    };
    proto::Condition { label: owned(&condition.label), test: test.into(), values }
}

fn selector_from(selector: &[proto::Condition]) -> Checked<Vec<Condition>> {
    check::list("selector", selector, limits::ATTRIBUTES, |condition| {
        use proto::condition::Test as From;
        let values = || check::texts("selector.values", &condition.values, limits::ATTRIBUTES);
        Ok(Condition {
            label: check::text("selector.label", &condition.label, limits::TEXT_BYTES)?,
            test: match From::try_from(condition.test) {
                Ok(From::In) => Test::In(values()?),
                Ok(From::NotIn) => Test::NotIn(values()?),
                Ok(From::Exists) => Test::Exists,
                Ok(From::Missing) => Test::Missing,
                // A condition that is not understood can't be left out.
                Ok(From::Unspecified) | Err(_) => return Err(WireError::Unknown { what: "selector.test" }),
            },
        })
    })
}

impl From<&Resources> for proto::Resources {
    fn from(resources: &Resources) -> Self {
        proto::Resources {
            cpu_milli: resources.cpu_milli,
            memory_mb: resources.memory_mb,
            gpu_milli: resources.gpu_milli,
            named: resources.named.iter().map(|(k, n)| (owned(k), *n)).collect(),
        }
    }
}

/// Needs are added up, and bounded by `limits::AMOUNT` for that; what a worker
/// has is not, and may be as much as a number says.
pub(super) fn resources_from(resources: &proto::Resources, limit: u64) -> Checked<Resources> {
    let amount = |field, value| check::at_most(field, value, limit);
    Ok(Resources {
        cpu_milli: amount("resources.cpu_milli", resources.cpu_milli)?,
        memory_mb: amount("resources.memory_mb", resources.memory_mb)?,
        gpu_milli: amount("resources.gpu_milli", resources.gpu_milli)?,
        named: check::attributes("resources.named", &resources.named, |n| amount("resources.named", *n))?,
    })
}
