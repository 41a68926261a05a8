//! The configuration files that come with gannet can be used as they are.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};

use gannet::config::{Config, ConfigError, Loaded};

fn load(name: &str) -> Result<Loaded, ConfigError> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name);
    Config::load(Some(&path), std::iter::empty(), &[])
}

#[test]
fn the_example_is_a_usable_configuration() {
    let config = load("example.toml").unwrap().config;
    assert!(config.hosts.get("cdn.supplier.example").is_some());
    assert!(config.hosts.get("pictures.museum.example").is_some());
}

/// It may be readable for everybody.
#[test]
fn the_example_holds_no_secret() {
    let text = std::fs::read_to_string("config/example.toml").unwrap();
    for line in text.lines() {
        let key = line.trim_start_matches(['#', ' ']).split('=').next();
        let key = key.unwrap().trim();
        assert!(!matches!(key, "password" | "token" | "secret"), "{line}");
    }
    let masked = load("example.toml").unwrap().config.effective_toml();
    assert!(!masked.contains("***"), "{masked}");
}

#[test]
fn the_defaults_can_be_copied_and_changed() {
    load("default.toml").unwrap();
}
