//! Every answer, drawn at random within the limits.

use super::super::check::{COUNT, COUNTER};
use super::{
    Any, labels, long, millis, node, nodes, pause, priority, report, requirements, resources, short, task, unix, worker,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use std::sync::Arc;
use taskmesh_core::explain::Reason;
use taskmesh_core::order::Scheduling;
use taskmesh_core::schedule::CatchUp;
use taskmesh_core::view::{
    Explanation, NodeLoad, ScheduleView, Stats, Status, Submitted, TaskPage, TaskView, WorkerStatus, WorkerView,
};
use taskmesh_core::{Refusal, Reply, limits};

pub(super) fn result() -> Any<Result<Reply, Refusal>> {
    prop_oneof![3 => reply().prop_map(Ok), 1 => refusal().prop_map(Err)].boxed()
}

pub(super) fn status() -> Any<Status> {
    proptest::sample::select(&Status::ALL[..]).boxed()
}

fn members() -> std::ops::RangeInclusive<u32> {
    0..=COUNTER
}

fn position() -> Any<Option<u64>> {
    of(0..=COUNT).boxed()
}

fn reply() -> Any<Reply> {
    prop_oneof![
        super::cached::reply(),
        of_changes(),
        of_queues(),
        task_view().prop_map(|view| Reply::Task(Box::new(view))),
        page().prop_map(Reply::Tasks),
        stats().prop_map(|stats| Reply::Stats(Box::new(stats))),
        worker_view().prop_map(|view| Reply::Worker(Box::new(view))),
        vec(worker_view(), 0..4).prop_map(Reply::Workers),
        any::<bool>().prop_map(Reply::Hears),
        (super::forgotten(), 0..=COUNT, 0..=COUNT, nodes(0..4))
            .prop_map(|(word, shared, bereft, silent)| Reply::Forgot { word, shared, bereft, silent }),
    ]
    .boxed()
}

fn of_changes() -> Any<Reply> {
    prop_oneof![
        submitted().prop_map(|submitted| Reply::Submitted(Box::new(submitted))),
        (task(), status(), unix(), any::<bool>()).prop_map(|(task, status, at, cleanup_required)| Reply::Cancelled {
            task,
            status,
            at,
            cleanup_required
        }),
        (task(), status(), unix()).prop_map(|(task, status, at)| Reply::Approved { task, status, at }),
        (task(), unix(), vec(short(), 0..5)).prop_map(|(task, at, steps)| Reply::WorkflowCancelled { task, at, steps }),
        (task(), priority(), priority(), position()).prop_map(|(task, old, new, position)| Reply::Reprioritised {
            task,
            old,
            new,
            position
        }),
        (task(), task(), 0..=COUNTER, position()).prop_map(|(task, retry, count, position)| Reply::Retried {
            task,
            retry,
            count,
            position
        }),
    ]
    .boxed()
}

fn of_queues() -> Any<Reply> {
    prop_oneof![
        (unix(), 0..=COUNT, 0..=COUNT).prop_map(|(at, queued, running)| Reply::Paused { at, queued, running }),
        (unix(), 0..=COUNT, any::<bool>()).prop_map(|(at, queued, reordered)| Reply::Resumed { at, queued, reordered }),
        (0..=COUNT, 0..=COUNT, unix(), members(), members()).prop_map(
            |(cleared, remaining, at, answered, expected)| Reply::Cleared {
                cleared,
                remaining,
                at,
                answered,
                expected
            }
        ),
        (worker(), any::<bool>(), unix(), 0..=COUNT, 0..=COUNT).prop_map(|(worker, gone, at, completed, abandoned)| {
            Reply::Unregistered { worker, gone, at, completed, abandoned }
        }),
    ]
    .boxed()
}

fn submitted() -> Any<Submitted> {
    (
        (task(), status(), position(), of(worker()), node()),
        (any::<bool>(), of(0..=limits::ARRAY_ITEMS as u32), members(), of(long()), of(unix())),
    )
        .prop_map(
            |((task, status, position, worker, home), (replayed, items, feasible, infeasible, estimated_start))| {
                Submitted {
                    task,
                    status,
                    position,
                    worker,
                    home,
                    replayed,
                    items,
                    feasible,
                    infeasible,
                    estimated_start,
                }
            },
        )
        .boxed()
}

fn task_view() -> Any<TaskView> {
    let tail = vec(any::<u8>(), 0..100).prop_map(Arc::from);
    (
        (task(), short(), status(), priority(), vec(short(), 0..4), of((node(), worker()))),
        ([0..=COUNTER, 0..=COUNTER, 0..=COUNTER, 0..=COUNTER], unix(), [of(unix()), of(unix()), of(unix())]),
        (node(), nodes(0..5), position(), of(0..=100_u8), of(long()), of(tail), of(long())),
        ([of(task()), of(task())], vec(task(), 0..3), requirements(), of(explanation()), of(report())),
        (
            of(super::workflows::workflow_view()),
            of(schedule_view()),
            of(super::cached::origin()),
            of(super::spec().prop_map(Arc::new)),
            vec(super::forgotten(), 0..3),
        ),
    )
        .prop_map(|(first, second, third, fourth, (workflow, schedule, cached_from, spec, forgotten))| {
            let (task, task_type, status, priority, tags, executor) = first;
            let ([attempt, failures, crashes, epoch], submitted_at, [started_at, ended_at, delayed_until]) = second;
            let (home, holders, position, progress, message, log_tail, error) = third;
            let ([retry_of, retried_as], depends_on, requirements, explanation, report) = fourth;
            let workflow = workflow.map(|w| Box::new(super::workflows::of_task(w, &task)));
            TaskView {
                workflow,
                task,
                task_type,
                status,
                priority,
                tags,
                executor,
                attempt,
                failures,
                crashes,
                submitted_at,
                started_at,
                ended_at,
                delayed_until,
                home,
                holders,
                forgotten,
                epoch,
                position,
                progress,
                message,
                log_tail,
                error,
                retry_of,
                retried_as,
                depends_on,
                requirements,
                explanation,
                report,
                schedule: schedule.map(Box::new),
                cached_from,
                spec,
            }
        })
        .boxed()
}

fn schedule_view() -> Any<ScheduleView> {
    let catch_up = proptest::sample::select(&CatchUp::ALL[..]);
    ([short(), short(), short()], catch_up, 0..=COUNTER, of((unix(), status())), of(unix()))
        .prop_map(|([cron, timezone, task_type], catch_up, fired, last, next)| ScheduleView {
            cron,
            timezone,
            catch_up,
            task_type,
            fired,
            last,
            next,
        })
        .boxed()
}

fn explanation() -> Any<Explanation> {
    (of(reason()), long(), vec((node(), of(worker()), long()), 0..4), long(), of(unix()))
        .prop_map(|(reason, summary, nodes, next, next_at)| Explanation { reason, summary, nodes, next, next_at })
        .boxed()
}

fn reason() -> Any<Reason> {
    proptest::sample::select(&Reason::ALL[..]).boxed()
}

fn page() -> Any<TaskPage> {
    (vec(task_view(), 0..3), 0..=COUNT, members(), members())
        .prop_map(|(tasks, total, answered, expected)| TaskPage { tasks, total, answered, expected })
        .boxed()
}

fn stats() -> Any<Stats> {
    let measured = || (millis(), 0..=COUNT);
    (
        (btree_map(status(), 0..=COUNT, 0..9), measured(), measured(), 0..=COUNT, of(millis()), of(pause())),
        (of(vec(worker_view(), 0..3)), of(vec((unix(), 0..=COUNT, 0..=COUNT), 0..61)), members(), members()),
        (btree_set(proptest::sample::select(&Scheduling::ALL[..]), 0..3), btree_map(reason(), 0..=COUNT, 0..5)),
    )
        .prop_map(|(now, (workers, historical, answered, expected), (scheduling, waiting))| {
            let (counts, waits, runs, ended, oldest_queued, paused) = now;
            Stats {
                counts,
                waits,
                runs,
                ended,
                oldest_queued,
                paused,
                workers,
                historical,
                scheduling,
                waiting,
                answered,
                expected,
            }
        })
        .boxed()
}

fn worker_view() -> Any<WorkerView> {
    let doing = proptest::sample::select(
        &[WorkerStatus::Active, WorkerStatus::Idle, WorkerStatus::Busy, WorkerStatus::Draining, WorkerStatus::Offline]
            [..],
    );
    let measured = || of(0.0..1e12);
    let load = (measured(), measured(), measured()).prop_map(|(cpu_percent, memory_mb, load1)| NodeLoad {
        cpu_percent,
        memory_mb,
        load1,
    });
    (
        (worker(), node(), doing, vec(short(), 0..4), labels(), of(resources(COUNT)), 0..=limits::SLOTS),
        (
            [of(0..=COUNTER), of(0..=COUNTER)],
            [of(0..=COUNT), of(0..=COUNT)],
            of(unix()),
            of(vec(task(), 0..3)),
            of(load),
        ),
    )
        .prop_map(|(first, ([running, free], [completed, failed], last_seen, tasks, load))| {
            let (worker, node, status, capabilities, labels, resources, slots) = first;
            WorkerView {
                worker,
                node,
                status,
                capabilities,
                labels,
                resources,
                slots,
                running,
                free,
                completed,
                failed,
                last_seen,
                tasks,
                load,
            }
        })
        .boxed()
}

fn refusal() -> Any<Refusal> {
    prop_oneof![
        (short(), long()).prop_map(|(field, problem)| Refusal::Invalid { field, problem }),
        (short(), short()).prop_map(|(what, name)| Refusal::NotFound { what, name }),
        short().prop_map(|name| Refusal::Conflict { name }),
        (short(), short(), long()).prop_map(|(name, status, needs)| Refusal::State { name, status, needs }),
        (short(), any::<u64>(), millis()).prop_map(|(what, limit, retry_after)| Refusal::Full {
            what,
            limit,
            retry_after
        }),
        (long(), millis()).prop_map(|(problem, retry_after)| Refusal::Unavailable { problem, retry_after }),
        millis().prop_map(|waited| Refusal::Deadline { waited }),
        (short(), any::<u64>(), any::<u64>()).prop_map(|(field, got, limit)| Refusal::TooLarge { field, got, limit }),
        long().prop_map(|problem| Refusal::Denied { problem }),
    ]
    .boxed()
}
