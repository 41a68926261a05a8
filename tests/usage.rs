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

/// Runs gannet in a folder with a few files that people mistake for something else; its exit code and what it said.
fn slip(line: &str) -> (i32, String, usize) {
    let folder = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 7] = [
        ("list.txt", b"https://127.0.0.1:9/a.jpg\n"),
        ("other.txt", b"https://127.0.0.1:9/b.jpg\n"),
        ("empty.txt", b"# nothing yet\n"),
        ("file", b"x"),
        (
            "a.jpg",
            b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00",
        ),
        ("page.html", b"<!doctype html><title>Log in</title>"),
        (
            "settings.toml",
            b"[[schedule]]\nname = \"cats\"\ncron = \"@daily\"\nsource = \"list.txt\"\n",
        ),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let before = folder.path().read_dir().unwrap().count();
    let output = Command::cargo_bin("gannet")
        .unwrap()
        .args(line.split_whitespace().map(|word| word.replace('_', " ")))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let made = folder.path().read_dir().unwrap().count() - before;
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said, made)
}

/// What was typed (`_` is a space within a word), the exit code, and the words that help.
const SLIPS: &[(&str, i32, &str)] = &[
    // Words in the place of a command.
    ("list.txt", 2, "did you mean `gannet fetch list.txt`?"),
    ("list.txt -o out", 2, "`gannet fetch list.txt -o out`"),
    (
        "https://a.example/a.jpg",
        2,
        "`gannet fetch -u https://a.example/a.jpg`",
    ),
    ("fecth list.txt", 2, "'fetch'"),
    ("download list.txt", 2, "`gannet fetch LIST`"),
    ("run cats", 2, "`gannet schedule run NAME`"),
    ("version", 2, "`gannet --version`"),
    ("config", 2, "`gannet check`"),
    ("init", 2, "`gannet demo`"),
    ("help fecth", 2, "`gannet help fetch`"),
    ("schedule start cats", 2, "`gannet schedule run NAME`"),
    ("check settings.toml", 2, "`gannet check -c settings.toml`"),
    // Flags of other programs.
    (
        "fetch list.txt --threads 16",
        2,
        "`-j N` (`--concurrency N`)",
    ),
    ("fetch list.txt -x16", 2, "`--per-host N`"),
    ("fetch list.txt --max-concurrent-downloads 5", 2, "`-j N`"),
    ("fetch list.txt -O out", 2, "`-o DIR`"),
    ("fetch list.txt -P out", 2, "`-o DIR`"),
    ("fetch -i list.txt", 2, "`gannet fetch list.txt`"),
    ("fetch --input-file=list.txt", 2, "a list needs no flag"),
    (
        "fetch list.txt --no-check-certificate",
        2,
        "`--ca-file PEM`",
    ),
    ("fetch list.txt --continue", 2, "resumes"),
    ("fetch -c list.txt", 2, "`-c` names the settings file"),
    ("fetch list.txt --tries 3", 2, "`--retries N`"),
    ("fetch list.txt --max-time 3", 2, "`--timeout 30s`"),
    ("fetch list.txt -H Accept:x", 2, "`--header"),
    ("fetch list.txt -A jpg", 2, "`--set image.formats=jpeg,png`"),
    ("fetch list.txt --referer x", 2, "`--header 'Referer:"),
    ("fetch list.txt --wait 2", 2, "`--rate N`"),
    ("fetch list.txt -r", 2, "follows no links"),
    ("fetch list.txt --limit 9", 2, "`-n N`"),
    ("fetch list.txt -j -1", 2, "negative number"),
    ("fetch list.txt -\u{2013}output out", 2, "typographic"),
    ("fetch list.txt --timeout soon", 2, "`--timeout`"),
    ("fetch list.txt --retries many", 2, "whole number"),
    ("fetch", 2, "`gannet fetch -u https://"),
    // Lists that are none.
    ("fetch lsit.txt", 1, "did you mean `list.txt`?"),
    (
        "fetch example.com/list-of-cats",
        1,
        "write `https://example.com/list-of-cats`",
    ),
    ("fetch ~/list.txt", 1, "`~`"),
    ("fetch C:\\lists\\all", 1, "separated by `/`"),
    ("fetch *.lst", 1, "pattern"),
    ("fetch \u{2014}output", 1, "typographic"),
    ("fetch list.txt,other.txt", 1, "`list.txt other.txt`"),
    ("fetch https:/a.example/list", 1, "`https://`"),
    ("fetch file://list.txt", 1, "`file:///`"),
    ("fetch folder", 1, "`folder/*.txt`"),
    ("fetch -u list.txt", 2, "`gannet fetch list.txt`"),
    // Settings.
    ("fetch list.txt -o file", 1, "`file` is a file"),
    ("fetch list.txt -o file/below", 1, "`file` is a file"),
    ("fetch list.txt --set retries=3", 1, "`fetch.retries`"),
    ("fetch list.txt --set fetch.retries", 2, "KEY=VALUE"),
    (
        "check -c settings.toml --set schedule.cats.album=x",
        1,
        "`--set job.album=…`",
    ),
    (
        "check -c settings.toml --set schedule.0.fetch.rate=1",
        1,
        "`--set fetch.rate=…`",
    ),
    (
        "check -c settings.toml --set cats.album=x",
        1,
        "settings file",
    ),
    (
        "daemon -c settings.toml --once cat",
        2,
        "did you mean `cats`?",
    ),
];

#[test]
fn common_slips_are_answered_with_what_to_type() {
    let mut wrong = Vec::new();
    for (line, code, words) in SLIPS {
        let (exit, said, made) = slip(line);
        if exit != *code || !said.contains(words) || made > 0 {
            wrong.push(format!(
                "gannet {line}: exit {exit}, {made} files made, {said}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_in_place_of_a_list_or_an_empty_list_says_what_to_do() {
    for (line, code, words) in [
        (
            "fetch a.jpg",
            1,
            "a picture (image/jpeg), not a list of URLs; to fetch files themselves, give their URLs with `-u`",
        ),
        ("fetch page.html", 1, "HTML page"),
        ("fetch empty.txt", 0, "no URL in `empty.txt`"),
        ("fetch list.txt --count 0", 0, "`--count 0` stores nothing"),
    ] {
        let (exit, said, _) = slip(line);
        assert_eq!(exit, code, "{line}: {said}");
        assert!(said.contains(words), "{line}: {said}");
    }
}

#[test]
fn a_list_that_is_not_there_is_told_once() {
    let (_, said, made) = slip("fetch lsit.txt");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(made, 0);
}

#[test]
fn flags_for_timeout_retries_and_user_agent_set_what_they_name() {
    for (flags, shown) in [
        ("--timeout 30 --dry-run", ""),
        ("--timeout 1m --retries 0 --user-agent Cat/1 --dry-run", ""),
        ("--timeout=-5", "`--timeout`"),
    ] {
        let (code, said, _) = slip(&format!("fetch list.txt {flags}"));
        assert_eq!(code == 0, shown.is_empty(), "{flags}: {said}");
        assert!(said.contains(shown), "{flags}: {said}");
    }
}
