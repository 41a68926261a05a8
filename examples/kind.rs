//! A kind of file of one's own: portable grey maps (PGM), in thirty lines.
//!
//! ```console
//! $ cargo run --example kind -- https://example.org/moon.pgm
//! ```

use std::sync::Arc;

use gannet::config::Config;
use gannet::downloader::{self, Body, Downloader, Facts, Format, Hints, Rejection, Verdict};
use gannet::job::{
    Ending, Engine, Item, Observer, Spec, Summary, Terms, progress::Snapshot, report::Head,
};
use gannet::source::InlineSource;
use gannet::target::Reason;
use tokio_util::sync::CancellationToken;

const PGM: Format = Format {
    name: "pgm",
    media_type: "image/x-portable-graymap",
    extensions: &["pgm"],
};

/// Binary portable grey maps.
#[derive(Debug)]
struct Pgm;

impl Downloader for Pgm {
    fn kind(&self) -> &str {
        "pgm"
    }

    fn accept(&self) -> &str {
        "image/x-portable-graymap, */*;q=0.1"
    }

    fn sniff(&self, head: &[u8], hints: &Hints<'_>) -> Verdict {
        match head {
            [b'P', b'5', space, ..] if space.is_ascii_whitespace() => Verdict::Accept(PGM),
            [] | [b'P'] | [b'P', b'5'] if !hints.complete => Verdict::More,
            _ => Verdict::Reject(Rejection::new(Reason::WrongKind, "the body is no grey map")),
        }
    }

    fn inspect(&self, body: &Body, format: Format) -> Result<Facts, Rejection> {
        let corrupt = |why: &str| Rejection::new(Reason::Corrupt, why);
        // `sniff` has seen three bytes at least.
        let mut head = [0; 128];
        let length = body
            .read_at(&mut head, 0)
            .map_err(|error| Rejection::new(Reason::StoreError, error.to_string()))?;
        let [width, height, _] =
            numbers(&head[2..length]).ok_or_else(|| corrupt("its header is damaged"))?;
        if body.len() < u64::from(width) * u64::from(height) {
            return Err(corrupt("it has fewer pixels than it promises"));
        }
        Ok(Facts {
            dimensions: Some((width, height)),
            ..Facts::of(format)
        })
    }
}

/// Width, height and the value of white, of a header without comments.
fn numbers(header: &[u8]) -> Option<[u32; 3]> {
    let mut words = header
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let mut next = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
    Some([next()?, next()?, next()?])
}

/// Prints what became of each target.
struct Print;

impl Observer for Print {
    fn begin(&mut self, _: &Head) -> anyhow::Result<()> {
        Ok(())
    }

    fn items(&mut self, items: &[Item]) -> anyhow::Result<()> {
        for item in items {
            let what = item.path.as_deref().or(item.detail.as_deref());
            println!(
                "{}  {}  {}",
                item.outcome,
                item.url,
                what.unwrap_or_default()
            );
        }
        Ok(())
    }

    fn tick(&mut self, _: &Snapshot) {}

    fn end(&mut self, _: &Summary) -> anyhow::Result<()> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::load(None, std::env::vars(), &[])?.config;
    let mut kinds = downloader::builtin(&config.image);
    kinds.register(Arc::new(Pgm));

    let terms = Terms::new(config.setup(), kinds)?;
    let engine = Engine::start(config.setup()).await?;
    let urls = InlineSource::new(std::env::args().skip(1));
    let spec = Spec {
        kind: "pgm".to_owned(),
        ..Spec::new(Arc::new(urls), &terms)
    };
    let summary = engine.run(spec, &mut Print, CancellationToken::new()).await;
    engine.shut_down().await;
    anyhow::ensure!(summary?.ending == Ending::Fine, "not every target is fine");
    Ok(())
}
