//! No end of a run, however sudden, loses anything, doubles anything or leaves half of anything.
//!
//! The real binary works on a list whose files are small and large, named alike, replaced from run to run; it is
//! killed, or refused by the disk, at each of its steps and at random instants. After each end, and again after the
//! next start, `support::checker` holds the store against the catalog.
//!
//! `GANNET_CRASH_KILLS` is the number of random kills, `GANNET_CRASH_SEED` repeats a choice of them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gannet::fault::{self, Point};
use support::checker::{Kept, When, lost_or_doubled, violations};
use support::pictures::png_of;
use support::{Answer, Asked, Run, Sandbox, Site, catalog, sha256};

/// Numbers from a seed (xorshift64*), the same on every machine.
struct Numbers(u64);

impl Numbers {
    /// A sequence for each test, all from one seed.
    fn of(test: u64) -> Self {
        Self((seed() ^ test.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
    )
}

fn seed() -> u64 {
    variable("GANNET_CRASH_SEED").unwrap_or(0x6761_6e6e_6574)
}

/// Random kills, over all tests that make some.
fn kills() -> u64 {
    variable("GANNET_CRASH_KILLS").unwrap_or(40)
}

/// An origin, a list of what it has, and a store that is to hold it.
struct World {
    sandbox: Sandbox,
    site: Site,
    version: Arc<AtomicU32>,
    targets: u32,
    kept: Kept,
}

/// What a report says of a target.
struct Reported {
    url: String,
    outcome: String,
    /// Path and sha256.
    file: Option<(String, String)>,
}

/// The `n`th content in this version of the site: a quarter changes, a sixth is too large for memory.
fn body(n: u32, version: u32) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<(u32, u32), Vec<u8>>> = Mutex::new(BTreeMap::new());
    let version = if n.is_multiple_of(4) { version } else { 0 };
    if let Some(body) = MADE.lock().unwrap().get(&(n, version)) {
        return body.clone();
    }
    let side = if n.is_multiple_of(6) {
        150 + n
    } else {
        3 + n % 40
    };
    let body = png_of(n + 10_000 * version, side);
    let mut made = MADE.lock().unwrap();
    // Older versions do not come back.
    made.retain(|(_, of), _| *of == 0 || version < *of + 4);
    made.insert((n, version), body.clone());
    body
}

/// Which content the `n`th URL has: where contents are kept once, three URLs have the same.
fn content(n: u32, kept: Kept) -> u32 {
    if kept == Kept::Once { n / 3 } else { n }
}

impl World {
    fn new(targets: u32, kept: Kept) -> Self {
        let version = Arc::new(AtomicU32::new(0));
        let site = Site::start({
            let version = version.clone();
            move |asked: &Asked| {
                let n: u32 = asked.path[1..].parse().unwrap();
                let version = version.load(Ordering::SeqCst);
                let content = content(n, kept);
                let answer = Answer::ok(body(content, version));
                match n % 5 {
                    0 => answer.header("Content-Disposition", "attachment; filename=\"alike.png\""),
                    1 => {
                        let version = if content.is_multiple_of(4) {
                            version
                        } else {
                            0
                        };
                        let etag = format!("\"{content}-{version}\"");
                        answer.header("ETag", etag).unless_known(asked)
                    }
                    _ => answer,
                }
            }
        });
        let world = Self {
            sandbox: Sandbox::new(),
            site,
            version,
            targets,
            kept,
        };
        world.sandbox.write("list.csv", world.list());
        world.sandbox.write("empty.txt", "");
        world
    }

    /// Some files are named by the list, of these some alike, and some go into an album.
    fn list(&self) -> String {
        let mut list = "url,name,album\n".to_owned();
        for n in 0..self.targets {
            let name = match n % 7 {
                1 => "listed.png".to_owned(),
                2 | 3 => format!("n{n}.png"),
                _ => String::new(),
            };
            let album = if n % 3 == 1 && self.kept != Kept::Once {
                "cats"
            } else {
                ""
            };
            list += &format!("{},{name},{album}\n", self.site.url(&format!("/{n}")));
        }
        list
    }

    /// The sha256 of what each URL brings.
    fn wanted(&self) -> BTreeMap<String, String> {
        let version = self.version.load(Ordering::SeqCst);
        let targets = (0..self.targets).map(|n| {
            let content = content(n, self.kept);
            (
                self.site.url(&format!("/{n}")),
                sha256(&body(content, version)),
            )
        });
        targets.collect()
    }

    fn args<'a>(&self, list: &'a str) -> Vec<&'a str> {
        let kept = match self.kept {
            Kept::Replaced => "job.dedupe=off",
            Kept::Series => "job.on_change=keep",
            Kept::Once => "job.dedupe=album",
        };
        self.sandbox.fetch_args(&[
            list,
            "--report",
            "report.json",
            "--set",
            "storage.commit_files=8",
            // So that batches are full, however slow the machine is.
            "--set",
            "storage.commit_interval=1m",
            "--set",
            "fetch.body_memory=48KiB",
            "--set",
            kept,
        ])
    }

    /// One pass with this fault, to its end or its death.
    fn run(&self, list: &str, fault: Option<&str>) -> Run {
        let _ = std::fs::remove_file(self.sandbox.path("report.json"));
        let mut command = self.sandbox.command(self.args(list));
        if let Some(fault) = fault {
            command.env(fault::VARIABLE, fault);
        }
        support::sandbox::start(command, None).end()
    }

    #[track_caller]
    fn assert_in_order(&self, when: When, what: &str) {
        let wrong = violations(&self.sandbox, when);
        assert!(wrong.is_empty(), "{what}, {when:?}:\n{}", wrong.join("\n"));
    }

    /// A start that has nothing of its own to do puts everything in order.
    #[track_caller]
    fn restart(&self, what: &str) {
        self.run("empty.txt", None).expect(0);
        self.assert_in_order(When::Restarted, what);
    }

    /// A whole pass brings every target to what the site has; one before it that goes on with an interrupted job does not
    /// ask again for what that had.
    #[track_caller]
    fn complete(&self, what: &str) {
        self.run("list.csv", None).expect(0);
        self.assert_in_order(When::Restarted, what);
        let goes_on = self.sandbox.json("report.json")["continues"].is_string();
        if goes_on {
            let wrong = self.misreported();
            assert!(wrong.is_empty(), "{what}, resumed:\n{}", wrong.join("\n"));
            let counts = &self.sandbox.json("report.json")["counts"];
            assert_eq!(counts["targets"], self.targets, "{what}, resumed");
            self.run("list.csv", None).expect(0);
            self.assert_in_order(When::Restarted, what);
        }
        let mut wrong = lost_or_doubled(&self.sandbox, &self.wanted(), self.kept);
        wrong.extend(self.misreported());
        assert!(
            wrong.is_empty(),
            "{what}, whole pass:\n{}",
            wrong.join("\n")
        );
        let urls: BTreeSet<String> = self.items().into_iter().map(|item| item.url).collect();
        assert!(urls.into_iter().eq(self.wanted().into_keys()), "{what}");
    }

    /// The items of the last report.
    fn items(&self) -> Vec<Reported> {
        let report = self.sandbox.json("report.json");
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let items = report["items"].as_array().unwrap().iter();
        let items = items.map(|item| Reported {
            url: text(&item["url"]).unwrap(),
            outcome: text(&item["outcome"]).unwrap(),
            file: text(&item["path"]).zip(text(&item["sha256"])),
        });
        items.collect()
    }

    /// What the last report says and the store does not hold.
    fn misreported(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let visible = self.sandbox.files();
        let mut seen = BTreeSet::new();
        let items = self.items();
        for Reported { url, outcome, file } in &items {
            if !seen.insert(url) {
                wrong.push(format!("{url} is reported twice"));
            }
            let is_kept =
                ["stored", "changed", "unchanged", "duplicate"].contains(&outcome.as_str());
            match file {
                Some((path, digest))
                    if visible.get(path).map(|bytes| sha256(bytes)).as_ref() != Some(digest) =>
                {
                    wrong.push(format!(
                        "{url} is reported {outcome} as {path}, which is not there"
                    ));
                }
                None if is_kept => {
                    wrong.push(format!("{url} is reported {outcome} without a file"))
                }
                _ => {}
            }
        }
        let report = self.sandbox.json("report.json");
        let counts = &report["counts"];
        if counts["targets"].as_u64() != Some(items.len() as u64) {
            wrong.push(format!("{} items and {counts}", items.len()));
        }
        wrong
    }

    /// The site has other bytes for a quarter of its URLs.
    fn change(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

fn fired(run: &Run) -> bool {
    run.stderr.contains(fault::VARIABLE)
}

#[track_caller]
fn have_faults() -> bool {
    if !fault::COMPILED_IN {
        eprintln!("skipped: this build has no fault points");
    }
    fault::COMPILED_IN
}

/// The points that files pass on their way in. `upkeep.rs` has those of the way out, and of links, `remote_lists.rs`
/// that of lists, `albums.rs` those of what clients want.
fn points() -> impl Iterator<Item = &'static str> {
    let points = Point::ALL.iter().map(|point| point.as_str());
    points.filter(|name| {
        let others = ["link", "withdraw", "job.files", "source", "errand"];
        !others.iter().any(|other| name.contains(other))
    })
}

// ---- Killed at a step

#[test]
fn a_kill_at_each_step_leaves_everything_in_order() {
    if !have_faults() {
        return;
    }
    let mut numbers = Numbers::of(1);
    for name in points() {
        // Only duplicates are discarded on the way.
        let is_discard = name.contains("discard");
        let kept = if is_discard {
            Kept::Once
        } else {
            Kept::Replaced
        };
        let world = World::new(36, kept);
        let mut reached = 0;
        for round in 0..3 {
            let passing = if round == 0 { 1 } else { 1 + numbers.below(6) };
            let fault = format!("{name}:{passing}=kill");
            let run = world.run("list.csv", Some(&fault));
            assert_eq!(
                run.code(),
                if fired(&run) { 137 } else { 0 },
                "{fault}\n{run}"
            );
            reached += u32::from(fired(&run));
            world.assert_in_order(When::Crashed, &fault);
            world.restart(&fault);
            // Others than the killed pass left half done may be changed by now.
            if round == 1 {
                world.change();
            }
            world.complete(&fault);
            world.change();
        }
        assert!(reached > 0, "{name} is never passed");
    }
}

#[test]
fn a_kill_while_an_earlier_kill_is_made_up_for_costs_nothing() {
    if !have_faults() {
        return;
    }
    // Batches have at most eight files, all of them staged when the first kill comes.
    for (first, second) in [
        ("catalog.committed:2=kill", "store.publish.before"),
        ("catalog.committed:1=kill", "store.publish.one"),
        ("catalog.committed:2=kill", "job.recover.done"),
        ("store.sync.done:2=kill", "store.discard.before"),
        ("store.sync.done:1=kill", "store.discard.one"),
        ("store.publish.one:3=kill", "store.publish.one"),
    ] {
        let world = World::new(36, Kept::Replaced);
        for round in 0..2 {
            let run = world.run("list.csv", Some(first));
            assert_eq!(run.code(), 137, "{first}\n{run}");
            let mut again = 0;
            loop {
                let fault = format!("{second}:1=kill");
                let run = world.run("empty.txt", Some(&fault));
                let what = format!("{first}, {fault}, round {round}");
                world.assert_in_order(When::Crashed, &what);
                if run.code() == 0 || again == 3 {
                    break;
                }
                assert_eq!(run.code(), 137, "{what}\n{run}");
                again += 1;
            }
            // Later on a batch may have one changed file, whose publishing was the last thing that was left to do.
            assert!(again > 0 || round > 0, "{first}, {second}");
            world.restart(first);
            world.complete(first);
            world.change();
        }
    }
}

// ---- Refused by the disk

#[test]
fn an_error_at_each_step_leaves_everything_in_order_and_is_told() {
    if !have_faults() {
        return;
    }
    let mut numbers = Numbers::of(2);
    let can_fail = |name: &str| name.starts_with("store.") || name.starts_with("catalog.");
    for name in points().filter(|name| can_fail(name)) {
        // A file that is recorded and could not be published is none that a later batch could do with: it gets the
        // same bytes a second time. Only here are contents not kept once.
        let waits = name.contains("publish") || name.contains("committed");
        for kept in [Kept::Replaced, Kept::Once] {
            if waits && kept == Kept::Once {
                continue;
            }
            let world = World::new(36, kept);
            let mut reached = 0;
            for action in ["eio", "enospc"] {
                let passing = 1 + numbers.below(3);
                let stays = ["", "+"][numbers.below(2) as usize];
                let fault = format!("{name}:{passing}{stays}={action}");
                let what = format!("{fault}, {kept:?}");
                let run = world.run("list.csv", Some(&fault));
                // What cannot be deleted is deleted at the next start.
                let is_told = fired(&run) && !name.contains("discard");
                assert_eq!(run.code(), i32::from(is_told), "{what}\n{run}");
                reached += u32::from(fired(&run));
                let wrong = world.misreported();
                assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
                world.assert_in_order(When::Crashed, &what);
                world.restart(&what);
                world.complete(&what);
                world.change();
            }
            let can_be_passed = kept == Kept::Once || !name.contains("discard");
            assert!(
                reached > 0 || !can_be_passed || name.contains("folder"),
                "{name} is never passed"
            );
        }
    }
}

/// One pass with `out` on a file system of `kib` KiB of its own; `None` where the system forbids that.
fn run_on_a_small_disk(world: &World, kib: u64) -> Option<Run> {
    let may = std::process::Command::new("unshare")
        .args(["-rm", "true"])
        .output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no `unshare -rm` for this user");
        return None;
    }
    let script = format!(
        "mkdir -p out small && mount -t tmpfs -o size={kib}k tmpfs small && cp -a out/. small && rm -r out && \
         ln -s small out || exit 77; \"$@\"; code=$?; rm out; cp -a small out; exit $code"
    );
    let _ = std::fs::remove_file(world.sandbox.path("report.json"));
    let mut command = std::process::Command::new("unshare");
    command
        .args([
            "-rm",
            "sh",
            "-c",
            &script,
            "sh",
            env!("CARGO_BIN_EXE_gannet"),
        ])
        .args(world.args("list.csv"))
        .current_dir(world.sandbox.path(""));
    let run = support::sandbox::start(command, None).end();
    if run.code() == 77 {
        eprintln!("skipped: no tmpfs may be mounted");
        return None;
    }
    Some(run)
}

#[test]
fn a_full_disk_ends_the_job_and_leaves_everything_in_order() {
    let mut numbers = Numbers::of(6);
    let mut full = 0;
    for kept in [Kept::Replaced, Kept::Once] {
        let world = World::new(60, kept);
        for _ in 0..5 {
            let there = world.sandbox.everything();
            let pages = there
                .iter()
                .map(|path| path.metadata().map_or(0, |file| file.len().div_ceil(4096)));
            let kib = 4 * pages.sum::<u64>() + 200 + numbers.below(400);
            let Some(run) = run_on_a_small_disk(&world, kib) else {
                return;
            };
            let what = format!("seed {}, {kib} KiB, {kept:?}", seed());
            assert!(
                run.code() <= 1 && !run.stderr.contains("panicked"),
                "{what}\n{run}"
            );
            if run.code() == 1 {
                full += 1;
                assert!(
                    run.stderr.contains("full") || run.stderr.contains("No space"),
                    "{what}\n{run}"
                );
            }
            // There may have been no room for a word of it.
            let report = world.sandbox.path("report.json").metadata();
            if report.is_ok_and(|report| report.len() > 0 || run.code() == 0) {
                let wrong = world.misreported();
                assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
                let counts = &world.sandbox.json("report.json");
                // What could not be recorded may have been of targets that brought nothing.
                assert_eq!(
                    run.code() == 1,
                    counts["error"].is_string(),
                    "{what}\n{run}"
                );
                let is_full = counts["reasons"]["store-full"].is_u64();
                assert!(run.code() == 1 || !is_full, "{what}\n{run}");
            }
            world.assert_in_order(When::Crashed, &what);
            world.restart(&what);
            world.complete(&what);
            world.change();
        }
    }
    assert!(full > 0, "no disk was small enough");
}

// ---- Killed at any instant

/// Kills run after run, and puts the store in order in between.
fn kill_at_random(world: &World, kills: u64, mut numbers: Numbers) {
    println!(
        "GANNET_CRASH_SEED={} GANNET_CRASH_KILLS={}",
        seed(),
        self::kills()
    );
    let (mut starts, mut cut, mut halfway) = (0, 0, 0);
    while cut < kills {
        starts += 1;
        assert!(
            starts < 4 * kills + 20,
            "only {cut} of {starts} runs were cut off"
        );
        world.change();
        world.site.forget();
        let _ = std::fs::remove_file(world.sandbox.path("report.json"));
        let mut running = world.sandbox.start(world.args("list.csv"));
        // On the start, among the batches, or towards the end. The delay waits for nothing: it is the random instant.
        let all = u64::from(world.targets);
        let (requests, delay) = match numbers.below(4) {
            0 => (0, 150_000),
            1 => (all, 400_000),
            _ => (1 + numbers.below(all), 4_000),
        };
        let delay = Duration::from_micros(numbers.below(delay));
        // A run that ends an interrupted one may have less to ask for.
        world
            .site
            .wait_for_or(requests as usize, || running.has_ended());
        std::thread::sleep(delay);
        let run = running.kill();
        let what = format!(
            "seed {}, start {starts}: killed {delay:?} after {requests} requests",
            seed()
        );
        assert!([0, 137].contains(&run.code()), "{what}\n{run}");
        cut += u64::from(run.code() == 137);
        halfway += u64::from(!world.sandbox.staged().is_empty());
        world.assert_in_order(When::Crashed, &what);
        if numbers.below(2) == 0 {
            world.restart(&what);
        }
        if numbers.below(8) == 0 {
            world.complete(&what);
        }
    }
    world.complete("at the end");
    println!("{cut} of {starts} runs were cut off, {halfway} with files in the stage");
}

#[test]
fn no_kill_at_any_instant_leaves_disorder() {
    let rest = kills() - 2 * (kills() / 4);
    kill_at_random(&World::new(150, Kept::Replaced), rest, Numbers::of(3));
}

#[test]
fn no_kill_at_any_instant_leaves_disorder_where_contents_are_kept_once() {
    kill_at_random(&World::new(150, Kept::Once), kills() / 4, Numbers::of(4));
}

#[test]
fn no_kill_at_any_instant_leaves_disorder_in_a_series() {
    kill_at_random(&World::new(150, Kept::Series), kills() / 4, Numbers::of(7));
}

#[test]
fn an_answer_whose_bytes_could_not_be_kept_is_not_remembered() {
    if !have_faults() {
        return;
    }
    let version = Arc::new(AtomicU32::new(1));
    let site = Site::start({
        let version = version.clone();
        move |asked: &Asked| {
            let version = version.load(Ordering::SeqCst);
            let answer = Answer::ok(png_of(version, 5)).header("ETag", format!("\"{version}\""));
            answer.unless_known(asked)
        }
    });
    let sandbox = Sandbox::new();
    let list = site.list(["/a"]);
    sandbox.fetch_list(&list, 0, &[]);
    version.store(2, Ordering::SeqCst);
    let mut command = sandbox.command(sandbox.fetch_args(&["list.txt"]));
    command.env(fault::VARIABLE, "store.stage.written:1=eio");
    let run = support::sandbox::start(command, None).end().expect(1);
    assert_eq!(run.count("failed"), 1);
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("changed"), 1);
    assert!(sandbox.files().values().eq([&png_of(2, 5)]));
}

#[test]
fn nothing_is_a_duplicate_of_what_could_not_be_kept() {
    if !have_faults() {
        return;
    }
    for fault in [
        "store.publish.before:1=eio",
        "catalog.before-commit:1=enospc",
    ] {
        let site = Site::start(|_| Answer::ok(png_of(1, 5)));
        let sandbox = Sandbox::new();
        sandbox.write("list.txt", site.list(["/a", "/b", "/c"]));
        let args = [
            "list.txt",
            "--set",
            "job.dedupe=album",
            "--set",
            "storage.commit_interval=1s",
        ];
        let mut command = sandbox.command(sandbox.fetch_args(&args));
        command.env(fault::VARIABLE, fault);
        let run = support::sandbox::start(command, None).end().expect(1);
        assert_eq!(
            (run.count("failed"), run.count("duplicate")),
            (3, 0),
            "{fault}\n{run}"
        );
    }
}

#[test]
fn the_half_of_a_batch_that_has_no_room_takes_its_duplicates_along() {
    if !have_faults() {
        return;
    }
    // The second path of each content repeats the first, within one batch.
    let site = Site::start(|asked| Answer::ok(png_of(u32::from(asked.path.as_bytes()[1]), 5)));
    let sandbox = Sandbox::new();
    sandbox.write("list.txt", site.list(["/a1", "/a2", "/b1", "/b2"]));
    let args = [
        "list.txt",
        "--set",
        "job.dedupe=album",
        "--set",
        "storage.commit_interval=1s",
    ];
    let mut command = sandbox.command(sandbox.fetch_args(&args));
    command.env(fault::VARIABLE, "catalog.before-commit:1=enospc");
    let run = support::sandbox::start(command, None).end().expect(1);
    let counts = ["stored", "duplicate", "failed"].map(|outcome| run.count(outcome));
    assert_eq!(counts, [1, 1, 2], "{run}");
    let wrong = violations(&sandbox, When::Crashed);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_a_duplicate_of_what_has_no_place() {
    let site = Site::start(|_| Answer::ok(png_of(1, 5)));
    let sandbox = Sandbox::new();
    // A file stands where the first URL needs a folder.
    sandbox.write("out/localhost", "mine");
    let first = site.url_as("localhost", "/a");
    sandbox.write("list.txt", format!("{first}\n{}\n", site.url("/b")));
    let args = [
        "list.txt",
        "--set",
        "job.dedupe=album",
        "--set",
        "naming.template={host}/{name}",
        "--set",
        "storage.commit_interval=1s",
        "--set",
        "fetch.concurrency=1",
    ];
    let run = sandbox.fetch(&args).expect(3);
    assert_eq!((run.count("failed"), run.count("duplicate")), (2, 0));
    // The history says the same.
    let (_copy, db) = catalog::open(&sandbox.store());
    let sql = "SELECT count(*) FROM outcomes WHERE outcome = 'failed'";
    assert_eq!(db.query_row(sql, [], |row| row.get(0)), Ok(2));
}

// ---- The catalog's log torn

/// Cuts the log somewhere, or flips bytes from somewhere on. Returns what it did; `None` without a log.
///
/// The log holds all that was committed since the run began: nothing is copied back before it has 16 MiB, so
/// whatever is lost here is what a disk loses that lied about syncing.
fn tear(sandbox: &Sandbox, numbers: &mut Numbers) -> Option<String> {
    let path = sandbox.store().join(".gannet/catalog.db-wal");
    let mut log = std::fs::read(&path).ok().filter(|log| !log.is_empty())?;
    let whole = log.len();
    let what = if numbers.below(2) == 0 {
        let len = numbers.below(whole as u64) as usize;
        log.truncate(len);
        format!("cut from {whole} to {len} bytes")
    } else {
        let from = numbers.below(whole as u64) as usize;
        for _ in 0..8 {
            let at = from + numbers.below((whole - from) as u64) as usize;
            log[at] ^= 1 << numbers.below(8);
        }
        format!("bytes flipped from {from} of {whole} on")
    };
    std::fs::write(&path, log).unwrap();
    Some(what)
}

#[test]
fn a_torn_log_costs_records_and_no_file_is_kept_twice_for_it() {
    if !have_faults() {
        return;
    }
    let mut numbers = Numbers::of(5);
    let mut torn = 0;
    for _ in 0..(kills() / 8).max(2) {
        let world = World::new(48, Kept::Replaced);
        // A random name cannot be known again.
        let names =
            (0..world.targets).map(|n| format!("{},n{n}.png,\n", world.site.url(&format!("/{n}"))));
        world.sandbox.write(
            "list.csv",
            "url,name,album\n".to_owned() + &names.collect::<String>(),
        );
        for point in ["catalog.committed", "store.publish.one", "job.announced"] {
            let fault = format!("{point}:{}=kill", 1 + numbers.below(8));
            world.run("list.csv", Some(&fault));
            let Some(how) = tear(&world.sandbox, &mut numbers) else {
                continue;
            };
            torn += 1;
            let what = format!("seed {}, {fault}, log {how}", seed());
            let wrong = violations(&world.sandbox, When::Torn);
            assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
            world.complete(&what);
            world.change();
        }
    }
    assert!(torn > 0);
}

#[test]
fn files_whose_records_are_lost_get_them_again_or_are_left_alone() {
    let site = Site::start(|asked| Answer::ok(png_of(asked.path.len() as u32, 5)));
    let sandbox = Sandbox::new();
    let list = format!(
        "{}\n  out=named.png\n{}\n",
        site.url("/a"),
        site.url("/random")
    );
    sandbox.fetch_list(&list, 0, &[]);
    let before = sandbox.files();
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = std::fs::remove_file(sandbox.store().join(".gannet").join(name));
    }
    // Somebody else's file stays where a name is wanted for other bytes.
    sandbox.write("out/other.png", "mine");
    let list = format!("{list}{}\n  out=other.png\n", site.url("/other"));
    assert_eq!(sandbox.fetch_list(&list, 0, &[]).count("stored"), 3);
    let after = sandbox.files();
    assert!(
        before
            .iter()
            .all(|(name, bytes)| after.get(name) == Some(bytes))
    );
    assert_eq!(after["other.png"], b"mine");
    let recorded = catalog::files(&sandbox.store());
    assert!(recorded.contains_key("named.png") && !recorded.contains_key("other.png"));
    // The random name and the one that was taken have come once more.
    assert_eq!((before.len(), after.len(), recorded.len()), (2, 5, 3));
}
