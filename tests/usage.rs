//! Wrong usage: exit 2, and what would be right.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use assert_cmd::Command;

/// Runs gannet in a folder of its own; its exit code and what it said.
fn gannet(arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::cargo_bin("gannet")
        .unwrap()
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn a_misspelt_word_gets_the_right_one() {
    for (arguments, right) in [
        (&["fecth", "list.txt"][..], "'fetch'"),
        (&["fetch", "list.txt", "--per-hots", "3"], "'--per-host'"),
        (&["fetch", "list.txt", "--list-format", "cvs"], "csv"),
        (&["fetch", "list.txt", "--count", "x"], "whole number"),
        (&["fetch", "list.txt", "-j", "x"], "whole number"),
    ] {
        let (code, said) = gannet(arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(said.contains(right), "{arguments:?}: {said}");
    }
}

#[test]
fn nothing_to_fetch_shows_both_ways_to_name_it() {
    let (code, said) = gannet(&["fetch"]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("<SOURCE>") && said.contains("--url <URL>"),
        "{said}"
    );
}

#[test]
fn a_flag_with_an_impossible_value_is_named_as_it_was_typed() {
    for (flag, value, allowed) in [
        ("--concurrency", "0", "above 0"),
        ("--per-host", "0", "above 0"),
        ("--rate", "-1", "0 or more"),
        ("--limit-rate", "fast", "512KiB"),
        ("--limit-rate", "-1", "512KiB"),
        ("--deadline", "soon", "`30s`|\"30s\""),
        ("--max-failures", "many", "`5%`"),
        ("--max-failures", "-1", "`5%`"),
        ("--allow-net", "10.x", "`10.20.0.0/16`"),
        ("--album", "../elsewhere", "dot"),
        ("--proxy", "nonsense", "direct"),
        ("--header", "no colon", "Name: value"),
        ("--kind", "imgae", "did you mean `image`"),
        ("--kind", "music", "`document`"),
        ("--report", "report.txt", "`.jsonl`"),
    ] {
        let (code, said) = gannet(&["fetch", "list.txt", flag, value]);
        assert_eq!(code, 2, "{flag}: {said}");
        assert!(
            said.starts_with(&format!("gannet: `{flag}")),
            "{flag}: {said}"
        );
        let is_told = allowed.split('|').any(|allowed| said.contains(allowed));
        assert!(is_told, "{flag} does not say what is allowed: {said}");
    }
}

#[test]
fn the_usage_line_names_the_program_however_it_was_called() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("other");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_gannet"), &link).unwrap();
    let output = std::process::Command::new(&link)
        .args(["jobs", "--no-such-flag"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Usage: gannet jobs"), "{said}");
}

#[test]
fn what_is_wrong_with_a_report_is_said_before_anything_is_done() {
    for arguments in [
        &["--report", "report"][..],
        &["--report", "a.json", "--report", "./a.json"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        Command::cargo_bin("gannet")
            .unwrap()
            .args(["fetch", "list.txt"])
            .args(arguments)
            .current_dir(folder.path())
            .assert()
            .code(2);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}

#[test]
fn a_wrong_setting_is_no_wrong_usage_and_names_its_place() {
    let (code, said) = gannet(&["fetch", "list.txt", "--set", "fetch.retris=3"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("`--set`") && said.contains("`fetch.retries`"),
        "{said}"
    );
}
