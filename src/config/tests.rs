use std::fs;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::*;

/// Loads `file` and single values, with nothing from this machine.
fn load(file: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gannet.toml");
    fs::write(&path, file).unwrap();
    let own = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
    let sets: Vec<_> = sets.iter().map(own).collect();
    Config::load(Some(&path), env.iter().map(own), &sets)
}

/// The message about a configuration that cannot be used, with the folder of the file left out.
fn error(file: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> String {
    let text = load(file, env, sets).unwrap_err().to_string();
    match (text.find('`'), text.find("gannet.toml`")) {
        (Some(start), Some(end)) if start < end => format!("{}{}", &text[..=start], &text[end..]),
        _ => text,
    }
}

#[test]
fn the_defaults_are_usable() {
    let config = load("", &[], &[]).unwrap().config;
    assert_eq!(config.fetch.concurrency.get(), 64);
    assert_eq!(config.fetch.per_host.get(), 8);
    assert_eq!(config.fetch.retries, 3);
}

#[test]
fn every_key_with_a_default_is_explained() {
    let mut has_comment = false;
    for line in DEFAULT.lines() {
        if line.starts_with('#') {
            has_comment = true;
        } else if line.is_empty() {
            has_comment = false;
        } else if !line.starts_with('[') {
            assert!(has_comment, "nothing explains: {line}");
        }
    }
}

#[test]
fn later_layers_win() {
    let retries = |file: &str, env: &[(&str, &str)], sets: &[(&str, &str)]| {
        load(file, env, sets).unwrap().config.fetch.retries
    };
    let file = "[fetch]\nretries = 5";
    let env = [("GANNET_FETCH__RETRIES", "6")];
    assert_eq!(retries("", &[], &[]), 3);
    assert_eq!(retries(file, &[], &[]), 5);
    assert_eq!(retries(file, &env, &[]), 6);
    assert_eq!(retries(file, &env, &[("fetch.retries", "7")]), 7);
    let sets = [("fetch.retries", "7"), ("fetch.retries", "8")];
    assert_eq!(retries(file, &env, &sets), 8);
}

#[test]
fn a_layer_leaves_alone_what_it_does_not_name() {
    let file = "[fetch.headers]\nFrom = \"1\"\n[hosts.\"a.example\"]\nretries = 1";
    let sets = [
        ("fetch.headers.Referer", "2"),
        ("hosts.\"a.example\".rate", "0.5"),
        ("hosts.\"b.example\".rate", "2"),
    ];
    let config = load(file, &[], &sets).unwrap().config;
    assert_eq!(config.fetch.per_host.get(), 8);
    let effective: toml::Table = config.effective_toml().parse().unwrap();
    assert_eq!(effective["fetch"]["headers"]["From"].as_str(), Some("1"));
    // A text is wanted, so the number is taken as one.
    assert_eq!(effective["fetch"]["headers"]["Referer"].as_str(), Some("2"));
    let hosts: Vec<_> = config.hosts.iter().collect();
    assert_eq!(hosts.len(), 2);
    let a = hosts
        .iter()
        .find(|(name, _)| *name == "a.example")
        .unwrap()
        .1;
    assert_eq!((a.retries, a.rate), (Some(1), Some(0.5)));
}

#[test]
fn single_values_are_toml_or_text() {
    let sets = [
        ("storage.root", "2026"),
        ("storage.sync", "false"),
        ("fetch.connect_timeout", "3s"),
        ("fetch.max_bytes", "1MiB"),
        ("fetch.min_speed", "100"),
        ("fetch.rate", "2"),
        ("fetch.ca_files", "[\"a.pem\", 'b.pem']"),
        ("fetch.user_agent", "\"quoted\""),
        ("fetch.proxy", ""),
        ("log.level", "info,gannet::fetch=debug"),
        ("hosts.\"example.org\".user", "ann"),
        ("hosts.\"example.org\".password", "12345"),
    ];
    let config = load("", &[], &sets).unwrap().config;
    assert_eq!(config.storage.root.as_path(), Path::new("2026"));
    assert!(!config.storage.sync);
    assert_eq!(config.fetch.connect_timeout, Duration::from_secs(3));
    assert_eq!(config.fetch.max_bytes.as_u64(), 1 << 20);
    assert_eq!(config.fetch.min_speed.as_u64(), 100);
    assert_eq!(config.fetch.ca_files.len(), 2);
    let text = config.effective_toml();
    assert!(text.contains("user_agent = \"quoted\""), "{text}");
}

#[test]
fn only_variables_with_a_section_count() {
    let env = [
        ("GANNET_REQUIRE_SERVICES", "1"),
        ("GANNET", "x"),
        ("OTHER_FETCH__RETRIES", "9"),
        ("PATH", "/bin"),
        ("GANNET_FETCH__PRIVATE_NETWORKS", "true"),
    ];
    let config = load("", &env, &[]).unwrap().config;
    assert!(config.fetch.private_networks);
    assert_eq!(config.fetch.retries, 3);
}

#[test]
fn errors_name_place_key_and_what_is_allowed() {
    for (file, message) in [
        (
            "[fetch]\nper_hots = 3",
            "`gannet.toml`, line 2: `fetch.per_hots`: unknown key; did you mean `fetch.per_host`?",
        ),
        (
            "[fetch]\nmax_pixels = 3",
            "`gannet.toml`, line 2: `fetch.max_pixels`: unknown key; did you mean `image.max_pixels`?",
        ),
        (
            "\n[fetsch]\nretries = 3",
            "`gannet.toml`, line 2: `fetsch`: unknown section; did you mean `fetch`?",
        ),
        (
            "retries = 3",
            "`gannet.toml`, line 1: `retries`: unknown section; did you mean `fetch.retries`?",
        ),
        (
            "[storage]\ncolour = 1",
            "`gannet.toml`, line 2: `storage.colour`: unknown key; expected one of `root`, `sync`, `mtime`, `commit_interval`, `commit_files`",
        ),
        (
            "fetch = 3",
            "`gannet.toml`, line 1: `fetch`: invalid type: integer `3`, expected a section of keys",
        ),
        (
            "[fetch]\n\nretries = \"many\"",
            "`gannet.toml`, line 3: `fetch.retries`: invalid type: string \"many\", expected a whole number that is 0 or more",
        ),
        (
            "[fetch]\nretries = -1",
            "`gannet.toml`, line 2: `fetch.retries`: invalid value: integer `-1`, expected a whole number that is 0 or more",
        ),
        (
            "[fetch]\nretries = 1.5",
            "`gannet.toml`, line 2: `fetch.retries`: invalid type: floating point `1.5`, expected a whole number that is 0 or more",
        ),
        (
            "[fetch]\nconcurrency = 0",
            "`gannet.toml`, line 2: `fetch.concurrency`: invalid value: integer `0`, expected a whole number above 0",
        ),
        (
            "[fetch]\nconcurrency = \"64\"",
            "`gannet.toml`, line 2: `fetch.concurrency`: invalid type: string \"64\", expected a whole number above 0",
        ),
        (
            "[fetch]\nrobots = \"yes\"",
            "`gannet.toml`, line 2: `fetch.robots`: invalid type: string \"yes\", expected `true` or `false`",
        ),
        (
            "[fetch]\nbackoff = \"soon\"",
            "`gannet.toml`, line 2: `fetch.backoff`: invalid value: string \"soon\", expected a duration such as \"30s\" or \"1h 30m\"",
        ),
        (
            "[fetch]\nbackoff = 3",
            "`gannet.toml`, line 2: `fetch.backoff`: invalid type: integer `3`, expected a duration such as \"30s\" or \"1h 30m\"",
        ),
        (
            "[fetch]\nidle_timeout = \"0s\"",
            "`gannet.toml`, line 2: `fetch.idle_timeout`: expected a duration longer than zero, such as \"30s\"",
        ),
        (
            "[fetch]\nmax_bytes = \"big\"",
            "`gannet.toml`, line 2: `fetch.max_bytes`: invalid value: string \"big\", expected a size such as \"64MiB\", or a number of bytes",
        ),
        (
            "[fetch]\nmax_bytes = -4",
            "`gannet.toml`, line 2: `fetch.max_bytes`: invalid value: integer `-4`, expected a size such as \"64MiB\", or a number of bytes",
        ),
        (
            "[fetch]\nmax_bytes = true",
            "`gannet.toml`, line 2: `fetch.max_bytes`: invalid type: boolean `true`, expected a size such as \"64MiB\", or a number of bytes",
        ),
        (
            "[fetch]\nca_files = \"a\"",
            "`gannet.toml`, line 2: `fetch.ca_files`: invalid type: string \"a\", expected a list such as [\"one\", \"two\"]",
        ),
        (
            "[image]\ncheck = \"all\"",
            "`gannet.toml`, line 2: `image.check`: unknown value `all`, expected one of `sniff`, `header`, `decode`",
        ),
        (
            "[naming]\norder = [\"header\", \"luck\"]",
            "`gannet.toml`, line 2: `naming.order.1`: unknown value `luck`, expected one of `list`, `header`, `url`, `random`",
        ),
        (
            "[naming]\ntemplate = \"{nom}\"",
            "`gannet.toml`, line 2: `naming.template`: unknown field `{nom}`; expected one of {album}, {name}, {host}, {date}, {time}, {format}",
        ),
        (
            "[naming]\ntemplate = \"../{name}\"",
            "`gannet.toml`, line 2: `naming.template`: component `..` is not safe: a component begins with a dot",
        ),
        (
            "[log]\nlevel = \"loud\"",
            "`gannet.toml`, line 2: `log.level`: `loud` is no filter: `loud` is no level; expected `off`, `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,gannet::fetch=debug`",
        ),
        (
            "[fetch]\nbackoff = \"1h\"",
            "`gannet.toml`, line 2: `fetch.backoff`: `backoff` is longer than `backoff_max`",
        ),
        (
            "[fetch]\nbackoff_max = \"1ms\"",
            "`gannet.toml`, line 2: `fetch.backoff_max`: `backoff` is longer",
        ),
        (
            "[catalog]\nurl = \"mysql://h\"",
            "`gannet.toml`, line 2: `catalog.url`: `mysql://h` names no catalog; expected `sqlite:PATH`, `postgres://HOST/DATABASE`, or nothing",
        ),
        (
            "[catalog]\nurl = \"sqlite:s3://bucket/catalog.db\"",
            "`gannet.toml`, line 2: `catalog.url`: `s3://bucket/catalog.db` is a URL",
        ),
        (
            "[storage]\nroot = \"file:///data\"",
            "`gannet.toml`, line 2: `storage.root`: `file:///data` is a URL, not a path; write `/data`",
        ),
        (
            "[log]\ndir = \"S3://bucket/logs\"",
            "`gannet.toml`, line 2: `log.dir`: `S3://bucket/logs` is a URL",
        ),
        (
            "[fetch]\nca_files = [\"ca.pem\", \"https://example.org/ca.pem\"]",
            "`gannet.toml`, line 2: `fetch.ca_files.1`: `https://example.org/ca.pem` is a URL",
        ),
        (
            "[proxies]\nfile = \"https://example.org/proxies.txt\"",
            "`gannet.toml`, line 2: `proxies.file`: `https://example.org/proxies.txt` is a URL",
        ),
        (
            "[api]\nlist_folders = [\"gs://bucket\"]",
            "`gannet.toml`, line 2: `api.list_folders.0`: `gs://bucket` is a URL",
        ),
        (
            "[api.tls]\nkey = \"https://example.org/key.pem\"",
            "`gannet.toml`, line 2: `api.tls.key`: `https://example.org/key.pem` is a URL",
        ),
        (
            "[api.tokens]\na = { token_file = \"vault://x/y\", scopes = [\"read\"] }",
            "`gannet.toml`, line 2: `api.tokens.a.token_file`: `vault://x/y` is a URL",
        ),
        (
            "[hosts.\"example.org\"]\nuser = \"ann\"\npassword_file = \"sftp:ann@example.org:/x\"",
            "`gannet.toml`, line 3: `hosts.\"example.org\".password_file`: `sftp:ann@example.org:/x` is a URL",
        ),
        (
            "[[notify]]\ntype = \"webhook\"\nurl = \"https://example.org\"\nca_file = \"az://x/ca.pem\"",
            "`gannet.toml`, line 4: `notify.0.ca_file`: `az://x/ca.pem` is a URL",
        ),
        (
            "[[schedule]]\nname = \"a\"\ncron = \"@daily\"\nsource = \"a.txt\"\nreport = [\"a.html\", \"ftp://h/a.json\"]",
            "`gannet.toml`, line 5: `schedule.0.report`: `ftp://h/a.json` is a URL",
        ),
        (
            "[hosts.\"example.org\"]\nper_hots = 3",
            "`gannet.toml`, line 2: `hosts.\"example.org\".per_hots`: unknown key; did you mean `hosts.\"example.org\".per_host`?",
        ),
        (
            "[hosts.\"example.org\"]\npassword = \"x\"",
            "`gannet.toml`, line 2: `hosts.\"example.org\".password`: needs `user` beside it",
        ),
        (
            "[hosts.example.org]\nrate = 3",
            "`gannet.toml`, line 1: `hosts.example.org`: unknown key; write the name of a host in quotes, as in `hosts.\"example.org\".rate`",
        ),
        ("[fetch]\nretries = ", "`gannet.toml`, line 2: "),
        ("[fetch]\n[fetch]", "`gannet.toml`, line 2: "),
        (
            "\"fetch[99999999999]\" = 1",
            "`gannet.toml`, line 1: `\"fetch[99999999999]\"`: unknown section",
        ),
    ] {
        let found = error(file, &[], &[]);
        assert!(
            found.starts_with(message),
            "{file}\n found: {found}\nwanted: {message}"
        );
    }
}

#[test]
fn the_layer_at_fault_is_named() {
    let file = "[fetch]\nretries = 4";
    let found = error(
        file,
        &[("GANNET_FETCH__RETRIES", "many")],
        &[("fetch.robots", "true")],
    );
    assert!(
        found.starts_with(
            "environment variable `GANNET_FETCH__RETRIES`: `fetch.retries`: invalid type"
        ),
        "{found}"
    );
    let found = error(file, &[("GANNET_FETCH__PER_HOTS", "4")], &[]);
    assert!(found.ends_with("did you mean `fetch.per_host`?"), "{found}");
    let found = error(
        file,
        &[("GANNET_FETCH__ROBOTS", "true")],
        &[("fetch.retries", "-2")],
    );
    assert_eq!(
        found,
        "`--set`: `fetch.retries`: invalid value: integer `-2`, expected a whole number that is 0 or more"
    );
    let found = error(file, &[], &[("fetch.backoff", "1h")]);
    assert_eq!(
        found,
        "`--set`: `fetch.backoff`: `backoff` is longer than `backoff_max`"
    );
    for key in [
        "",
        ".",
        "fetch.",
        "a b",
        "a = 1\nb",
        "a=1,b",
        "a # b",
        "hosts.\"x",
    ] {
        let found = error(file, &[], &[(key, "1")]);
        assert!(
            found.starts_with("`--set`: `") && found.contains("is no key"),
            "{key:?}: {found}"
        );
    }
}

#[test]
fn lists_may_be_written_without_toml() {
    let networks = |config: Config| {
        let networks = config.fetch.allow_networks.iter();
        networks.map(ToString::to_string).collect::<Vec<_>>()
    };
    for (text, wanted) in [
        ("10.0.0.0/8", &["10.0.0.0/8"][..]),
        (
            "10.0.0.0/8, 192.168.0.0/16",
            &["10.0.0.0/8", "192.168.0.0/16"],
        ),
        ("[\"10.0.0.0/8\"]", &["10.0.0.0/8"]),
        ("", &[]),
    ] {
        let variable = [("GANNET_FETCH__ALLOW_NETWORKS", text)];
        let set = [("fetch.allow_networks", text)];
        let file = "[fetch]\nallow_networks = [\"fd00::/8\"]";
        for loaded in [load(file, &variable, &[]), load(file, &[], &set)] {
            assert_eq!(networks(loaded.unwrap().config), wanted, "{text}");
        }
    }
    let config = load("", &[], &[("naming.order", "url,random")])
        .unwrap()
        .config;
    assert_eq!(config.naming.order.len(), 2);
    let found = error("", &[("GANNET_FETCH__ALLOW_NETWORKS", "10.0.0.0/8,x")], &[]);
    assert!(found.contains("`x` is no network"), "{found}");
    let found = error("", &[], &[("fetch.retries", "1,2")]);
    assert!(found.contains("whole number"), "{found}");
}

#[test]
fn a_name_server_is_asked_at_port_53_unless_told_otherwise() {
    let set = [(
        "fetch.name_servers",
        "192.0.2.1,2001:db8::1,192.0.2.2:54,[2001:db8::1]:54",
    )];
    let servers = load("", &[], &set).unwrap().config.fetch.name_servers;
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    assert_eq!(
        servers,
        [
            "192.0.2.1:53",
            "[2001:db8::1]:53",
            "192.0.2.2:54",
            "[2001:db8::1]:54"
        ]
    );
    let found = error("[fetch]\nname_servers = [\"dns.example\"]", &[], &[]);
    assert!(
        found.contains("`dns.example` is no name server; write an address"),
        "{found}"
    );
}

#[test]
fn a_variable_that_looks_like_a_setting_and_is_none_is_an_error() {
    for (name, meant) in [
        ("GANNET_FOO", "`GANNET_SECTION__KEY`"),
        (
            "GANNET_FETCH_RETRIES",
            "did you mean `GANNET_FETCH__RETRIES`?",
        ),
    ] {
        let found = error("", &[(name, "1")], &[]);
        assert!(found.contains(name) && found.contains(meant), "{found}");
    }
    for name in [
        "GANNET_REQUIRE_SERVICES",
        "GANNET_SERVICE_HOST",
        "GANNET_PORT_80_TCP",
        "GANNETS",
    ] {
        assert!(load("", &[(name, "1")], &[]).is_ok(), "{name}");
    }
}

#[test]
fn a_named_file_has_to_exist_and_others_need_not() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, present) = (
        folder.path().join("no.toml"),
        folder.path().join("yes.toml"),
    );
    let found = Config::load(Some(&missing), std::iter::empty(), &[]).unwrap_err();
    assert!(found.to_string().contains("no.toml"), "{found}");
    assert!(first_of(&[&missing]).unwrap().1.is_none());
    fs::write(&present, "\u{feff}[fetch]\r\nretries = 1\r\n").unwrap();
    assert_eq!(
        first_of(&[&missing, &present]).unwrap().1.as_ref(),
        Some(&present)
    );
    assert_eq!(
        Config::load(Some(&present), std::iter::empty(), &[])
            .unwrap()
            .config
            .fetch
            .retries,
        1
    );
    // A folder in the place of the file is not passed over in silence.
    assert!(first_of(&[folder.path(), &present]).is_err());
}

#[test]
fn secrets_are_never_printed() {
    let file = r#"
        [fetch]
        proxy = "http://ann:hunter2@proxy.example:3128"
        [fetch.headers]
        Authorization = "Bearer hunter2"
        X-Api-Key = "hunter2"
        Accept-Language = "de"
        [hosts."a.example"]
        user = "ann"
        password = "hunter2"
        [hosts."b.example"]
        token = "hunter2"
        headers = { Cookie = "hunter2" }
    "#;
    let config = load(file, &[], &[]).unwrap().config;
    let text = config.effective_toml();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("http://ann:***@proxy.example:3128"), "{text}");
    assert!(text.contains("Accept-Language = \"de\""), "{text}");
    for (file, key) in [
        ("[hosts.x]\npassword = 987654", "hosts.x.password"),
        ("[hosts.x]\ntoken = [\"987654\"]", "hosts.x.token"),
        (
            "[hosts.x]\nheaders = { Cookie = 987654 }",
            "hosts.x.headers.Cookie",
        ),
        ("[catalog]\nurl = \"mysql://u:987654@h/d\"", "catalog.url"),
        (
            "[catalog]\nurl = \"postgres://h/d?password=987654\"",
            "catalog.url",
        ),
        ("[image]\ncheck = \"http://u:987654@h/d\"", "image.check"),
    ] {
        let found = error(file, &[], &[]);
        assert!(found.contains(key) && !found.contains("987654"), "{found}");
    }
}

#[test]
fn a_setting_that_names_a_file_is_not_read_from_it() {
    let env = [
        ("GANNET_FETCH__NETRC_FILE", "/run/netrc"),
        ("GANNET_FETCH__COOKIES_FILE", "cookies.txt"),
    ];
    let fetch = load("", &env, &[]).unwrap().config.fetch;
    let paths = [fetch.netrc_file, fetch.cookies_file].map(|path| path.unwrap().to_path_buf());
    assert_eq!(paths, ["/run/netrc", "cookies.txt"].map(PathBuf::from));
}

#[test]
fn a_secret_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "hunter2\n").unwrap();
    let file = format!("[hosts.\"a.example\"]\ntoken_file = {path:?}");
    let config = load(&file, &[], &[]).unwrap().config;
    let token = config.hosts.get("a.example").unwrap().token.as_ref();
    assert_eq!(token.unwrap().expose_secret(), "hunter2");
    assert!(!config.effective_toml().contains("hunter2"));
    let both = error(&format!("{file}\ntoken = \"x\""), &[], &[]);
    assert!(
        both.contains("token_file") && both.contains("cannot be combined with `token`"),
        "{both}"
    );
    std::fs::remove_file(&path).unwrap();
    let missing = error(&file, &[], &[]);
    assert!(
        missing.contains("line 2") && missing.contains("cannot read"),
        "{missing}"
    );
}

#[test]
fn ways_to_authenticate_that_exclude_each_other_are_named() {
    for (host, keys) in [
        ("user = \"u\"\ntoken = \"t\"", ["token", "user"]),
        ("auth = \"digest\"\ntoken = \"t\"", ["auth", "token"]),
        ("auth = \"basic\"\ntoken = \"t\"", ["auth", "token"]),
    ] {
        let found = error(&format!("[hosts.\"a.example\"]\n{host}"), &[], &[]);
        assert!(
            found.contains("cannot be combined") && keys.iter().all(|key| found.contains(key)),
            "{found}"
        );
    }
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    let text = load("[hosts.\"*.example.org\"]\nrate = 2", &[], &[])
        .unwrap()
        .config
        .effective_toml();
    let again = load(&text, &[], &[]).unwrap().config.effective_toml();
    assert_eq!(text, again);
}
