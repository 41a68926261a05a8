//! The egress guard from outside: whatever a list, a redirect, a name server, a proxy setting or the
//! address of a list says, no denied address hears of `gannet fetch`.

mod common;
mod origin;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::Gannet;
use origin::dns::NameServer;
use origin::{Origin, Reply};

/// Notations of addresses of this machine, which an origin on all of its addresses would hear.
const HERE: &[&str] = &[
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "127.00.00.01",
    "0127.0.0.1.nothing@127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7F.0.0.1",
    "0x7f.0.0x1",
    "0x000000007f000001",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "000000177.0.0.1",
    "0x7f.1",
    "0177.1",
    "127.0x1",
    "127.0.0.1.",
    "127.1.",
    "2130706433.",
    "%31%32%37.0.0.1",
    "127%2e0%2E0%2e1",
    "%30x7f.1",
    "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
    "\u{ff12}\u{ff11}\u{ff13}\u{ff10}\u{ff17}\u{ff10}\u{ff16}\u{ff14}\u{ff13}\u{ff13}",
    "127\u{3002}0\u{3002}0\u{3002}1",
    "127\u{ff0e}0\u{ff0e}0\u{ff0e}1",
    "127\u{ff61}1",
    "\u{2460}\u{2461}\u{2466}.\u{24ea}.\u{24ea}.\u{2460}",
    "\u{1d7cf}\u{1d7d0}\u{1d7d5}.0.0.1",
    "\u{ff10}x7f.1",
    "1\u{ad}27.0.0.1",
    "127.0.0.1\u{200b}",
    "localhost",
    "LOCALHOST",
    "LocalHost.",
    "localhost.",
    "a.localhost",
    "A.B.LOCALHOST",
    "a.localhost.",
    "loc%61lhost",
    "%6c%6f%63%61%6c%68%6f%73%74",
    "l\u{ff4f}calhost",
    "\u{24db}\u{24de}\u{24d2}\u{24d0}\u{24db}\u{24d7}\u{24de}\u{24e2}\u{24e3}",
    "local\u{ad}host",
    "8.8.8.8@127.0.0.1",
    "8.8.8.8:80@127.0.0.1",
    "8.8.8.8%2f@127.0.0.1",
    "8.8.8.8%00@127.0.0.1",
    "a@b@127.0.0.1",
    "\u{ff20}8.8.8.8@127.0.0.1",
    "0.0.0.0",
    "0",
    "0.",
    "0x0",
    "00",
    "0.0",
    "00000000000",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0.0.0.1]",
    "[0::0:1]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::ffff:0.0.0.0]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::1]",
    "[2001:0:7f00:1::]",
    "[2001::80ff:fffe]",
    "[fe80::5efe:127.0.0.1]",
];

/// Addresses of others that no request of a stranger may reach.
const ELSEWHERE: &[&str] = &[
    "10.0.0.1",
    "10.255.255.255",
    "012.0.0.1",
    "0xa000001",
    "167772161",
    "172.16.0.1",
    "172.31.255.254",
    "172.16.1",
    "192.168.0.1",
    "192.168.1",
    "0300.0250.0.1",
    "3232235521",
    "169.254.169.254",
    "169.254.43518",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "2852039166",
    "169.254.169.254.",
    "\u{2460}\u{2465}\u{2468}.254.169.254",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::]",
    "[2001:0:a9fe:a9fe::]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[febf:ffff::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fdff:ffff::1]",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.254",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.254",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "037777777777",
    "0xffffffff",
    "[ff01::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:192.168.0.1]",
    "[64:ff9b::10.0.0.1]",
    "[2002:0a00:0001::]",
    "[2002:c0a8:0001::]",
];

#[test]
fn no_notation_of_a_private_address_is_asked() {
    let origin = Origin::builder()
        .on_any_address()
        .otherwise(Reply::ok("secret"))
        .start();
    let port = origin.address.port();
    let hosts: Vec<&str> = HERE.iter().chain(ELSEWHERE).copied().collect();
    assert!(hosts.len() >= 120);
    for scheme in ["http", "https", "HTTP"] {
        let gannet = Gannet::guarded()
            .set("job.kind=any")
            .set("fetch.connect_timeout=2s")
            .set("fetch.retries=0");
        let run = gannet.fetch(
            hosts
                .iter()
                .map(|host| format!("{scheme}://{host}:{port}/")),
        );
        let run = run.settled();
        let wrong: Vec<_> = run
            .items()
            .iter()
            .filter(|item| common::verdict(item) != "failed/denied-address")
            .map(|item| {
                let line = item["line"].as_u64().unwrap() as usize;
                (
                    hosts[line - 1],
                    item["url"].to_string(),
                    common::verdict(item),
                )
            })
            .collect();
        assert!(wrong.is_empty(), "{scheme}: {wrong:#?}");
        // Some are one URL in several notations, and asked for once.
        let repeats = run.report()["repeats"].as_u64().unwrap();
        assert_eq!(run.count("targets") + repeats, hosts.len() as u64);
        assert_eq!(run.code, Some(3));
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_denied_target_says_how_to_allow_it() {
    let origin = Origin::with("/file", Reply::ok("a"));
    let url = origin.url("/file");
    let gannet = || Gannet::guarded().set("job.kind=any");
    let run = gannet().fetch([&url]).settled();
    let item = run.item(&url);
    let detail = item["detail"].as_str().unwrap();
    for word in ["127.0.0.1", "--allow-net", "--allow-private"] {
        assert!(detail.contains(word), "{detail}");
    }
    // Nothing that waiting could cure.
    assert_eq!(item["attempts"], 1);
    assert_eq!(origin.connections(), 0);
    for allowed in [
        "--allow-private",
        "--allow-net=127.0.0.0/8",
        "--allow-net=127.0.0.1",
    ] {
        let run = gannet().arg(allowed).fetch([&url]).settled();
        assert_eq!(run.verdict(&url), "stored", "{allowed}");
    }
    let run = gannet()
        .arg("--allow-net=10.0.0.0/8")
        .fetch([&url])
        .settled();
    assert_eq!(run.verdict(&url), "failed/denied-address");
}

#[test]
fn a_redirect_from_an_allowed_host_leads_to_no_other() {
    let inside = Origin::builder()
        .on_any_address()
        .otherwise(Reply::ok("secret"))
        .start();
    let port = inside.address.port();
    let hosts = [
        "127.0.0.2",
        "127.2",
        "0x7f000002",
        "[::1]",
        "[::ffff:127.0.0.2]",
        "0.0.0.0",
        "169.254.169.254",
        "user:password@127.0.0.3",
    ];
    let outside = hosts
        .iter()
        .enumerate()
        .fold(Origin::builder(), |origin, (n, host)| {
            let to = format!("http://{host}:{port}/");
            origin
                .route(&format!("/{n}"), Reply::redirect(302, &to))
                .route(&format!("/late-{n}"), Reply::redirect(307, format!("/{n}")))
                .route(
                    &format!("/bare-{n}"),
                    Reply::redirect(301, &to["http:".len()..]),
                )
        })
        .start();
    let urls: Vec<_> = (0..hosts.len())
        .flat_map(|n| ["", "late-", "bare-"].map(|kind| outside.url(&format!("/{kind}{n}"))))
        .collect();
    let run = Gannet::guarded()
        .set("job.kind=any")
        .arg("--allow-net=127.0.0.1/32")
        .fetch(&urls)
        .settled();
    for url in &urls {
        assert_eq!(
            run.verdict(url),
            "failed/denied-address",
            "{}",
            run.item(url)
        );
    }
    assert_eq!(inside.connections(), 0);
}

#[test]
fn a_list_on_a_private_address_is_not_read() {
    let origin = Origin::with("/list.txt", Reply::ok("http://8.8.8.8/\n"));
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1"] {
        let run = Gannet::guarded().fetch_source(origin.url_as(host, "/list.txt").as_str());
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(run.stderr.contains("--allow-private"), "{}", run.stderr);
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_list_does_not_lead_to_a_private_address_by_redirect() {
    let inside = Origin::builder()
        .on_any_address()
        .otherwise(Reply::ok(""))
        .start();
    let to = format!("http://127.0.0.2:{}/list.txt", inside.address.port());
    let outside = Origin::with("/list.txt", Reply::redirect(302, to));
    let run = Gannet::guarded()
        .arg("--allow-net=127.0.0.1")
        .fetch_source(outside.url("/list.txt").as_str());
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("127.0.0.2"), "{}", run.stderr);
    assert_eq!((outside.hits("/list.txt"), inside.connections()), (1, 0));
}

#[test]
fn a_sitemap_index_does_not_lead_to_a_private_address() {
    let inside = Origin::builder()
        .on_any_address()
        .otherwise(Reply::ok(""))
        .start();
    let index = format!(
        "<?xml version=\"1.0\"?><sitemapindex xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\
         <sitemap><loc>http://127.0.0.2:{}/a.xml</loc></sitemap></sitemapindex>",
        inside.address.port()
    );
    let outside = Origin::with(
        "/sitemap.xml",
        Reply::ok(index).header("Content-Type", "application/xml"),
    );
    let run = Gannet::guarded()
        .arg("--allow-net=127.0.0.1")
        .fetch_source(outside.url("/sitemap.xml").as_str());
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert_eq!((outside.hits("/sitemap.xml"), inside.connections()), (1, 0));
}

#[test]
fn robots_rules_are_not_asked_of_a_private_address() {
    let inside = Origin::builder()
        .on_any_address()
        .otherwise(Reply::ok(""))
        .start();
    let url = format!("http://127.0.0.2:{}/file", inside.address.port());
    let run = Gannet::guarded()
        .set("job.kind=any")
        .set("fetch.robots=true")
        .fetch([&url])
        .settled();
    assert_eq!(run.verdict(&url), "failed/denied-address");
    assert_eq!(inside.connections(), 0);
}

#[test]
fn a_private_proxy_is_asked_where_it_was_named() {
    let proxy = Origin::builder().otherwise(Reply::ok("by proxy")).start();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let guarded = || {
            Gannet::guarded()
                .set("job.kind=any")
                .arg(format!("--proxy=http://{host}:{}", proxy.address.port()))
        };
        let url = "http://8.8.8.8/";
        assert_eq!(guarded().fetch([url]).settled().verdict(url), "stored");
        let inside = format!("http://{}/", proxy.address);
        let run = guarded().fetch([&inside]).settled();
        assert_eq!(run.verdict(&inside), "failed/denied-address", "{host}");
    }
    let run = Gannet::guarded()
        .env("http_proxy", format!("http://{}", proxy.address))
        .set("job.kind=any")
        .fetch(["http://8.8.8.8/"])
        .settled();
    assert_eq!(run.verdict("http://8.8.8.8/"), "stored");
    // Requests that bypass the environment's proxy pass the guard as usual, even if the target has the proxy's name.
    let run = Gannet::guarded()
        .env(
            "http_proxy",
            format!("http://localhost:{}", proxy.address.port()),
        )
        .env("no_proxy", "localhost")
        .set("job.kind=any")
        .fetch([
            proxy.url_as("localhost", "/"),
            "http://8.8.4.4/".parse().unwrap(),
        ])
        .settled();
    assert_eq!(
        run.verdict(proxy.url_as("localhost", "/")),
        "failed/denied-address"
    );
    assert_eq!(run.verdict("http://8.8.4.4/"), "stored");
    assert!(
        proxy.log().iter().all(|asked| asked.path.contains("8.8.")),
        "{:?}",
        proxy.log()
    );
}

#[test]
fn a_proxy_does_not_hide_a_private_target() {
    let proxy = Origin::builder().otherwise(Reply::ok("by proxy")).start();
    let urls = [
        "http://127.0.0.2/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://a.localhost/",
    ];
    let run = Gannet::guarded()
        .set("job.kind=any")
        .arg("--allow-net=127.0.0.1")
        .arg(format!("--proxy=http://{}", proxy.address))
        .fetch(urls)
        .settled();
    for url in urls {
        assert_eq!(run.verdict(url), "failed/denied-address");
    }
    assert_eq!(proxy.total(), 0);
}

#[test]
fn names_that_lead_to_private_addresses_are_denied() {
    let origin = Origin::builder()
        .on_any_address()
        .otherwise(Reply::ok("secret"))
        .start();
    let names = NameServer::start(|name, _| {
        let v4 = |octets: [u8; 4]| vec![IpAddr::from(octets)];
        match name {
            "loop.example" => Some(v4([127, 0, 0, 2])),
            "loop6.example" => Some(vec![Ipv6Addr::LOCALHOST.into()]),
            "mapped.example" => Some(vec![Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped().into()]),
            "metadata.example" => Some(v4([169, 254, 169, 254])),
            "zero.example" => Some(v4([0, 0, 0, 0])),
            "xn--bcher-kva.example" => Some(v4([10, 0, 0, 1])),
            "both.example" => Some(vec![[127, 0, 0, 2].into(), Ipv6Addr::LOCALHOST.into()]),
            "allowed.example" => Some(v4([127, 0, 0, 1])),
            "empty.example" => Some(Vec::new()),
            _ => None,
        }
    });
    let url = |name: &str| format!("http://{name}:{}/", origin.address.port());
    let denied = [
        "loop.example",
        "loop6.example",
        "mapped.example",
        "metadata.example",
        "zero.example",
        "xn--bcher-kva.example",
        "both.example",
        "LOOP.example",
        "loop.example.",
    ];
    let gannet = Gannet::guarded()
        .set("job.kind=any")
        .set("fetch.retries=0")
        .set("fetch.connect_timeout=5s")
        .arg("--allow-net=127.0.0.1")
        .set(format!("fetch.name_servers=[\"{}\"]", names.address));
    let run = gannet.fetch(denied.iter().map(|name| url(name))).settled();
    assert!(
        run.items()
            .iter()
            .all(|item| common::verdict(item) == "failed/denied-address"),
        "{:#}",
        run.report()
    );
    assert_eq!(origin.connections(), 0);
    let run = gannet
        .fetch(["allowed.example", "missing.example", "empty.example"].map(url))
        .settled();
    assert_eq!(run.verdict(url("allowed.example")), "stored");
    for name in ["missing.example", "empty.example"] {
        assert_eq!(run.verdict(url(name)), "failed/dns", "{name}");
    }
}
