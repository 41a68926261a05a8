use std::sync::{Arc, Mutex};

use super::*;

/// Collects what is written.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Memory {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const PLAIN: Look = Look {
    has_colours: false,
    has_time: false,
};

fn settings(level: &str, format: Format) -> Settings {
    Settings {
        level: level.parse().unwrap(),
        format,
        dir: LocalPath::default(),
        keep: 0,
    }
}

/// What goes to stderr of five lines of gannet's and one of a library.
fn logged(settings: &Settings, verbosity: i8) -> String {
    let stderr = Memory::default();
    let (subscriber, guard) = build(settings, verbosity, stderr.clone(), PLAIN).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::error!("one");
        tracing::warn!("two");
        tracing::info!(url.host = "example.org", "three");
        tracing::debug!("four");
        tracing::trace!("five");
        tracing::debug!(target: "hyper", "six");
    });
    drop(guard);
    let bytes = stderr.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn words(text: &str) -> Vec<&str> {
    let all = ["one", "two", "three", "four", "five", "six"];
    all.into_iter().filter(|word| text.contains(word)).collect()
}

#[test]
fn verbosity_shifts_the_level() {
    let of = |level: &str, verbosity| {
        let text = logged(&settings(level, Format::Text), verbosity);
        words(&text).join(" ")
    };
    assert_eq!(of("info", 0), "one two three");
    assert_eq!(of("info", 1), "one two three four");
    assert_eq!(of("info", 2), "one two three four five");
    assert_eq!(of("info", 3), "one two three four five");
    assert_eq!(of("info", 4), "one two three four five six");
    assert_eq!(of("info", -1), "one two");
    assert_eq!(of("INFO", -2), "one");
    assert_eq!(of("info", -3), "");
    assert_eq!(of("info", -100), "");
    assert_eq!(of("warn,hyper=debug", 0), "one two six");
    assert_eq!(of("warn,hyper=debug", 1), "one two three six");
    assert_eq!(of("warn,hyper=debug", -1), "one six");
    assert_eq!(of("gannet::telemetry=info", 0), "one two three");
}

#[test]
fn a_line_of_text_has_neither_colours_nor_time_unless_asked() {
    let text = logged(&settings("info", Format::Text), 0);
    let last = text.lines().last().unwrap();
    assert_eq!(
        last.trim(),
        "INFO gannet::telemetry::tests: three url.host=\"example.org\""
    );
}

#[test]
fn a_line_of_json_is_one_object() {
    let text = logged(&settings("info", Format::Json), 0);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "INFO");
    assert_eq!(last["message"], "three");
    assert_eq!(last["url.host"], "example.org");
    assert!(last["timestamp"].is_string());
}

#[test]
fn daily_files_keep_the_level_and_only_so_many_stay() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("made/log");
    std::fs::create_dir_all(&dir).unwrap();
    for day in 1..=5 {
        std::fs::write(dir.join(format!("gannet.2020-01-0{day}.log")), "old").unwrap();
    }
    let mut settings = settings("info", Format::Text);
    settings.dir = LocalPath::new(&dir).unwrap();
    settings.keep = 3;
    assert_eq!(words(&logged(&settings, -1)), ["one", "two"]);

    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3);
    let text = std::fs::read_to_string(files.last().unwrap()).unwrap();
    assert_eq!(words(&text), ["one", "two", "three"]);
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut settings = settings("info", Format::Text);
    settings.dir = LocalPath::new(file.path().join("log")).unwrap();
    let error = build(&settings, 0, Memory::default(), PLAIN).err().unwrap();
    assert!(error.to_string().contains("log`; see `log.dir`"), "{error}");
}

#[test]
fn what_is_no_filter_is_refused() {
    for bad in [
        "",
        "loud",
        "info,",
        "info,loud",
        "gannet=loud",
        "a b",
        "[",
        "gannet=info=x",
    ] {
        assert!(bad.parse::<Level>().is_err(), "{bad:?}");
    }
    for good in [
        "off",
        "Info",
        "trace",
        "info, gannet::fetch=debug",
        "warn,[job]=trace",
        "gannet::fetch",
    ] {
        assert!(good.parse::<Level>().is_ok(), "{good:?}");
    }
}

#[test]
fn the_journal_is_told_priorities() {
    assert_eq!(stderr::priority(tracing::Level::ERROR), "<3>");
    assert_eq!(stderr::priority(tracing::Level::WARN), "<4>");
    assert_eq!(stderr::priority(tracing::Level::INFO), "<6>");
    assert_eq!(stderr::priority(tracing::Level::TRACE), "<7>");
}
