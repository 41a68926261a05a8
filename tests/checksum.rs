//! A list that says which bytes it means gets those or none.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use assert_cmd::Command;
use gannet::demo::DemoOrigin;
use gannet::target::Sha256;
use serde_json::Value;

/// Runs `gannet fetch` on a list of one line; its exit code and the one item of its report.
fn fetch(folder: &Path, url: &str, sha256: &str) -> (i32, Value) {
    let report = folder.join("report.json");
    std::fs::write(
        folder.join("list.csv"),
        format!("url,sha256\n{url},{sha256}\n"),
    )
    .unwrap();
    let output = Command::cargo_bin("gannet")
        .unwrap()
        .args([
            "fetch",
            "list.csv",
            "-o",
            "files",
            "--allow-private",
            "--proxy",
            "direct",
        ])
        .args(["--set", "fetch.refresh_after=1h", "--report"])
        .arg(&report)
        .current_dir(folder)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    (output.status.code().unwrap(), report["items"][0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_the_list_does_not_mean_are_rejected() {
    let origin = DemoOrigin::start().await.unwrap();
    let url = origin.url("/pictures/mandelbrot.png");
    tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        let wrong = "0".repeat(64);

        let (code, item) = fetch(folder.path(), &url, &wrong);
        assert_eq!(code, 3);
        assert_eq!(item["outcome"], "rejected", "{item}");
        assert_eq!(item["reason"], "checksum", "{item}");
        assert!(item["detail"].as_str().unwrap().contains(&wrong), "{item}");
        assert!(!folder.path().join("files/mandelbrot.png").exists());

        let (_, item) = fetch(folder.path(), &url, "");
        let kept = std::fs::read(folder.path().join("files/mandelbrot.png")).unwrap();
        assert_eq!(item["sha256"], Sha256::of(&kept).to_string(), "{item}");

        // The right one, in any case of its letters.
        let right = Sha256::of(&kept).to_string().to_uppercase();
        let (code, item) = fetch(folder.path(), &url, &right);
        assert_eq!(
            (code, item["outcome"].as_str()),
            (0, Some("unchanged")),
            "{item}"
        );

        // A fresh record does not stand in for a promise that it breaks, and the file stays as it was.
        let (code, item) = fetch(folder.path(), &url, &wrong);
        assert_eq!(
            (code, item["reason"].as_str()),
            (3, Some("checksum")),
            "{item}"
        );
        assert_eq!(
            std::fs::read(folder.path().join("files/mandelbrot.png")).unwrap(),
            kept
        );
    })
    .await
    .unwrap();
    origin.stop().await;
}
