//! The units of `systemd/`, as `systemd-analyze` sees them.
//!
//! Skipped where there is no `systemd-analyze`, unless `GANNET_REQUIRE_SERVICES=1` says that there has to be one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const SERVICES: [&str; 2] = ["gannet.service", "gannet-once@.service"];
const TIMERS: [&str; 1] = ["gannet-once@.timer"];
const DROP_IN: &str = "gannet.service.d/systemd-254.conf";

fn unit(name: &str) -> String {
    fs::read_to_string(Path::new("systemd").join(name)).unwrap()
}

/// A folder with the services and timers. What they start is the program under test: `/usr/bin/gannet` need not be there.
fn installed() -> TempDir {
    let folder = TempDir::with_prefix("gannet-units-").unwrap();
    for name in SERVICES.iter().chain(&TIMERS) {
        let text = unit(name).replace("/usr/bin/gannet", env!("CARGO_BIN_EXE_gannet"));
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The version of systemd, where it is installed.
fn systemd() -> Option<u32> {
    let Ok(said) = Command::new("systemd-analyze").arg("--version").output() else {
        let required = std::env::var_os("GANNET_REQUIRE_SERVICES").is_some_and(|v| v == "1");
        assert!(
            !required,
            "GANNET_REQUIRE_SERVICES=1, and there is no systemd-analyze"
        );
        eprintln!("skipped: there is no systemd-analyze");
        return None;
    };
    // `systemd 252 (252.39-1~deb12u2)`
    let said = String::from_utf8(said.stdout).unwrap();
    Some(said.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// Runs `systemd-analyze ARGS UNIT`; what it printed to stdout and stderr, and whether it was content.
fn analyze(folder: &TempDir, args: &[&str], unit: &str) -> (String, bool) {
    let output = Command::new("systemd-analyze")
        .args(args)
        .arg(folder.path().join(unit))
        .env("SYSTEMD_COLORS", "0")
        .env("SYSTEMD_PAGER", "")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

#[test]
fn systemd_finds_nothing_to_say_about_any_unit() {
    if systemd().is_none() {
        return;
    }
    let folder = installed();
    for name in SERVICES.iter().chain(&TIMERS) {
        let (said, content) = analyze(&folder, &["verify"], name);
        assert!(content && said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn newer_systemd_finds_nothing_to_say_about_the_drop_in() {
    match systemd() {
        Some(version) if version >= 254 => {}
        Some(version) => return eprintln!("skipped: systemd is {version}, the drop-in for 254"),
        None => return,
    }
    let folder = installed();
    fs::create_dir(folder.path().join("gannet.service.d")).unwrap();
    fs::write(folder.path().join(DROP_IN), unit(DROP_IN)).unwrap();
    let (said, content) = analyze(&folder, &["verify"], "gannet.service");
    assert!(content && said.is_empty(), "{said}");
}

#[test]
fn the_services_are_exposed_by_at_most_one_and_a_half() {
    if systemd().is_none() {
        return;
    }
    let folder = installed();
    for name in SERVICES {
        let args = ["security", "--offline=true", "--threshold=15"];
        let (said, content) = analyze(&folder, &args, name);
        assert!(content, "{name}: {said}");
    }
}

#[test]
fn the_services_have_one_sandbox() {
    let [daemon, once] = SERVICES.map(|name| {
        let unit = unit(name);
        let (_, rest) = unit.split_once("\nStateDirectoryMode=").unwrap();
        rest.split("\n\n[Install]")
            .next()
            .unwrap()
            .trim()
            .to_owned()
    });
    assert_eq!(daemon, once);
    assert!(daemon.contains("\nSystemCallFilter="));
}
