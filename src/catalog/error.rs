//! Why the catalog could not do what it was asked to.

use crate::local_path::NotALocalPath;
use crate::target::Reason;

/// Why the catalog could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The setting names no catalog that this version has.
    #[error(
        "`catalog.url` is `{0}`; leave it empty, or write `sqlite:PATH` or `postgres://HOST/DATABASE`"
    )]
    UnsupportedUrl(String),
    /// The setting names a file that is not on a local file system.
    #[error("`catalog.url`: {0}")]
    NotALocalPath(#[from] NotALocalPath),
    /// It cannot be opened.
    #[error("cannot open the catalog `{catalog}`")]
    Open {
        /// The database, without credentials.
        catalog: String,
        /// What the database said.
        source: DatabaseError,
    },
    /// A database is there, and no catalog in it.
    #[error("there is no catalog in `{0}` yet; a run, or `gannet catalog migrate`, makes it")]
    Missing(String),
    /// An older gannet has written it, and it may not be changed now.
    #[error(
        "the catalog has version {version} of its tables, and this gannet reads version {latest}; the next run, or \
         `gannet catalog migrate`, brings it up to date"
    )]
    Outdated {
        /// The version that it has.
        version: i64,
        /// The version that it has to have.
        latest: i64,
    },
    /// Its tables cannot be brought up to date.
    #[error("cannot bring the catalog `{catalog}` up to date; a newer gannet may have written it")]
    Migrate {
        /// The database, without credentials.
        catalog: String,
        /// What the migration said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A query failed.
    #[error("the catalog cannot {action}")]
    Query {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the database said.
        source: DatabaseError,
    },
    /// Another process works with it.
    #[error("another process works with the catalog `{catalog}`")]
    Locked {
        /// The database, without credentials.
        catalog: String,
    },
    /// It did not come back in time.
    #[error("waited {} for the catalog, see `catalog.patience`", humantime::format_duration(*.waited))]
    Away {
        /// How long, in whole seconds.
        waited: std::time::Duration,
        /// What the last attempt said.
        source: Box<CatalogError>,
    },
    /// Something is to be copied into it, and it has something already.
    #[error("its table `{0}` is not empty; copy into a new catalog")]
    NotEmpty(&'static str),
    /// It was closed.
    #[error("the catalog is closed")]
    Closed,
    /// The thread that asked it is gone.
    #[error("a worker thread of the catalog panicked; please report it")]
    Worker,
}

/// What a database said.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL.
    #[error("{}", .0.as_database_error().map_or_else(|| .0.to_string(), |error| error.message().to_owned()))]
    Postgres(sqlx_core::Error),
}

impl From<sqlx_core::Error> for DatabaseError {
    // No source: the text of the error has that of its own, and with it a line of PostgreSQL's code.
    fn from(error: sqlx_core::Error) -> Self {
        Self::Postgres(error)
    }
}

impl CatalogError {
    pub(super) fn query<E: Into<DatabaseError>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Query {
            action,
            source: error.into(),
        }
    }

    /// The stable code that reports and the API carry.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Open { source, .. } | Self::Query { source, .. } if source.is_full() => {
                Reason::StoreFull
            }
            Self::Away { source, .. } => source.reason(),
            _ => Reason::StoreError,
        }
    }

    /// Whether the same may succeed in a while: somebody else holds the database, or it is not there at the moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Query { source, .. } => source.is_transient(),
            Self::UnsupportedUrl(_)
            | Self::NotALocalPath(_)
            | Self::Missing(_)
            | Self::Outdated { .. }
            | Self::Migrate { .. }
            | Self::Locked { .. }
            | Self::Away { .. }
            | Self::NotEmpty(_)
            | Self::Closed
            | Self::Worker => false,
        }
    }
}

impl DatabaseError {
    fn is_full(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            // Appendix A of PostgreSQL's manual: disk_full.
            Self::Postgres(error) => code(error).is_some_and(|code| code == "53100"),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ),
            Self::Postgres(sqlx_core::Error::Io(_) | sqlx_core::Error::PoolTimedOut) => true,
            Self::Postgres(error) => code(error).is_some_and(|code| {
                matches!(
                    &*code,
                    "40001" // serialization_failure
                    | "40P01" // deadlock_detected
                    | "53300" // too_many_connections
                    | "55P03" // lock_not_available
                    | "57P01" // admin_shutdown
                    | "57P02" // crash_shutdown
                    | "57P03" // cannot_connect_now
                ) || code.starts_with("08") // connection exceptions
            }),
        }
    }
}

/// What PostgreSQL calls an error.
fn code(error: &sqlx_core::Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error()?.code()
}
