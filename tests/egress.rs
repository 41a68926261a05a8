//! No connection to an address that is not on the public Internet, however it is spelled, resolved,
//! redirected or proxied, unless settings allow it.

mod origin;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gannet::fetch::{Client, FetchError, Hosts, Permission, Request, Robots};
use gannet::target::Reason;
use origin::dns::NameServer;
use origin::{Origin, Reply, client, settings};
use url::Url;

/// Private addresses as hosts of URLs.
const NOTATIONS: &[&str] = &[
    // Loopback.
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0X7F.1",
    "017700000001",
    "0177.0.0.1",
    "0x7f.0x0.0x0.0x1",
    "0x7f.0.1",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
    "127\u{3002}0\u{3002}0\u{3002}1",
    "\u{2460}\u{2461}\u{2466}.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "a.b.localhost.",
    "loc%61lhost",
    "l\u{ff4f}calhost",
    "user@127.0.0.1",
    "user:password@localhost",
    "public.example@127.0.0.1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::0.0.0.1]",
    // Embedded in IPv6.
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[::a00:1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::8.8.8.8]",
    "[64:ff9b:1:ffff::1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2002:c0a8:101::1]",
    "[2001:0:808:808:0:0:80ff:fffe]",
    "[2001:0:7f00:1:0:0:f7f7:f7f7]",
    "[2001::f5ff:fffe]",
    "[2606:4700::5efe:127.0.0.1]",
    "[2606:4700::200:5efe:10.0.0.1]",
    "[fe80::5efe:8.8.8.8]",
    // This host, private, link-local and metadata.
    "0.0.0.0",
    "0",
    "0x0",
    "00.1.2.3",
    "[::]",
    "10.0.0.1",
    "10.255.255.255",
    "167772161",
    "012.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "0xc0a80001",
    "192.168.257",
    "169.254.169.254",
    "169.254.1",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[febf::1]",
    "[fc00::1]",
    "[fdff::1]",
    "[fec0::1]",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "168.63.129.16",
    "192.0.0.192",
    // Of no use, or not for one host.
    "192.0.2.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "[ff02::1]",
    "[ff0e::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:1::5]",
    "[4000::1]",
    "[1::1]",
];

fn guarded() -> Client {
    client("private_networks = false\nconnect_timeout = \"2s\"")
}

async fn send(client: &Client, url: &Url) -> Result<u16, FetchError> {
    let request = Request {
        url,
        origin: url,
        accept: "*/*",
        validators: None,
        resume: None,
        trail: None,
        avoid: &[],
        max_bytes: 1 << 20,
    };
    client.send(request).await.map(|response| response.status)
}

#[tokio::test]
async fn private_addresses_are_denied_in_every_notation() {
    assert!(NOTATIONS.len() >= 100);
    let client = guarded();
    for scheme in ["http", "https"] {
        for host in NOTATIONS {
            let url = Url::parse(&format!("{scheme}://{host}:9/"))
                .unwrap_or_else(|e| panic!("{host}: {e}"));
            let error = send(&client, &url).await.unwrap_err();
            assert_eq!(error.reason(), Reason::DeniedAddress, "{host}: {error:?}");
            assert!(!error.is_retriable() && !error.is_connect());
        }
    }
}

#[tokio::test]
async fn a_denied_address_says_what_it_is_and_how_to_allow_it() {
    let url = Url::parse("http://user:secret@169.254.169.254/latest/meta-data/").unwrap();
    let error = anyhow::Error::from(send(&guarded(), &url).await.unwrap_err());
    assert_eq!(
        format!("{error:#}"),
        "`169.254.169.254` is denied: `169.254.169.254` is not on the public Internet (link-local, cloud \
         metadata, 169.254.0.0/16, RFC 3927); allow it by `--allow-net 169.254.169.254` or \
         `fetch.allow_networks`, or all such addresses by `--allow-private`; for posted jobs, by \
         `api.allow_networks` or `api.private_networks`"
    );
}

#[tokio::test]
async fn a_denied_origin_never_hears_of_the_request() {
    let origin = Origin::with("/", Reply::ok("a"));
    let client = guarded();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        send(&client, &origin.url_as(host, "/")).await.unwrap_err();
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_network_can_be_allowed_alone() {
    let origin = Origin::with("/", Reply::ok("a"));
    let client =
        client("private_networks = false\nallow_networks = [\"127.0.0.0/8\", \"fd00::1\"]");
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        assert_eq!(
            send(&client, &origin.url_as(host, "/")).await.unwrap(),
            200,
            "{host}"
        );
    }
    for url in [
        "http://10.0.0.1/",
        "http://[fd00::2]/",
        "http://169.254.169.254/",
    ] {
        let error = send(&client, &url.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::DeniedAddress);
    }
}

#[tokio::test]
async fn other_schemes_are_not_asked_at_all() {
    for url in [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "data:,x",
        "gopher://a.example/",
        "unix:/run/x",
        "ws://a.example/",
    ] {
        let error = send(&guarded(), &url.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::UnsupportedScheme, "{url}");
    }
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_denied() {
    let inside = Origin::with("/secret", Reply::ok("secret"));
    let outside = Origin::builder()
        .route(
            "/literal",
            Reply::redirect(302, inside.url_as("[::ffff:127.0.0.2]", "/secret")),
        )
        .route("/odd", Reply::redirect(302, "http://0x7f.2/secret"))
        .start();
    // Of loopback, only the address of `outside` counts as public.
    let client = client("private_networks = false\nallow_networks = [\"127.0.0.1\"]");
    for path in ["/literal", "/odd"] {
        let error = client
            .get(&outside.url(path), "*/*", 1 << 20)
            .await
            .unwrap_err();
        assert_eq!(error.reason(), Reason::DeniedAddress);
        assert_eq!(outside.hits(path), 1);
    }
    assert_eq!(inside.connections(), 0);
}

fn with_names(server: &NameServer, changes: &str) -> Client {
    client(&format!(
        "name_servers = [\"{}\"]\nconnect_timeout = \"5s\"\n{changes}",
        server.address
    ))
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_denied() {
    let origin = Origin::with("/", Reply::ok("a"));
    let names = NameServer::start(|name, _| match name {
        "loop.example" => Some(vec![Ipv4Addr::LOCALHOST.into()]),
        "loop6.example" => Some(vec![Ipv6Addr::LOCALHOST.into()]),
        "mapped.example" => Some(vec![Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()]),
        "metadata.example" => Some(vec![IpAddr::from([169, 254, 169, 254])]),
        _ => None,
    });
    let client = with_names(&names, "private_networks = false");
    for name in [
        "loop.example",
        "loop6.example",
        "mapped.example",
        "metadata.example",
    ] {
        let error = send(&client, &origin.url_as(name, "/")).await.unwrap_err();
        assert_eq!(error.reason(), Reason::DeniedAddress, "{name}: {error:?}");
        assert!(matches!(&error, FetchError::Denied { host, .. } if host == name));
    }
    let error = send(&client, &origin.url_as("missing.example", "/"))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Dns, "{error:?}");
    assert!(error.is_connect() && !error.is_retriable());
    let text = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(
        text,
        "cannot resolve `missing.example`: there is no such name"
    );
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn name_servers_that_do_not_answer_are_worth_another_attempt() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = client(&format!(
        "name_servers = [\"{}\"]\nconnect_timeout = \"300ms\"",
        silent.local_addr().unwrap()
    ));
    let error = send(&client, &"http://a.example/".parse().unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(error.reason(), Reason::Dns | Reason::Timeout),
        "{error:?}"
    );
    assert!(error.is_connect() && error.is_retriable());
}

#[tokio::test]
async fn of_several_addresses_only_the_allowed_are_used() {
    let origin = Origin::with("/", Reply::ok("a"));
    // Connecting to the second would be refused: nobody listens there.
    let names = NameServer::start(|_, _| {
        Some(vec![
            IpAddr::from([10, 0, 0, 1]),
            Ipv4Addr::LOCALHOST.into(),
        ])
    });
    let client = with_names(
        &names,
        "private_networks = false\nallow_networks = [\"127.0.0.1\"]",
    );
    assert_eq!(
        send(&client, &origin.url_as("both.example", "/"))
            .await
            .unwrap(),
        200
    );
}

#[tokio::test]
async fn a_name_that_is_rebound_to_a_private_address_is_denied() {
    let origin = Origin::with("/", Reply::ok("a").until_close());
    // The first connection (A and AAAA) is let in, the next ones are led elsewhere.
    let names = NameServer::start(|_, before| {
        Some(vec![if before < 2 {
            IpAddr::from([127, 0, 0, 1])
        } else {
            IpAddr::from([127, 0, 0, 2])
        }])
    });
    let client = with_names(
        &names,
        "private_networks = false\nallow_networks = [\"127.0.0.1\"]",
    );
    let url = origin.url_as("rebind.example", "/");
    assert_eq!(send(&client, &url).await.unwrap(), 200);
    let error = send(&client, &url).await.unwrap_err();
    assert_eq!(error.reason(), Reason::DeniedAddress, "{error:?}");
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_many_connections() {
    let origin = Origin::with("/", Reply::ok("a").until_close());
    let names = NameServer::with_ttl(60, |_, _| {
        Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
    });
    let client = with_names(&names, "");
    for _ in 0..5 {
        assert_eq!(
            send(&client, &origin.url_as("here.example", "/"))
                .await
                .unwrap(),
            200
        );
    }
    // One for each kind of address.
    assert_eq!((origin.connections(), names.queries()), (5, 2));
}

#[tokio::test]
async fn a_name_with_one_kind_of_addresses_is_looked_up_once_too() {
    let origin = Origin::with("/", Reply::ok("a").until_close());
    // Without a word on how long there are none of the other kind, as many routers answer.
    let names = NameServer::with_ttl(60, |_, _| Some(vec![Ipv4Addr::LOCALHOST.into()]));
    let client = with_names(&names, "");
    for _ in 0..5 {
        let sent = send(&client, &origin.url_as("here.example", "/")).await;
        assert_eq!(sent.unwrap(), 200);
    }
    assert_eq!((origin.connections(), names.queries()), (5, 2));
}

#[tokio::test]
async fn a_proxy_of_the_settings_may_be_private_and_opens_no_network() {
    let proxy = Origin::builder().otherwise(Reply::ok("by proxy")).start();
    let names = NameServer::start(|name, _| {
        (name == "proxy.example").then(|| vec![IpAddr::from([127, 0, 0, 1])])
    });
    let port = proxy.address.port();
    let url: Url = "http://8.8.8.8/file".parse().unwrap();
    for (number, host) in [
        "127.0.0.1",
        "localhost",
        "proxy.example",
        "[::ffff:127.0.0.1]",
    ]
    .into_iter()
    .enumerate()
    {
        let client = with_names(
            &names,
            &format!("private_networks = false\nproxy = \"user:secret@{host}:{port}\""),
        );
        assert_eq!(send(&client, &url).await.unwrap(), 200, "{host}");
        let asked = &proxy.asked("http://8.8.8.8/file")[number];
        assert_eq!(
            asked.header("proxy-authorization"),
            Some("Basic dXNlcjpzZWNyZXQ=")
        );
        for inside in ["127.0.0.1", "localhost", "proxy.example", "127.0.0.2"] {
            for url in [
                format!("http://{inside}:{port}/"),
                format!("https://{inside}/"),
            ] {
                let error = send(&client, &url.parse().unwrap()).await.unwrap_err();
                assert_eq!(
                    error.reason(),
                    Reason::DeniedAddress,
                    "{host} {url}: {error:?}"
                );
                assert!(!format!("{:#}", anyhow::Error::from(error)).contains("secret"));
            }
        }
        assert_eq!(proxy.total(), number + 1);
    }
}

#[tokio::test]
async fn a_proxy_does_not_hide_a_private_target() {
    let proxy = Origin::builder().otherwise(Reply::ok("by proxy")).start();
    let names = NameServer::start(|name, _| match name {
        "inside.example" => Some(vec![IpAddr::from([10, 0, 0, 1])]),
        "mixed.example" => Some(vec![
            IpAddr::from([8, 8, 8, 8]),
            IpAddr::from([10, 0, 0, 1]),
        ]),
        _ => None,
    });
    for scheme in ["http", "socks5", "socks5h"] {
        let client = with_names(
            &names,
            &format!(
                "private_networks = false\nallow_networks = [\"127.0.0.1\"]\nproxy = \"{scheme}://127.0.0.1:{}\"",
                proxy.address.port()
            ),
        );
        let urls = [
            "http://10.0.0.1/",
            "http://[::ffff:10.0.0.1]/",
            "https://10.0.0.1/",
            "http://inside.example/",
            "http://mixed.example/",
            "http://a.localhost/",
        ];
        // By plain SOCKS5 the names are resolved here, and only the allowed addresses handed on.
        for url in &urls[..if scheme == "socks5" { 4 } else { 6 }] {
            let error = send(&client, &url.parse().unwrap()).await.unwrap_err();
            assert_eq!(
                error.reason(),
                Reason::DeniedAddress,
                "{scheme} {url}: {error:?}"
            );
        }
    }
    assert_eq!(proxy.total(), 0);
    // A name that only the proxy knows is the proxy's to judge.
    let client = with_names(
        &names,
        &format!(
            "private_networks = false\nallow_networks = [\"127.0.0.1\"]\nproxy = \"http://127.0.0.1:{}\"",
            proxy.address.port()
        ),
    );
    assert_eq!(
        send(
            &client,
            &"http://only-the-proxy-knows.example/".parse().unwrap()
        )
        .await
        .unwrap(),
        200
    );
}

#[tokio::test]
async fn a_proxy_that_fails_is_a_proxy_fault() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = client(&format!("proxy = \"http://user:secret@127.0.0.1:{port}\""));
    let error = send(&refused, &"http://8.8.8.8/".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Proxy, "{error:?}");
    assert!(error.is_connect() && error.is_retriable());
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(
        text.contains(&format!("http://127.0.0.1:{port}")) && !text.contains("secret"),
        "{text}"
    );

    let grumpy = Origin::builder().otherwise(Reply::status(502)).start();
    let tunnel = client(&format!(
        "proxy = \"http://127.0.0.1:{}\"",
        grumpy.address.port()
    ));
    let error = send(&tunnel, &"https://8.8.8.8/".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Proxy, "{error:?}");

    let strict = Origin::builder().otherwise(Reply::status(407)).start();
    let plain = client(&format!(
        "proxy = \"http://127.0.0.1:{}\"",
        strict.address.port()
    ));
    let error = send(&plain, &"http://8.8.8.8/".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Proxy, "{error:?}");
}

#[tokio::test]
async fn credentials_stay_with_the_origin_that_they_were_given_for() {
    let other = Origin::with("/file", Reply::ok("a"));
    let first = Origin::builder()
        .route("/here", Reply::redirect(302, "/file"))
        .route("/port", Reply::redirect(302, other.url("/file")))
        .route(
            "/host",
            Reply::redirect(302, other.url_as("localhost", "/file")),
        )
        .route("/file", Reply::ok("a"))
        .start();
    let settings = settings("[headers]\nX-Api-Key = \"k\"\nAccept-Language = \"de\"");
    let hosts: Hosts = toml::from_str(
        "[\"127.0.0.1\"]\ntoken = \"t0k3n\"\n[\"127.0.0.1\".headers]\nX-Own = \"o\"",
    )
    .unwrap();
    let client = Client::new(&settings, &hosts).unwrap();
    client.get(&first.url("/here"), "*/*", 100).await.unwrap();
    for path in ["/here", "/file"] {
        let asked = &first.asked(path)[0];
        assert_eq!(asked.header("authorization"), Some("Bearer t0k3n"));
        assert_eq!(
            (asked.header("x-api-key"), asked.header("x-own")),
            (Some("k"), Some("o"))
        );
    }
    for path in ["/port", "/host"] {
        client.get(&first.url(path), "*/*", 100).await.unwrap();
    }
    // In the URL they go first, and no further either.
    let mut url = first.url("/here");
    url.set_username("ann").unwrap();
    url.set_password(Some("p@ss")).unwrap();
    client.get(&url, "*/*", 100).await.unwrap();
    assert_eq!(
        first.asked("/file")[1].header("authorization"),
        Some("Basic YW5uOnBAc3M=")
    );
    url.set_path("/port");
    client.get(&url, "*/*", 100).await.unwrap();
    assert_eq!(other.hits("/file"), 3);
    for asked in other.asked("/file") {
        assert_eq!(
            (
                asked.header("authorization"),
                asked.header("x-api-key"),
                asked.header("x-own")
            ),
            (None, None, None)
        );
        assert_eq!(asked.header("accept-language"), Some("de"));
    }
}

/// Returns `None` if robots.txt is not available.
async fn is_allowed(robots: &Robots, client: &Client, url: &Url) -> Option<bool> {
    let verdict = robots.judge(client, url).await.ok()?;
    Some(matches!(verdict.permission, Permission::Allowed))
}

#[tokio::test]
async fn robots_txt_is_asked_once_and_respected() {
    let rules = "User-agent: *\nDisallow: /private\n\nUser-agent: gannet\nDisallow: /no\n";
    let origin = Origin::builder()
        .route("/robots.txt", Reply::redirect(301, "/rules"))
        .route("/rules", Reply::ok(rules))
        .start();
    let (client, robots) = (client(""), Robots::default());
    for (path, allowed) in [
        ("/", true),
        ("/private", true),
        ("/no", false),
        ("/no/a?b", false),
        ("/yes?/no", true),
    ] {
        assert_eq!(
            is_allowed(&robots, &client, &origin.url(path)).await,
            Some(allowed),
            "{path}"
        );
    }
    assert_eq!(origin.hits("/robots.txt"), 1);
}

#[tokio::test]
async fn without_rules_all_is_allowed_and_without_an_answer_nobody_knows() {
    for (reply, allowed) in [
        (Reply::status(404), Some(true)),
        (Reply::status(401), Some(true)),
        (Reply::status(402), Some(false)),
        (Reply::redirect(302, "/robots.txt"), Some(true)),
        (Reply::ok("<html>"), Some(true)),
        (
            Reply::ok(format!(
                "{}\nUser-agent: *\nDisallow: /",
                "#".repeat(600_000)
            )),
            Some(true),
        ),
        (Reply::status(503), None),
        (Reply::status(429), None),
        (Reply::reset(), None),
    ] {
        let origin = Origin::with("/robots.txt", reply.clone());
        let allows = is_allowed(&Robots::default(), &client(""), &origin.url("/file")).await;
        assert_eq!(allows, allowed, "{:?}", reply.clone().body(""));
    }
}

#[tokio::test]
async fn five_redirects_lead_to_robots_txt_and_six_to_none() {
    for (redirects, allowed) in [(5, false), (6, true)] {
        let rules = format!("/{redirects}");
        let (first, elsewhere) = (Origin::builder(), Origin::builder());
        let elsewhere = (1..redirects)
            .fold(elsewhere, |origin, n| {
                origin.route(
                    &format!("/{n}"),
                    Reply::redirect(302, format!("/{}", n + 1)),
                )
            })
            .route(&rules, Reply::ok("User-agent: *\nDisallow: /\n"))
            .start();
        let first = first
            .route(
                "/robots.txt",
                Reply::redirect(301, elsewhere.url("/1").as_str()),
            )
            .start();
        let url = first.url("/file");
        let is_allowed = is_allowed(&Robots::default(), &client(""), &url).await;
        assert_eq!(is_allowed, Some(allowed), "{redirects}");
    }
}
