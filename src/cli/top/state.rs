//! What the live view knows, and what becomes of it when something is typed or
//! heard. No terminal, no network.

use super::super::survey::{Member, Survey};
use super::super::words;
use crate::ops::value;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use ratatui::widgets::TableState;
use serde_json::Value;
use std::cmp::Ordering;
use taskmesh_core::Unix;

/// One look at the mesh.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) survey: Survey,
    /// As `task_list` says them: those that run, then those that wait.
    pub(super) tasks: Vec<Value>,
    /// Of these there are so many in all.
    pub(super) total: u64,
    pub(super) now: Unix,
}

/// What comes in.
#[derive(Debug)]
pub(super) enum Message {
    Key(KeyCode, KeyModifiers),
    /// The terminal has another size.
    Redraw,
    /// The terminal is gone.
    Gone,
    Data(Box<Data>),
    /// A look failed; the last one stays.
    Failed(String),
    /// What became of something that was asked for.
    Told(String),
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    Cancel(String),
}

/// Which table the keys are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Tasks,
    Nodes,
}

/// What a key means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Looking,
    /// The filter is being typed.
    Filtering,
    /// Whether to cancel this task.
    Asking(String),
    Helping,
}

/// An order of tasks.
pub(super) const TASK_ORDERS: [&str; 6] = ["time", "task", "type", "state", "priority", "worker"];
/// An order of nodes.
pub(super) const NODE_ORDERS: [&str; 5] = ["node", "state", "running", "cpu", "latency"];

/// A table: in which order, and where in it.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Index in the orders.
    pub(super) order: usize,
    pub(super) reversed: bool,
    /// Only rows with this in one of their names.
    pub(super) filter: String,
    /// The id of the selected row, which may move.
    pub(super) selected: Option<String>,
    pub(super) table: TableState,
}

/// The whole view.
#[derive(Debug, Default)]
pub(super) struct App {
    pub(super) data: Data,
    pub(super) pane: Pane,
    pub(super) mode: Mode,
    pub(super) tasks: Place,
    pub(super) nodes: Place,
    /// The last word on what was done, or on what failed.
    pub(super) notice: Option<String>,
    /// No look is taken over: the screen stays as it is.
    pub(super) frozen: bool,
}

impl App {
    pub(super) fn update(&mut self, message: Message) -> Wish {
        match message {
            Message::Key(code, modifiers) => return self.key(code, modifiers),
            Message::Gone => return Wish::Quit,
            Message::Redraw => {}
            Message::Data(_) if self.frozen => {}
            Message::Data(data) => {
                self.data = *data;
                self.notice = self.notice.take().filter(|notice| !notice.starts_with(NO_ANSWER));
            }
            Message::Failed(problem) => self.notice = Some(format!("{NO_ANSWER}: {problem}")),
            Message::Told(notice) => self.notice = Some(notice),
        }
        Wish::Nothing
    }

    fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Wish {
        if modifiers.contains(KeyModifiers::CONTROL) && code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Looking => self.looking(code),
            Mode::Helping => Wish::Nothing,
            Mode::Filtering => {
                self.filtering(code);
                Wish::Nothing
            }
            Mode::Asking(task) if matches!(code, KeyCode::Char('y' | 'Y')) => {
                self.notice = Some(format!("{task}: cancelling"));
                Wish::Cancel(task)
            }
            Mode::Asking(_) => {
                self.notice = Some("nothing was cancelled".to_owned());
                Wish::Nothing
            }
        }
    }

    fn looking(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if self.place().filter.is_empty() => return Wish::Quit,
            KeyCode::Esc => self.place().filter.clear(),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Helping,
            KeyCode::Char('/') => self.mode = Mode::Filtering,
            KeyCode::Char('c') if self.pane == Pane::Tasks => match self.selected() {
                Some(task) => self.mode = Mode::Asking(task),
                None => self.notice = Some("no task is selected".to_owned()),
            },
            KeyCode::Char('c') => self.notice = Some("Tab goes to the tasks, of which one can be cancelled".to_owned()),
            KeyCode::Char('s') => self.next_order(),
            KeyCode::Char('r') => self.place().reversed ^= true,
            KeyCode::Char(' ') => self.frozen ^= true,
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = if self.pane == Pane::Tasks { Pane::Nodes } else { Pane::Tasks };
            }
            KeyCode::Up | KeyCode::Char('k') => self.walk(-1),
            KeyCode::Down | KeyCode::Char('j') => self.walk(1),
            KeyCode::PageUp => self.walk(-PAGE),
            KeyCode::PageDown => self.walk(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.walk(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.walk(isize::MAX),
            _ => {}
        }
        Wish::Nothing
    }

    fn filtering(&mut self, code: KeyCode) {
        self.mode = Mode::Filtering;
        match code {
            KeyCode::Enter => self.mode = Mode::Looking,
            KeyCode::Esc => {
                self.place().filter.clear();
                self.mode = Mode::Looking;
            }
            KeyCode::Backspace => drop(self.place().filter.pop()),
            KeyCode::Char(c) if self.place().filter.chars().count() < FILTER => self.place().filter.push(c),
            _ => {}
        }
    }

    pub(super) fn place(&mut self) -> &mut Place {
        match self.pane {
            Pane::Tasks => &mut self.tasks,
            Pane::Nodes => &mut self.nodes,
        }
    }

    fn next_order(&mut self) {
        let orders = if self.pane == Pane::Tasks { TASK_ORDERS.len() } else { NODE_ORDERS.len() };
        let place = self.place();
        (place.order, place.reversed) = ((place.order + 1) % orders, false);
    }

    /// The selected row that is still shown.
    fn selected(&self) -> Option<String> {
        let (ids, place) = match self.pane {
            Pane::Tasks => (self.task_ids(), &self.tasks),
            Pane::Nodes => (self.node_ids(), &self.nodes),
        };
        place.selected.clone().filter(|id| ids.contains(id))
    }

    fn walk(&mut self, by: isize) {
        let ids = if self.pane == Pane::Tasks { self.task_ids() } else { self.node_ids() };
        let place = self.place();
        let at = place.selected.as_ref().and_then(|selected| ids.iter().position(|id| id == selected));
        let last = ids.len().saturating_sub(1);
        let next = match at {
            Some(at) => at.saturating_add_signed(by).min(last),
            None if by == isize::MAX => last,
            None => 0,
        };
        place.selected = ids.get(next).cloned();
    }

    fn task_ids(&self) -> Vec<String> {
        self.shown_tasks().iter().map(|task| text(task, "task_id").to_owned()).collect()
    }

    fn node_ids(&self) -> Vec<String> {
        self.shown_nodes().iter().map(|member| member.peer_id.clone()).collect()
    }

    /// The tasks that the filter passes, in their order.
    pub(super) fn shown_tasks(&self) -> Vec<&Value> {
        let passes = |task: &&Value| {
            let fields = ["task_id", "task_type", "status", "worker_id"];
            passes(&self.tasks.filter, fields.iter().map(|field| text(task, field)))
        };
        let mut tasks: Vec<&Value> = self.data.tasks.iter().filter(passes).collect();
        let name = TASK_ORDERS[self.tasks.order];
        let order = |a: &&Value, b: &&Value| match name {
            "task" => text(a, "task_id").cmp(text(b, "task_id")),
            "type" => text(a, "task_type").cmp(text(b, "task_type")),
            "state" => text(a, "status").cmp(text(b, "status")),
            "worker" => text(a, "worker_id").cmp(text(b, "worker_id")),
            // The greatest first.
            "priority" => number(&b["priority"]).total_cmp(&number(&a["priority"])),
            _ => self.age(b).total_cmp(&self.age(a)),
        };
        tasks.sort_by(order);
        reversed(tasks, self.tasks.reversed)
    }

    /// The nodes that the filter passes, in their order.
    pub(super) fn shown_nodes(&self) -> Vec<&Member> {
        let passes = |member: &&Member| {
            passes(&self.nodes.filter, [member.shown().as_str(), &member.peer_id, member.state.name()].into_iter())
        };
        let mut nodes: Vec<&Member> = self.data.survey.members.iter().filter(passes).collect();
        let cpu = |m: &Member| m.workers.iter().find_map(|w| w["metrics"]["cpu_percent"].as_f64()).unwrap_or(-1.0);
        let order = |a: &&Member, b: &&Member| -> Ordering {
            match NODE_ORDERS[self.nodes.order] {
                "state" => b.state.cmp(&a.state),
                "running" => b.slots().1.cmp(&a.slots().1),
                "cpu" => cpu(b).total_cmp(&cpu(a)),
                "latency" => b.latency_ms.unwrap_or(-1.0).total_cmp(&a.latency_ms.unwrap_or(-1.0)),
                _ => a.shown().cmp(&b.shown()),
            }
        };
        nodes.sort_by(order);
        reversed(nodes, self.nodes.reversed)
    }

    /// Seconds that a task has run, or has waited.
    pub(super) fn age(&self, task: &Value) -> f64 {
        let since = ["start_time", "submitted_at"].iter().find_map(|field| task[*field].as_str());
        let since = since.and_then(|at| value::read_time("time", at).ok());
        since.map_or(0.0, |since| value::seconds(self.data.now.since(since)))
    }

    /// The same, for people.
    pub(super) fn age_text(&self, task: &Value) -> String {
        words::span(self.age(task))
    }
}

/// Whether one of these has the text of a filter in it.
fn passes<'a>(filter: &str, mut fields: impl Iterator<Item = &'a str>) -> bool {
    let wanted = filter.to_lowercase();
    wanted.is_empty() || fields.any(|field| field.to_lowercase().contains(&wanted))
}

/// A field of text; none is as good as empty.
pub(super) fn text<'a>(item: &'a Value, field: &str) -> &'a str {
    item[field].as_str().unwrap_or_default()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn reversed<T>(mut rows: Vec<T>, reversed: bool) -> Vec<T> {
    if reversed {
        rows.reverse();
    }
    rows
}

/// How a notice begins that goes with the next answer.
const NO_ANSWER: &str = "no answer";
/// Rows that a page key goes.
const PAGE: isize = 10;
/// Characters of a filter.
const FILTER: usize = 60;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::survey::tests::survey;
    use serde_json::json;

    /// A mesh of three nodes with two tasks that run and one that waits.
    pub(in crate::cli::top) fn app() -> App {
        let task = |id: &str, status: &str, priority: f64, start: Option<&str>| {
            json!({"task_id": id, "task_type": "exec", "status": status, "priority": priority, "attempt": 1,
                "worker_id": start.map(|_| "w-a"), "submitted_at": "2026-01-01T00:00:00.000Z", "start_time": start})
        };
        let tasks = vec![
            task("a", "running", 1.0, Some("2026-01-01T00:00:50.000Z")),
            task("b", "running", 5.0, Some("2026-01-01T00:00:10.000Z")),
            task("c", "queued", 3.0, None),
        ];
        let now = value::read_time("now", "2026-01-01T00:01:00.000Z").expect("a time");
        let mut app = App::default();
        app.update(Message::Data(Box::new(Data { survey: survey(), tasks, total: 30, now })));
        app
    }

    fn press(app: &mut App, keys: &str) -> Wish {
        let mut wish = Wish::Nothing;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                key => KeyCode::Char(key),
            };
            wish = app.update(Message::Key(code, KeyModifiers::NONE));
        }
        wish
    }

    #[test]
    fn tasks_are_sorted_by_each_column_and_back() {
        let mut app = app();
        // The longest first: c has waited for 60 s.
        assert_eq!(app.task_ids(), ["c", "b", "a"]);
        press(&mut app, "s");
        assert_eq!(app.task_ids(), ["a", "b", "c"]);
        press(&mut app, "r");
        assert_eq!(app.task_ids(), ["c", "b", "a"]);
        press(&mut app, "sss");
        assert_eq!((app.tasks.order, app.task_ids()), (4, vec!["b".to_owned(), "c".into(), "a".into()]));
        press(&mut app, "ss");
        assert_eq!(app.tasks.order, 0, "round");
        let node = |app: &App| app.shown_nodes()[0].shown();
        press(&mut app, "\t");
        assert_eq!(node(&app), "alpha");
        press(&mut app, "ss");
        assert_eq!((node(&app).as_str(), app.tasks.order), ("beta", 0));
    }

    #[test]
    fn a_filter_is_typed_kept_and_cleared() {
        let mut app = app();
        press(&mut app, "/queq\u{8}");
        assert_eq!((app.mode.clone(), app.task_ids()), (Mode::Filtering, vec!["c".to_owned()]));
        assert_eq!(press(&mut app, "\nq"), Wish::Quit, "after Enter keys are keys again");
        assert_eq!(press(&mut app, "\u{1b}"), Wish::Nothing, "the first Esc clears the filter");
        assert_eq!(app.task_ids().len(), 3);
        assert_eq!(press(&mut app, "\u{1b}"), Wish::Quit);
    }

    #[test]
    fn the_selection_stays_with_its_task() {
        let mut app = app();
        press(&mut app, "jj");
        assert_eq!(app.selected().as_deref(), Some("b"));
        press(&mut app, "s");
        assert_eq!(app.selected().as_deref(), Some("b"));
        press(&mut app, "GGj");
        assert_eq!(app.selected().as_deref(), Some("c"));
        press(&mut app, "kg");
        assert_eq!(app.selected().as_deref(), Some("a"));
        app.data.tasks.remove(0);
        assert_eq!(app.selected(), None, "it has ended");
        press(&mut app, "j");
        assert_eq!(app.selected().as_deref(), Some("b"));
    }

    #[test]
    fn a_task_is_cancelled_only_after_a_yes() {
        let mut app = app();
        assert_eq!(press(&mut app, "cy"), Wish::Nothing, "none is selected");
        assert_eq!(press(&mut app, "jc"), Wish::Nothing);
        assert_eq!(app.mode, Mode::Asking("c".to_owned()));
        assert_eq!(press(&mut app, "n"), Wish::Nothing);
        assert_eq!(app.notice.as_deref(), Some("nothing was cancelled"));
        assert_eq!(press(&mut app, "cy"), Wish::Cancel("c".to_owned()));
        app.update(Message::Told("c is cancelled".to_owned()));
        assert_eq!((app.notice.as_deref(), &app.mode), (Some("c is cancelled"), &Mode::Looking));
        assert_eq!(press(&mut app, "\tc"), Wish::Nothing, "nodes are not cancelled");
    }

    #[test]
    fn a_failed_look_is_told_until_the_next_one() {
        let mut app = app();
        app.update(Message::Failed("gone".to_owned()));
        assert_eq!((app.notice.as_deref(), app.task_ids().len()), (Some("no answer: gone"), 3));
        app.update(Message::Data(Box::default()));
        assert_eq!((app.notice, app.data.tasks.len()), (None, 0));
    }

    #[test]
    fn a_frozen_screen_stays_as_it_is() {
        let mut app = app();
        press(&mut app, " ");
        app.update(Message::Data(Box::default()));
        assert_eq!(app.data.tasks.len(), 3);
        press(&mut app, " ");
        app.update(Message::Data(Box::default()));
        assert_eq!(app.data.tasks.len(), 0);
    }

    #[test]
    fn it_ends_by_q_by_ctrl_c_and_with_its_terminal() {
        let mut app = app();
        assert_eq!(press(&mut app, "?q"), Wish::Nothing, "the first key closes the help");
        assert_eq!(press(&mut app, "q"), Wish::Quit);
        app.mode = Mode::Filtering;
        assert_eq!(app.update(Message::Key(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
        assert_eq!(app.update(Message::Gone), Wish::Quit);
    }
}
