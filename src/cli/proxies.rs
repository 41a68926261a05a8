//! `gannet proxies`: how the pool's proxies are.

use std::io::Write;

use anyhow::bail;

use super::args::{Global, ProxiesCommand};
use super::{exit, load, start_log};
use crate::fetch::{Checked, Client, ProxyHealth};

pub(super) async fn run(command: &ProxiesCommand, global: &Global) -> anyhow::Result<u8> {
    let ProxiesCommand::Check { json } = command;
    let config = load(global, Vec::new())?.config;
    let _log = start_log(global, &config, None)?;
    let client = Client::with_proxies(&config.fetch, &config.hosts, &config.proxies)?;
    let Some(checked) = client.check_proxies().await else {
        if config.proxies.is_configured() {
            bail!("the pool of `[proxies]` is not used: `fetch.proxy = \"direct\"` does without");
        }
        bail!(
            "there is no pool of proxies; `proxies.urls`, `proxies.file` and `proxies.lists` name them"
        );
    };
    let mut out = std::io::stdout().lock();
    if *json {
        writeln!(out, "{}", serde_json::to_string(&checked)?)?;
    } else {
        print(&checked, config.proxies.probe_url.is_some(), &mut out)?;
    }
    let is_any = checked
        .iter()
        .any(|checked| checked.health != ProxyHealth::Fails);
    Ok(if is_any { 0 } else { exit::FAILURES })
}

fn print(checked: &[Checked], is_probed: bool, out: &mut impl Write) -> std::io::Result<()> {
    let widest = checked
        .iter()
        .map(|checked| checked.proxy.len())
        .max()
        .unwrap_or(0)
        .max(5);
    writeln!(
        out,
        "{:widest$}  {:9}  {:>8}  PROBLEM",
        "PROXY", "STATE", "LATENCY"
    )?;
    for Checked {
        proxy,
        health,
        latency_ms,
        problem,
    } in checked
    {
        let state = match health {
            ProxyHealth::Works => "works",
            ProxyHealth::Reachable => "reachable",
            ProxyHealth::Fails => "fails",
        };
        let latency = latency_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        writeln!(
            out,
            "{proxy:widest$}  {state:9}  {latency:>8}  {}",
            problem.as_deref().unwrap_or("-")
        )?;
    }
    let good = checked
        .iter()
        .filter(|checked| checked.health != ProxyHealth::Fails)
        .count();
    let how = match is_probed {
        true => "bring `proxies.probe_url` as it is",
        false => {
            "can be connected to; nothing was asked of them, which `proxies.probe_url` changes"
        }
    };
    writeln!(out, "\n{good} of {} {how}", checked.len())
}
