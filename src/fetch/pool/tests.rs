use super::*;

const PUBLIC: &str = "urls = [\"http://p0.example:1\", \"http://p1.example:1\", \"http://p2.example:1\", \"http://p3.example:1\"]";

fn pool(changes: &str) -> Arc<Pool> {
    let settings = settings::defaults(&format!("{PUBLIC}\n{changes}"));
    Pool::new(&settings, Arc::default(), None).unwrap().unwrap()
}

async fn ride(pool: &Arc<Pool>) -> Ride {
    pool.ride("a.example", &[], &[]).await.unwrap()
}

/// The number of the proxy.
fn number(ride: &Ride) -> usize {
    let name = ride.url().to_string();
    name.as_bytes()["http://p".len()].wrapping_sub(b'0').into()
}

/// Chooses `times` times, each request being over before the next.
async fn shares(pool: &Arc<Pool>, host: &str, times: usize) -> [usize; 4] {
    let mut shares = [0; 4];
    for _ in 0..times {
        let ride = pool.ride(host, &[], &[]).await.unwrap();
        shares[number(&ride)] += 1;
    }
    shares
}

fn break_down(pool: &Pool, number: usize) {
    for _ in 0..3 {
        pool.failed(&pool.members()[number], Fault::Own, "refused".to_owned());
    }
}

#[tokio::test(start_paused = true)]
async fn round_robin_gives_each_the_same_also_beside_one_that_is_aside() {
    let pool = pool("");
    assert_eq!(shares(&pool, "a.example", 40).await, [10; 4]);
    break_down(&pool, 1);
    assert_eq!(shares(&pool, "a.example", 30).await, [10, 0, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_on_trial_gets_one_request_at_a_time() {
    let pool = pool("");
    for member in pool.members().iter() {
        pool.accepted(member, true);
    }
    break_down(&pool, 1);
    tokio::time::advance(Duration::from_secs(31)).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(ride(&pool).await);
    }
    assert_eq!(held.iter().filter(|ride| number(ride) == 1).count(), 1);
    drop(held);
    pool.accepted(&pool.members()[1], true);
    assert_eq!(shares(&pool, "a.example", 40).await, [10; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_ends_no_trial_and_what_is_proven_over_tls_is_not_so_for_what_can_be_altered() {
    let pool = pool("");
    let member = pool.members()[1].clone();
    let (plain, tunnelled) = {
        let ride = pool.ride_on(&member);
        (ride.via(true), ride.via(false))
    };
    break_down(&pool, 1);
    tokio::time::advance(Duration::from_secs(31)).await;
    for _ in 0..2 {
        pool.probed(&member, &Ok(Duration::from_millis(1)));
        assert_eq!(member.standing().fitness(Instant::now()), Fitness::OnTrial);
    }
    assert!(!plain.is_proven() && !tunnelled.is_proven());
    tunnelled.accept();
    assert!(!plain.is_proven() && tunnelled.is_proven());
    plain.accept();
    assert!(plain.is_proven() && tunnelled.is_proven());
    plain.blame("altered");
    assert!(!plain.is_proven() && !tunnelled.is_proven());
}

#[tokio::test(start_paused = true)]
async fn least_failures_prefers_those_that_fail_least() {
    let pool = pool("rotation = \"least-failures\"\nset_aside_after = 100");
    for number in [0, 1, 3] {
        for _ in 0..2 {
            pool.failed(&pool.members()[number], Fault::Own, "refused".to_owned());
        }
    }
    assert_eq!(shares(&pool, "a.example", 10).await, [0, 0, 10, 0]);
}

#[tokio::test(start_paused = true)]
async fn sticky_keeps_a_host_at_its_proxy_and_moves_only_those_of_one_that_is_aside() {
    let pool = pool("rotation = \"sticky\"");
    let hosts: Vec<_> = (0..40).map(|n| format!("h{n}.example")).collect();
    let mut homes = Vec::new();
    for host in &hosts {
        let shares = shares(&pool, host, 5).await;
        homes.push(
            shares
                .iter()
                .position(|share| *share == 5)
                .expect("all through one"),
        );
    }
    assert!((0..4).all(|number| homes.contains(&number)), "{homes:?}");
    break_down(&pool, 2);
    for (host, home) in hosts.iter().zip(&homes) {
        let now = shares(&pool, host, 1).await;
        assert_eq!(now[*home] == 1, *home != 2, "{host}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_avoided_is_used_where_there_is_no_other_and_what_was_asked_is_not() {
    let pool = pool("");
    let mut vias = Vec::new();
    for _ in 0..3 {
        let ride = pool.ride("a.example", &vias, &[]).await.unwrap();
        vias.push(ride.via(true));
    }
    let last = number(&pool.ride("a.example", &[], &vias).await.unwrap());
    assert!(
        vias.iter()
            .all(|via| via.member.url.to_string() != format!("http://p{last}.example:1"))
    );
    break_down(&pool, last);
    assert!(pool.ride("a.example", &[], &vias).await.is_ok());
    assert!(!pool.has_other(&vias));
    let none = pool.ride("a.example", &vias, &[]).await.unwrap_err();
    assert_eq!(
        (none.count, none.aside, none.back_in),
        (4, 1, Some(Duration::from_secs(30)))
    );
    assert!(none.problem.unwrap().contains("refused"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_proxy_is_set_aside_and_a_pool_that_is_slow_as_a_whole_is_not() {
    let pool = pool("");
    let members = pool.members();
    for _ in 0..5 {
        tokio::time::advance(MEDIAN_FOR).await;
        for (member, seconds) in members.iter().zip([1, 2, 30, 1]) {
            pool.took(member, Duration::from_secs(seconds), 10);
        }
    }
    assert_eq!(shares(&pool, "a.example", 9).await, [3, 3, 0, 3]);
    // The answers that were under way prolong nothing.
    for _ in 0..5 {
        pool.took(&members[2], Duration::from_secs(30), 10);
    }
    assert_eq!(members[2].standing().seconds(), None);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(shares(&pool, "a.example", 8).await, [2; 4]);
    // Where each of them has its own hosts, their times are those of the hosts.
    let sticky = self::pool("rotation = \"sticky\"");
    for (member, seconds) in sticky.members().iter().zip([1, 2, 30, 1]) {
        sticky.took(member, Duration::from_secs(seconds), 10);
    }
    tokio::time::advance(MEDIAN_FOR).await;
    sticky.took(&sticky.members()[2], Duration::from_secs(30), 10);
    assert_eq!(sticky.no_ride().aside, 0);
    // What takes long because it is much is not slow.
    let other = self::pool("");
    for member in other.members().iter() {
        other.took(member, Duration::from_secs(1), 10);
    }
    other.took(&other.members()[0], Duration::from_secs(60), 100 * STRETCH);
    assert_eq!(shares(&other, "a.example", 4).await, [1; 4]);
}

#[tokio::test(start_paused = true)]
async fn comparisons_set_aside_half_of_the_pool_at_most_and_faults_of_their_own_all() {
    let pool = pool("");
    for member in pool.members().iter() {
        for _ in 0..50 {
            pool.failed(member, Fault::Worse, "cut off".to_owned());
        }
    }
    let now = Instant::now();
    let members = pool.members();
    let usable = || {
        members
            .iter()
            .filter(|member| pool.fitness(member, now).is_some())
            .count()
    };
    assert_eq!(usable(), 2);
    for number in 0..4 {
        break_down(&pool, number);
    }
    assert_eq!(usable(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_proxy_outlives_a_reload() {
    let before = pool("");
    break_down(&before, 0);
    let settings = settings::defaults(
        "urls = [\"http://p9.example:1\", \"http://p0.example:1\", \"http://p1.example:1\"]",
    );
    let after = Pool::new(&settings, Arc::default(), Some(&before))
        .unwrap()
        .unwrap();
    let now = Instant::now();
    let usable: Vec<_> = after
        .members()
        .iter()
        .map(|member| after.fitness(member, now).is_some())
        .collect();
    assert_eq!(usable, [true, false, true]);
}

#[test]
fn a_pool_holds_each_proxy_once_none_that_is_denied_and_no_more_than_there_may_be() {
    let settings =
        settings::defaults("urls = [\"http://p.example:1\", \"http://p.example:1/\"]\nmax = 2");
    let pool = Pool::new(&settings, Arc::default(), None).unwrap().unwrap();
    let listed = [
        "http://127.0.0.1:1",
        "socks5://[::1]",
        "http://p.example:1",
        "http://q.example",
        "http://r.example",
    ];
    let listed = listed.map(|text| ProxyUrl::parse(text).unwrap());
    pool.replace(settings.urls.clone(), listed.to_vec());
    let shown: Vec<_> = pool
        .members()
        .iter()
        .map(|member| member.url.to_string())
        .collect();
    assert_eq!(shown, ["http://p.example:1", "http://q.example"]);
}

#[test]
fn no_more_clients_are_kept_than_there_may_be() {
    let urls: Vec<_> = (0..1100)
        .map(|n| format!("\"http://p{n}.example:1\""))
        .collect();
    let settings = settings::defaults(&format!("urls = [{}]\nmax = 2000", urls.join(",")));
    let pool = Pool::new(&settings, Arc::default(), None).unwrap().unwrap();
    let made = |member: &Arc<Member>| {
        // The system's authorities would take their time.
        #[expect(clippy::disallowed_methods, reason = "nothing is asked by it")]
        let build = || reqwest::Client::builder().tls_certs_only([]).build();
        pool.client(member, build).unwrap();
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    pool.members().iter().for_each(made);
    let kept = pool
        .members()
        .iter()
        .filter(|member| lock(&member.http).is_some())
        .count();
    assert!((MAX_CLIENTS..=MAX_CLIENTS + 1).contains(&kept), "{kept}");
    assert_eq!(kept, pool.clients.load(Ordering::Relaxed));
}

/// URLs of the members, and whether they are trusted.
fn members(pool: &Pool) -> Vec<(String, bool)> {
    let members = pool.members();
    let each = members.iter();
    each.map(|member| (member.url.to_string(), member.is_trusted))
        .collect()
}

#[test]
fn only_what_the_operator_names_may_have_a_private_address() {
    let proxies = |text: &[&str]| -> Vec<ProxyUrl> {
        text.iter()
            .map(|text| ProxyUrl::parse(text).unwrap())
            .collect()
    };
    let made = |urls: &str, before: Option<&Pool>| {
        let settings = settings::defaults(&format!(
            "urls = [{urls}]\nlists = [\"https://l.example/\"]"
        ));
        Pool::new(&settings, Arc::default(), before)
            .unwrap()
            .unwrap()
    };
    let owned = |members: &[(&str, bool)]| -> Vec<(String, bool)> {
        members
            .iter()
            .map(|(url, is_trusted)| ((*url).to_owned(), *is_trusted))
            .collect()
    };
    let (inside, other, public) = ("http://10.0.0.1:1", "http://10.0.0.2:1", "http://8.8.8.8:1");
    let listed = proxies(&[other, inside, public]);
    let pool = made(&format!("{inside:?}"), None);
    assert_eq!(members(&pool), owned(&[(inside, true)]));
    pool.replace(proxies(&[inside]), listed.clone());
    assert_eq!(members(&pool), owned(&[(inside, true), (public, false)]));
    // A reload by which the operator names the other proxy.
    let reloaded = made(&format!("{public:?}"), Some(&pool));
    assert_eq!(members(&reloaded), owned(&[(public, true)]));
    reloaded.replace(proxies(&[public]), listed.clone());
    assert_eq!(members(&reloaded), owned(&[(public, true)]));
    // A reload by which the operator names none, so both are left to the list.
    let left = made("", Some(&pool));
    assert_eq!(members(&left), owned(&[(public, false)]));
    left.replace(Vec::new(), listed);
    assert_eq!(members(&left), owned(&[(public, false)]));
}
