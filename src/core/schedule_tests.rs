//! Of times alone.

use super::*;

fn at(text: &str) -> Unix {
    let time = DateTime::parse_from_rfc3339(text).expect("a time");
    Unix(time.timestamp_millis() as u64)
}

fn table(cron: &str, timezone: &str) -> Timetable {
    Timetable::read(cron, timezone).expect("a timetable")
}

fn ticks(table: &Timetable, from: &str, count: usize) -> Vec<String> {
    let next = |tick: &Unix| table.after(*tick);
    std::iter::successors(table.after(at(from)), next).take(count).map(shown).collect()
}

#[test]
fn a_pattern_has_five_fields_or_seconds_in_front_or_a_year_behind() {
    let noon = "2026-01-02T12:00:00Z";
    assert_eq!(ticks(&table("*/15 * * * *", UTC), noon, 2), ["2026-01-02T12:15:00Z", "2026-01-02T12:30:00Z"]);
    assert_eq!(ticks(&table("* * * * * *", UTC), noon, 2), ["2026-01-02T12:00:01Z", "2026-01-02T12:00:02Z"]);
    assert_eq!(ticks(&table("0 0 9 2 2 * 2026", UTC), noon, 2), ["2026-02-02T09:00:00Z"], "once");
    assert_eq!(ticks(&table("30 2 * * MON-FRI", UTC), noon, 1), ["2026-01-05T02:30:00Z"]);
    assert_eq!(ticks(&table("@daily", UTC), noon, 1), ["2026-01-03T00:00:00Z"]);
    assert_eq!(ticks(&table("0 9 * * *", "Asia/Tokyo"), noon, 1), ["2026-01-03T00:00:00Z"], "the wall time there");
}

#[test]
fn what_can_not_be_read_is_named_with_what_would_be_right() {
    for (cron, timezone, field, says) in [
        ("nonsense", UTC, "cron", "no pattern of five fields"),
        ("61 * * * *", UTC, "cron", "no pattern of five fields"),
        ("", UTC, "cron", "1 to 256 bytes"),
        ("* * * * *", "Mars/Olympus", "timezone", "Europe/Berlin"),
        ("* * * * *", "", "timezone", "1 to 256 bytes"),
    ] {
        let error = Timetable::read(cron, timezone).expect_err("it is refused");
        assert_eq!(error.field, field, "{error}");
        assert!(error.problem.contains(says), "{error}");
    }
    let long = "*".repeat(300);
    assert_eq!(Timetable::read(&long, UTC).expect_err("too long").field, "cron");
}

#[test]
fn a_pattern_that_never_comes_is_known_as_such() {
    assert_eq!(table("0 0 30 2 *", UTC).after(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(table("0 0 0 1 1 * 2020", UTC).after(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(table("* * * * *", UTC).after(Unix(u64::MAX)), None, "nor is there time without end");
}

#[test]
fn a_time_that_the_clock_leaves_out_comes_right_after() {
    // 2026-03-29 in Berlin: 02:00 is 03:00.
    let berlin = |cron| table(cron, "Europe/Berlin");
    let before = "2026-03-29T00:30:00Z";
    let fixed = ticks(&berlin("30 2 * * *"), before, 2);
    assert_eq!(fixed, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"], "03:00 that day, 02:30 the next");
    let hourly = ticks(&berlin("30 * * * *"), before, 2);
    assert_eq!(hourly, ["2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"], "02:30 is no time: 03:30 is the next");
}

#[test]
fn a_time_that_comes_twice_is_one_tick_unless_it_is_every_hour() {
    // 2026-10-25 in Berlin: 03:00 is 02:00 again.
    let berlin = |cron| table(cron, "Europe/Berlin");
    let before = "2026-10-24T23:50:00Z";
    let fixed = ticks(&berlin("30 2 * * *"), before, 2);
    assert_eq!(fixed, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"], "the first of the two");
    let hourly = ticks(&berlin("30 * * * *"), before, 3);
    assert_eq!(hourly, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]);
}

#[test]
fn ticks_are_the_same_forwards_and_backwards() {
    for cron in ["*/7 * * * *", "30 2 * * *", "0 30 * * * *", "15 1 * * *"] {
        let table = table(cron, "America/New_York");
        for start in ["2026-03-07T00:00:00Z", "2026-10-31T00:00:00Z"] {
            let mut tick = table.after(at(start)).expect("there is one");
            for _ in 0..300 {
                let next = table.after(tick).expect("there is one");
                assert!(next > tick, "{cron}");
                assert_eq!(table.until(next), Some(next), "{cron}: {}", shown(next));
                assert_eq!(table.until(Unix(next.0 - 1)), Some(tick), "{cron}: before {}", shown(next));
                tick = next;
            }
        }
    }
}

#[test]
fn the_task_of_a_tick_sorts_as_its_time_does_and_says_it() {
    let schedule = TaskId::new("nightly").expect("an id");
    let task = tick_id(&schedule, at("2026-01-02T03:04:05Z")).expect("an id");
    assert_eq!(task.as_str(), "nightly/20260102T030405Z");
    assert_eq!(tick_time(&task), Some(at("2026-01-02T03:04:05Z")));
    for other in ["nightly", "nightly/x", "nightly/20260102T030405Z-retry-1", "nightly/20261302T030405Z"] {
        assert_eq!(tick_time(&TaskId::new(other).expect("an id")), None, "{other}");
    }
    assert!(tick_id(&schedule, Unix(u64::MAX)).is_none());
}

#[test]
fn what_is_on_time_is_fired_whatever_becomes_of_the_missed() {
    let table = table("* * * * * *", UTC);
    let due = at("2026-01-01T00:00:00Z");
    for catch_up in CatchUp::ALL {
        let turn = |now: u64| table.turn(catch_up, due, Unix(due.0 + now), due);
        assert_eq!(turn(0), Turn::Fire);
        assert_eq!(turn(limits::TICK_GRACE.0), Turn::Fire);
        assert_eq!(table.turn(catch_up, due, Unix(due.0 - 1), due), Turn::Wait);
    }
}

#[test]
fn missed_ticks_are_left_out_or_made_up_for_as_the_schedule_says() {
    let table = table("0 * * * *", UTC);
    let (due, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T05:30:00Z"));
    let turn = |catch_up, due| table.turn(catch_up, due, now, table.oldest(due, now));
    assert_eq!(turn(CatchUp::None, due), Turn::Skip(at("2026-01-01T06:00:00Z")));
    assert_eq!(turn(CatchUp::One, due), Turn::Skip(at("2026-01-01T05:00:00Z")));
    assert_eq!(turn(CatchUp::One, at("2026-01-01T05:00:00Z")), Turn::Fire);
    assert_eq!(turn(CatchUp::All, due), Turn::Fire);
    let once = Timetable::read("0 0 0 1 1 * 2026", UTC).expect("a timetable");
    assert_eq!(once.turn(CatchUp::None, due, now, due), Turn::Over, "there is no other");
    assert_eq!(once.turn(CatchUp::One, due, now, due), Turn::Fire);
}

#[test]
fn no_more_than_the_latest_thousand_are_made_up_for() {
    let each = table("* * * * *", UTC);
    let due = at("2026-01-01T00:00:00Z");
    let later = |minutes: u64| Unix(due.0 + minutes * 60_000);
    assert_eq!(each.oldest(due, later(999)), due, "a thousand, both ends counted");
    assert_eq!(each.oldest(due, later(1_000)), later(1));
    let now = later(1_000_000);
    let oldest = each.oldest(due, now);
    assert_eq!(oldest, later(1_000_000 - 999));
    assert_eq!(each.turn(CatchUp::All, due, now, oldest), Turn::Skip(oldest));
    assert_eq!(each.turn(CatchUp::All, oldest, now, oldest), Turn::Fire);
}

#[test]
fn a_schedule_keeps_the_work_of_its_ticks() {
    let spec = Spec {
        payload: Arc::from(&br#"{"b":1.5,"a":[18446744073709551615]}"#[..]),
        not_before: Some(Unix(5)),
        deadline: Some(Unix(6)),
        idempotency_key: Some("key".into()),
        ..crate::testing::spec()
    };
    let wrapped = Schedule::wrap(spec.clone(), "@daily", UTC, CatchUp::One).expect("it can be wrapped");
    assert!(wrapped.is_schedule() && wrapped.not_before == Some(Unix(5)));
    let work = wrapped.work().into_owned();
    let json = |spec: &Spec| serde_json::from_slice::<Value>(&spec.payload).expect("JSON");
    assert_eq!(json(&work), json(&spec));
    let plain = Spec { not_before: None, deadline: None, idempotency_key: None, ..spec };
    assert_eq!(Spec { payload: plain.payload.clone(), ..work }, plain);
}
