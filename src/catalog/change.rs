//! What clients change: albums, and files that no job brings or takes.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::tables::Value;
use super::{Event, FileRow, integer, millis};
use crate::naming::NameFrom;
use crate::target::AlbumName;

/// Changes that are made in one transaction.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Names them: what has the same id is not done twice in a row.
    pub id: Uuid,
    /// Who makes one set of changes, or writes one batch, after the other.
    pub writer: Uuid,
    /// When they are made.
    pub now: DateTime<Utc>,
    /// In this order.
    pub changes: Vec<Change>,
    /// What others may want to know of them.
    pub events: Vec<Event>,
}

/// Something that a client wants to be otherwise. Whoever makes it has seen to it that nothing is in its way.
#[derive(Debug, Clone)]
pub enum Change {
    /// A file that no URL brought.
    AddFile(Box<FileRow>),
    /// A file has another path, and may belong to another album.
    MoveFile {
        /// The file.
        id: Uuid,
        /// Where it is published, relative to the store's root.
        path: String,
        /// Its album; `None`: the root folder.
        album: Option<AlbumName>,
        /// What gave it that name.
        name_from: NameFrom,
        /// Set if a client named it. Stays set once it is.
        by_client: bool,
    },
    /// A file has other metadata.
    DescribeFile {
        /// The file.
        id: Uuid,
        /// A JSON object.
        metadata: Option<String>,
    },
    /// An album.
    AddAlbum {
        /// Its name.
        name: AlbumName,
        /// A JSON object.
        metadata: Option<String>,
    },
    /// An album has other metadata.
    DescribeAlbum {
        /// Its name.
        name: AlbumName,
        /// A JSON object.
        metadata: Option<String>,
    },
    /// An album, those below it, and every path below its folder have another name from now on. That the folder itself
    /// gets it is still to be done.
    BeginRename(Rename),
    /// It is done; `undo`: it could not be, so all is called again what it was.
    EndRename {
        /// What was begun.
        rename: Rename,
        /// Whether it could not be done.
        undo: bool,
    },
    /// An album that has no files is no more.
    DropAlbum {
        /// Its name.
        name: AlbumName,
    },
}

/// An album whose folder gets another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// Names the renaming.
    pub id: Uuid,
    /// What it was called.
    pub from: AlbumName,
    /// What it is called from now on.
    pub to: AlbumName,
    /// What tells its folder from others; `None`: it has none.
    pub folder: Option<String>,
}

/// Which images of an album are wanted. Nothing is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// gannet's word for the format.
    pub format: Option<String>,
    /// Length from and up to, in bytes.
    pub bytes: (Option<u64>, Option<u64>),
    /// Width from and up to, in pixels.
    pub width: (Option<u64>, Option<u64>),
    /// Height from and up to, in pixels.
    pub height: (Option<u64>, Option<u64>),
    /// When their bytes came: at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// When their bytes came: before this time.
    pub until: Option<DateTime<Utc>>,
    /// The host of a URL that stands for it, as URLs have it.
    pub host: Option<String>,
    /// Members of their metadata, and the text that each has to be. No name has `"` or `\`.
    pub metadata: Vec<(String, String)>,
}

/// How a kind of database says what a filter asks for.
pub(super) struct Dialect {
    /// What stands before the number of a parameter.
    pub(super) mark: char,
    /// Where a text begins in another.
    pub(super) position: &'static str,
    /// The text of a member of the metadata, whose name is the parameter at `{}`.
    pub(super) member: &'static str,
    /// What makes that parameter of a name.
    pub(super) member_name: fn(&str) -> String,
}

impl ImageFilter {
    /// Conditions on the file `f`, each after ` AND `, and their parameters, which begin with number `first`.
    pub(super) fn conditions(&self, dialect: &Dialect, first: usize) -> (String, Vec<Value>) {
        let mut sql = String::new();
        let mut values = Vec::new();
        let mut parameter = |value: Value| {
            values.push(value);
            format!("{}{}", dialect.mark, first + values.len() - 1)
        };
        if let Some(format) = &self.format {
            let format = parameter(Value::Text(format.clone()));
            sql += &format!(" AND f.format = {format}");
        }
        for (column, (from, up_to)) in [
            ("bytes", self.bytes),
            ("width", self.width),
            ("height", self.height),
        ] {
            for (comparison, bound) in [(">=", from), ("<=", up_to)] {
                if let Some(bound) = bound {
                    let bound = parameter(Value::Number(integer(bound)));
                    sql += &format!(" AND f.{column} {comparison} {bound}");
                }
            }
        }
        for (comparison, time) in [(">=", self.since), ("<", self.until)] {
            if let Some(time) = time {
                let time = parameter(Value::Number(millis(time)));
                sql += &format!(" AND f.stored {comparison} {time}");
            }
        }
        if let Some(host) = &self.host {
            // A URL of HTTP has a `/` behind its authority, and no `@` in its user information (RFC 3986).
            let position = dialect.position;
            let rest = format!("substr(u.url, {position}(u.url, '//') + 2)");
            let authority = format!("substr({rest}, 1, {position}({rest} || '/', '/') - 1)");
            let host = parameter(Value::Text(format!("@{host}:")));
            sql += &format!(
                " AND EXISTS (SELECT 1 FROM urls u WHERE u.file = f.id \
                 AND {position}('@' || {authority} || ':', {host}) > 0)"
            );
        }
        for (name, text) in &self.metadata {
            let name = parameter(Value::Text((dialect.member_name)(name)));
            let text = parameter(Value::Text(text.clone()));
            let member = dialect.member.replace("{}", &name);
            sql += &format!(" AND {member} = {text}");
        }
        (sql, values)
    }
}
