//! What `exec` promises, with real programs.

#![allow(clippy::unwrap_used)]

use super::contract::{Bench, spec, until};
use super::*;
use serde_json::json;
use std::path::Path;

/// A program of the test's own: `sh` is only what it starts, by `argv`.
fn sh(script: &str) -> String {
    json!({ "argv": ["sh", "-c", script] }).to_string()
}

fn text(bytes: Option<&Vec<u8>>) -> &str {
    std::str::from_utf8(bytes.unwrap()).unwrap()
}

fn alive(pid: i32) -> bool {
    // A zombie that nobody reaps, in a container without an init, is dead too.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The number that a program wrote into a file, once it is whole.
fn pid_in(file: &Path) -> i32 {
    let mut pid = None;
    until("the program writes its number", || {
        pid = std::fs::read_to_string(file).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
        pid.is_some()
    });
    pid.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_reach_the_program_without_a_shell() {
    let bench = Bench::new(|_| ());
    let argv = ["printf", "%s|", "$HOME", "*", "a b", "; exit 3", "`id`", "\"q\"", ""];
    let (verdict, report) = bench.outcome("exec", &json!({ "argv": argv }).to_string());
    assert_eq!(verdict, Verdict::Completed);
    assert_eq!(text(report.output.as_ref()), "$HOME|*|a b|; exit 3|`id`|\"q\"||");
    assert_eq!(report.result, br#"{"exit_code":0,"signal":null}"#);
    assert!(!report.truncated);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_clean_but_for_what_is_documented() {
    let bench = Bench::new(|_| ());
    let payload = json!({ "argv": ["env", "-0"], "env": { "MINE": "a=b", "LANG": "C" } }).to_string();
    let (_, report) = bench.outcome("exec", &payload);
    let env: BTreeMap<_, _> =
        text(report.output.as_ref()).split('\0').filter_map(|line| line.split_once('=')).collect();
    let fence = format!("3-{}-1", taskmesh_core::NodeId([7; 32]));
    assert_eq!(env["TASKMESH_TASK_ID"], "job/7");
    assert_eq!(env["TASKMESH_ATTEMPT"], "1");
    assert_eq!(env["TASKMESH_FENCE"], fence);
    assert_eq!(env["MINE"], "a=b");
    assert_eq!(env["LANG"], "C");
    assert_eq!(env["PATH"], std::env::var("PATH").unwrap());
    for name in env.keys() {
        let known = ["PATH", "HOME", "LANG", "TZ", "MINE"].contains(name) || name.starts_with("TASKMESH_");
        assert!(known, "{name} leaked");
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_a_fresh_folder_that_is_gone_afterwards() {
    let bench = Bench::new(|_| ());
    let script = "pwd; stat -c %a .; ls -A; mkdir -p deep/er; echo x > deep/er/file";
    let (verdict, report) = bench.outcome("exec", &sh(script));
    assert_eq!(verdict, Verdict::Completed);
    let mut lines = text(report.output.as_ref()).lines();
    let cwd = Path::new(lines.next().unwrap());
    assert!(cwd.starts_with(bench.folder.path().canonicalize().unwrap().join("work")), "{}", cwd.display());
    assert_eq!(lines.collect::<Vec<_>>(), ["700"]);
    assert!(!cwd.exists());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_folder_is_used_and_kept() {
    let bench = Bench::new(|_| ());
    let mine = bench.folder.path().canonicalize().unwrap();
    let payload = json!({ "argv": ["sh", "-c", "pwd; echo kept > file"], "cwd": mine }).to_string();
    let (verdict, report) = bench.outcome("exec", &payload);
    assert_eq!(verdict, Verdict::Completed);
    assert_eq!(Path::new(text(report.output.as_ref()).trim_end()), mine);
    assert_eq!(std::fs::read_to_string(mine.join("file")).unwrap(), "kept\n");
    let payload = json!({ "argv": ["true"], "cwd": mine.join("nowhere") }).to_string();
    let (verdict, _) = bench.outcome("exec", &payload);
    assert!(
        matches!(&verdict, Verdict::Failed { error, retryable: false } if error.starts_with("cwd: ")),
        "{verdict:?}"
    );
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_an_earlier_life_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir_all(work.join("run-old/deep")).unwrap();
    std::fs::create_dir_all(work.join("other")).unwrap();
    let bench = Bench::new(|config| config.work_dir = work.clone());
    assert!(!work.join("run-old").exists());
    assert!(work.join("other").exists());
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_programs_start() {
    let bench = Bench::new(|config| config.allow = vec!["true".into(), "/bin/echo".into()]);
    assert_eq!(bench.outcome("exec", r#"{"argv":["true"]}"#).0, Verdict::Completed);
    assert_eq!(bench.outcome("exec", r#"{"argv":["/bin/echo"]}"#).0, Verdict::Completed);
    for refused in [
        r#"{"argv":["/bin/true"]}"#,
        r#"{"argv":["echo"]}"#,
        r#"{"argv":["./true"]}"#,
        r#"{"argv":["sh"]}"#,
        r#"{"argv":["true"],"env":{"LD_PRELOAD":"/tmp/x.so"}}"#,
    ] {
        let (verdict, _) = bench.outcome("exec", refused);
        assert!(matches!(verdict, Verdict::Failed { retryable: false, .. }), "{refused}: {verdict:?}");
    }
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_a_task_finds_no_program() {
    let bench = Bench::new(|config| config.allow = vec!["true".into(), "mine".into()]);
    let mine = bench.folder.path().join("mine");
    std::fs::copy("/bin/true", &mine).unwrap();
    let payload = json!({ "argv": ["mine"], "env": { "PATH": bench.folder.path() } }).to_string();
    let (verdict, _) = bench.outcome("exec", &payload);
    assert!(matches!(verdict, Verdict::Failed { retryable: false, .. }), "{verdict:?}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_told_with_the_last_line() {
    let bench = Bench::new(|_| ());
    let failed = |error: &str| Verdict::Failed { error: error.into(), retryable: true };
    let (verdict, report) = bench.outcome("exec", &sh("echo first >&2; echo the reason >&2; echo >&2; exit 3"));
    assert_eq!(verdict, failed("exit code 3: the reason"));
    assert_eq!(text(report.logs.as_ref()), "first\nthe reason\n\n");
    assert_eq!(report.result, br#"{"exit_code":3,"signal":null}"#);
    assert_eq!(bench.outcome("exec", &sh("exit 1")).0, failed("exit code 1"));
    let (verdict, report) = bench.outcome("exec", &sh("kill -SEGV $$"));
    assert_eq!(verdict, failed("ended by signal 11 (SIGSEGV)"));
    assert_eq!(report.result, br#"{"exit_code":null,"signal":11}"#);
    let payload = json!({ "argv": ["sh", "-c", "exit 3"], "success_codes": [3] }).to_string();
    assert_eq!(bench.outcome("exec", &payload).0, Verdict::Completed);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_program_is_refused_for_good() {
    let bench = Bench::new(|_| ());
    let file = bench.folder.path().join("file");
    std::fs::write(&file, "no program").unwrap();
    for argv0 in [file.to_str().unwrap(), "/no/such/file", "no-such-name", "/"] {
        let (verdict, _) = bench.outcome("exec", &json!({ "argv": [argv0] }).to_string());
        assert!(matches!(verdict, Verdict::Failed { retryable: false, .. }), "{argv0}: {verdict:?}");
    }
    let long = json!({ "argv": ["true", "x".repeat(500_000)] }).to_string();
    let (verdict, _) = bench.outcome("exec", &long);
    assert!(matches!(verdict, Verdict::Failed { retryable: false, .. }), "{verdict:?}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_input_is_streamed_both_ways() {
    let bench = Bench::new(|config| config.output_bytes = 8 << 20);
    let input = "0123456789abcdef".repeat(60_000);
    let (verdict, report) = bench.outcome("exec", &json!({ "argv": ["cat"], "stdin": input }).to_string());
    assert_eq!(verdict, Verdict::Completed);
    assert!(report.output.unwrap() == input.into_bytes() && !report.truncated);
    let content = vec![b'y'; 3_000_000];
    let (hash, kept) = (BlobHash::of(&content), content.clone());
    bench.executors.find_blobs_by(Arc::new(move |asked, offset, len| {
        let here = (asked == hash).then(|| kept[offset as usize..len.min(kept.len())].to_vec());
        Box::pin(std::future::ready(here))
    }));
    let left = json!({"$blob": hash.to_string(), "bytes": content.len(), "uri": "for people"});
    let payload = json!({"argv": ["cksum"], "stdin": ["a", null, "b\n", left, ""]});
    let (_, report) = bench.outcome("exec", &payload.to_string());
    let whole = json!({"argv": ["cksum"], "stdin": format!("a\nb\n{}", String::from_utf8(content).unwrap())});
    assert_eq!(report.output, bench.outcome("exec", &whole.to_string()).1.output);
    let other = json!({"$blob": BlobHash::of(b"").to_string(), "bytes": 1});
    let (verdict, _) = bench.outcome("exec", &json!({"argv": ["cat"], "stdin": other}).to_string());
    let Verdict::Failed { error, retryable: true } = verdict else { panic!("{verdict:?}") };
    assert!(error.contains("no node that could be reached has the content"), "{error}");
    let payload = r#"{"argv":["od","-An","-tx1"],"stdin_base64":"AP+A"}"#;
    assert_eq!(text(bench.outcome("exec", payload).1.output.as_ref()), " 00 ff 80\n");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_nobody_reads_is_no_failure() {
    let bench = Bench::new(|_| ());
    let payload = json!({ "argv": ["true"], "stdin": "x".repeat(500_000) }).to_string();
    assert_eq!(bench.outcome("exec", &payload).0, Verdict::Completed);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_output_is_drained_cut_and_never_held() {
    let bench = Bench::new(|_| ());
    let before = resident_kib();
    let script = "head -c 100000000 /dev/zero; head -c 100000000 /dev/zero >&2";
    let payload = json!({ "argv": ["sh", "-c", script], "output_limit": 1000 }).to_string();
    let (verdict, report) = bench.outcome("exec", &payload);
    assert_eq!(verdict, Verdict::Completed);
    assert_eq!((report.output.unwrap().len(), report.logs.unwrap().len()), (1000, 1000));
    assert!(report.truncated);
    // Other tests share the process; a tenth of the output would still show.
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 50_000, "grew by {grown} KiB");
    bench.close().await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_cap_is_above_the_tasks_wish() {
    let bench = Bench::new(|config| config.output_max_bytes = 10);
    let payload = json!({ "argv": ["echo", "0123456789abcdef"], "output_limit": 1000 }).to_string();
    let (_, report) = bench.outcome("exec", &payload);
    assert_eq!((text(report.output.as_ref()), report.truncated), ("0123456789", true));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_of_the_group_is_left_behind() {
    let bench = Bench::new(|_| ());
    let file = bench.folder.path().join("pid");
    let script = format!(
        "(trap '' TERM HUP; sleep 3600 & echo $! > {0}.new; mv {0}.new {0}; wait) & while ! test -e {0}; do :; done",
        file.display()
    );
    // The grandchild holds the pipes open, and that must not hang the run.
    let (verdict, _) = bench.outcome("exec", &sh(&script));
    assert_eq!(verdict, Verdict::Completed);
    assert!(!alive(pid_in(&file)));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_held_from_outside_the_group_does_not_hang_the_run() {
    let bench = Bench::new(|_| ());
    let file = bench.folder.path().join("pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 3600' & while ! test -e {0}; do :; done; echo said",
        file.display()
    );
    let (verdict, report) = bench.outcome("exec", &sh(&script));
    assert_eq!(verdict, Verdict::Completed);
    assert_eq!(text(report.output.as_ref()), "said\n");
    let daemon = rustix::process::Pid::from_raw(pid_in(&file)).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_a_program_end_in_its_own_way() {
    let bench = Bench::new(|config| config.kill_after = Duration::from_secs(3600));
    let ready = bench.folder.path().join("ready");
    let script = format!("trap 'echo bye; exit 0' TERM; : > {}; while :; do sleep 0.01; done", ready.display());
    let (task, fence) = bench.run("exec", &sh(&script));
    until("the program runs", || ready.exists());
    bench.executors.stop(&task, fence, false);
    let (_, verdict, report) = bench.to_end();
    assert_eq!(verdict, Verdict::Stopped);
    assert_eq!(text(report.output.as_ref()), "bye\n");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ignores_the_stop_is_killed_with_its_children() {
    let bench = Bench::new(|config| config.kill_after = Duration::from_millis(50));
    let file = bench.folder.path().join("pid");
    let script =
        format!("trap '' TERM; sleep 3600 & echo $! > {0}.new; mv {0}.new {0}; wait; wait; sleep 3600", file.display());
    let (task, fence) = bench.run("exec", &sh(&script));
    let child = pid_in(&file);
    bench.executors.stop(&task, fence, false);
    let (_, verdict, report) = bench.to_end();
    assert_eq!(verdict, Verdict::Stopped);
    assert_eq!(report.result, br#"{"exit_code":null,"signal":9}"#);
    assert!(!alive(child));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_stop_overtakes_one_that_asked() {
    let bench = Bench::new(|config| config.kill_after = Duration::from_secs(3600));
    let ready = bench.folder.path().join("ready");
    let script = format!("trap '' TERM; : > {}; while :; do sleep 1; done", ready.display());
    let (task, fence) = bench.run("exec", &sh(&script));
    until("the program runs", || ready.exists());
    bench.executors.stop(&task, fence, false);
    bench.executors.stop(&task, fence, true);
    assert_eq!(bench.to_end().1, Verdict::Stopped);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_kills_what_ignores_it() {
    let bench = Bench::new(|config| config.kill_after = Duration::from_millis(50));
    let payload = sh("trap '' TERM; echo so far; while :; do sleep 1; done");
    bench.run_spec(Spec { timeout: Some(Millis(200)), ..spec("exec", &payload) }, 1);
    let (_, verdict, report) = bench.to_end();
    assert_eq!(verdict, Verdict::TimedOut { after: Millis(200) });
    assert_eq!(text(report.output.as_ref()), "so far\n");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_the_output_is_told_while_it_runs() {
    let bench = Bench::new(|_| ());
    let (task, fence) = bench.run("exec", &sh("echo half-way >&2; sleep 3600"));
    assert_eq!(bench.next().event, Event::Started);
    let Event::Progress { log_tail: Some(tail), .. } = bench.next().event else { panic!("no progress") };
    assert_eq!(&*tail, b"half-way\n");
    bench.executors.stop(&task, fence, true);
    bench.to_end();
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_measured_and_is_the_programs_own() {
    let bench = Bench::new(|_| ());
    // Holds 100 MB for a while, and counts to spend some time.
    let script = "a=$(head -c 100000000 /dev/zero | tr '\\0' x); n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done";
    let (verdict, report) = bench.outcome("exec", &sh(script));
    assert_eq!(verdict, Verdict::Completed);
    let usage = report.usage;
    assert!(usage.max_rss_kib.unwrap() > 90_000, "{usage:?}");
    assert!(usage.cpu_user.unwrap() > Millis(0) && usage.wall.unwrap() > Millis(0), "{usage:?}");
    let (_, report) = bench.outcome("exec", r#"{"argv":["true"]}"#);
    assert!(report.usage.max_rss_kib.is_none_or(|kib| kib < 20_000), "the node's own: {:?}", report.usage);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_runs_leave_no_zombie_and_no_folder() {
    let bench = Bench::new(|_| ());
    let spec = Arc::new(spec("exec", r#"{"argv":["sh","-c","echo $$"]}"#));
    let worker = WorkerId::new("w").unwrap();
    for n in 0..100 {
        bench.executors.run(
            TaskId::new(&format!("job/{n}")).unwrap(),
            super::contract::fence(1),
            &worker,
            spec.clone(),
        );
    }
    let mut pids = Vec::new();
    for _ in 0..100 {
        let (_, verdict, report) = bench.to_end();
        assert_eq!(verdict, Verdict::Completed);
        pids.push(text(report.output.as_ref()).trim().parse::<i32>().unwrap());
    }
    let zombies = pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists() && parent(**pid) == own());
    assert_eq!(zombies.count(), 0);
    let left = std::fs::read_dir(bench.folder.path().join("work")).unwrap().count();
    assert_eq!(left, 0, "folders");
    bench.close().await;
}

fn own() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').nth(1).and_then(|ppid| ppid.parse().ok()).unwrap_or(0)
}
