//! How the live view looks.

use super::super::survey::{Member, State};
use super::super::words;
use super::state::{App, Mode, NODE_ORDERS, Pane, TASK_ORDERS, text};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState};
use serde_json::Value;

/// Draws all of it.
pub(super) fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let nodes = (app.data.survey.members.len() as u16).clamp(1, NODES) + 3;
    let rows = [Constraint::Length(4), Constraint::Length(nodes), Constraint::Min(4), Constraint::Length(1)];
    let [head, middle, tasks, foot] = Layout::vertical(rows).areas(frame.area());
    header(app, frame, head);
    nodes_table(app, frame, middle);
    tasks_table(app, frame, tasks);
    footer(app, frame, foot);
    match &app.mode {
        Mode::Asking(task) => {
            let question = format!("Cancel {}?  y: yes   any other key: no", words::line(task, 60));
            popup(frame, " cancel ", vec![Line::from(question)]);
        }
        Mode::Helping => popup(frame, " keys ", HELP.iter().map(|line| Line::from(*line)).collect()),
        Mode::Looking | Mode::Filtering => {}
    }
}

/// Rows of nodes; more of them scroll.
const NODES: u16 = 10;

const HELP: [&str; 10] = [
    "Up Down j k PgUp PgDn Home End   select",
    "Tab     tasks or nodes",
    "s       sort by the next column",
    "r       the other way round",
    "/       filter by part of a name, type, state or worker; Esc clears it",
    "c       cancel the selected task, after a yes",
    "Space   freeze the screen",
    "? h     this",
    "q Esc   quit",
    "any key closes this",
];

fn header(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Min(40), Constraint::Length(34)]).areas(area);
    let survey = &app.data.survey;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let states = [State::Up, State::Draining, State::Connecting, State::Away];
    let counts = states.map(|state| (survey.in_state(state), state));
    let mut mesh = vec![Span::styled("taskmesh", bold), Span::raw(format!("  {} nodes:", survey.members.len()))];
    for (n, state) in counts.into_iter().filter(|(n, _)| *n > 0) {
        mesh.push(Span::raw(" "));
        mesh.push(Span::styled(format!("{n} {}", state.name()), Style::new().fg(colour(state.name()))));
    }
    let (answered, expected) = (survey.number("nodes_answered"), survey.number("nodes_expected"));
    if answered < expected {
        mesh.push(Span::styled(format!("  {answered} of {expected} answered"), Style::new().fg(Color::Yellow)));
    }
    let number = |field: &str| survey.number(field);
    let paused = survey.stats["paused"] == true;
    let queue = format!(
        "{}{} queued, {} delayed, {} blocked, {} running   {} completed, {} failed",
        if paused { "PAUSED  " } else { "" },
        number("queued_count"),
        number("delayed_count"),
        number("blocked_count"),
        number("running_count"),
        number("completed_count"),
        number("failed_count"),
    );
    let average = |field: &str| survey.stats[field].as_f64().map_or_else(|| "-".to_owned(), words::span);
    let pace = format!(
        "{:.1} tasks/min   wait {}   run {}",
        survey.stats["throughput"].as_f64().unwrap_or(0.0),
        average("average_wait_time"),
        average("average_execution_time"),
    );
    let queue = if paused { Line::styled(queue, Style::new().fg(Color::Yellow)) } else { Line::from(queue) };
    let waiting = survey.stats["waiting"].as_object().into_iter().flatten();
    let waiting: Vec<_> = waiting.filter(|(_, n)| n.as_u64() > Some(0)).map(|(why, n)| format!("{n} {why}")).collect();
    let waiting = if waiting.is_empty() { String::new() } else { format!("waiting: {}", waiting.join(", ")) };
    let lines = vec![Line::from(mesh), queue, Line::from(pace), Line::from(waiting)];
    frame.render_widget(Paragraph::new(lines), left);
    let ended: Vec<u64> =
        survey.stats["historical"].as_array().into_iter().flatten().filter_map(|m| m["ended"].as_u64()).collect();
    let newest = ended.len().saturating_sub(usize::from(right.width));
    let most = ended.iter().max().copied().unwrap_or(0);
    let block = Block::new().title(format!("ended, by minute (most {most})"));
    frame.render_widget(Sparkline::default().block(block).data(&ended[newest..]), right);
}

fn nodes_table(app: &mut App, frame: &mut Frame<'_>, area: Rect) {
    let rows: Vec<(String, Row<'static>)> =
        app.shown_nodes().into_iter().map(|m| (m.peer_id.clone(), node_row(m))).collect();
    let selected = rows.iter().position(|(id, _)| Some(id) == app.nodes.selected.as_ref());
    let place = &app.nodes;
    let title =
        title("nodes", rows.len(), app.data.survey.members.len() as u64, NODE_ORDERS[place.order], place.reversed);
    let widths = [
        Constraint::Min(12),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(16),
    ];
    let head = ["NODE", "STATE", "RUNNING", "CPU", "MEMORY", "LATENCY", "VERSION"];
    let focused = app.pane == Pane::Nodes;
    let table = table(rows.into_iter().map(|(_, row)| row).collect(), widths, head, title, focused);
    show(frame, area, table, &mut app.nodes.table, selected);
}

fn node_row(member: &Member) -> Row<'static> {
    let measured = |field: &str| member.workers.iter().find_map(|w| w["metrics"][field].as_f64());
    let dash = || "-".to_owned();
    let (slots, running) = member.slots();
    Row::new([
        Cell::from(member.shown()),
        Cell::from(member.state.name()).style(Style::new().fg(colour(member.state.name()))),
        Cell::from(format!("{running}/{slots}")),
        Cell::from(measured("cpu_percent").map_or_else(dash, |percent| format!("{percent:.0} %"))),
        Cell::from(measured("memory_mb").map_or_else(dash, |mib| words::bytes(mib * 1_048_576.0))),
        Cell::from(
            member
                .latency_ms
                .map_or_else(|| if member.asked { "asked".to_owned() } else { dash() }, |ms| format!("{ms:.1} ms")),
        ),
        Cell::from(member.program.clone().unwrap_or_else(dash)),
    ])
}

fn tasks_table(app: &mut App, frame: &mut Frame<'_>, area: Rect) {
    let row = |task: &Value| {
        let state = text(task, "status").to_owned();
        let style = Style::new().fg(colour(&state));
        let row = Row::new([
            Cell::from(words::line(text(task, "task_id"), 120)),
            Cell::from(words::line(text(task, "task_type"), 16)),
            Cell::from(state).style(style),
            Cell::from(app.age_text(task)),
            Cell::from(task["priority"].as_f64().map_or_else(|| "-".to_owned(), |p| format!("{p:.1}"))),
            Cell::from(task["attempt"].to_string()),
            Cell::from(words::line(text(task, "worker_id"), 40)),
        ]);
        (text(task, "task_id").to_owned(), row)
    };
    let rows: Vec<(String, Row<'static>)> = app.shown_tasks().into_iter().map(row).collect();
    let selected = rows.iter().position(|(id, _)| Some(id) == app.tasks.selected.as_ref());
    let place = &app.tasks;
    let title = title("tasks", rows.len(), app.data.total, TASK_ORDERS[place.order], place.reversed);
    let widths = [
        Constraint::Min(20),
        Constraint::Length(16),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(20),
    ];
    let head = ["TASK", "TYPE", "STATE", "TIME", "PRIORITY", "ATTEMPT", "WORKER"];
    let focused = app.pane == Pane::Tasks;
    let table = table(rows.into_iter().map(|(_, row)| row).collect(), widths, head, title, focused);
    show(frame, area, table, &mut app.tasks.table, selected);
}

fn title(what: &str, shown: usize, all: u64, order: &str, reversed: bool) -> String {
    let way = if reversed { ", the other way round" } else { "" };
    let count = if shown as u64 == all { all.to_string() } else { format!("{shown} of {all}") };
    format!(" {what}: {count}, by {order}{way} ")
}

fn table<const N: usize>(
    rows: Vec<Row<'static>>,
    widths: [Constraint; N],
    head: [&'static str; N],
    title: String,
    focused: bool,
) -> Table<'static> {
    let style = if focused { Style::new().fg(Color::Cyan) } else { Style::new() };
    Table::new(rows, widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::TOP).border_style(style).title(title))
}

fn show(frame: &mut Frame<'_>, area: Rect, table: Table<'static>, state: &mut TableState, selected: Option<usize>) {
    state.select(selected);
    frame.render_stateful_widget(table, area, state);
}

fn footer(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let filter = if app.pane == Pane::Tasks { &app.tasks.filter } else { &app.nodes.filter };
    let line = match (&app.mode, &app.notice) {
        (Mode::Filtering, _) => Line::from(format!("filter: {filter}_   Enter keeps it, Esc clears it")),
        (_, Some(notice)) => Line::styled(words::line(notice, 200), Style::new().fg(Color::Yellow)),
        (_, None) if app.frozen => Line::styled("frozen: Space goes on", Style::new().fg(Color::Yellow)),
        (_, None) if !filter.is_empty() => Line::from(format!("filter: {filter}   Esc clears it")),
        (_, None) => Line::from("q quit  Tab tasks/nodes  s sort  r reverse  / filter  c cancel  Space freeze  ? help"),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn popup(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'_>>) {
    let area = frame.area();
    let wide = lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 4;
    let (width, height) = (wide.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let at = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, at);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title.to_owned())), at);
}

fn colour(state: &str) -> Color {
    match state {
        "up" => Color::Green,
        "running" | "leased" | "connecting" => Color::Cyan,
        "draining" | "delayed" | "blocked" => Color::Yellow,
        "away" => Color::Red,
        _ => Color::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Message;
    use super::super::state::tests::app;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(app, frame)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    #[test]
    fn the_screen_has_the_mesh_its_nodes_and_its_tasks() {
        let lines = drawn(&mut app(), 100, 22);
        let all = lines.join("\n");
        assert!(lines[0].starts_with("taskmesh  3 nodes: 1 up 1 draining 1 away  2 of 3 answered"), "{all}");
        assert!(lines[1].starts_with("12 queued, 3 delayed, 0 blocked, 3 running   120 completed"), "{all}");
        assert!(lines[2].starts_with("84.2 tasks/min   wait 0.3 s   run 1.0 s"), "{all}");
        assert!(lines[4].contains(" nodes: 3, by node "), "{all}");
        assert!(lines[5].starts_with("NODE"), "{all}");
        assert!(lines[6].starts_with("alpha") && lines[6].contains("1/2") && lines[6].contains("asked"), "{all}");
        assert!(lines[8].starts_with("cccc3333") && lines[8].contains("away"), "{all}");
        assert!(lines[10].contains(" tasks: 3 of 30, by time "), "{all}");
        assert!(lines[12].starts_with("c ") && lines[12].contains("queued") && lines[12].contains("60 s"), "{all}");
        assert!(lines[13].starts_with("b ") && lines[13].contains("w-a"), "{all}");
        assert!(lines[21].starts_with("q quit"), "{all}");
    }

    #[test]
    fn what_is_asked_and_what_is_told_is_seen() {
        let mut app = app();
        app.mode = Mode::Asking("c".to_owned());
        assert!(drawn(&mut app, 80, 20).join("\n").contains("Cancel c?  y: yes"));
        app.mode = Mode::Helping;
        assert!(drawn(&mut app, 80, 20).join("\n").contains("sort by the next column"));
        app.mode = Mode::Looking;
        app.update(Message::Failed("gone\u{1b}[2J".to_owned()));
        assert_eq!(drawn(&mut app, 80, 20)[19], "no answer: gone [2J");
    }

    #[test]
    fn no_terminal_is_too_small_and_no_mesh_too_large() {
        let mut app = app();
        for n in 0..60 {
            let mut more = app.data.survey.members[0].clone();
            more.peer_id = format!("peer-{n}");
            app.data.survey.members.push(more);
        }
        for mode in [Mode::Looking, Mode::Filtering, Mode::Helping, Mode::Asking("a".repeat(300))] {
            app.mode = mode;
            for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
                assert_eq!(drawn(&mut app, width, height).len(), usize::from(height));
            }
        }
    }
}
