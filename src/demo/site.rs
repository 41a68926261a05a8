//! What the demo's origin answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_compression::tokio::write::GzipEncoder;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER,
};
use http::{HeaderValue, StatusCode, Uri};
use tokio::io::AsyncWriteExt;

use super::pictures::Pictures;

pub(super) const GANNET_SVG: &[u8] = include_bytes!("gannet.svg");

const LOGIN_PAGE: &[u8] = b"<!doctype html>\n<html><head><title>Sign in</title></head>\n\
    <body><form><input name=\"user\"><input name=\"password\" type=\"password\"></form></body></html>\n";

const ENTITY_SVG: &[u8] = b"<?xml version=\"1.0\"?>\n\
    <!DOCTYPE svg [<!ENTITY secret SYSTEM \"file:///etc/hostname\">]>\n\
    <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"80\" height=\"40\"><text y=\"20\">&secret;</text></svg>\n";

/// Pieces and pauses of the slow picture: 1.5 seconds in all.
const DROPS: usize = 15;
const PAUSE: Duration = Duration::from_millis(100);

/// What the origin knows.
#[derive(Debug)]
pub(super) struct Site {
    pictures: Pictures,
    gannet_svg_gz: Bytes,
    /// Requests for the picture that fails twice.
    rings_asked: AtomicU32,
}

impl Site {
    /// Paints the pictures.
    pub(super) async fn new() -> io::Result<Self> {
        let pictures = tokio::task::spawn_blocking(Pictures::new)
            .await
            .map_err(io::Error::other)??;
        let mut gzip = GzipEncoder::new(Vec::new());
        gzip.write_all(GANNET_SVG).await?;
        gzip.shutdown().await?;
        Ok(Self {
            pictures,
            gannet_svg_gz: gzip.into_inner().into(),
            rings_asked: AtomicU32::new(0),
        })
    }
}

/// A 200 with a body of known length.
fn ok(media_type: &'static str, disposition: &'static str, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let length = body.len();
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_LENGTH, length.into());
    if !disposition.is_empty() {
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    }
    response
}

fn plain(status: StatusCode) -> Response {
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = status;
    response
}

/// Answers any request by its path.
pub(super) async fn answer(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let all = &site.pictures;
    match uri.path() {
        "/pictures/mandelbrot.png" => ok(
            "image/png",
            "attachment; filename=\"mandelbrot.png\"",
            all.mandelbrot_png.clone(),
        ),
        "/pictures/julia.jpg" => ok(
            "image/jpeg",
            "inline; filename=julia.jpg",
            all.julia_jpg.clone(),
        ),
        "/pictures/dunes.jpeg" => ok(
            "image/jpeg",
            "attachment; filename=\"dunes.jpeg\"; filename*=UTF-8''D%C3%BCnen%20am%20Abend.jpeg",
            all.dunes_jpeg.clone(),
        ),
        "/pictures/plasma.bmp" => ok(
            "image/bmp",
            "inline; filename=\"plasma.bmp\"",
            all.plasma_bmp.clone(),
        ),
        "/pictures/orbit.gif" => ok(
            "image/gif",
            "inline; filename=\"orbit.gif\"",
            all.orbit_gif.clone(),
        ),
        "/pictures/gannet.svg" => {
            let mut response = ok(
                "image/svg+xml",
                "inline; filename=\"gannet.svg\"",
                site.gannet_svg_gz.clone(),
            );
            let gzip = HeaderValue::from_static("gzip");
            response.headers_mut().insert(CONTENT_ENCODING, gzip);
            response
        }
        "/pictures/terrain.tiff" => ok(
            "image/tiff",
            "attachment; filename=\"terrain.tiff\"",
            all.terrain_tiff.clone(),
        ),
        "/pictures/drop.ico" => ok(
            "image/x-icon",
            "inline; filename=\"drop.ico\"",
            all.drop_ico.clone(),
        ),
        "/pictures/ball.rgb" => ok(
            "application/octet-stream",
            "attachment; filename=\"ball.rgb\"",
            all.ball_rgb.clone(),
        ),
        "/pictures/sea.webp" => ok(
            "image/webp",
            "inline; filename=\"sea.webp\"",
            all.sea_webp.clone(),
        ),
        "/pictures/cells" => ok("image/png", "", all.cells_png.clone()),
        "/pictures/tiles.png" => ok(
            "image/png",
            "attachment; filename=\"../../etc/passwd.png\"",
            all.tiles_png.clone(),
        ),
        "/pictures/nebula.jpg" => {
            let whole = ok(
                "image/jpeg",
                "inline; filename=\"nebula.jpg\"",
                all.nebula_jpg.clone(),
            );
            let (parts, _) = whole.into_parts();
            Response::from_parts(parts, drip(all.nebula_jpg.clone()))
        }
        "/pictures/rings.png" => match site.rings_asked.fetch_add(1, Ordering::Relaxed) {
            asked @ (0 | 1) => {
                let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
                response.headers_mut().insert(RETRY_AFTER, asked.into());
                response
            }
            _ => ok(
                "image/png",
                "inline; filename=\"rings.png\"",
                all.rings_png.clone(),
            ),
        },
        "/latest" => {
            let mut response = plain(StatusCode::FOUND);
            let to = HeaderValue::from_static("/pictures/mountains.png");
            response.headers_mut().insert(LOCATION, to);
            response
        }
        "/pictures/mountains.png" => ok(
            "image/png",
            "inline; filename=\"mountains.png\"",
            all.mountains_png.clone(),
        ),
        "/broken/login.jpg" => ok("image/jpeg", "inline; filename=\"login.jpg\"", LOGIN_PAGE),
        "/broken/half.jpg" => {
            let half = all.julia_jpg.slice(..all.julia_jpg.len() / 2);
            ok("image/jpeg", "inline; filename=\"half.jpg\"", half)
        }
        "/broken/cut.png" => {
            let whole = ok(
                "image/png",
                "inline; filename=\"cut.png\"",
                all.cells_png.clone(),
            );
            let (parts, _) = whole.into_parts();
            let half = all.cells_png.slice(..all.cells_png.len() / 2);
            Response::from_parts(parts, cut(half))
        }
        "/broken/entity.svg" => ok(
            "image/svg+xml",
            "inline; filename=\"entity.svg\"",
            ENTITY_SVG,
        ),
        "/broken/empty.gif" => ok("image/gif", "inline; filename=\"empty.gif\"", Bytes::new()),
        _ => plain(StatusCode::NOT_FOUND),
    }
}

/// `bytes` in drops.
fn drip(bytes: Bytes) -> Body {
    let size = bytes.len().div_ceil(DROPS).max(1);
    Body::from_stream(stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
        let drop = rest.split_to(size.min(rest.len()));
        Some((Ok::<_, io::Error>(drop), rest))
    }))
}

/// `bytes`, after which the connection is cut.
fn cut(bytes: Bytes) -> Body {
    Body::from_stream(stream::unfold(Some(bytes), |rest| async move {
        match rest {
            Some(bytes) => Some((Ok(bytes), None)),
            None => {
                // The server sends what it has before it hears of the error.
                tokio::time::sleep(PAUSE / 2).await;
                Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None))
            }
        }
    }))
}
