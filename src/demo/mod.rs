//! The built-in origin of `gannet demo`: pictures of every format, and a few that must not be kept.
//!
//! [`DemoOrigin`] serves them on loopback, [`expected`] says what must become of each. Nothing comes
//! from files or the network: the pictures are painted at the start. This room knows nothing of jobs.

mod expected;
mod paint;
mod pictures;
mod sgi;
mod site;

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use expected::EXPECTED;
use site::Site;

pub use expected::{Expectation, expected};

/// How long `stop` waits for answers under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// An HTTP origin on a free port of 127.0.0.1. Dropping it ends it; [`stop`](Self::stop) waits for
/// the end.
#[derive(Debug)]
pub struct DemoOrigin {
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

impl DemoOrigin {
    /// Paints the pictures and starts to serve them.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::start_again("").await
    }

    /// The same, if possible on the port of an earlier [`list`](Self::list), so that its URLs are known.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start_again(earlier: &str) -> io::Result<Self> {
        let earlier = TcpListener::bind((Ipv4Addr::LOCALHOST, port_of(earlier)));
        let listener = match earlier.await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        };
        let address = listener.local_addr()?;
        let site = Arc::new(Site::new().await?);
        let stop = CancellationToken::new();
        let router = Router::new().fallback(site::answer).with_state(site);
        let server = tokio::spawn({
            let stop = stop.clone();
            async move {
                axum::serve(listener, router)
                    .with_graceful_shutdown(stop.cancelled_owned())
                    .await
            }
        });
        Ok(Self {
            address,
            stop,
            server,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        url(self.address, path)
    }

    /// The list of all its URLs, in gannet's text form: a comment and a URL for each.
    pub fn list(&self) -> String {
        list(self.address)
    }

    /// Lets answers under way come to their end, for two seconds at most, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // A late answer is cut off by `drop`; the demo is over either way.
        let _ = tokio::time::timeout(STOP_TIMEOUT, &mut self.server).await;
    }
}

impl Drop for DemoOrigin {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.abort();
    }
}

/// The port of the first URL of a list; 0 where there is none.
fn port_of(list: &str) -> u16 {
    let url = list.lines().find(|line| line.starts_with("http://"));
    let url = url.and_then(|url| url::Url::parse(url).ok());
    url.and_then(|url| url.port()).unwrap_or_default()
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

fn list(address: SocketAddr) -> String {
    let mut list = String::from("# gannet demo: what its built-in origin serves\n");
    for line in EXPECTED {
        // Writing to a string cannot fail.
        let _ = write!(list, "\n# {}\n{}\n", line.comment, url(address, line.path));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::pictures::Pictures;
    use super::site::GANNET_SVG;
    use super::*;
    use crate::target::Reason;
    use http::HeaderMap;
    use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, LOCATION, RETRY_AFTER};
    use image::ImageFormat;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// One request on a connection of its own: status, headers, and what came of the body.
    async fn get(origin: &DemoOrigin, path: &str) -> (u16, HeaderMap, Vec<u8>) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the test talks to its own origin"
        )]
        let mut stream = TcpStream::connect(origin.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap()[9..12].parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect();
        (status, headers, answer[end + 4..].to_vec())
    }

    #[tokio::test]
    async fn every_line_is_served_as_its_expectation_says() {
        let origin = DemoOrigin::start().await.unwrap();
        for line in EXPECTED {
            let (status, headers, body) = get(&origin, line.path).await;
            let length = headers
                .get(CONTENT_LENGTH)
                .map(|v| v.to_str().unwrap().parse::<usize>().unwrap());
            match (line.path, line.reason) {
                ("/pictures/rings.png", _) => {
                    assert_eq!(status, 503);
                    assert_eq!(headers[RETRY_AFTER], "0");
                    assert_eq!(get(&origin, line.path).await.1[RETRY_AFTER], "1");
                    assert_eq!(get(&origin, line.path).await.0, 200);
                }
                ("/latest", _) => {
                    assert_eq!(status, 302);
                    assert_eq!(
                        get(&origin, headers[LOCATION].to_str().unwrap()).await.0,
                        200
                    );
                }
                (_, Some(Reason::Status)) => assert_eq!(status, 404),
                (_, Some(Reason::Truncated)) => {
                    assert_eq!(status, 200);
                    assert!(!body.is_empty() && body.len() < length.unwrap());
                }
                _ => {
                    assert_eq!(status, 200, "{}", line.path);
                    assert_eq!(Some(body.len()), length, "{}", line.path);
                }
            }
            let named = headers.contains_key(CONTENT_DISPOSITION);
            assert_eq!(
                named && status == 200,
                status == 200 && line.path != "/pictures/cells"
            );
        }
        origin.stop().await;
    }

    #[test]
    fn the_pictures_are_what_they_claim_to_be() {
        let all = Pictures::new().unwrap();
        for (bytes, format) in [
            (&all.mandelbrot_png, ImageFormat::Png),
            (&all.dunes_jpeg, ImageFormat::Jpeg),
            (&all.plasma_bmp, ImageFormat::Bmp),
            (&all.orbit_gif, ImageFormat::Gif),
            (&all.terrain_tiff, ImageFormat::Tiff),
            (&all.drop_ico, ImageFormat::Ico),
            (&all.sea_webp, ImageFormat::WebP),
        ] {
            let picture = image::load_from_memory_with_format(bytes, format).unwrap();
            assert!(picture.width() >= 64, "{format:?}");
        }
        let svg = std::str::from_utf8(GANNET_SVG).unwrap();
        assert!(
            roxmltree::Document::parse(svg)
                .unwrap()
                .root_element()
                .has_tag_name(("http://www.w3.org/2000/svg", "svg"))
        );
    }

    #[test]
    fn all_ten_formats_are_in_the_list_and_it_names_every_line() {
        let address = ([127, 0, 0, 1], 8080).into();
        let list = list(address);
        for line in EXPECTED {
            assert!(list.contains(&format!("\n{}\n", url(address, line.path))));
        }
        for format in [
            "bmp", "gif", "jpeg", "svg", "tiff", "ico", "rgb", "png", "webp",
        ] {
            assert!(
                EXPECTED.iter().any(|line| line.format == Some(format)),
                "{format}"
            );
        }
        assert!(
            EXPECTED
                .iter()
                .any(|line| line.path.ends_with(".jpg") && line.reason.is_none())
        );
        assert!(
            EXPECTED
                .iter()
                .any(|line| line.path.ends_with(".jpeg") && line.reason.is_none())
        );
    }
}
