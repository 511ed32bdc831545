//! Templates of other nodes: each says by name, version and hash which it has.
//! Whoever needs one learns its hash here, and reads it as a blob of that hash
//! from a node that has it.

use crate::command::Refusal;
use crate::ids::BlobHash;
use crate::limits;
use crate::node::Node;
use crate::origin::Origin;
use crate::template::Range;
use crate::view::Reply;
use semver::Version;
use std::sync::Arc;

/// A template that a node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelved {
    /// Its name.
    pub id: Arc<str>,
    /// Its version, as in SemVer.
    pub version: Arc<str>,
    /// Of its document as JSON text.
    pub hash: BlobHash,
}

impl Node {
    /// The templates of this node, for the others to know.
    pub(crate) fn on_templates(&mut self, mut own: Vec<Shelved>) {
        own.truncate(limits::TEMPLATES);
        if self.shelf != own {
            self.shelf = own;
            self.account_changed();
        }
    }

    /// The newest template of this name and range that another live node has. Of
    /// two contents under one name and version the greater hash is meant, so that
    /// every node means the same.
    pub(crate) fn on_query_template(&mut self, origin: Origin, id: &str, range: &str) {
        let found = self.shelved_elsewhere(id, range);
        self.answer(origin, found.map(Reply::Template));
    }

    fn shelved_elsewhere(&self, id: &str, range: &str) -> Result<Shelved, Refusal> {
        let wrong =
            |e: crate::template::Problem| Refusal::Invalid { field: "version".into(), problem: e.to_string().into() };
        let wanted = Range::parse(range).map_err(wrong)?;
        let live = self.members.iter().filter(|(node, _)| self.live(**node));
        let fitting = live.flat_map(|(_, member)| &member.templates).filter(|shelved| *shelved.id == *id);
        let versioned = fitting.filter_map(|shelved| Some((Version::parse(&shelved.version).ok()?, shelved)));
        let newest = versioned
            .filter(|(version, _)| wanted.takes(version))
            .max_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.hash.cmp(&b.1.hash)));
        let missing =
            || Refusal::NotFound { what: "template".into(), name: format!("{id} in the range {range}").into() };
        newest.map(|(_, shelved)| shelved.clone()).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Query, Request};
    use crate::effect::{Effect, Input};
    use crate::ids::NodeId;
    use crate::message::{Hello, Message};
    use crate::testing::{Solo, solo};
    use crate::{Config, Millis};

    fn shelved(id: &str, version: &str, content: &str) -> Shelved {
        Shelved { id: id.into(), version: version.into(), hash: BlobHash::of(content.as_bytes()) }
    }

    fn meet(solo: &mut Solo, node: u64, templates: &[Shelved]) {
        let hello = Hello { templates: templates.to_vec(), ..crate::testing::hello() };
        let message = Message::Hello(Box::new(hello));
        solo.feed(Input::Received { from: NodeId::test(node), message });
    }

    fn ask(solo: &mut Solo, id: &str, range: &str) -> Result<Shelved, Refusal> {
        let query = Query::Template { id: id.into(), range: range.into() };
        match solo.ask(Request::Query(query)).1 {
            Some(Ok(Reply::Template(shelved))) => Ok(shelved),
            Some(Err(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_that_fits_and_lives_is_meant() {
        let mut solo = solo(Config::default());
        assert!(matches!(ask(&mut solo, "t", "*"), Err(Refusal::NotFound { .. })));
        let (old, new) = (shelved("t", "1.9.0", "old"), shelved("t", "1.10.0", "new"));
        meet(&mut solo, 2, &[old.clone(), shelved("other", "3.0.0", "other"), shelved("t", "none", "no version")]);
        meet(&mut solo, 3, std::slice::from_ref(&new));
        assert_eq!(ask(&mut solo, "t", "*"), Ok(new.clone()));
        assert_eq!(ask(&mut solo, "t", "1.9.0"), Ok(old));
        let twin = shelved("t", "1.10.0", "another");
        meet(&mut solo, 4, std::slice::from_ref(&twin));
        let greater = if twin.hash > new.hash { twin } else { new };
        assert_eq!(ask(&mut solo, "t", "^1"), Ok(greater));
        for (id, range) in [("t", "^2"), ("T", "*")] {
            assert!(matches!(ask(&mut solo, id, range), Err(Refusal::NotFound { .. })), "{id} {range}");
        }
        assert!(matches!(ask(&mut solo, "t", "newest"), Err(Refusal::Invalid { .. })));
        solo.wait(Millis(60_000));
        assert!(matches!(ask(&mut solo, "t", "*"), Err(Refusal::NotFound { .. })), "all are silent");
    }

    #[test]
    fn templates_are_told_to_all_when_they_change() {
        let mut solo = solo(Config::default());
        meet(&mut solo, 2, &[]);
        let told = |effects: Vec<Effect>| -> Vec<Vec<Shelved>> {
            let hello = |e: &Effect| match e {
                Effect::Send { message: Message::Hello(hello), .. } => Some(hello.templates.clone()),
                _ => None,
            };
            effects.iter().filter_map(hello).collect()
        };
        let own = vec![shelved("t", "1.0.0", "content")];
        assert_eq!(told(solo.feed(Input::Templates(own.clone()))), std::slice::from_ref(&own));
        assert_eq!(told(solo.feed(Input::Templates(own))), Vec::<Vec<_>>::new(), "no news");
        assert_eq!(told(solo.feed(Input::Templates(Vec::new()))), [vec![]]);
    }
}
