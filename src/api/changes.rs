//! What clients change: albums, and the images in them.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::albums::{Album, Image, ROOT, find, image_of, key, known};
use super::conditions::Conditions;
use super::extract::{Names, Nothing, Parameters, Sent};
use super::{Api, Problem, tagged};
use crate::job::{AlbumWish, ImageWish, JobError, Refusal};
use crate::target::{AlbumName, Reason};

/// A new album.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAlbum, examples(json!({ "name": "shops/2026", "metadata": { "owner": "audit" } })))]
pub(super) struct New {
    /// Its name. `/` joins the folders that it is made of.
    name: String,
    /// Whatever is to be known of it, in up to 16 KiB.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Object, required = false)]
    metadata: Option<Map<String, Value>>,
}

/// What is to be different about an album.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AlbumChange, examples(json!({ "name": "shops/2027", "metadata": { "owner": null, "done": true } })))]
pub(super) struct AlbumChange {
    /// Its new name.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false)]
    name: Option<String>,
    /// What changes of its metadata: a merge patch (RFC 7396).
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Object, required = false)]
    metadata: Option<Map<String, Value>>,
}

/// What is to be different about an image.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImageChange, examples(json!({ "name": "entrance.jpg", "album": "shops/2027" })))]
pub(super) struct ImageChange {
    /// Its new name. An extension that does not agree with the bytes is set right.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false)]
    name: Option<String>,
    /// The album that it moves to.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false)]
    album: Option<String>,
    /// What changes of its metadata: a merge patch (RFC 7396).
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Object, required = false)]
    metadata: Option<Map<String, Value>>,
}

/// Null is no value of these.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Deletion {
    /// Whether its files go with it. Without, only an empty album goes.
    files: Option<bool>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::NoAlbum(_) | Refusal::NoImage => Self::not_found(detail),
            Refusal::Taken(_) | Refusal::Conflict(_) => Self::new(StatusCode::CONFLICT, detail),
            Refusal::Outdated(_) => Self::new(StatusCode::PRECONDITION_FAILED, detail),
            Refusal::Invalid { field, detail } => Self::invalid(field, detail),
            Refusal::Stopping => Self::unavailable(detail),
            Refusal::Failed(error) => failed(error),
        }
    }
}

fn failed(error: JobError) -> Problem {
    match error {
        JobError::Catalog(error) => error.into(),
        error if error.reason() == Reason::StoreFull => Problem::full(),
        error => Problem::internal(&error),
    }
}

fn album_name(name: &str) -> Result<AlbumName, Problem> {
    AlbumName::new(name).map_err(|error| Problem::invalid("name", error.to_string()))
}

/// The album of a path, which is not the root folder.
fn own_album(name: &str, what: &str) -> Result<AlbumName, Problem> {
    let key = key(name).ok_or_else(|| Problem::not_found(format!("there is no album `{name}`")))?;
    AlbumName::recorded(&key).map_err(|_| {
        let detail = format!("`{ROOT}` is the folder that holds the albums: it cannot be {what}");
        Problem::new(StatusCode::CONFLICT, detail)
    })
}

/// Make an album
#[utoipa::path(post, path = "/api/v1/albums", operation_id = "createAlbum", tag = "albums", request_body = New,
    responses(
        (status = 201, description = "It is there, and empty.", body = Album, headers(
            ("Location" = String, description = "Where it is."),
        )),
        (status = 409, description = "An album or a file has that name."),
        (status = 415, description = "The body is no JSON."),
        (status = 422, description = "It cannot have that name, or its metadata is too large."),
    ))]
pub(super) async fn create(
    State(api): State<Api>,
    _: Parameters<Nothing>,
    Sent(new): Sent<New>,
) -> Result<Response, Problem> {
    let name = album_name(&new.name)?;
    api.files.add_album(name.clone(), new.metadata).await?;
    let album = Album::from(find(&api, name.as_str()).await?);
    let location = [(header::LOCATION, album.href.clone())];
    Ok((StatusCode::CREATED, location, tagged(&album)).into_response())
}

/// Rename an album, or say more of it
///
/// Albums below it, and whatever lies in its folder, go with it. URLs that stand for its files go on to do so.
#[utoipa::path(patch, path = "/api/v1/albums/{album}", operation_id = "changeAlbum", tag = "albums",
    params(
        ("album" = String, Path, description = "Its name, `/` encoded.", example = "shops/2026"),
        ("If-Match" = Option<String>, Header, description = "An `ETag` of the same resource, or several, or `*`: change it only in that state."),
    ),
    request_body = AlbumChange,
    responses(
        (status = 200, description = "How it is by now.", body = Album, headers(
            ("ETag" = String, description = "Of this state."),
        )),
        (status = 404, description = "There is no such album."),
        (status = 409, description = "Something has the new name, or its folder is none of ours."),
        (status = 412, description = "It is not in the state that `If-Match` wants, or in one that `If-None-Match` does not want."),
        (status = 415, description = "The body is no JSON."),
        (status = 422, description = "It cannot have that name, or its metadata is too large."),
    ))]
pub(super) async fn alter_album(
    State(api): State<Api>,
    Names(name): Names<String>,
    _: Parameters<Nothing>,
    conditions: Conditions,
    Sent(change): Sent<AlbumChange>,
) -> Result<Response, Problem> {
    known(&api, &name).await?;
    let name = own_album(&name, "changed")?;
    let to = change.name.as_deref().map(album_name).transpose()?;
    let wish = AlbumWish {
        name: to,
        metadata: change.metadata,
    };
    let only_if = conditions.on(Album::etag);
    let row = api.files.alter_album(name, wish, only_if).await?;
    Ok(tagged(&Album::from(row)))
}

/// Delete an album
///
/// Albums below it stay, and so does what lies in its folder and is not recorded.
#[utoipa::path(delete, path = "/api/v1/albums/{album}", operation_id = "deleteAlbum", tag = "albums",
    params(
        ("album" = String, Path, description = "Its name, `/` encoded.", example = "shops/2026"),
        Deletion,
        ("If-Match" = Option<String>, Header, description = "An `ETag` of the same resource, or several, or `*`: change it only in that state."),
    ),
    responses(
        (status = 204, description = "It is no more."),
        (status = 404, description = "There is no such album."),
        (status = 409, description = "It has files that are to stay, or that somebody has altered."),
        (status = 412, description = "It is not in the state that `If-Match` wants, or in one that `If-None-Match` does not want."),
    ))]
pub(super) async fn delete_album(
    State(api): State<Api>,
    Names(name): Names<String>,
    Parameters(deletion): Parameters<Deletion>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    known(&api, &name).await?;
    let name = own_album(&name, "deleted")?;
    let with_files = deletion.files.unwrap_or(false);
    let only_if = conditions.on(Album::etag);
    api.files.delete_album(name, with_files, only_if).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Rename an image, move it to another album, or say more of it
///
/// URLs that stand for it go on to do so.
#[utoipa::path(patch, path = "/api/v1/albums/{album}/images/{image}", operation_id = "changeImage", tag = "images",
    params(
        ("album" = String, Path, description = "The name of its album, `/` encoded.", example = "shops/2026"),
        ("image" = String, Path, description = "Its name, `/` encoded.", example = "front.jpg"),
        ("If-Match" = Option<String>, Header, description = "An `ETag` of the same resource, or several, or `*`: change it only in that state."),
    ),
    request_body = ImageChange,
    responses(
        (status = 200, description = "How it is by now.", body = Image, headers(
            ("ETag" = String, description = "Of this state."),
        )),
        (status = 404, description = "There is no such image in that album."),
        (status = 409, description = "Something has the new name, or somebody has altered the file."),
        (status = 412, description = "It is not in the state that `If-Match` wants, or in one that `If-None-Match` does not want."),
        (status = 415, description = "The body is no JSON."),
        (status = 422, description = "It cannot have that name, there is no such album to move it to, or its metadata is too large."),
    ))]
pub(super) async fn alter_image(
    State(api): State<Api>,
    Names((album, image)): Names<(String, String)>,
    _: Parameters<Nothing>,
    conditions: Conditions,
    Sent(change): Sent<ImageChange>,
) -> Result<Response, Problem> {
    let row = image_of(&api, &album, &image).await?;
    let to = match change.album.as_deref() {
        None => None,
        Some(ROOT) => Some(None),
        Some(name) => {
            Some(Some(AlbumName::new(name).map_err(|error| {
                Problem::invalid("album", error.to_string())
            })?))
        }
    };
    let wish = ImageWish {
        name: change.name,
        album: to,
        metadata: change.metadata,
    };
    let naming = api.uploads.rules().naming.clone();
    let only_if = conditions.on(Image::etag);
    let altered = api
        .files
        .alter_image(row.file.id, wish, naming, only_if)
        .await?;
    Ok(tagged(&Image::of(&altered.row, altered.urls)))
}

/// Delete an image
///
/// A URL that stands for it brings it again when it is asked for the next time.
#[utoipa::path(delete, path = "/api/v1/albums/{album}/images/{image}", operation_id = "deleteImage", tag = "images",
    params(
        ("album" = String, Path, description = "The name of its album, `/` encoded.", example = "shops/2026"),
        ("image" = String, Path, description = "Its name, `/` encoded.", example = "front.jpg"),
        ("If-Match" = Option<String>, Header, description = "An `ETag` of the same resource, or several, or `*`: change it only in that state."),
    ),
    responses(
        (status = 204, description = "It is no more."),
        (status = 404, description = "There is no such image in that album."),
        (status = 409, description = "Somebody has altered the file, so it stays."),
        (status = 412, description = "It is not in the state that `If-Match` wants, or in one that `If-None-Match` does not want."),
    ))]
pub(super) async fn delete_image(
    State(api): State<Api>,
    Names((album, image)): Names<(String, String)>,
    _: Parameters<Nothing>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let row = image_of(&api, &album, &image).await?;
    let only_if = conditions.on(Image::etag);
    api.files.delete_image(row.file.id, only_if).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
