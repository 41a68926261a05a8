//! How the pieces of this room work together: sources, threads, pauses, back-pressure.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write as _};
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use url::Url;

use super::detect::Hints;
use super::list::parse_on_thread;
use super::sink::CHUNKS_WAITING;
use super::testing::{self, drain, read, short, targets, with_causes};
use super::*;
use crate::fetch::{StoredValidators, Validators};

fn shorts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(short).collect()
}

#[test]
fn formats_come_back_as_they_were_written() {
    for format in ListFormat::ALL {
        assert_eq!(format.as_str().parse(), Ok(format));
        assert_eq!(
            serde_json::to_value(format).unwrap(),
            serde_json::Value::from(format.as_str())
        );
    }
    assert!("html".parse::<ListFormat>().is_err());
}

/// An endless list, a line a read; says how many lines it began when it is dropped.
struct Endless {
    line: u64,
    rest: Vec<u8>,
    ended: mpsc::Sender<u64>,
    reached: mpsc::Sender<()>,
    tell_at: u64,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.line += 1;
            self.rest = format!("https://a.example/{}\n", self.line).into_bytes();
            if self.line == self.tell_at {
                self.reached.send(()).unwrap();
            }
        }
        let n = out.len().min(self.rest.len());
        out[..n].copy_from_slice(&self.rest[..n]);
        self.rest.drain(..n);
        Ok(n)
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.ended.send(self.line);
    }
}

#[tokio::test]
async fn a_list_that_nobody_reads_on_stops_at_an_exact_line_and_ends_when_dropped() {
    // One chunk taken, the waiting ones, one in the parser's hands, and the line that found no room.
    let bound = (CHUNK_ENTRIES * (1 + CHUNKS_WAITING + 1) + 1) as u64;
    let (ended, has_ended) = mpsc::channel();
    let (reached, has_reached) = mpsc::channel();
    let mut list = parse_on_thread("list".to_owned(), Hints::default(), None, move |_| {
        Ok(Box::new(Endless {
            line: 0,
            rest: Vec::new(),
            ended,
            reached,
            tell_at: bound,
        }))
    })
    .await
    .unwrap();
    let first = list.next_chunk().await.unwrap().unwrap();
    assert_eq!(first.len(), CHUNK_ENTRIES);
    has_reached.recv().unwrap();
    drop(list);
    assert_eq!(has_ended.recv(), Ok(bound));
}

#[tokio::test]
async fn a_long_list_arrives_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    let list: String = (1..=20_000)
        .map(|n| format!("https://a.example/{n}\n"))
        .collect();
    fs::write(&path, list).unwrap();
    let (entries, error) = drain(FileSource::new(&path, None).open().await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(entries.len(), 20_000);
    for (at, target) in targets(&entries).into_iter().enumerate() {
        assert_eq!(target.line, Some(at as u64 + 1));
        assert_eq!(target.url.path(), format!("/{}", at + 1));
    }
}

/// Opens the reading end of a pipe as a list, by its path.
async fn piped(reader: &io::PipeReader) -> Result<List, SourceError> {
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    FileSource::new(path, None).open().await
}

#[tokio::test]
async fn lines_of_a_slow_writer_flow() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer
        .write_all(b"https://a.example/1\n out=one\nhttps://a.example/2\n")
        .unwrap();
    let mut list = piped(&reader).await.unwrap();
    let mut entries = Vec::new();
    while entries.len() < 2 {
        entries.extend(list.next_chunk().await.unwrap().unwrap());
    }
    assert_eq!(targets(&entries)[0].name.as_deref(), Some("one"));
    writer
        .write_all(b"https://a.example/3\nhttps://a.exa")
        .unwrap();
    assert_eq!(
        shorts(&list.next_chunk().await.unwrap().unwrap()),
        ["4 https://a.example/3"]
    );
    writer.write_all(b"mple/4").unwrap();
    drop(writer);
    assert_eq!(
        shorts(&list.next_chunk().await.unwrap().unwrap()),
        ["5 https://a.example/4"]
    );
    assert!(list.next_chunk().await.unwrap().is_none());
    assert!(list.next_chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn a_dropped_list_lets_go_of_a_silent_input() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"https://a.example/1\n").unwrap();
    let mut list = piped(&reader).await.unwrap();
    drop(reader);
    list.next_chunk().await.unwrap();
    drop(list);
    // The writing end reports an error as soon as nobody holds the other one.
    let mut fds = [PollFd::new(&writer, PollFlags::empty())];
    assert_eq!(poll(&mut fds, None), Ok(1));
    assert!(fds[0].revents().contains(PollFlags::ERR));
}

#[tokio::test]
async fn a_file_that_is_no_list_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.txt");
    fs::write(&path, "<!doctype html><title>Log in</title>").unwrap();
    let error = FileSource::new(&path, None).open().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("list.txt` is an HTML page, not a list"),
        "{text}"
    );
    for (bad, why) in [
        (folder.path().join("none.txt"), "No such file"),
        (folder.path().to_owned(), "directory"),
    ] {
        let source = FileSource::new(bad, None);
        for error in [
            source.open().await.unwrap_err(),
            source.check().await.unwrap_err(),
        ] {
            let text = with_causes(&error);
            assert!(
                text.contains("cannot open the list") && text.contains(why),
                "{text}"
            );
        }
    }
}

/// Hands out at most `step` bytes at a time.
struct Dribble(io::Cursor<&'static [u8]>, usize);

impl Read for Dribble {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(out.len());
        self.0.read(&mut out[..n])
    }
}

#[tokio::test]
async fn the_format_does_not_depend_on_how_a_list_arrives() {
    const FEED: &[u8] = b"<br />\n<b>Warning</b>: Undefined variable in <b>feed.php</b><br />\n<?xml version='1.0' \
        encoding='iso-8859-2'?>\n<!DOCTYPE rss PUBLIC '-//x' \n'http://a.example/rss.dtd'>\n<rss><channel><item>\n\
        <enclosure url='https://a.example/\xb1'/></item></channel></rss>";
    const PLAIN: &[u8] =
        b"PHP Warning:  Undefined variable\n<rss>\n<enclosure url='https://a.example/1'/></rss>";
    const TEXT: &[u8] = b"Pictures\n<https://a.example/1>\n<rss>\n";
    const TABLE: &[u8] = b"name;url\n<rss>;https://a.example/1\n";
    for (bytes, format, wanted) in [
        (FEED, ListFormat::Feed, &["7 https://a.example/%C4%85"][..]),
        (PLAIN, ListFormat::Feed, &["3 https://a.example/1"]),
        (
            TEXT,
            ListFormat::Text,
            &[
                "1 !invalid-url Pictures",
                "2 https://a.example/1",
                "3 !invalid-url <rss>",
            ],
        ),
        (TABLE, ListFormat::Csv, &["2 https://a.example/1"]),
    ] {
        for step in [1, 7, 40, usize::MAX] {
            let list = parse_on_thread("list".to_owned(), Hints::default(), None, move |_| {
                Ok(Box::new(Dribble(io::Cursor::new(bytes), step)))
            });
            let list = list.await.unwrap();
            assert_eq!(list.format(), format, "{step}");
            assert_eq!(shorts(&drain(list).await.0), wanted, "{step}");
        }
    }
}

#[tokio::test]
async fn an_empty_file_is_an_empty_list() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.txt", "a.csv", "a.jsonl", "a.xml", "a.rss", "a.txt.gz"] {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        let list = FileSource::new(&path, None).open().await;
        let Ok(list) = list else {
            panic!("{name}: {list:?}")
        };
        assert!(
            matches!(drain(list).await, (entries, None) if entries.is_empty()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_compressed_list_that_is_cut_off_fails_after_its_entries() {
    let lines: String = (0..50_000)
        .map(|n| format!("https://a.example/{:x}\n", n * 7_919 % 65_521))
        .collect();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(lines.as_bytes()).unwrap();
    let mut packed = encoder.finish().unwrap();
    packed.truncate(packed.len() - 100);
    let (entries, error) = drain(testing::open(None, packed).await.unwrap()).await;
    assert!(entries.len() > 40_000 && entries.len() < 50_000);
    let text = with_causes(&error.unwrap());
    assert!(
        text.contains("cannot read the list") && text.contains("cut off"),
        "{text}"
    );
}

#[tokio::test]
async fn sources_follow_each_other_and_count_their_own_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> Arc<dyn Source> {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        Arc::new(FileSource::new(path, None))
    };
    let inline = InlineSource::new(["https://a.example/3#x".to_owned(), "ann:pw@b".to_owned()]);
    let chain = ChainSource::new([
        file("a.txt", "https://a.example/1"),
        file("empty.txt", ""),
        Arc::new(ChainSource::new([file(
            "b.csv",
            "url,name\nhttps://a.example/2,x",
        )])),
        Arc::new(inline) as Arc<dyn Source>,
    ]);
    let (entries, error) = drain(chain.open().await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(
        shorts(&entries),
        [
            "1 https://a.example/1",
            "2 https://a.example/2",
            "https://a.example/3",
            "!unsupported-scheme ***@b"
        ]
    );
    assert!(
        drain(ChainSource::new([]).open().await.unwrap())
            .await
            .0
            .is_empty()
    );
    let missing = ChainSource::new([
        file("a.txt", "https://a.example/1"),
        Arc::new(FileSource::new(folder.path().join("missing"), None)) as Arc<dyn Source>,
    ]);
    assert!(matches!(
        missing.open().await,
        Err(SourceError::Open { .. })
    ));
}

/// An origin in memory. A body that ends in `CUT` is followed by an error.
#[derive(Debug)]
struct Origin(HashMap<&'static str, (&'static str, &'static str)>);

struct Body {
    bytes: &'static [u8],
    cut: bool,
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = self.bytes.len().min(out.remaining()).min(7);
        if n == 0 && self.cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        out.put_slice(&self.bytes[..n]);
        self.bytes = &self.bytes[n..];
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Fetch for Origin {
    async fn open(&self, url: &Url, _: Option<&StoredValidators>) -> Result<Answer, FetchFailure> {
        let (media_type, body) = *self.0.get(url.path()).ok_or("it answered 404")?;
        Ok(Answer::Body(RemoteBody {
            media_type: Some(media_type.to_owned()),
            final_url: url.clone(),
            validators: Validators::default(),
            length: None,
            stream: Box::pin(Body {
                bytes: body.strip_suffix("CUT").unwrap_or(body).as_bytes(),
                cut: body.ends_with("CUT"),
            }),
        }))
    }
}

/// Reads what `fetch` brings, without copies.
fn reader(fetch: impl Fetch) -> Reader {
    Reader {
        fetch: Arc::new(fetch),
        shelf: None,
        max_bytes: u64::MAX,
        search: None,
    }
}

fn remote(path: &str) -> RemoteSource {
    let index = |of: &'static str| ("text/xml", of);
    let origin = Origin(HashMap::from([
        ("/list", ("text/csv", "name,url\nx,https://a.example/1\n")),
        ("/list.jsonl", ("text/plain", "\"https://a.example/2\"")),
        (
            "/list.txt",
            ("application/rss+xml", "https://a.example/3\n"),
        ),
        (
            "/feeds/rss",
            index("<rss><channel><item><enclosure url='../1.jpg'/></item></channel></rss>"),
        ),
        (
            "/cut",
            (
                "text/plain",
                "https://a.example/1\nhttps://a.example/2\nCUT",
            ),
        ),
        ("/page", ("text/html", "<html>")),
        (
            "/index",
            index(
                "<sitemapindex><sitemap><loc>https://ann:pw@h.example/one</loc></sitemap><sitemap><loc>\
            https://h.example/inner</loc></sitemap><sitemap><loc>http://[</loc></sitemap></sitemapindex>",
            ),
        ),
        (
            "/inner",
            index(
                "<sitemapindex><sitemap><loc>https://h.example/two</loc></sitemap></sitemapindex>",
            ),
        ),
        (
            "/one",
            index("<urlset><url><loc>https://a.example/1</loc></url></urlset>"),
        ),
        (
            "/two",
            index("<urlset><url><loc>https://a.example/2</loc></url></urlset>"),
        ),
        (
            "/some",
            index(
                "<sitemapindex><sitemap><loc>https://h.example/404</loc></sitemap><sitemap><loc>\
            https://h.example/sorry</loc></sitemap><sitemap><loc>https://h.example/cut.xml</loc></sitemap>\
            <sitemap><loc>https://h.example/two</loc></sitemap></sitemapindex>",
            ),
        ),
        (
            "/cut.xml",
            index("<urlset><url><loc>https://a.example/1</loc></url>CUT"),
        ),
        (
            "/error",
            ("application/json", "{\"error\": \"no such list\"}"),
        ),
        ("/sorry", ("text/plain", "Not found\n")),
        (
            "/late",
            ("text/plain", "Pictures\n\nhttps://a.example/1\nx\n"),
        ),
        (
            "/loop",
            index(
                "<sitemapindex><sitemap><loc>https://H.example:443/./l%6Fop?#x</loc></sitemap></sitemapindex>",
            ),
        ),
        (
            "/twice",
            index(
                "<sitemapindex><sitemap><loc>one</loc></sitemap><sitemap><loc>/one</loc></sitemap><sitemap><loc>\
            https://h.example/one#2</loc></sitemap><sitemap><loc>back</loc></sitemap></sitemapindex>",
            ),
        ),
        (
            "/back",
            index(
                "<sitemapindex><sitemap><loc>twice</loc></sitemap><sitemap><loc>one</loc></sitemap></sitemapindex>",
            ),
        ),
        (
            "/outer",
            index("<sitemapindex><sitemap><loc>middle</loc></sitemap></sitemapindex>"),
        ),
        (
            "/middle",
            index("<sitemapindex><sitemap><loc>core</loc></sitemap></sitemapindex>"),
        ),
        (
            "/core",
            index("<sitemapindex><sitemap><loc>innermost</loc></sitemap></sitemapindex>"),
        ),
        (
            "/innermost",
            index("<sitemapindex><sitemap><loc>one</loc></sitemap></sitemapindex>"),
        ),
        (
            "/gone",
            index(
                "<sitemapindex><sitemap><loc>https://h.example/404</loc></sitemap></sitemapindex>",
            ),
        ),
    ]));
    let url = Url::parse(&format!("https://ann:secret@h.example{path}")).unwrap();
    RemoteSource::new(url, reader(origin), None)
}

#[tokio::test]
async fn a_remote_list_is_read_by_its_type_or_ending() {
    for (path, format, wanted) in [
        ("/list", ListFormat::Csv, "2 https://a.example/1"),
        ("/list.jsonl", ListFormat::Jsonl, "1 https://a.example/2"),
        ("/list.txt", ListFormat::Text, "1 https://a.example/3"),
        (
            "/feeds/rss",
            ListFormat::Feed,
            "1 https://ann:secret@h.example/1.jpg",
        ),
    ] {
        let list = remote(path).open().await.unwrap();
        assert_eq!(list.format(), format);
        assert_eq!(shorts(&drain(list).await.0), [wanted]);
    }
}

#[tokio::test]
async fn the_sitemaps_of_an_index_are_followed_but_not_for_ever() {
    let (entries, error) = drain(remote("/index").open().await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(
        shorts(&entries),
        [
            "1 !invalid-url http://[",
            "1 https://a.example/1",
            "1 https://a.example/2"
        ]
    );
    // A sitemap named twice is read once, and is not an error.
    let (entries, error) = drain(remote("/loop").open().await.unwrap()).await;
    assert!(entries.is_empty() && error.is_none(), "{error:?}");
    let (entries, error) = drain(remote("/twice").open().await.unwrap()).await;
    assert_eq!(shorts(&entries), ["1 https://a.example/1"]);
    assert!(error.is_none());
    // Indexes nested three deep are refused.
    let error = drain(remote("/outer").open().await.unwrap()).await.1;
    assert!(matches!(error, Some(SourceError::SitemapIndex { .. })));
    let error = drain(remote("/gone").open().await.unwrap())
        .await
        .1
        .unwrap();
    assert!(
        with_causes(&error)
            .contains("cannot fetch the list `https://h.example/404`: it answered 404")
    );
}

#[tokio::test]
async fn the_sitemaps_that_can_be_read_come_before_the_error_about_one_that_cannot() {
    let (entries, error) = drain(remote("/some").open().await.unwrap()).await;
    assert_eq!(
        shorts(&entries),
        ["1 https://a.example/1", "1 https://a.example/2"]
    );
    let text = with_causes(&error.unwrap());
    assert!(text.contains("`https://h.example/404`"), "{text}");
}

#[tokio::test]
async fn an_answer_without_a_single_url_is_no_list() {
    for (path, begins) in [("/error", "no such list"), ("/sorry", "`Not found`")] {
        let (entries, error) = drain(remote(path).open().await.unwrap()).await;
        assert!(entries.is_empty(), "{path}: {entries:?}");
        let text = error.unwrap().to_string();
        assert!(
            text.contains("without a URL") && text.contains(begins),
            "{text}"
        );
    }
    let (entries, error) = drain(remote("/late").open().await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(
        shorts(&entries),
        [
            "1 !invalid-url Pictures",
            "3 https://a.example/1",
            "4 !invalid-url x"
        ]
    );
}

#[tokio::test]
async fn a_remote_list_that_fails_says_so_without_credentials() {
    let (entries, error) = drain(remote("/cut").open().await.unwrap()).await;
    assert_eq!(entries.len(), 2);
    let cut = error.unwrap();
    let none = remote("/none").open().await.unwrap_err();
    let page = remote("/page").open().await.unwrap_err();
    assert!(matches!(cut, SourceError::Read { .. }));
    assert!(matches!(none, SourceError::Fetch { .. }));
    assert!(matches!(page, SourceError::NotAList { .. }));
    for error in [cut, none, page] {
        let text = format!("{} {error:?}", with_causes(&error));
        assert!(
            text.contains("ann:***@h.example") && !text.contains("secret"),
            "{text}"
        );
    }
    let source = remote("/list");
    assert!(!format!("{source} {source:?}").contains("secret"));
}

/// Hands out one stream, once.
#[derive(Debug)]
struct Once(std::sync::Mutex<Option<tokio::io::DuplexStream>>);

#[async_trait]
impl Fetch for Once {
    async fn open(&self, url: &Url, _: Option<&StoredValidators>) -> Result<Answer, FetchFailure> {
        let stream = self.0.lock().unwrap().take().ok_or("it was asked twice")?;
        Ok(Answer::Body(RemoteBody {
            media_type: None,
            final_url: url.clone(),
            validators: Validators::default(),
            length: None,
            stream: Box::pin(stream),
        }))
    }
}

#[tokio::test]
async fn lines_of_a_slow_origin_flow_and_dropping_hangs_up() {
    let (mut writer, stream) = tokio::io::duplex(64);
    writer.write_all(b"https://a.example/1\n").await.unwrap();
    let url = Url::parse("https://h.example/").unwrap();
    let source = RemoteSource::new(url, reader(Once(Some(stream).into())), None);
    let mut list = source.open().await.unwrap();
    for n in 1..4 {
        let chunk = list.next_chunk().await.unwrap().unwrap();
        assert_eq!(shorts(&chunk), [format!("{n} https://a.example/{n}")]);
        let next = format!("https://a.example/{}\n", n + 1);
        writer.write_all(next.as_bytes()).await.unwrap();
    }
    drop(list);
    // Fails once the other end is gone; until then the buffer of 64 bytes holds it back.
    while writer.write_all(&[b'#'; 64]).await.is_ok() {}
}

fn any_format() -> impl Strategy<Value = Option<ListFormat>> {
    prop_oneof![
        Just(None),
        proptest::sample::select(ListFormat::ALL.as_slice()).prop_map(Some)
    ]
}

/// Bytes that come near to every format.
fn list_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::sample::select(
            &[
                "https://a.example/",
                "url",
                "name",
                ",",
                ";",
                "\t",
                "\n",
                "\r\n",
                "\r",
                "\"",
                " ",
                "#",
                "{",
                "}",
                "[",
                "]",
                ":",
                "null",
                "<urlset>",
                "<url>",
                "<loc>",
                "</loc>",
                "</url>",
                "</urlset>",
                "<rss>",
                "<item>",
                "<enclosure url='",
                "'/>",
                "</item>",
                "</rss>",
                "<sitemapindex>",
                "<sitemap>",
                "&amp;",
                "&#0;",
                "<!--",
                "-->",
                "<?xml",
                "?>",
                "<![CDATA[",
                "]]>",
                "  out=",
                "  checksum=sha-256=",
                "\u{feff}",
                "\0",
                "ftp://",
                "\u{1f}\u{8b}",
                "sep=",
            ][..]
        )
        .prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 1..4),
        Just(vec![0xff, 0xfe]),
        Just(vec![0x1f, 0x8b, 8, 0]),
        Just(vec![0x28, 0xb5, 0x2f, 0xfd]),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_stop_a_parser_unexpectedly(format in any_format(), bytes: Vec<u8>) {
        let (_, failure) = read(format, &bytes);
        prop_assert!(!failure.is_some_and(|text| text.contains("unexpectedly")));
    }

    #[test]
    fn nothing_like_a_list_stops_a_parser_unexpectedly(format in any_format(), bytes in list_like()) {
        let (entries, failure) = read(format, &bytes);
        prop_assert!(!failure.is_some_and(|text| text.contains("unexpectedly")));
        for target in targets(&entries) {
            prop_assert!(matches!(target.url.scheme(), "http" | "https"));
            prop_assert!(target.url.has_host() && target.url.fragment().is_none());
        }
    }

    #[test]
    fn each_line_of_a_text_is_one_entry(lines in proptest::collection::vec("(#|https://a[.]example/|x)?[ -~é]{0,20}", 0..50)) {
        let wanted = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| {
                let text = line.trim();
                let option = line.starts_with(' ')
                    && text.split_once('=').is_some_and(|(name, _)| {
                        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                    });
                !(text.is_empty() || text.starts_with('#') || option)
            })
            .map(|(at, _)| Some(at as u64 + 1));
        // A comment goes first, so that nothing else than a text is found.
        let list = format!("#\n{}", lines.join("\n"));
        let (entries, failure) = read(Some(ListFormat::Text), list.as_bytes());
        prop_assert_eq!(failure, None);
        let numbers: Vec<_> = entries
            .iter()
            .map(|entry| match entry {
                Entry::Target(target) => target.line,
                Entry::Invalid(invalid) => invalid.line,
            })
            .collect();
        let wanted: Vec<_> = wanted.map(|line| line.map(|line| line + 1)).collect();
        prop_assert_eq!(numbers, wanted);
    }
}
