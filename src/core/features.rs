//! What nodes can do, by name, so that nodes of different versions work in one
//! mesh: each says it in its hello, and what some member could not handle as an
//! owner is not taken while that member is there.

use crate::command::Refusal;
use crate::ids::NodeId;
use crate::node::Node;
use crate::task::Spec;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Something that a version brought and that the one before has no notion of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Records of workflows.
    Workflows,
    /// Records of schedules.
    Schedules,
    /// Nodes that are gone for ever by an operator's word.
    Forgetting,
}

impl Feature {
    /// All that this version knows.
    pub const ALL: [Feature; 3] = [Feature::Workflows, Feature::Schedules, Feature::Forgetting];

    /// On the wire and for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Feature::Workflows => "workflows",
            Feature::Schedules => "schedules",
            Feature::Forgetting => "forgetting",
        }
    }

    /// What the nodes that keep a task must know, if it is more than the first
    /// version did.
    fn of(spec: &Spec) -> Option<Feature> {
        if spec.is_schedule() {
            return Some(Feature::Schedules);
        }
        spec.is_workflow().then_some(Feature::Workflows)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(name: &str) -> Result<Feature, String> {
        let found = Feature::ALL.into_iter().find(|feature| feature.name() == name);
        found.ok_or_else(|| format!("is {name:?}; it must be one of {}", Feature::ALL.map(Feature::name).join(", ")))
    }
}

impl Node {
    /// What this node tells others that it knows.
    pub(crate) fn features(&self) -> BTreeSet<Arc<str>> {
        let known = Feature::ALL.into_iter().filter(|feature| !self.config.without.contains(feature));
        known.map(|feature| feature.name().into()).collect()
    }

    /// Nothing is taken that a member which is there could come to own and would
    /// not know what to do with.
    pub(crate) fn check_features(&self, spec: &Spec) -> Result<(), Refusal> {
        Feature::of(spec).map_or(Ok(()), |feature| self.check_feature(feature))
    }

    /// The same, of what is no task.
    pub(crate) fn check_feature(&self, feature: Feature) -> Result<(), Refusal> {
        let own = (self.config.without.contains(&feature)).then_some(self.id);
        let Some(node) = own.or_else(|| self.live_members().find(|node| !self.is_aware_of(*node, feature))) else {
            return Ok(());
        };
        let needs = format!("it knows no {feature}, which every node of the mesh must; upgrade it, or take it out");
        let name = format!("node {node}").into();
        Err(Refusal::State { name, status: "of an older version".into(), needs: needs.into() })
    }

    /// Whether a member can keep and own such a task, as far as it said.
    pub(crate) fn handles(&self, node: NodeId, spec: &Spec) -> bool {
        Feature::of(spec).is_none_or(|feature| self.is_aware_of(node, feature))
    }

    fn is_aware_of(&self, node: NodeId, feature: Feature) -> bool {
        let said = self.members.get(&node).and_then(|member| member.features.as_ref());
        said.is_none_or(|known| known.contains(feature.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::effect::Input;
    use crate::message::{Hello, Message};
    use crate::schedule::{CatchUp, Schedule, UTC};
    use crate::testing::{self, Solo, solo, spec};

    fn meet(solo: &mut Solo, node: u64, features: &[&str]) {
        let features = features.iter().map(|name| (*name).into()).collect();
        let hello = Box::new(Hello { features, ..testing::hello() });
        solo.feed(Input::Received { from: NodeId::test(node), message: Message::Hello(hello) });
    }

    fn nightly() -> Spec {
        Schedule::wrap(spec(), "0 0 3 * * *", UTC, CatchUp::None).expect("its payload is JSON")
    }

    fn older(refusal: &Refusal) -> String {
        let Refusal::State { name, needs, .. } = refusal else { panic!("{refusal:?}") };
        assert!(needs.contains("schedules"), "{needs}");
        name.to_string()
    }

    #[test]
    fn what_a_member_does_not_know_is_refused_until_it_is_upgraded() {
        let mut solo = solo(Config::default());
        assert_eq!(solo.node.check_features(&nightly()), Ok(()));
        meet(&mut solo, 2, &["workflows"]);
        meet(&mut solo, 3, &["workflows", "schedules", "of a later version"]);
        let refused = solo.node.check_features(&nightly()).expect_err("node 2 is older");
        assert_eq!(older(&refused), format!("node {}", NodeId::test(2)));
        assert!(!solo.node.handles(NodeId::test(2), &nightly()) && solo.node.handles(NodeId::test(3), &nightly()));
        assert_eq!(solo.node.check_features(&spec()), Ok(()), "the first version knew plain tasks");
        meet(&mut solo, 2, &["schedules"]);
        assert_eq!(solo.node.check_features(&nightly()), Ok(()));
    }

    #[test]
    fn what_is_turned_off_here_is_refused_here_and_not_told_to_others() {
        let without = BTreeSet::from([Feature::Schedules]);
        let solo = solo(Config { without, ..Config::default() });
        assert_eq!(solo.node.features(), BTreeSet::from(["forgetting".into(), "workflows".into()]));
        let refused = solo.node.check_features(&nightly()).expect_err("turned off");
        assert_eq!(older(&refused), format!("node {}", NodeId::test(1)));
    }
}
