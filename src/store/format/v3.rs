//! What came with the third version of a spec, frozen as [`v1`](super::v1) is:
//! conditions on labels, alternatives, and which worker is preferred.

use super::Flaw;
use super::v1::{Pairs, Resources, bounded, shared, shared_pairs};
use super::v2;
use bincode::{BorrowDecode, Encode};
use std::sync::Arc;
use taskmesh_core::placement::{
    Alternative as CoreAlternative, Condition as CoreCondition, Placement, Test as CoreTest,
};
use taskmesh_core::task::Requirements;
use taskmesh_core::{Spec as CoreSpec, limits};

/// Version 3 of a spec.
#[derive(Encode, BorrowDecode)]
pub(super) struct Spec<'a> {
    first: v2::Spec<'a>,
    selector: Vec<Condition<'a>>,
    any_of: Vec<Alternative<'a>>,
    /// 0: balance, 1: spread, 2: pack.
    placement: u8,
    affinity_key: Option<&'a str>,
}

#[derive(Encode, BorrowDecode)]
struct Condition<'a> {
    label: &'a str,
    test: Test<'a>,
}

#[derive(Encode, BorrowDecode)]
enum Test<'a> {
    In(Vec<&'a str>),
    NotIn(Vec<&'a str>),
    Exists,
    Missing,
}

#[derive(Encode, BorrowDecode)]
struct Alternative<'a> {
    capabilities: Vec<&'a str>,
    labels: Pairs<'a, &'a str>,
    selector: Vec<Condition<'a>>,
    resources: Resources<'a>,
}

impl<'a> From<&'a CoreSpec> for Spec<'a> {
    fn from(spec: &'a CoreSpec) -> Spec<'a> {
        let need = &spec.requirements;
        Spec {
            first: v2::Spec::from(spec),
            selector: need.selector.iter().map(Condition::from).collect(),
            any_of: need.any_of.iter().map(Alternative::from).collect(),
            placement: match need.placement {
                Placement::Balance => 0,
                Placement::Spread => 1,
                Placement::Pack => 2,
            },
            affinity_key: need.affinity_key.as_deref(),
        }
    }
}

impl TryFrom<Spec<'_>> for CoreSpec {
    type Error = Flaw;

    fn try_from(spec: Spec<'_>) -> Result<CoreSpec, Flaw> {
        bounded("alternatives", spec.any_of.len(), limits::ALTERNATIVES)?;
        bounded("affinity key", spec.affinity_key.map_or(0, str::len), limits::TEXT_BYTES)?;
        let placement = match spec.placement {
            0 => Placement::Balance,
            1 => Placement::Spread,
            2 => Placement::Pack,
            other => return Err(Flaw::Damaged(format!("{other} is no placement"))),
        };
        let first: CoreSpec = spec.first.try_into()?;
        let requirements = Requirements {
            selector: conditions(spec.selector)?,
            any_of: spec.any_of.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            placement,
            affinity_key: spec.affinity_key.map(Arc::from),
            ..first.requirements
        };
        Ok(CoreSpec { requirements, ..first })
    }
}

impl<'a> From<&'a CoreCondition> for Condition<'a> {
    fn from(condition: &'a CoreCondition) -> Condition<'a> {
        let texts = |values: &'a [Arc<str>]| values.iter().map(|v| &**v).collect();
        let test = match &condition.test {
            CoreTest::In(values) => Test::In(texts(values)),
            CoreTest::NotIn(values) => Test::NotIn(texts(values)),
            CoreTest::Exists => Test::Exists,
            CoreTest::Missing => Test::Missing,
        };
        Condition { label: &condition.label, test }
    }
}

fn conditions(selector: Vec<Condition<'_>>) -> Result<Vec<CoreCondition>, Flaw> {
    bounded("conditions", selector.len(), limits::ATTRIBUTES)?;
    let values = |values: Vec<&str>| {
        bounded("values of a condition", values.len(), limits::ATTRIBUTES)?;
        Ok::<_, Flaw>(shared(values))
    };
    let condition = |condition: Condition<'_>| {
        let test = match condition.test {
            Test::In(these) => CoreTest::In(values(these)?),
            Test::NotIn(these) => CoreTest::NotIn(values(these)?),
            Test::Exists => CoreTest::Exists,
            Test::Missing => CoreTest::Missing,
        };
        Ok(CoreCondition { label: condition.label.into(), test })
    };
    selector.into_iter().map(condition).collect()
}

impl<'a> From<&'a CoreAlternative> for Alternative<'a> {
    fn from(way: &'a CoreAlternative) -> Alternative<'a> {
        Alternative {
            capabilities: way.capabilities.iter().map(|c| &**c).collect(),
            labels: way.labels.iter().map(|(k, v)| (&**k, &**v)).collect(),
            selector: way.selector.iter().map(Condition::from).collect(),
            resources: (&way.resources).into(),
        }
    }
}

impl TryFrom<Alternative<'_>> for CoreAlternative {
    type Error = Flaw;

    fn try_from(way: Alternative<'_>) -> Result<CoreAlternative, Flaw> {
        bounded("capabilities", way.capabilities.len(), limits::ATTRIBUTES)?;
        bounded("labels", way.labels.len(), limits::ATTRIBUTES)?;
        Ok(CoreAlternative {
            capabilities: shared(way.capabilities),
            labels: shared_pairs(way.labels),
            selector: conditions(way.selector)?,
            resources: way.resources.try_into()?,
        })
    }
}
