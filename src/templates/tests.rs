//! Tests of folders of templates.
#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;
use std::fs;

fn yaml_of(id: &str, version: &str) -> String {
    format!("template_id: {id}\nversion: \"{version}\"\nsteps:\n  - {{step_id: a, action: echo}}\n")
}

fn json_of(id: &str, version: &str) -> String {
    json!({"template_id": id, "version": version, "steps": [{"step_id": "s", "action": "echo"}]}).to_string()
}

fn names(folder: &Folder) -> Vec<String> {
    folder.catalogue().iter().map(ToString::to_string).collect()
}

fn complaints(folder: &Folder) -> Vec<String> {
    let root = folder.path().display().to_string();
    let told = |b: &Broken| format!("{}: {}", b.path.display(), b.error).replace(&root, "");
    folder.broken().iter().map(told).collect()
}

#[test]
fn a_folder_is_read_again_where_it_has_changed() {
    let temporary = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(temporary.path().join("templates"));
    folder.refresh().unwrap();
    assert!(names(&folder).is_empty(), "a folder that is not there");
    fs::create_dir(folder.path()).unwrap();
    fs::write(folder.path().join("a.yaml"), yaml_of("a", "1.0.0")).unwrap();
    fs::write(folder.path().join("b.json"), json_of("b", "1.10.0")).unwrap();
    folder.refresh().unwrap();
    assert_eq!(names(&folder), ["a@1.0.0", "b@1.10.0"]);
    let (before, kept) = (folder.catalogue(), folder.catalogue().iter().last().cloned().unwrap());
    folder.refresh().unwrap();
    assert!(Arc::ptr_eq(&before, &folder.catalogue()), "nothing was read");

    // Of the same size, and maybe within one tick of the clock: a new file.
    let next = folder.path().join(".next");
    fs::write(&next, yaml_of("a", "2.0.0")).unwrap();
    fs::rename(&next, folder.path().join("a.yaml")).unwrap();
    folder.refresh().unwrap();
    assert_eq!(names(&folder), ["a@2.0.0", "b@1.10.0"]);
    assert!(Arc::ptr_eq(&kept, folder.catalogue().iter().last().unwrap()), "what did not change is not read again");
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    folder.refresh().unwrap();
    assert_eq!(names(&folder), ["b@1.10.0"]);
    assert_eq!(folder.origin(&kept), Some(&*folder.path().join("b.json")));
}

#[test]
fn a_wrong_file_hides_no_other_and_says_what_is_wrong() {
    let temporary = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(temporary.path().to_owned());
    let many = |what: &str| what.repeat(2_000);
    let bomb = format!("a: &a [{}]\nb: &b [{}]\nc: [{}]\n", many("x, "), many("*a, "), many("*b, "));
    for (name, text) in [
        ("good.yaml", yaml_of("good", "1.0.0")),
        ("same.yml", yaml_of("good", "1.0.0")),
        ("taken.json", json_of("good", "1.0.0")),
        ("broken.json", "{".to_owned()),
        ("broken.yaml", "a: [1".to_owned()),
        ("twice.yaml", "template_id: a\ntemplate_id: b\n".to_owned()),
        ("two.yaml", "a: 1\n---\nb: 2\n".to_owned()),
        ("bomb.yaml", bomb),
        ("deep.yaml", "[".repeat(5_000)),
        ("large.yaml", "# ".repeat(limits::TEMPLATE_BYTES)),
        ("version.yaml", "template_id: a\nversion: 1.10\nsteps: []\n".to_owned()),
        ("empty.yaml", String::new()),
        (".hidden.yaml", "{".to_owned()),
        ("README.md", "# not a template".to_owned()),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    fs::write(folder.path().join("bytes.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    fs::create_dir(folder.path().join("folder.yaml")).unwrap();
    folder.refresh().unwrap();
    assert_eq!(names(&folder), ["good@1.0.0"]);
    let said = complaints(&folder);
    let wanted = [
        ("/bomb.yaml", "is no YAML document: "),
        ("/broken.json", "is no JSON: "),
        ("/broken.yaml", "is no YAML document: "),
        ("/bytes.yaml", "can't be read: "),
        ("/deep.yaml", "is no YAML document: "),
        ("/empty.yaml", "must be an object, and is null"),
        ("/large.yaml", "has more than 262144 bytes; split it"),
        ("/taken.json", "good@1.0.0 is in /good.yaml already, and not the same; give one of them another version"),
        ("/twice.yaml", "is no YAML document: "),
        ("/two.yaml", "is no YAML document: "),
        ("/version.yaml", "/version: the number 1.1 is no version"),
    ];
    assert_eq!(said.len(), wanted.len(), "{said:#?}");
    for ((file, complaint), said) in wanted.iter().zip(&said) {
        assert!(said.starts_with(&format!("{file}: {complaint}")), "{said}\nmust be of {file}: {complaint}");
        assert!(said.len() < 1_000, "{said}");
    }
}

#[test]
fn a_folder_has_a_limit_and_keeps_the_first() {
    let temporary = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(temporary.path().to_owned());
    for n in 0..limits::TEMPLATES + 5 {
        fs::write(folder.path().join(format!("{n:04}.yaml")), yaml_of(&format!("t{n}"), "1.0.0")).unwrap();
    }
    folder.refresh().unwrap();
    assert_eq!(folder.catalogue().len(), limits::TEMPLATES);
    assert_eq!(complaints(&folder), ["/0256.yaml: is one too many: a folder may have 256 templates"]);
}

#[test]
fn yaml_is_read_as_people_mean_it() {
    let read = |text: &str| yaml(text).unwrap();
    assert_eq!(read("[no, yes, on, true, 'true', ~]"), json!(["no", "yes", "on", true, "true", null]));
    assert_eq!(read("[0755, 1_000, 10, -3, 0.5, '7']"), json!(["0755", "1_000", 10, -3, 0.5, "7"]));
    let wanted = json!({"a": "${x}", "b": "one\ntwo\n", "c": "${y}"});
    assert_eq!(read("a: \"${x}\"\nb: |\n  one\n  two\nc: ${y}\n"), wanted);
    assert_eq!(read("base: &b {x: 1}\nuse: *b\n"), json!({"base": {"x": 1}, "use": {"x": 1}}));
    let order: Vec<_> = read("z: 1\na: 2\nm: 3").as_object().unwrap().keys().cloned().collect();
    assert_eq!(order, ["z", "a", "m"]);
    for wrong in ["a: .nan", "a: !!python/object x", "a: *nothing", "{a: 1"] {
        assert!(yaml(wrong).is_err(), "{wrong}");
    }
}
