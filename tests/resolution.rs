//! Names resolve as the system resolves them: compares `gannet fetch` and `gannet daemon` with curl.
//!
//! Each test runs itself again in namespaces of its own, with a private `/etc` and loopback. Skipped where there are
//! no namespaces or no curl, unless `GANNET_REQUIRE_SERVICES=1` requires them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "origin/dns.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod dns;
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use dns::{NameServer, Question, Says};
use serde_json::Value;
use support::daemon::until;
use support::{Daemon, Sandbox};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";

/// Set for the test inside the namespaces.
const INSIDE: &str = "GANNET_TEST_NAMESPACES";

/// Exists only in `/etc` of the namespaces.
const MARK: &str = "/etc/of-a-test-of-gannet";

/// Copies `/etc` to the folder `$0`, mounts the copy on `/etc`, and runs the test. The real `/etc` is never written
/// to.
const ENTER: &str = "set -e
ip link set lo up
cp -r /etc/. \"$0\" 2>/dev/null || :
rm -f \"$0/resolv.conf\" \"$0/hosts\"
printf 'hosts: files dns\\n' > \"$0/nsswitch.conf\"
touch \"$0/resolv.conf\" \"$0/hosts\" \"$0/of-a-test-of-gannet\"
mount --bind \"$0\" /etc
exec \"$@\"";

/// Returns `true` inside the namespaces. Otherwise runs the test there.
#[track_caller]
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        assert!(fs::exists(MARK).unwrap(), "this is the system's own `/etc`");
        return true;
    }
    let unshare = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.arg("-rmn").args(args).env(INSIDE, "1");
        command.output()
    };
    let is_possible = unshare(&["sh", "-c", "ip link set lo up && curl --version"]);
    if !is_possible.is_ok_and(|output| output.status.success()) {
        let is_required = std::env::var_os("GANNET_REQUIRE_SERVICES").is_some_and(|v| v == "1");
        assert!(
            !is_required,
            "GANNET_REQUIRE_SERVICES=1, and there is no curl, no `ip`, or no right to make namespaces"
        );
        eprintln!("skipped: no curl, no `ip`, or no right to make namespaces");
        return false;
    }
    let etc = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let (etc, program) = (etc.path().to_str().unwrap(), program.to_str().unwrap());
    let run = [
        "sh",
        "-c",
        ENTER,
        etc,
        program,
        "--exact",
        test,
        "--nocapture",
    ];
    let output = unshare(&run).unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Starts an origin that answers every request with the address it came to. Runs until the process ends. Returns its
/// port.
fn origin() -> u16 {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while stream.read(&mut request).is_ok_and(|length| length > 0) {
                    let reached = stream.local_addr().unwrap().ip().to_canonical().to_string();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reached}",
                        reached.len()
                    );
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// Returns `true` if curl gets `url`.
fn curl(url: &str) -> bool {
    let curl = Command::new("curl")
        .args(["-sg", "-o", "/dev/null", "--max-time", "4", url])
        .status();
    curl.unwrap().success()
}

/// Returns the result of `gannet fetch` for each URL: `stored`, or the reason and the detail.
fn fetch(sandbox: &Sandbox, urls: &[String], settings: &[&str]) -> Vec<String> {
    let _ = fs::remove_dir_all(sandbox.store());
    let mut args = vec![
        "--kind=any",
        "--set=fetch.retries=0",
        "--set=fetch.connect_timeout=5s",
        "--max-failures=100%",
    ];
    args.extend(settings);
    let report = sandbox.fetch_list(urls.join("\n"), 0, &args);
    let outcome = |item: &&Value| match item["outcome"].as_str().unwrap() {
        "failed" => {
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("reason"), text("detail"))
        }
        outcome => outcome.to_owned(),
    };
    report.by_line().iter().map(outcome).collect()
}

fn addresses(texts: &[&str]) -> Says {
    Says::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn here() -> Vec<IpAddr> {
    vec![[127, 0, 0, 1].into()]
}

#[test]
fn names_resolve_as_for_curl() {
    if !is_inside("names_resolve_as_for_curl") {
        return;
    }
    let port = origin();
    fs::write(
        HOSTS,
        "127.0.0.1 localhost\n127.0.0.1 four.test # v4 alone\n::1 six.test\n127.0.0.1 both.test Alias\n\
         ::1 both.test\nnonsense x.test\n127.0.0.1 Case.Test my_host.hosts.test\n",
    )
    .unwrap();
    fs::write(
        RESOLV_CONF,
        "# comment\nnonsense\nsearch lan.test\nnameserver nonsense\nnameserver 127.0.0.53\n",
    )
    .unwrap();
    let server = NameServer::on("127.0.0.53:53", 60, |asked, _| match asked.name.as_str() {
        "silent6.test" | "hosts6.test" if asked.is_ipv6 => Says::Nothing,
        "silent4.test" if !asked.is_ipv6 => Says::Nothing,
        "silent4.test" => addresses(&["::1"]),
        "failing6.test" if asked.is_ipv6 => Says::Failure,
        "nameless6.test" if asked.is_ipv6 => Says::NoName,
        "long.test" => Says::OverTcp(here()),
        "dns6.test" => addresses(&["::1"]),
        "dns46.test" => addresses(&["127.0.0.1", "::1"]),
        "short.lan.test"
        | "my_bucket.pics.test"
        | "-a.test"
        | "a-.test"
        | "_x._y.test"
        | "x.invalid"
        | "x.local"
        | "xn--bcher-kva.test"
        | "dot.test"
        | "silent6.test"
        | "failing6.test"
        | "nameless6.test"
        | "123.test"
        | "a.b-.-c.test" => Says::Addresses(here()),
        "empty.test" => Says::Addresses(Vec::new()),
        "broken.test" => Says::Failure,
        // Name servers are not asked for names in the hosts file.
        _ => Says::NoName,
    });
    let names = [
        // (host, whether gannet gets it, whether curl does)
        ("my_bucket.pics.test", true, true),
        ("-a.test", true, false),
        ("a-.test", true, true),
        ("a.b-.-c.test", true, true),
        ("_x._y.test", true, true),
        ("123.test", true, true),
        // Reserved for names that do not exist.
        ("x.invalid", false, true),
        ("x.local", true, true),
        ("b\u{fc}cher.test", true, true),
        ("short", true, true),
        ("short.", false, false),
        ("dot.test.", true, true),
        ("DOT.test", true, true),
        ("long.test", true, true),
        ("dns6.test", true, true),
        ("dns46.test", true, true),
        // getaddrinfo waits for both address families.
        ("silent6.test", true, false),
        ("silent4.test", true, false),
        ("failing6.test", true, true),
        ("nameless6.test", true, true),
        ("four.test", true, true),
        ("six.test", true, true),
        ("both.test", true, true),
        ("alias", true, true),
        ("case.test", true, true),
        ("my_host.hosts.test", true, true),
        ("localhost", true, true),
        ("a.localhost", true, true),
        ("127.1", true, true),
        ("[::1]", true, true),
        ("four.test.", false, false),
        ("x.test", false, false),
        ("empty.test", false, false),
        ("missing.test", false, false),
        ("broken.test", false, false),
    ];
    let sandbox = Sandbox::new();
    let urls: Vec<_> = names
        .iter()
        .map(|(host, ..)| format!("http://{host}:{port}/"))
        .collect();
    let outcomes = fetch(&sandbox, &urls, &[]);
    for ((host, is_reached, _), outcome) in names.iter().zip(&outcomes) {
        match is_reached {
            true => assert_eq!(outcome, "stored", "{host}"),
            false => assert!(outcome.starts_with("dns: "), "{host}: {outcome}"),
        }
    }
    let of = |host: &str| {
        let at = names.iter().position(|(name, ..)| *name == host);
        outcomes[at.unwrap()].as_str()
    };
    assert!(of("missing.test").contains("there is no such name"));
    assert!(of("empty.test").contains("the name has no address"));
    let broken = of("broken.test");
    assert!(
        broken.contains("name server `127.0.0.53` answered") && broken.contains("name_servers"),
        "{broken}"
    );
    let asked = server.asked();
    for name in [
        "four.test",
        "six.test",
        "both.test",
        "alias",
        "localhost",
        "a.localhost",
    ] {
        // Without a final dot; with one it would be another name.
        let question = |is_ipv6| Question {
            name: name.to_owned(),
            is_ipv6,
            is_tcp: false,
        };
        let count = [true, false].map(|v6| asked.iter().filter(|q| **q == question(v6)).count());
        let expected = if name == "four.test" { [1, 1] } else { [0, 0] };
        assert_eq!(count, expected, "{name}");
    }
    assert!(asked.iter().any(|question| question.is_tcp));
    for ((host, _, is_reached), url) in names.iter().zip(&urls) {
        assert_eq!(curl(url), *is_reached, "curl: {host}");
    }
}

/// Addresses that packets are sent to and never answered, one a family.
const SILENT: [&str; 2] = ["10.9.9.9", "fd09::9"];

/// Addresses without a route to them, one a family.
const UNREACHABLE: [&str; 2] = ["10.8.8.8", "fd08::8"];

#[test]
fn addresses_that_come_late_are_tried_as_well() {
    if !is_inside("addresses_that_come_late_are_tried_as_well") {
        return;
    }
    let routes = "ip route add 10.9.0.0/16 dev lo && ip -6 route add fd09::/16 dev lo";
    let is_routed = Command::new("sh").args(["-c", routes]).status();
    assert!(is_routed.unwrap().success());
    fs::write(RESOLV_CONF, "nameserver 127.0.0.53\n").unwrap();
    let port = origin();
    // `FAMILY.BAD.MILLISECONDS.test`: that family leads nowhere and is known at once, the other is good and comes later.
    let _server = NameServer::on("127.0.0.53:53", 0, |asked, _| {
        let parts: Vec<_> = asked.name.split('.').collect();
        let &[bad_family, how, delay, _] = parts.as_slice() else {
            return Says::NoName;
        };
        let bad = if how == "silent" { SILENT } else { UNREACHABLE };
        if asked.is_ipv6 == (bad_family == "six") {
            return addresses(&[bad[usize::from(asked.is_ipv6)]]);
        }
        let good = ["127.0.0.1", "::1"][usize::from(asked.is_ipv6)];
        let after = Duration::from_millis(delay.parse().unwrap());
        Says::Late(after, vec![good.parse().unwrap()])
    });
    let urls: Vec<_> = ["four", "six"]
        .iter()
        .flat_map(|family| {
            [
                "silent.150",
                "silent.800",
                "unreachable.150",
                "unreachable.800",
            ]
            .map(|scene| format!("http://{family}.{scene}.test:{port}/"))
        })
        .collect();
    let sandbox = Sandbox::new();
    let begun = Instant::now();
    let outcomes = fetch(&sandbox, &urls, &["--set=fetch.connect_timeout=60s"]);
    for (url, outcome) in urls.iter().zip(outcomes) {
        assert_eq!(outcome, "stored", "{url}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "the silent address was waited for"
    );
    for url in &urls {
        assert!(curl(url), "curl: {url}");
    }
}

#[test]
fn name_servers_are_asked_in_their_order() {
    if !is_inside("name_servers_are_asked_in_their_order") {
        return;
    }
    let port = origin();
    let urls = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .map(|name| format!("http://{name}:{port}/"))
            .collect()
    };
    let names = ["a.test", "b.test", "c.test"];
    let sandbox = Sandbox::new();
    fs::write(
        RESOLV_CONF,
        "nameserver 127.0.0.51\nnameserver 127.0.0.52\noptions timeout:1 attempts:1\n",
    )
    .unwrap();
    let good = |_: &Question, _: usize| Says::Addresses(here());
    {
        let _first = NameServer::on("127.0.0.51:53", 0, good);
        let second = NameServer::on("127.0.0.52:53", 0, good);
        assert_eq!(fetch(&sandbox, &urls(&names), &[]), ["stored"; 3]);
        assert!(curl(&urls(&["a.test"])[0]));
        assert_eq!(second.queries(), 0);
    }
    for first in [Says::Failure, Says::Nothing] {
        let says = first.clone();
        let first = NameServer::on("127.0.0.51:53", 0, move |_, _| says.clone());
        let second = NameServer::on("127.0.0.52:53", 0, good);
        assert_eq!(fetch(&sandbox, &urls(&names), &[]), ["stored"; 3]);
        assert!(curl(&urls(&["a.test"])[0]));
        assert!(first.queries() > 0 && second.queries() > 0);
    }
    {
        // No server listens at the first address, and the system reports that.
        let _second = NameServer::on("127.0.0.52:53", 0, good);
        assert_eq!(fetch(&sandbox, &urls(&names), &[]), ["stored"; 3]);
        assert!(curl(&urls(&["a.test"])[0]));
    }
    {
        // NXDOMAIN is an answer, so the second server is not asked.
        let _first = NameServer::on("127.0.0.51:53", 0, |_, _| Says::NoName);
        let second = NameServer::on("127.0.0.52:53", 0, good);
        assert!(fetch(&sandbox, &urls(&["a.test"]), &[])[0].starts_with("dns: "));
        assert!(!curl(&urls(&["a.test"])[0]));
        assert_eq!(second.queries(), 0);
    }
    let _silent = NameServer::on("127.0.0.51:53", 0, |_, _| Says::Nothing);
    let outcome = fetch(&sandbox, &urls(&["a.test"]), &[]).remove(0);
    for part in [
        "dns: ",
        "a.test",
        "name server `127.0.0.51` did not answer within 1s",
        "name server `127.0.0.52` refused the connection",
    ] {
        assert!(outcome.contains(part), "{outcome}");
    }
}

#[test]
fn without_name_servers_all_else_works() {
    if !is_inside("without_name_servers_all_else_works") {
        return;
    }
    let port = origin();
    let sandbox = Sandbox::new();
    fs::write(HOSTS, "127.0.0.1 hosts.test\n").unwrap();
    let urls: Vec<_> = ["127.0.0.1", "[::1]", "localhost", "hosts.test", "dns.test"]
        .iter()
        .map(|host| format!("http://{host}:{port}/"))
        .collect();
    let scenes: [(&str, fn()); 4] = [
        ("missing", || {
            let _ = fs::remove_file(RESOLV_CONF);
        }),
        ("empty", || fs::write(RESOLV_CONF, "").unwrap()),
        ("nothing but comments", || {
            fs::write(RESOLV_CONF, "# nothing\n; here\n").unwrap();
        }),
        ("a folder", || {
            fs::remove_file(RESOLV_CONF).unwrap();
            fs::create_dir(RESOLV_CONF).unwrap();
        }),
    ];
    for (what, make) in scenes {
        make();
        let outcomes = fetch(&sandbox, &urls, &[]);
        assert_eq!(outcomes[..4], ["stored"; 4], "{what}");
        for part in ["dns: ", "`127.0.0.1`", "`/etc/resolv.conf` names no server"] {
            assert!(outcomes[4].contains(part), "{what}: {}", outcomes[4]);
        }
        sandbox.run(["check"]).expect(0);
        for (at, url) in urls.iter().enumerate() {
            // If it is a folder, glibc does not even read the hosts file.
            let is_reached = at < 3 || at == 3 && what != "a folder";
            assert_eq!(curl(url), is_reached, "{what}: {url}");
        }
        // As in glibc, the server on this host is the default.
        let _server = NameServer::on("127.0.0.1:53", 0, |_, _| Says::Addresses(here()));
        assert_eq!(fetch(&sandbox, &urls, &[]), ["stored"; 5], "{what}");
        assert_eq!(curl(&urls[4]), what != "a folder", "{what}");
    }
    fs::remove_file(HOSTS).unwrap();
    assert_eq!(fetch(&sandbox, &urls[..3], &[]), ["stored"; 3]);
    sandbox
        .run(["demo", "-o", "demo", "--progress", "never"])
        .expect(0);
}

#[test]
fn services_are_asked_in_the_order_of_nsswitch() {
    if !is_inside("services_are_asked_in_the_order_of_nsswitch") {
        return;
    }
    let port = origin();
    let sandbox = Sandbox::new();
    // Nothing listens at the other address.
    fs::write(HOSTS, "127.0.0.1 hosts.test\n127.0.0.9 both.test\n").unwrap();
    fs::write(RESOLV_CONF, "nameserver 127.0.0.53\noptions timeout:1\n").unwrap();
    let server = NameServer::on("127.0.0.53:53", 0, |asked, _| match asked.name.as_str() {
        "dns.test" => Says::Addresses(here()),
        "both.test" if !asked.is_ipv6 => addresses(&["127.0.0.8"]),
        "broken.test" => Says::Failure,
        _ => Says::NoName,
    });
    // The line, whether names of the hosts file and of the server are found, and the address of a name that both have.
    let cases = [
        ("hosts: files dns", [true, true], "127.0.0.9"),
        ("passwd: files", [true, true], "127.0.0.9"),
        ("hosts: files", [true, false], "127.0.0.9"),
        ("hosts: dns", [false, true], "127.0.0.8"),
        ("hosts: dns files", [true, true], "127.0.0.8"),
        (
            "hosts: dns [NOTFOUND=return] files",
            [false, true],
            "127.0.0.8",
        ),
        (
            "hosts: dns [!UNAVAIL=return] files",
            [false, true],
            "127.0.0.8",
        ),
        (
            "hosts: files [NOTFOUND=return] dns",
            [true, false],
            "127.0.0.9",
        ),
        ("hosts: nonsense files dns", [true, true], "127.0.0.9"),
    ];
    let urls: Vec<_> = ["hosts.test", "dns.test", "both.test"]
        .iter()
        .map(|host| format!("http://{host}:{port}/"))
        .collect();
    for (line, expected, address) in cases {
        fs::write(NSSWITCH_CONF, format!("{line}\n")).unwrap();
        let before = server.asked().len();
        let outcomes = fetch(&sandbox, &urls, &[]);
        for (at, is_reached) in expected.into_iter().enumerate() {
            assert_eq!(
                outcomes[at] == "stored",
                is_reached,
                "{line}: {}",
                outcomes[at]
            );
            assert_eq!(curl(&urls[at]), is_reached, "curl: {line} {}", urls[at]);
        }
        assert_eq!(outcomes[2], "stored", "{line}");
        let stored = fs::read_dir(sandbox.store()).unwrap().flatten();
        let texts: Vec<_> = stored
            .filter_map(|f| fs::read_to_string(f.path()).ok())
            .collect();
        assert!(
            texts.iter().any(|text| text == address),
            "{line}: {texts:?}"
        );
        assert_eq!(
            server.asked().len() == before,
            line == "hosts: files" || line.contains("files [NOT"),
            "{line}"
        );
    }
    // Name servers of the settings are asked in any case.
    fs::write(NSSWITCH_CONF, "hosts: files\n").unwrap();
    let own = ["--set", "fetch.name_servers=[\"127.0.0.53\"]"];
    assert_eq!(fetch(&sandbox, &urls, &own), ["stored"; 3]);
}

#[test]
fn hosts_that_were_given_up_are_asked_again_once_name_resolution_is_mended() {
    if !is_inside("hosts_that_were_given_up_are_asked_again_once_name_resolution_is_mended") {
        return;
    }
    let port = origin();
    let sandbox = Sandbox::new();
    sandbox.write("a.txt", format!("http://a.test:{port}/"));
    sandbox.write(
        "gannet.toml",
        "[storage]\nroot = \"out\"\n[fetch]\nprivate_networks = true\nretries = 0\nfailure_backoff = \"0s\"\n\
         host_down_for = \"1h\"\n[job]\nkind = \"any\"\n\
         [[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\n",
    );
    // Nobody listens there.
    fs::write(RESOLV_CONF, "nameserver 127.0.0.51\n").unwrap();
    let daemon = Daemon::start(&sandbox);
    until("the host is given up", || {
        let last = daemon.run("a");
        let is_given_up = last["counts"]["skipped"] == 1;
        is_given_up.then_some(()).ok_or(last.to_string())
    });
    let last = sandbox
        .run(["jobs", "last", "--json", "-o", "out"])
        .expect(0);
    assert!(last.out().contains("the last one `dns`"), "{last}");
    let _server = NameServer::on("127.0.0.52:53", 60, |_, _| Says::Addresses(here()));
    fs::write(RESOLV_CONF, "nameserver 127.0.0.52\n").unwrap();
    until("the host is asked again", || {
        let last = daemon.run("a");
        let is_done = last["state"] == "completed";
        is_done.then_some(()).ok_or(last.to_string())
    });
    daemon.stop();
}

#[test]
fn a_daemon_follows_changes_of_both_files() {
    if !is_inside("a_daemon_follows_changes_of_both_files") {
        return;
    }
    let port = origin();
    let sandbox = Sandbox::new();
    sandbox.write("a.txt", format!("http://late.test:{port}/"));
    sandbox.write(
        "gannet.toml",
        "[storage]\nroot = \"out\"\n[fetch]\nprivate_networks = true\nretries = 0\nfailure_backoff = \"0s\"\n\
         host_down_after = 0\n[job]\nkind = \"any\"\n\
         [[schedule]]\nname = \"a\"\ncron = \"@yearly\"\nsource = \"a.txt\"\n",
    );
    let _old = NameServer::on("127.0.0.51:53", 60, |_, _| Says::NoName);
    fs::write(RESOLV_CONF, "nameserver 127.0.0.51\n").unwrap();
    let daemon = Daemon::start(&sandbox);
    let failed = |last: &Value| last["state"] != "completed";
    let last = daemon.run("a");
    assert!(failed(&last), "{last}");
    let follows = |what: &str| {
        let begun = Instant::now();
        until(what, || match daemon.run("a") {
            last if failed(&last) => Err(last.to_string()),
            _ => Ok(()),
        });
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
    };
    fs::write(HOSTS, "127.0.0.1 late.test\n").unwrap();
    follows("the hosts file has the name");
    // Replaced atomically, as for files that programs may read at any time.
    fs::write("/etc/hosts.new", "").unwrap();
    fs::rename("/etc/hosts.new", HOSTS).unwrap();
    sandbox.write("a.txt", format!("http://later.test:{port}/"));
    let last = daemon.run("a");
    assert!(failed(&last), "{last}");
    let _new = NameServer::on("127.0.0.52:53", 60, |_, _| Says::Addresses(here()));
    fs::write(RESOLV_CONF, "nameserver 127.0.0.52\n").unwrap();
    follows("the new name server has the name");
    // Connections that were made before are not used again.
    sandbox.write("a.txt", format!("http://moves.test:{port}/"));
    for address in ["127.0.0.1", "127.0.0.9"] {
        fs::write(HOSTS, format!("{address} moves.test\n")).unwrap();
        until(address, || {
            daemon.run("a");
            let stored = fs::read_dir(sandbox.path("out")).unwrap().flatten();
            let texts: Vec<_> = stored
                .filter_map(|f| fs::read_to_string(f.path()).ok())
                .collect();
            let is_there = texts.iter().any(|text| text == address);
            is_there.then_some(()).ok_or(format!("{texts:?}"))
        });
    }
    daemon.stop();
}
