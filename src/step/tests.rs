use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::config::DEFAULT;
use crate::downloader::image::ImageFormat;
use crate::rendition::tests::{encoded, halves, renditions_with};

/// A registry with commands that a shell runs: names and scripts.
struct Bench {
    folder: TempDir,
    registry: Registry,
}

impl Bench {
    fn new(commands: &[(&str, &str)]) -> Self {
        Self::with(commands, "timeout = \"1m\"")
    }

    fn with(commands: &[(&str, &str)], rest: &str) -> Self {
        let defaults: toml::Table = DEFAULT.parse().unwrap();
        let mut settings = defaults["steps"].as_table().unwrap().clone();
        settings.extend(rest.parse::<toml::Table>().unwrap());
        let mut settings: Settings = settings.try_into().unwrap();
        for (name, script) in commands {
            let args = [
                "-c",
                script,
                "sh",
                "{path}",
                "{url}",
                "<{format}>{",
                "{sha}",
            ];
            let command = Command {
                program: "/bin/sh".into(),
                args: args.map(str::to_owned).into(),
                timeout: None,
                max_output: None,
            };
            settings.commands.insert((*name).to_owned(), command);
        }
        assert!(settings.problem().is_none());
        let folder = tempfile::tempdir().unwrap();
        let renditions = renditions_with(&folder.path().join("renditions"), "");
        Self {
            registry: Registry::builtin(&settings, renditions, &folder.path().join("steps")),
            folder,
        }
    }

    fn parse(&self, given: Value) -> Result<Steps, StepsError> {
        self.registry.parse(given.as_array().unwrap())
    }

    async fn run(&self, given: Value, subject: Subject) -> Result<Done, StepError> {
        self.parse(given).unwrap().run(subject).await
    }

    async fn command(&self, name: &str) -> Result<Value, String> {
        let given = json!([{"step": "command", "name": name}]);
        let done = self.run(given, some()).await;
        assert_eq!(self.lent(), 0, "a file is left");
        let done = done.map_err(|error| error.to_string());
        done.map(|mut done| done.results.remove("command").unwrap())
    }

    /// How many files programs have.
    fn lent(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path().join("steps"));
        files.map_or(0, Iterator::count)
    }
}

fn subject(bytes: Vec<u8>, format: ImageFormat, dimensions: Option<(u32, u32)>) -> Subject {
    Subject {
        facts: Facts {
            dimensions,
            ..Facts::of(format.format())
        },
        sha256: Sha256::of(&bytes),
        body: Body::Memory(bytes.into()),
        url: "http://a.example/{path}".to_owned(),
        album: None,
        name: None,
        may_replace: true,
    }
}

fn some() -> Subject {
    subject(b"bytes".to_vec(), ImageFormat::Jpeg, Some((4, 3)))
}

/// A PNG of that size.
fn picture(width: u32, height: u32) -> Subject {
    let bytes = encoded(&halves(width, height), image::ImageFormat::Png);
    subject(bytes, ImageFormat::Png, Some((width, height)))
}

#[tokio::test(start_paused = true)]
async fn each_result_stands_under_the_name_of_its_step() {
    let bench = Bench::new(&[]);
    let given = json!(["measure", {"step": "delay", "for": "2s"}, {"step": "delay", "ms": 400}]);
    let begun = tokio::time::Instant::now();
    let done = bench.run(given, some()).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(2400));
    assert!(done.replaced.is_none());
    let expected = json!({
        "measure": {"width": 4, "height": 3, "perimeter": 14},
        "delay": {"ms": 2000},
        "delay#2": {"ms": 400},
    });
    assert_eq!(Value::Object(done.results), expected);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_delays_last_as_long_as_one() {
    let bench = Bench::new(&[]);
    let steps = bench.parse(json!([{"step": "delay", "ms": 400}])).unwrap();
    let begun = tokio::time::Instant::now();
    let runs = (0..10_000).map(|_| steps.run(some()));
    for done in futures_util::future::join_all(runs).await {
        done.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::from_millis(400));
}

#[tokio::test]
async fn the_first_error_ends_it_and_names_its_step() {
    let bench = Bench::new(&[]);
    let given = json!([{"step": "delay", "ms": 0}, "measure", "measure"]);
    let subject = subject(b"<svg/>".to_vec(), ImageFormat::Svg, None);
    let error = bench.run(given, subject).await.unwrap_err();
    let expected = "step `measure`: no width and height are known of a `svg`";
    assert_eq!(error.to_string(), expected);
    assert_eq!(Value::Object(error.results), json!({"delay": {"ms": 0}}));
}

mod parse {
    use super::*;

    #[test]
    fn what_cannot_be_run_is_told_with_its_place() {
        let bench = Bench::new(&[("a", "")]);
        for (given, expected) in [
            (
                json!([1]),
                "`steps[0]`: is neither the name of a step nor an object with `step`",
            ),
            (
                json!(["measure", {}]),
                "`steps[1].step`: is needed: the name of a step",
            ),
            (json!([{"step": 1}]), "`steps[0].step`: is no text"),
            (
                json!(["mesure"]),
                "`steps[0]`: there is no step `mesure`; there are \
                 `command`, `delay`, `measure`, `phash`, `resize`, `thumbnail`",
            ),
            (
                json!(["delay"]),
                "`steps[0].ms` (step `delay`): is needed, or `for`",
            ),
            (
                json!([{"step": "delay", "ms": 1, "for": "1s"}]),
                "`steps[0].for` (step `delay`): cannot stand beside `ms`",
            ),
            (
                json!([{"step": "delay", "for": "2d"}]),
                "`steps[0].for` (step `delay`): is longer than a day",
            ),
            (
                json!([{"step": "measure", "width": 1}]),
                "`steps[0].width` (step `measure`): unknown parameter `width`, there are no fields",
            ),
            (
                json!(["resize"]),
                "`steps[0].width` (step `resize`): is needed, or the height",
            ),
            (
                json!([{"step": "resize", "width": 0}]),
                "`steps[0].width` (step `resize`): is not between 1 and 4096 pixels",
            ),
            (
                json!([{"step": "resize", "height": 4097}]),
                "`steps[0].height` (step `resize`): is not between 1 and 4096 pixels",
            ),
            (
                json!([{"step": "resize", "width": -1}]),
                "`steps[0].width` (step `resize`): invalid value: integer `-1`, expected u32",
            ),
            (
                json!([{"step": "resize", "width": 9, "fit": "crop"}]),
                "`steps[0].fit` (step `resize`): unknown variant `crop`, \
                 expected one of `contain`, `cover`, `fill`",
            ),
            (
                json!([{"step": "resize", "width": 9, "quality": 0}]),
                "`steps[0].quality` (step `resize`): is not between 1 and 100",
            ),
            (
                json!([{"step": "thumbnail", "size": 5000}]),
                "`steps[0].size` (step `thumbnail`): is not between 1 and 4096 pixels",
            ),
            (
                json!(["command"]),
                "`steps[0].name` (step `command`): is needed",
            ),
            (
                json!([{"step": "command", "name": "b"}]),
                "`steps[0].name` (step `command`): there is no `b` in `steps.commands`",
            ),
        ] {
            let error = bench.parse(given).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let error = bench.parse(json!(vec!["measure"; 33])).unwrap_err();
        assert_eq!(error.index, 32);
    }

    #[test]
    fn steps_are_written_in_full() {
        let bench = Bench::new(&[("a", "")]);
        let given = json!([
            "measure",
            "thumbnail",
            {"step": "resize", "width": 9, "format": "webp", "original": "replaced"},
            {"step": "delay", "for": "1m"},
            {"step": "command", "name": "a"},
        ]);
        let expected = json!([
            {"step": "measure"},
            {"step": "thumbnail", "size": 256, "fit": "contain"},
            {
                "step": "resize", "width": 9, "format": "webp", "original": "replaced",
                "fit": "contain", "enlarge": false,
            },
            {"step": "delay", "ms": 60_000},
            {"step": "command", "name": "a"},
        ]);
        assert_eq!(json!(bench.parse(given).unwrap()), expected);
        assert!(bench.parse(json!([])).unwrap().is_empty());
    }

    fn any_step() -> impl Strategy<Value = Value> {
        let side = proptest::option::of(0..5000_u32);
        let word = |words: &'static [&'static str]| {
            let words = words
                .iter()
                .map(|word| json!(word))
                .chain([json!(7), json!(null)]);
            proptest::option::of(proptest::sample::select(words.collect::<Vec<_>>()))
        };
        let number = proptest::option::of(-1..102_i32);
        let name = word(&[
            "measure",
            "resize",
            "thumbnail",
            "phash",
            "delay",
            "command",
            "x",
        ]);
        let fits = word(&["contain", "cover", "fill", "crop"]);
        let formats = word(&["jpeg", "png", "webp", "gif"]);
        let originals = word(&["kept", "replaced", "gone"]);
        let times = word(&["1s", "400ms", "2d", "soon"]);
        (name, side, fits, number, formats, originals, times).prop_map(
            |(name, side, fit, number, format, original, time)| {
                let pairs = [
                    ("step", name),
                    ("width", side.map(Into::into)),
                    ("fit", fit),
                    ("quality", number.map(Into::into)),
                    ("format", format),
                    ("original", original),
                    ("for", time),
                ];
                let pairs = pairs
                    .into_iter()
                    .filter_map(|(k, v)| Some((k.to_owned(), v?)));
                Value::Object(pairs.collect())
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_taken_means_the_same_when_it_is_read_again(
            given in proptest::collection::vec(any_step(), 0..3)
        ) {
            let bench = Bench::new(&[]);
            match bench.registry.parse(&given) {
                Ok(steps) => {
                    let written = json!(steps);
                    let again = bench.parse(written.clone()).unwrap();
                    assert_eq!(json!(again), written);
                    for (step, given) in written.as_array().unwrap().iter().zip(given) {
                        assert_eq!(step["step"], given["step"]);
                    }
                }
                Err(error) => {
                    assert!(error.index < given.len());
                    let place = format!("`steps[{}", error.index);
                    assert!(error.to_string().starts_with(&place));
                }
            }
        }
    }
}

mod pictures {
    use super::*;

    #[tokio::test]
    async fn a_rendition_is_made_ready_under_what_is_asked_for_it() {
        let bench = Bench::new(&[]);
        let given =
            json!([{"step": "resize", "width": 20, "quality": 70, "format": "jpeg"}, "thumbnail"]);
        let done = bench.run(given, picture(600, 400)).await.unwrap();
        assert!(done.replaced.is_none());
        let result = &done.results["resize"];
        assert_eq!(
            (&result["width"], &result["height"]),
            (&json!(20), &json!(13))
        );
        assert_eq!(result["query"], "w=20&fit=contain&format=jpeg&quality=70");
        let result = &done.results["thumbnail"];
        assert_eq!(
            (&result["width"], &result["height"]),
            (&json!(256), &json!(171))
        );
        assert_eq!(
            (&result["format"], &result["query"]),
            (&json!("png"), &json!("w=256&h=256&fit=contain&format=png"))
        );
    }

    #[tokio::test]
    async fn what_is_replaced_is_what_the_steps_behind_it_see() {
        let bench = Bench::new(&[
            ("size", "wc -c < $1"),
            ("type", r#"echo "\"$GANNET_FORMAT\"""#),
        ]);
        let given = json!([
            {"step": "command", "name": "size"},
            {"step": "resize", "width": 20, "format": "jpeg", "original": "replaced"},
            "measure",
            {"step": "command", "name": "size"},
            {"step": "command", "name": "type"},
        ]);
        let subject = picture(60, 40);
        let before = subject.body.len();
        let done = bench.run(given.clone(), subject.clone()).await.unwrap();
        let replaced = done.replaced.unwrap();
        assert_eq!(replaced.sha256, Sha256::of(&replaced.bytes));
        assert_eq!(
            (replaced.facts.format.name, replaced.facts.dimensions),
            ("jpeg", Some((20, 13)))
        );
        let results = Value::Object(done.results);
        assert_eq!(results["resize"]["replaced"], true);
        assert_eq!(results["measure"]["perimeter"], 66);
        assert_eq!(results["command"], before);
        assert_eq!(results["command#2"], replaced.bytes.len());
        assert_eq!(results["command#3"], "jpeg");
        // What is there already stays as it is.
        let subject = Subject {
            may_replace: false,
            ..subject
        };
        let done = bench.run(given, subject).await.unwrap();
        assert!(done.replaced.is_none());
        assert_eq!(done.results["resize"]["replaced"], false);
        assert_eq!(
            done.results["resize"]["because"],
            "the file was there before"
        );
        assert_eq!(done.results["measure"]["perimeter"], 200);
    }

    #[tokio::test]
    async fn pictures_that_look_alike_have_digests_that_differ_little() {
        let bench = Bench::new(&[]);
        let hash = async |subject| {
            let done = bench.run(json!(["phash"]), subject).await.unwrap();
            assert_eq!(done.results["phash"]["algorithm"], "dct-median");
            let hash = done.results["phash"]["hash"].as_str().unwrap().to_owned();
            assert_eq!(hash.len(), 16);
            u64::from_str_radix(&hash, 16).unwrap()
        };
        // The same patches, however many pixels there are.
        let patches = |width: u32, height: u32, seed: u32| {
            let picture = image::GrayImage::from_fn(width, height, |x, y| {
                let cell = (x * 12 / width) * 12 + y * 12 / height;
                let [.., shade] = (cell + seed).wrapping_mul(2_654_435_761).to_le_bytes();
                image::Luma([shade])
            });
            let bytes = encoded(&picture.into(), image::ImageFormat::Png);
            subject(bytes, ImageFormat::Png, Some((width, height)))
        };
        let large = hash(patches(480, 360, 3)).await;
        let small = hash(patches(96, 72, 3)).await;
        let other = hash(patches(480, 360, 1000)).await;
        assert!((large ^ small).count_ones() <= 6, "{large:x} {small:x}");
        assert!((large ^ other).count_ones() >= 10, "{large:x} {other:x}");
    }

    #[tokio::test]
    async fn what_has_no_pixels_cannot_be_resized() {
        let bench = Bench::new(&[]);
        for step in ["thumbnail", "phash"] {
            let subject = subject(b"heic".to_vec(), ImageFormat::Heic, Some((4, 3)));
            let error = bench.run(json!([step]), subject).await.unwrap_err();
            let expected = format!("step `{step}`: a HEIC image cannot be resized");
            assert_eq!(error.to_string(), expected);
        }
    }
}

mod commands {
    use super::*;

    #[tokio::test]
    async fn a_program_has_the_file_and_its_facts_and_nothing_else() {
        let script = r#"cat "$1" >&2; printf '["%s", "%s", "%s", "%s", "%s", "%s", "%s"]' "$(cat "$1")" "$2" "$3" "$4" \
            "$GANNET_MEDIA_TYPE" "$(test "$GANNET_PATH" = "$1" && echo same)" "$(pwd)""#;
        let bench = Bench::new(&[
            ("facts", script),
            (
                "environment",
                r#"env | sed 's/=.*//;s/.*/"&"/' | sort | paste -sd, | sed 's/.*/[&]/'"#,
            ),
            ("ending", r#"printf '"%s"' "${1##*.}""#),
        ]);
        let found = bench.command("facts").await.unwrap();
        let expected = json!([
            "bytes",
            "http://a.example/{path}",
            "<jpeg>{",
            "{sha}",
            "image/jpeg",
            "same",
            "/"
        ]);
        assert_eq!(found, expected);
        assert_eq!(bench.command("ending").await.unwrap(), "jpg");
        let found: BTreeSet<String> =
            serde_json::from_value(bench.command("environment").await.unwrap()).unwrap();
        let mut expected = BTreeSet::from(
            [
                "GANNET_PATH",
                "GANNET_URL",
                "GANNET_FORMAT",
                "GANNET_MEDIA_TYPE",
                "GANNET_SHA256",
            ]
            .map(str::to_owned),
        );
        // What shells set themselves.
        expected.extend(["PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_"].map(str::to_owned));
        assert!(found.is_subset(&expected), "{found:?}");
        assert!(found.contains("GANNET_SHA256"));
    }

    #[tokio::test]
    async fn a_body_on_disk_is_lent_as_a_copy() {
        let bench = Bench::new(&[("ruin", r#"cat "$1" | tr -d '\n'; echo x > "$1""#)]);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"[1, 2]").unwrap();
        let body = Body::File(Arc::new(file), 6);
        let subject = Subject {
            body: body.clone(),
            ..some()
        };
        let given = json!([{"step": "command", "name": "ruin"}]);
        let done = bench.run(given, subject).await.unwrap();
        assert_eq!(done.results["command"], json!([1, 2]));
        let mut text = String::new();
        body.reader().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), bench.lent()), ("[1, 2]", 0));
    }

    #[tokio::test]
    async fn what_it_prints_is_json_or_nothing() {
        let bench = Bench::new(&[
            ("nothing", "echo; echo said >&2"),
            ("value", "echo '{\"a\": [1]}'"),
            ("two", "echo 1 2"),
            ("text", "echo hello"),
        ]);
        assert_eq!(bench.command("nothing").await.unwrap(), Value::Null);
        assert_eq!(bench.command("value").await.unwrap(), json!({"a": [1]}));
        for name in ["two", "text"] {
            let error = bench.command(name).await.unwrap_err();
            let expected = format!("step `command`: `{name}` printed no JSON: ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[tokio::test]
    async fn how_it_failed_is_told_in_its_last_words() {
        let bench = Bench::new(&[
            (
                "fails",
                "echo first >&2; printf 'the\\tlast\\n\\n' >&2; echo 1; exit 3",
            ),
            ("silent", "exit 4"),
            ("killed", "kill -9 $$"),
            (
                "wordy",
                "yes words | head -c 600000 >&2; echo last >&2; exit 1",
            ),
        ]);
        for (name, expected) in [
            ("fails", "ended with exit code 3: the last"),
            ("silent", "ended with exit code 4"),
            ("killed", "was ended by signal 9"),
            ("wordy", "ended with exit code 1: last"),
        ] {
            let error = bench.command(name).await.unwrap_err();
            assert_eq!(error, format!("step `command`: `{name}` {expected}"));
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_told() {
        let rest = "commands = { gone = { program = \"/nowhere/at/all\" } }";
        let error = Bench::with(&[], rest).command("gone").await.unwrap_err();
        assert!(
            error.contains("cannot run `/nowhere/at/all`: No such file"),
            "{error}"
        );
    }

    /// A pipe with a name: what holds it open has not ended.
    struct Held(std::path::PathBuf);

    impl Held {
        fn new(bench: &Bench) -> Self {
            let path = bench.folder.path().join("held");
            mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
            Self(path)
        }

        /// Waits until nobody holds it.
        async fn let_go(self) {
            let mut pipe = std::fs::File::from(
                rustix::fs::open(&self.0, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
                    .unwrap(),
            );
            let gone = async {
                // An end is read where nobody has it open to write.
                while !matches!(pipe.read(&mut [0; 64]), Ok(0)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let gone = tokio::time::timeout(Duration::from_secs(30), gone).await;
            gone.expect("it is still held");
        }
    }

    /// Scripts that never end, with a program of theirs, and hold `$HELD`.
    fn endless(then: &str) -> String {
        format!("exec 9<> \"${{GANNET_PATH%/steps/*}}/held\"; sleep 1000 & {then}")
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_all_that_it_began() {
        let bench = Bench::with(&[("slow", &endless("wait"))], "timeout = \"500ms\"");
        let held = Held::new(&bench);
        let error = bench.command("slow").await.unwrap_err();
        held.let_go().await;
        assert_eq!(error, "step `command`: `slow` did not end within 500ms");
    }

    #[tokio::test]
    async fn what_prints_too_much_is_ended() {
        let bench = Bench::with(&[("chatty", &endless("yes"))], "max_output = 1000");
        let held = Held::new(&bench);
        let error = bench.command("chatty").await.unwrap_err();
        held.let_go().await;
        assert_eq!(error, "step `command`: `chatty` printed more than 1000 B");
    }

    #[tokio::test]
    async fn what_is_left_behind_is_ended_too() {
        let bench = Bench::new(&[("leaver", &endless("echo 1"))]);
        let held = Held::new(&bench);
        let found = bench.command("leaver").await;
        held.let_go().await;
        assert_eq!(found.unwrap(), 1);
    }

    #[tokio::test]
    async fn what_is_wanted_no_more_is_ended() {
        let bench = Bench::new(&[("slow", &endless("wait"))]);
        let held = Held::new(&bench);
        let steps = bench
            .parse(json!([{"step": "command", "name": "slow"}]))
            .unwrap();
        let run = tokio::spawn(async move { steps.run(some()).await });
        // Whoever reads has to wait until the program holds it, so that it runs by then.
        let path = held.0.clone();
        let opened = tokio::task::spawn_blocking(move || std::fs::File::open(path).unwrap());
        let mut opened = opened.await.unwrap();
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            opened.read_to_string(&mut text).unwrap();
        });
        tokio::time::timeout(Duration::from_secs(30), read)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(bench.lent(), 0);
    }

    #[tokio::test]
    async fn only_as_many_run_at_a_time_as_there_are_workers() {
        let script = r#"mkdir "${GANNET_PATH%/steps/*}/busy" && sleep 0.02 && rmdir "${GANNET_PATH%/steps/*}/busy""#;
        let bench = Bench::with(&[("alone", script)], "workers = 1");
        let steps = bench
            .parse(json!([{"step": "command", "name": "alone"}]))
            .unwrap();
        for done in futures_util::future::join_all((0..5).map(|_| steps.run(some()))).await {
            done.unwrap();
        }
    }

    #[tokio::test]
    async fn what_an_earlier_process_left_is_deleted() {
        let bench = Bench::new(&[("slow", &endless("wait"))]);
        let steps = bench.folder.path().join("steps");
        std::fs::create_dir_all(&steps).unwrap();
        std::fs::write(steps.join("left.jpg"), "x").unwrap();
        let held = Held::new(&bench);
        let parsed = bench
            .parse(json!([{"step": "command", "name": "slow"}]))
            .unwrap();
        let run = tokio::spawn(async move { parsed.run(some()).await });
        let path = held.0.clone();
        let opened = tokio::task::spawn_blocking(move || std::fs::File::open(path).unwrap());
        let _opened = opened.await.unwrap();
        assert_eq!(bench.lent(), 2);
        // The same process again: settings were read anew.
        let defaults: toml::Table = DEFAULT.parse().unwrap();
        let settings: Settings = defaults["steps"].clone().try_into().unwrap();
        let renditions = renditions_with(&bench.folder.path().join("renditions"), "");
        let _ = Registry::builtin(&settings, renditions, &steps);
        assert_eq!(bench.lent(), 1);
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
    }

    #[test]
    fn settings_that_cannot_be_used_are_told() {
        let defaults: toml::Table = DEFAULT.parse().unwrap();
        for (text, key) in [
            ("timeout = \"0s\"", vec!["timeout"]),
            (
                "commands.a.program = \"sh\"",
                vec!["commands", "a", "program"],
            ),
            (
                "commands.a = { program = \"/a\", timeout = \"0s\" }",
                vec!["commands", "a", "timeout"],
            ),
        ] {
            let mut settings = defaults["steps"].as_table().unwrap().clone();
            settings.extend(text.parse::<toml::Table>().unwrap());
            let settings: Settings = settings.try_into().unwrap();
            assert_eq!(settings.problem().unwrap().0, key);
        }
    }
}
