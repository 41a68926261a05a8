//! Albums and the images in them, which are files of any kind.
//!
//! An image goes by its name below the folder of its album. Where `naming.template` puts a file elsewhere, it goes by its
//! whole path.

use std::borrow::Cow;
use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::extract::{Names, Nothing, Parameters};
use super::filter::{self, Filtered};
use super::page::{Limit, List, Page};
use super::{Api, Problem, etag, json, tagged};
use crate::catalog::{AlbumRow, Catalog, ImageRow};
use crate::job::ImageState;
use crate::naming::NameFrom;
use crate::target::{AlbumName, Sha256};

/// What the root folder is called. No album can have this name; clients tidy `.` out of paths before they ask.
pub(super) const ROOT: &str = ":root";

/// What a segment of a path encodes: all but the unreserved characters (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A named set of files.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({
    "name": "shops/2026", "href": "/api/v1/albums/shops%2F2026", "files": 412, "bytes": 90211733,
    "newest": "2026-11-21T09:30:41Z",
})))]
pub(super) struct Album {
    /// `/` joins the folders that it is made of; the root folder is `:root`.
    name: String,
    /// Where it is.
    pub(super) href: String,
    /// How many files it has.
    files: u64,
    /// What they come to.
    bytes: u64,
    /// When the bytes of the newest came.
    #[schema(required = true)]
    newest: Option<DateTime<Utc>>,
    /// What clients said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
}

impl Album {
    /// The entity tag of an album in this state.
    pub(super) fn etag(row: &AlbumRow) -> Option<String> {
        etag(&Self::from(row.clone()))
    }
}

impl From<AlbumRow> for Album {
    fn from(row: AlbumRow) -> Self {
        let name = shown(&row.name);
        let metadata = row.metadata.as_deref();
        Self {
            metadata: metadata.and_then(|text| serde_json::from_str(text).ok()),
            href: format!("/api/v1/albums/{}", utf8_percent_encode(name, SEGMENT)),
            name: name.to_owned(),
            files: row.files,
            bytes: row.bytes,
            newest: row.newest,
        }
    }
}

/// What is known of a file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(examples(json!({
    "id": "019aa7c4-6f02-7b11-9d5a-0a4b8a1c2d3e", "album": "shops/2026", "name": "front.jpg",
    "path": "shops/2026/front.jpg", "href": "/files/shops/2026/front.jpg", "format": "jpeg", "media_type": "image/jpeg",
    "bytes": 48211, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "width": 1280,
    "height": 720, "active": false, "name_from": "header", "stored": "2026-11-21T09:30:41Z",
    "urls": ["https://example.org/front.jpg"], "metadata": {"visit": "2026-11-20"},
})))]
pub(super) struct Image<'a> {
    /// Of this file, whatever its name.
    id: Uuid,
    /// The name of its album.
    album: &'a str,
    /// Below the folder of its album, or its whole path where it is elsewhere.
    name: &'a str,
    /// Below the store's root.
    path: &'a str,
    /// Where its bytes are.
    href: String,
    /// As its bytes show, such as `jpeg`.
    format: &'a str,
    /// The same as a media type.
    media_type: &'a str,
    /// Its length.
    bytes: u64,
    /// Its digest.
    sha256: Sha256,
    /// In pixels, where it has a width: as shown, with `orientation` applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    /// In pixels, where it has a height: as shown, with `orientation` applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    /// Whether it may run code in a browser.
    active: bool,
    /// EXIF orientation, 2 to 8. Absent where the picture stands as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    orientation: Option<u8>,
    /// Set where `image.check = "decode"` found no decoder for the picture's format or its variant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undecoded: bool,
    /// What gave it its name.
    name_from: NameFrom,
    /// When its bytes came.
    stored: DateTime<Utc>,
    /// The origin's time of the last modification.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<DateTime<Utc>>,
    /// The URLs that stand for it.
    urls: Vec<String>,
    /// Further columns of its list, and what clients said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
}

impl<'a> Image<'a> {
    /// What is known of it, with its URLs.
    pub(super) async fn read(api: &Api, row: &'a ImageRow) -> Result<Self, Problem> {
        let mut urls = urls(api, std::slice::from_ref(row)).await?;
        Ok(Self::of(row, urls.remove(&row.file.id).unwrap_or_default()))
    }

    /// The entity tag of an image in this state.
    pub(super) fn etag(state: &ImageState) -> Option<String> {
        etag(&Image::of(&state.row, state.urls.clone()))
    }

    /// Where all that is known of it is.
    pub(super) fn location(&self) -> String {
        let [album, name] = [self.album, self.name].map(|name| utf8_percent_encode(name, SEGMENT));
        format!("/api/v1/albums/{album}/images/{name}")
    }

    pub(super) fn of(row: &'a ImageRow, urls: Vec<String>) -> Self {
        let file = &row.file;
        let segments: Vec<Cow<'_, str>> = file
            .path
            .split('/')
            .map(|segment| utf8_percent_encode(segment, SEGMENT).into())
            .collect();
        let metadata = row.metadata.as_deref();
        Self {
            id: file.id,
            album: shown(&row.album),
            name: name(row),
            path: &file.path,
            href: format!("/files/{}", segments.join("/")),
            format: &file.format,
            media_type: &file.media_type,
            bytes: file.bytes,
            sha256: file.sha256,
            width: file.dimensions.map(|(width, _)| width),
            height: file.dimensions.map(|(_, height)| height),
            active: file.active,
            orientation: file.orientation,
            undecoded: file.undecoded.is_some(),
            name_from: file.name_from,
            stored: row.stored,
            last_modified: row.last_modified,
            urls,
            metadata: metadata.and_then(|text| serde_json::from_str(text).ok()),
        }
    }
}

fn shown(album: &str) -> &str {
    match album {
        "" => ROOT,
        album => album,
    }
}

/// Its name below the folder of its album, or its whole path where it is elsewhere.
pub(super) fn name(row: &ImageRow) -> &str {
    let path = &row.file.path;
    let below = path.strip_prefix(&row.album);
    below
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(path)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Most items of the page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Albums, by name
#[utoipa::path(get, path = "/api/v1/albums", operation_id = "listAlbums", tag = "albums", params(Wanted),
    responses((status = 200, description = "A page of them.", body = Page<Album>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(wanted): Parameters<Wanted>,
) -> Result<Response, Problem> {
    let limit = wanted.limit.unwrap_or_default();
    let after = List::Albums.key(wanted.cursor.as_deref())?;
    let rows = api.catalog.albums(after, limit.and_one()).await?;
    let (rows, page) = Page::of(List::Albums, limit, rows, |row| row.name.clone());
    // The root folder is there in any case.
    let albums = rows
        .into_iter()
        .filter(|album| album.files > 0 || !album.name.is_empty());
    Ok(json(&page.with(albums.map(Album::from))))
}

/// An album
#[utoipa::path(get, path = "/api/v1/albums/{album}", operation_id = "getAlbum", tag = "albums",
    params(("album" = String, Path, description = "Its name, `/` encoded.", example = "shops/2026")),
    responses(
        (status = 200, description = "What it holds.", body = Album, headers(
            ("ETag" = String, description = "Of this state; `If-Match` of a change takes it."),
        )),
        (status = 404, description = "There is no such album."),
    ))]
pub(super) async fn one(
    State(api): State<Api>,
    Names(name): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    Ok(tagged(&Album::from(find(&api, &name).await?)))
}

/// What the catalog calls an album that there has to be.
pub(super) async fn known(api: &Api, name: &str) -> Result<String, Problem> {
    match key(name) {
        Some(key) if api.catalog.has_album(&key).await? => Ok(key),
        _ => Err(Problem::not_found(format!("there is no album `{name}`"))),
    }
}

pub(super) async fn find(api: &Api, name: &str) -> Result<AlbumRow, Problem> {
    let album = match key(name) {
        Some(key) => api.catalog.album(&key).await?,
        None => None,
    };
    album.ok_or_else(|| Problem::not_found(format!("there is no album `{name}`")))
}

/// What the catalog calls an album; `None`: nothing can be called that.
pub(super) fn key(name: &str) -> Option<String> {
    match name {
        ROOT | "." => Some(String::new()),
        name => Some(AlbumName::recorded(name).ok()?.as_str().to_owned()),
    }
}

/// The images of an album, by path
#[utoipa::path(get, path = "/api/v1/albums/{album}/images", operation_id = "listImages", tag = "images",
    params(("album" = String, Path, description = "Its name, `/` encoded.", example = "shops/2026"), filter::Wanted,
        ("meta.NAME" = Option<String>, Query, description = "The text of that member of its metadata. Up to eight of these.")),
    responses(
        (status = 200, description = "A page of them.", body = Page<Image>),
        (status = 404, description = "There is no such album."),
    ))]
pub(super) async fn images(
    State(api): State<Api>,
    Names(name): Names<String>,
    Filtered {
        filter,
        limit,
        cursor,
    }: Filtered,
) -> Result<Response, Problem> {
    let album = known(&api, &name).await?;
    let after = List::Images.key(cursor.as_deref())?;
    let rows = api.catalog.images(&album, filter, after, limit.and_one());
    let rows = rows.await?;
    let (rows, page) = Page::of(List::Images, limit, rows, |row| row.file.path.clone());
    let mut urls = urls(&api, &rows).await?;
    let images = rows
        .iter()
        .map(|row| Image::of(row, urls.remove(&row.file.id).unwrap_or_default()));
    Ok(json(&page.with(images)))
}

/// An image
#[utoipa::path(get, path = "/api/v1/albums/{album}/images/{image}", operation_id = "getImage", tag = "images",
    params(
        ("album" = String, Path, description = "The name of its album, `/` encoded.", example = "shops/2026"),
        ("image" = String, Path, description = "Its name, `/` encoded.", example = "front.jpg"),
    ),
    responses(
        (status = 200, description = "What is known of it.", body = Image, headers(
            ("ETag" = String, description = "Of this state; `If-Match` of a change takes it. That of the bytes is another."),
        )),
        (status = 404, description = "There is no such image in that album."),
    ))]
pub(super) async fn image(
    State(api): State<Api>,
    Names((album, image)): Names<(String, String)>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    let row = image_of(&api, &album, &image).await?;
    Ok(tagged(&Image::read(&api, &row).await?))
}

/// The image of an album by its name, which there has to be.
pub(super) async fn image_of(api: &Api, album: &str, image: &str) -> Result<ImageRow, Problem> {
    let row = look_up(&*api.catalog, album, image).await?;
    row.ok_or_else(|| Problem::not_found(format!("there is no image `{image}` in album `{album}`")))
}

/// The image of an album by its name.
pub(super) async fn look_up(
    catalog: &dyn Catalog,
    album: &str,
    image: &str,
) -> Result<Option<ImageRow>, Problem> {
    let Some(album) = key(album) else {
        return Ok(None);
    };
    let image: String = image.nfc().collect();
    let below = match album.as_str() {
        "" => image.clone(),
        album => format!("{album}/{image}"),
    };
    for path in [below, image] {
        let found = catalog.image(&path).await?;
        if let Some(row) = found.filter(|row| row.album == album) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

pub(super) async fn urls(
    api: &Api,
    rows: &[ImageRow],
) -> Result<HashMap<Uuid, Vec<String>>, Problem> {
    let files = rows.iter().map(|row| row.file.id).collect();
    let mut urls: HashMap<Uuid, Vec<String>> = HashMap::new();
    for row in api.catalog.urls_of(files).await? {
        urls.entry(row.file).or_default().push(row.url);
    }
    Ok(urls)
}
