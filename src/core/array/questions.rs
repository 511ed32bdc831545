//! Questions after items that have not begun: the owner of their array answers
//! for them.

use crate::authority::Touch;
use crate::command::{Detail, Refusal};
use crate::ids::TaskId;
use crate::node::Node;
use crate::origin::Origin;
use crate::requests::Waiter;
use crate::time::Millis;
use crate::view::Reply;

impl Node {
    /// Answers, now or when the item ends, if it belongs to an array that this
    /// node owns and has not begun. Otherwise gives the question back.
    pub(crate) fn answer_as_array(
        &mut self,
        origin: Origin,
        task: &TaskId,
        detail: Detail,
        wait: Millis,
    ) -> Option<Origin> {
        let kept = self.unborn(task).and_then(|(array, _)| self.owned(array));
        let Some(kept) = kept else { return Some(origin) };
        if let Err(refusal) = origin.allows_task(task, &kept.slot.spec, Touch::Look) {
            self.answer(origin, Err(refusal));
            return None;
        }
        if wait > Millis(0) && kept.promised_end().is_none() {
            let waiter = Waiter { origin, detail, by: self.now + wait };
            self.requests.waiters.entry(task.clone()).or_default().push(waiter);
            return None;
        }
        let reply = self.reply_of(task, detail);
        self.answer(origin, reply);
        None
    }

    /// What a node says that has no record of a task, and does not own its array:
    /// an item that has not begun is known by that.
    pub(crate) fn answer_for_unborn(&mut self, origin: Origin, task: &TaskId, detail: Detail) {
        let array = self.unborn(task).map(|(array, _)| &self.kept[array].slot);
        let open = array.filter(|slot| !slot.record.closed() && slot.record.holders.contains(&self.id));
        let allowed = open.is_some_and(|slot| origin.sees(task, &slot.spec));
        let view = self.view_of(task, detail).filter(|_| allowed).map(|view| Reply::Task(Box::new(view)));
        let missing = || Refusal::NotFound { what: "task".into(), name: task.as_str().into() };
        self.answer(origin, view.ok_or_else(missing));
    }
}
