use super::*;

fn limits() -> Limits {
    Limits {
        concurrency: 2,
        interval: Duration::ZERO,
        crawl_delay_max: Duration::from_secs(60),
        down_after: 3,
        down_for: Duration::from_secs(60),
    }
}

/// A host without a group.
fn alone(host: &str) -> Address<'_> {
    Address { lane: host, host }
}

/// A host of the group `*.cdn`.
fn of_cdn(host: &str) -> Address<'_> {
    Address {
        lane: "*.cdn",
        host,
    }
}

/// A frontier all of whose jobs have the same limits.
struct Limited(Frontier<u32>, Limits);

impl std::ops::Deref for Limited {
    type Target = Frontier<u32>;

    fn deref(&self) -> &Frontier<u32> {
        &self.0
    }
}

impl Limited {
    fn push(&self, host: &str, job: u64, item: u32) -> Result<(), HostDown<u32>> {
        self.0.push(alone(host), job, || self.1, item)
    }

    fn push_delayed(
        &self,
        host: &str,
        job: u64,
        item: u32,
        delay: Duration,
    ) -> Result<(), HostDown<u32>> {
        self.0
            .push_delayed(alone(host), job, || self.1, item, delay)
    }
}

fn frontier(limits: Limits) -> Limited {
    Limited(Frontier::new(), limits)
}

/// What can be taken without waiting.
fn ready(frontier: &Frontier<u32>) -> Vec<Permit<u32>> {
    let mut inner = frontier.lock();
    let now = Instant::now();
    inner.ring(now);
    std::iter::from_fn(|| inner.take(now)).collect()
}

fn items(permits: &[Permit<u32>]) -> Vec<u32> {
    permits.iter().map(|permit| permit.item).collect()
}

fn finish(frontier: &Frontier<u32>, permits: Vec<Permit<u32>>, health: Health) -> Vec<u32> {
    permits
        .into_iter()
        .flat_map(|permit| frontier.done(&permit.split().1, health))
        .map(|HostDown(item, _)| item)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_host_is_asked_no_more_than_its_limit_at_a_time() {
    let frontier = frontier(limits());
    for n in 0..5 {
        frontier.push("a", 1, n).unwrap();
    }
    let first = ready(&frontier);
    assert_eq!(items(&first), [0, 1]);
    assert!(ready(&frontier).is_empty());
    assert!(finish(&frontier, first, Health::Good).is_empty());
    assert_eq!(items(&ready(&frontier)), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn hosts_take_turns_and_within_a_host_the_jobs_do() {
    let wide = Limits {
        concurrency: 9,
        ..limits()
    };
    let frontier = frontier(wide);
    for (host, job, item) in [
        ("a", 1, 10),
        ("a", 1, 11),
        ("a", 2, 20),
        ("b", 1, 30),
        ("b", 1, 31),
    ] {
        frontier.push(host, job, item).unwrap();
    }
    assert_eq!(items(&ready(&frontier)), [10, 30, 20, 31, 11]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_spaces_the_starts() {
    let frontier = frontier(Limits {
        interval: Duration::from_millis(500),
        ..limits()
    });
    for n in 0..4 {
        frontier.push("a", 1, n).unwrap();
    }
    let began = Instant::now();
    for n in 0..4_u32 {
        let permit = frontier.next().await.unwrap();
        assert_eq!(permit.item, n);
        assert_eq!(began.elapsed(), Duration::from_millis(500) * n);
        let _ = frontier.done(&permit.split().1, Health::Good);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_request_does_not_hold_up_the_next_of_its_lane() {
    let frontier = Arc::new(frontier(Limits {
        interval: Duration::from_secs(1),
        ..limits()
    }));
    let begun = Instant::now();
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let frontier = frontier.clone();
            // The permit is not given back: its request is still under way.
            tokio::spawn(async move { (frontier.next().await.unwrap().item, begun.elapsed()) })
        })
        .collect();
    tokio::task::yield_now().await;
    frontier.push("a", 1, 1).unwrap();
    frontier.push("a", 1, 2).unwrap();
    let mut taken = Vec::new();
    for waiter in waiters {
        taken.push(waiter.await.unwrap());
    }
    taken.sort_unstable();
    assert_eq!(taken, [(1, Duration::ZERO), (2, Duration::from_secs(1))]);
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_back_the_whole_lane_and_no_other() {
    let frontier = frontier(limits());
    frontier.push("a", 1, 1).unwrap();
    let first = ready(&frontier);
    frontier.push("a", 1, 2).unwrap();
    frontier.push("b", 1, 3).unwrap();
    let second = ready(&frontier);
    assert_eq!(items(&second), [2, 3]);
    frontier.push("a", 1, 4).unwrap();
    finish(&frontier, first, Health::Throttled(Duration::from_secs(30)));
    finish(&frontier, second, Health::Good);
    let asked = Instant::now();
    assert_eq!(frontier.next().await.unwrap().item, 4);
    assert_eq!(asked.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_host_is_asked_less_and_then_slowly_more() {
    let frontier = frontier(Limits {
        concurrency: 8,
        ..limits()
    });
    for n in 0..100 {
        frontier.push("a", 1, n).unwrap();
    }
    let burst = ready(&frontier);
    assert_eq!(burst.len(), 8);
    finish(&frontier, burst, Health::Throttled(Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(2)).await;
    let burst = ready(&frontier);
    assert_eq!(burst.len(), 4, "halved once for the whole burst");
    finish(&frontier, burst, Health::Good);
    for _ in 0..8 {
        let some = ready(&frontier);
        finish(&frontier, some, Health::Good);
    }
    assert_eq!(ready(&frontier).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_keeps_failing_is_given_up_and_tried_again_later() {
    let frontier = frontier(limits());
    for n in 0..1_000 {
        frontier.push("dead", 1, n).unwrap();
    }
    let mut refused = Vec::new();
    for round in 1..=3 {
        let permits = [
            frontier.next().await.unwrap(),
            frontier.next().await.unwrap(),
        ];
        refused = finish(
            &frontier,
            permits.into(),
            Health::Unreachable(Duration::from_secs(1), "dns"),
        );
        assert_eq!(
            refused.is_empty(),
            round < 3,
            "two faults at a time are one round"
        );
    }
    assert_eq!(refused.len(), 994);
    assert_eq!(
        frontier.push("dead", 1, 7),
        Err(HostDown(7, Down::Faults("dns")))
    );
    tokio::time::advance(Duration::from_secs(61)).await;
    for n in 0..3 {
        frontier.push("dead", 1, n).unwrap();
    }
    let probe = ready(&frontier);
    assert_eq!(probe.len(), 1, "one request shows whether the host is back");
    finish(&frontier, probe, Health::Good);
    assert_eq!(ready(&frontier).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_item_comes_at_its_time_and_ahead_of_others() {
    let frontier = frontier(Limits {
        concurrency: 1,
        ..limits()
    });
    frontier
        .push_delayed("a", 1, 1, Duration::from_secs(5))
        .unwrap();
    let asked = Instant::now();
    let permit = frontier.next().await.unwrap();
    assert_eq!((permit.item, asked.elapsed()), (1, Duration::from_secs(5)));
    frontier.push("a", 1, 2).unwrap();
    frontier.push_delayed("a", 1, 3, Duration::ZERO).unwrap();
    let _ = frontier.done(&permit.split().1, Health::Good);
    assert_eq!(frontier.next().await.unwrap().item, 3);
}

#[tokio::test(start_paused = true)]
async fn a_drained_job_leaves_the_others_alone() {
    let frontier = frontier(limits());
    for (host, job, item) in [("a", 1, 1), ("a", 2, 2), ("b", 1, 3)] {
        frontier.push(host, job, item).unwrap();
    }
    frontier
        .push_delayed("b", 1, 4, Duration::from_secs(9))
        .unwrap();
    frontier
        .push_delayed("b", 2, 5, Duration::from_secs(9))
        .unwrap();
    let mut drained = frontier.drain(1);
    drained.sort_unstable();
    assert_eq!(drained, [1, 3, 4]);
    assert_eq!(frontier.next().await.unwrap().item, 2);
    assert_eq!(frontier.next().await.unwrap().item, 5);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_every_waiter() {
    let frontier = Arc::new(frontier(limits()));
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            tokio::spawn({
                let frontier = frontier.clone();
                async move { frontier.next().await.is_none() }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    frontier.close();
    for waiter in waiters {
        assert!(waiter.await.unwrap());
    }
}

/// Pushes one item to each of `count` hosts that are called so, and has it end so.
async fn visit(frontier: &Limited, what: &str, count: usize, health: Health) {
    for n in 0..count {
        frontier.push(&format!("{what}{n}"), 1, 0).unwrap();
        let permit = frontier.next().await.unwrap();
        let _ = frontier.done(&permit.split().1, health);
    }
}

fn remembered(frontier: &Frontier<u32>) -> usize {
    let inner = frontier.lock();
    assert_eq!(inner.lanes.len(), inner.to_forget.len());
    inner.lanes.len()
}

#[tokio::test(start_paused = true)]
async fn dead_hosts_are_forgotten_once_they_are_not_given_up_any_more() {
    let frontier = frontier(Limits {
        down_after: 1,
        ..limits()
    });
    let dead = Health::Unreachable(Duration::from_secs(1), "dns");
    visit(&frontier, "dead", 3 * REMEMBERED, dead).await;
    assert_eq!(
        frontier.push("dead0", 1, 7),
        Err(HostDown(7, Down::Faults("dns")))
    );
    assert_eq!(remembered(&frontier), 3 * REMEMBERED);
    tokio::time::advance(Duration::from_secs(60)).await;
    visit(&frontier, "other", 2 * REMEMBERED, Health::Good).await;
    assert_eq!(remembered(&frontier), REMEMBERED);
    // However many come and go, no more stay than are given up at a time.
    for round in 0..10 {
        visit(&frontier, &format!("round{round}-"), REMEMBERED, dead).await;
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    assert!(remembered(&frontier) <= 2 * REMEMBERED);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_host_is_not_forgotten_for_a_while() {
    let frontier = frontier(limits());
    let throttled = Health::Throttled(Duration::from_secs(1));
    visit(&frontier, "busy", 1, throttled).await;
    let places = async || {
        for n in 0..2 {
            frontier.push("busy0", 1, n).unwrap();
        }
        let permits = ready(&frontier);
        let places = permits.len();
        finish(&frontier, permits, Health::Unknown);
        let _ = frontier.drain(1);
        places
    };
    tokio::time::advance(Duration::from_secs(60)).await;
    visit(&frontier, "a", 3 * REMEMBERED, Health::Good).await;
    assert_eq!(places().await, 1, "it is still asked less");
    tokio::time::advance(Duration::from_secs(3600)).await;
    visit(&frontier, "b", 3 * REMEMBERED, Health::Good).await;
    assert_eq!(places().await, 2);
}

#[tokio::test(start_paused = true)]
async fn each_job_goes_by_its_own_limits_and_all_by_one_count() {
    let frontier = Frontier::new();
    let strict = Limits {
        concurrency: 1,
        interval: Duration::from_secs(10),
        ..limits()
    };
    let wide = Limits {
        concurrency: 3,
        ..limits()
    };
    for n in [10, 11] {
        frontier.push(alone("a"), 1, || wide, n).unwrap();
    }
    for n in [20, 21] {
        frontier.push(alone("a"), 2, || strict, n).unwrap();
    }
    frontier.push(alone("a"), 1, || wide, 12).unwrap();
    // The strict one waits, and holds up nobody.
    let first = ready(&frontier);
    assert_eq!(items(&first), [10, 11, 12]);
    assert!(finish(&frontier, first, Health::Good).is_empty());
    assert!(ready(&frontier).is_empty(), "the last start was just now");
    tokio::time::advance(Duration::from_secs(10)).await;
    let second = ready(&frontier);
    assert_eq!(items(&second), [20]);
    assert!(finish(&frontier, second, Health::Good).is_empty());
    assert!(ready(&frontier).is_empty());
    // Its limits may change while it waits.
    frontier.relimit(2, |_| wide);
    assert_eq!(items(&ready(&frontier)), [21]);
}

#[tokio::test(start_paused = true)]
async fn a_group_has_one_limit_and_its_hosts_take_turns() {
    let frontier = Frontier::new();
    for n in 0..3 {
        frontier.push(of_cdn("a.cdn"), 1, limits, 10 + n).unwrap();
    }
    frontier.push(of_cdn("b.cdn"), 1, limits, 20).unwrap();
    frontier.push(of_cdn("c.cdn"), 2, limits, 30).unwrap();
    let first = ready(&frontier);
    assert_eq!(items(&first), [10, 30]);
    finish(&frontier, first, Health::Good);
    let second = ready(&frontier);
    assert_eq!(items(&second), [20, 11]);
    finish(&frontier, second, Health::Good);
    assert_eq!(items(&ready(&frontier)), [12]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_gives_up_none_of_its_group() {
    let frontier = Frontier::new();
    for n in 0..20 {
        frontier.push(of_cdn("dead.cdn"), 1, limits, n).unwrap();
    }
    let mut refused = Vec::new();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(2)).await;
        let permits = ready(&frontier);
        assert_eq!(permits.len(), 2);
        refused = finish(
            &frontier,
            permits,
            Health::Unreachable(Duration::from_secs(1), "dns"),
        );
        // Other hosts of the group are served between the rounds.
        frontier.push(of_cdn("alive.cdn"), 1, limits, 100).unwrap();
        let permits = ready(&frontier);
        assert_eq!(items(&permits), [100]);
        finish(&frontier, permits, Health::Good);
    }
    assert_eq!(refused.len(), 14);
    let down = Err(HostDown(7, Down::Faults("dns")));
    assert_eq!(frontier.push(of_cdn("dead.cdn"), 1, limits, 7), down);
    frontier.push(of_cdn("alive.cdn"), 1, limits, 101).unwrap();
    assert_eq!(items(&ready(&frontier)), [101]);
    // One request probes the host, and delays no other.
    tokio::time::advance(Duration::from_secs(61)).await;
    for n in 0..3 {
        frontier.push(of_cdn("dead.cdn"), 1, limits, n).unwrap();
    }
    assert_eq!(items(&ready(&frontier)), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_one_host_asks_for_holds_its_group() {
    for (health, is_down) in [
        (Health::Throttled(Duration::from_secs(30)), false),
        (Health::Closed(Duration::from_secs(3600)), true),
    ] {
        let frontier = Frontier::new();
        frontier.push(of_cdn("a.cdn"), 1, limits, 1).unwrap();
        let first = ready(&frontier);
        frontier.push(of_cdn("b.cdn"), 1, limits, 2).unwrap();
        frontier
            .push_delayed(of_cdn("c.cdn"), 1, limits, 3, Duration::ZERO)
            .unwrap();
        let mut refused = finish(&frontier, first, health);
        refused.sort_unstable();
        assert!(ready(&frontier).is_empty());
        assert_eq!(refused, if is_down { vec![2, 3] } else { vec![] });
        let pushed = frontier.push(of_cdn("d.cdn"), 1, limits, 4);
        assert_eq!(pushed.is_err(), is_down);
        if !is_down {
            let asked = Instant::now();
            frontier.next().await.unwrap();
            assert_eq!(asked.elapsed(), Duration::from_secs(30));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crawl_delay_holds_for_all_that_comes_after_it() {
    let frontier = frontier(limits());
    for n in 0..4 {
        frontier.push("a", 1, n).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(3600);
    let second = Duration::from_secs(1);
    // Both started before the delay was known, and are queued again.
    for permit in ready(&frontier) {
        let (item, started) = permit.split();
        assert!(!frontier.keep_apart(&started, &limits(), second, until));
        let _ = frontier.done(&started, Health::Unknown);
        frontier.push_delayed("a", 1, item, Duration::ZERO).unwrap();
    }
    let begun = Instant::now();
    for n in 1..=4 {
        let (_, started) = frontier.next().await.unwrap().split();
        assert_eq!(begun.elapsed(), second * n);
        assert!(frontier.keep_apart(&started, &limits(), second, until));
        // A shorter delay from another origin in the lane has no effect.
        assert!(frontier.keep_apart(&started, &limits(), second / 2, until));
        let _ = frontier.done(&started, Health::Good);
    }
}

#[tokio::test(start_paused = true)]
async fn each_crawl_delay_holds_until_its_own_end() {
    let minute = Duration::from_secs(60);
    /// Delays with their ends in minutes, and the delays that hold at the start of each minute.
    type Case<'a> = (&'a [(u64, u64)], [u64; 4]);
    let cases: [Case<'_>; 6] = [
        (&[(8, 1), (2, 3)], [8, 2, 2, 0]),
        (&[(2, 3), (8, 1)], [8, 2, 2, 0]),
        (&[(8, 3), (2, 1)], [8, 8, 8, 0]),
        (&[(2, 1), (8, 3)], [8, 8, 8, 0]),
        (&[(8, 1), (2, 3), (4, 2)], [8, 4, 2, 0]),
        (&[(2, 1), (2, 2), (2, 1)], [2, 2, 0, 0]),
    ];
    for (delays, expected) in cases {
        let frontier = frontier(limits());
        let begun = Instant::now();
        frontier.push("a", 1, 0).unwrap();
        let (_, started) = frontier.next().await.unwrap().split();
        for &(delay, minutes) in delays {
            let until = begun + minute * u32::try_from(minutes).unwrap();
            let delay = Duration::from_secs(delay);
            let _ = frontier.keep_apart(&started, &limits(), delay, until);
        }
        let _ = frontier.done(&started, Health::Good);
        for (at, expected) in (0..).zip(expected) {
            tokio::time::sleep_until(begun + minute * at).await;
            for n in 0..2 {
                frontier.push("a", 1, n).unwrap();
                let asked = Instant::now();
                let (_, started) = frontier.next().await.unwrap().split();
                let _ = frontier.done(&started, Health::Good);
                // The first one follows a request of the minute before.
                if n > 0 {
                    let waited = asked.elapsed().as_secs();
                    assert_eq!(waited, expected, "{delays:?} minute {at}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn faults_are_forgotten_and_requested_rests_are_not() {
    let frontier = frontier(limits());
    for host in ["dead", "closed", "held"] {
        for n in 0..2 {
            frontier.push(host, 1, n).unwrap();
        }
    }
    let permits = ready(&frontier);
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    for permit in permits {
        let (_, started) = permit.split();
        let health = match started.lane() {
            "dead" => Health::Unreachable(minute, "dns"),
            "closed" => Health::Closed(hour),
            _ => Health::Throttled(hour),
        };
        let _ = frontier.done(&started, health);
    }
    for round in 0..2 {
        frontier.push("dead", 1, 7).unwrap();
        let (_, started) = frontier.next().await.unwrap().split();
        // A request that began before does not count afterwards.
        if round == 1 {
            frontier.push("dead", 1, 8).unwrap();
            frontier.forget_faults();
        }
        let _ = frontier.done(&started, Health::Unreachable(minute, "dns"));
    }
    assert_eq!(items(&ready(&frontier)), [8]);
    frontier.push("dead", 1, 9).unwrap();
    assert_eq!(items(&ready(&frontier)), [9]);
    assert!(frontier.push("closed", 1, 9).is_err());
    frontier.push("held", 1, 9).unwrap();
    assert!(ready(&frontier).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_given_up_is_asked_again_once_faults_are_forgotten() {
    let frontier = frontier(Limits {
        down_after: 1,
        ..limits()
    });
    for host in ["a", "of-group"] {
        let at = match host {
            "a" => alone(host),
            host => of_cdn(host),
        };
        frontier.0.push(at, 1, || frontier.1, 1).unwrap();
        let given_up = finish(
            &frontier,
            ready(&frontier),
            Health::Unreachable(Duration::from_secs(9), "dns"),
        );
        assert!(given_up.is_empty());
        assert!(frontier.0.push(at, 1, || frontier.1, 2).is_err());
        frontier.forget_faults();
        frontier.0.push(at, 1, || frontier.1, 3).unwrap();
        assert_eq!(items(&ready(&frontier)), [3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crawl_delay_is_capped_and_never_hastens() {
    let hour = Duration::from_secs(3600);
    for (interval, max, expected) in [(0, 60, 60), (0, 0, 0), (90, 60, 90), (5, 10, 10)] {
        let limits = Limits {
            interval: Duration::from_secs(interval),
            crawl_delay_max: Duration::from_secs(max),
            ..limits()
        };
        let frontier = frontier(limits);
        frontier.push("a", 1, 1).unwrap();
        let (_, started) = frontier.next().await.unwrap().split();
        let until = Instant::now() + hour;
        let is_kept = frontier.keep_apart(&started, &limits, hour, until);
        assert_eq!(is_kept, max <= interval);
        let _ = frontier.done(&started, Health::Good);
        frontier.push("a", 1, 2).unwrap();
        let asked = Instant::now();
        frontier.next().await.unwrap();
        assert_eq!(asked.elapsed(), Duration::from_secs(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_made_costs_no_time() {
    let frontier = frontier(Limits {
        interval: Duration::from_secs(10),
        ..limits()
    });
    for n in 0..100 {
        frontier.push("a", 1, n).unwrap();
    }
    let begun = Instant::now();
    for n in 0..99 {
        let permit = frontier.next().await.unwrap();
        let health = if n == 0 {
            Health::Good
        } else {
            Health::NotAsked
        };
        let _ = frontier.done(&permit.split().1, health);
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_held_host_holds_up_no_delayed_request_of_its_group() {
    let frontier = Frontier::new();
    let delayed = |host, item, delay| {
        let at = of_cdn(host);
        frontier.push_delayed(at, 1, limits, item, delay).unwrap();
    };
    frontier.push(of_cdn("a.cdn"), 1, limits, 1).unwrap();
    let first = ready(&frontier);
    finish(
        &frontier,
        first,
        Health::Unreachable(Duration::from_secs(30), "dns"),
    );
    for n in 10..20 {
        delayed("a.cdn", n, Duration::ZERO);
    }
    tokio::time::advance(Duration::from_millis(1)).await;
    delayed("b.cdn", 2, Duration::ZERO);
    delayed("c.cdn", 3, Duration::from_secs(5));
    let begun = Instant::now();
    for (item, after) in [(2, 0), (3, 5), (10, 30)] {
        let permit = frontier.next().await.unwrap();
        // Items of `a.cdn` are due at the same time, in no order.
        assert_eq!(permit.item.min(10), item);
        assert_eq!(begun.elapsed().as_secs_f64().round(), f64::from(after));
        finish(&frontier, vec![permit], Health::Good);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_shows_whether_its_host_is_back_holds_up_no_delayed_request_of_the_group() {
    let patient = || Limits {
        down_after: 1,
        ..limits()
    };
    let frontier = Frontier::new();
    let delayed = |host, item| {
        let at = of_cdn(host);
        frontier
            .push_delayed(at, 1, patient, item, Duration::ZERO)
            .unwrap();
    };
    delayed("a.cdn", 1);
    finish(
        &frontier,
        ready(&frontier),
        Health::Unreachable(Duration::from_secs(1), "dns"),
    );
    tokio::time::advance(Duration::from_secs(61)).await;
    delayed("a.cdn", 2);
    assert_eq!(items(&ready(&frontier)), [2]);
    delayed("a.cdn", 3);
    tokio::time::advance(Duration::from_millis(1)).await;
    delayed("b.cdn", 4);
    assert_eq!(items(&ready(&frontier)), [4]);
}

#[tokio::test(start_paused = true)]
async fn a_job_with_narrower_limits_holds_up_no_delayed_request_of_another() {
    let frontier = Frontier::new();
    let narrow = || Limits {
        concurrency: 1,
        ..limits()
    };
    frontier.push(alone("a"), 1, narrow, 1).unwrap();
    assert_eq!(items(&ready(&frontier)), [1]);
    let at = alone("a");
    frontier
        .push_delayed(at, 1, narrow, 2, Duration::ZERO)
        .unwrap();
    tokio::time::advance(Duration::from_millis(1)).await;
    frontier
        .push_delayed(at, 2, limits, 3, Duration::ZERO)
        .unwrap();
    assert_eq!(items(&ready(&frontier)), [3]);
    // New limits apply to delayed items too.
    frontier.relimit(1, |_| Limits {
        concurrency: 3,
        ..limits()
    });
    assert_eq!(items(&ready(&frontier)), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_group_is_open_whatever_becomes_of_one_of_its_hosts() {
    let impatient = || Limits {
        down_after: 1,
        ..limits()
    };
    let census = |at: Address<'_>, health| {
        let frontier = Frontier::new();
        frontier.push(at, 1, impatient, 1).unwrap();
        finish(&frontier, ready(&frontier), health);
        let Census {
            open,
            waiting,
            down,
            ..
        } = frontier.census();
        [open, waiting, down]
    };
    let wait = Duration::from_secs(30);
    for (health, of_host, of_group) in [
        (Health::Good, [1, 0, 0], [1, 0, 0]),
        (Health::Unreachable(wait, "dns"), [0, 0, 1], [1, 0, 0]),
        (Health::Throttled(wait), [0, 1, 0], [0, 1, 0]),
        (Health::Closed(wait), [0, 0, 1], [0, 0, 1]),
    ] {
        assert_eq!(census(alone("dead"), health), of_host, "{health:?}");
        assert_eq!(census(of_cdn("dead.cdn"), health), of_group, "{health:?}");
    }
}
