//! The lines of the demo's list, and what must become of each.

use crate::naming::NameFrom;
use crate::target::{Outcome, Reason};

/// What must become of one line of the demo's list with the default settings. What is stored on the first run is
/// unchanged on the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// The URL's path; it begins with `/`.
    pub path: &'static str,
    /// What must become of it.
    pub outcome: Outcome,
    /// Why, when nothing is kept.
    pub reason: Option<Reason>,
    /// gannet's word for the format, when it is kept.
    pub format: Option<&'static str>,
    /// What names the file, when it is kept.
    pub name_from: Option<NameFrom>,
    /// The file's name, when it is kept and not random.
    pub name: Option<&'static str>,
    /// What is special about it.
    pub comment: &'static str,
}

const fn kept(
    path: &'static str,
    format: &'static str,
    name: &'static str,
    comment: &'static str,
) -> Expectation {
    Expectation {
        path,
        outcome: Outcome::Stored,
        reason: None,
        format: Some(format),
        name_from: Some(NameFrom::Header),
        name: Some(name),
        comment,
    }
}

const fn random(path: &'static str, format: &'static str, comment: &'static str) -> Expectation {
    Expectation {
        name_from: Some(NameFrom::Random),
        name: None,
        ..kept(path, format, "", comment)
    }
}

const fn bad(
    path: &'static str,
    outcome: Outcome,
    reason: Reason,
    comment: &'static str,
) -> Expectation {
    Expectation {
        path,
        outcome,
        reason: Some(reason),
        format: None,
        name_from: None,
        name: None,
        comment,
    }
}

/// Every line of the demo's list, in its order.
pub(super) const EXPECTED: [Expectation; 21] = [
    kept(
        "/pictures/mandelbrot.png",
        "png",
        "mandelbrot.png",
        "PNG, named by a plain Content-Disposition",
    ),
    kept(
        "/pictures/julia.jpg",
        "jpeg",
        "julia.jpg",
        "JPEG, its name without quotes",
    ),
    kept(
        "/pictures/dunes.jpeg",
        "jpeg",
        "Dünen am Abend.jpeg",
        "JPEG, its name in UTF-8 (filename*)",
    ),
    kept("/pictures/plasma.bmp", "bmp", "plasma.bmp", "BMP"),
    kept("/pictures/orbit.gif", "gif", "orbit.gif", "GIF, animated"),
    kept(
        "/pictures/gannet.svg",
        "svg",
        "gannet.svg",
        "SVG, compressed on the way (Content-Encoding: gzip)",
    ),
    kept("/pictures/terrain.tiff", "tiff", "terrain.tiff", "TIFF"),
    kept("/pictures/drop.ico", "ico", "drop.ico", "ICO"),
    kept(
        "/pictures/ball.rgb",
        "rgb",
        "ball.rgb",
        "RGB, which is SGI's format",
    ),
    kept("/pictures/sea.webp", "webp", "sea.webp", "WebP"),
    random(
        "/pictures/cells",
        "png",
        "no Content-Disposition: gets a random name",
    ),
    kept(
        "/pictures/tiles.png",
        "png",
        "passwd.png",
        "asks to be named ../../etc/passwd.png: only the last part is used",
    ),
    kept(
        "/pictures/nebula.jpg",
        "jpeg",
        "nebula.jpg",
        "slow: comes in drops, for a second and a half",
    ),
    kept(
        "/pictures/rings.png",
        "png",
        "rings.png",
        "fails twice with 503 and Retry-After, then comes",
    ),
    kept(
        "/latest",
        "png",
        "mountains.png",
        "a redirect to /pictures/mountains.png",
    ),
    bad(
        "/broken/login.jpg",
        Outcome::Rejected,
        Reason::WrongKind,
        "an HTML login page that says it is image/jpeg",
    ),
    bad(
        "/broken/half.jpg",
        Outcome::Rejected,
        Reason::Corrupt,
        "half a JPEG, whole by its Content-Length",
    ),
    bad(
        "/broken/cut.png",
        Outcome::Failed,
        Reason::Truncated,
        "the connection is cut within the body, each time",
    ),
    bad(
        "/broken/missing.png",
        Outcome::Failed,
        Reason::Status,
        "404 Not Found",
    ),
    bad(
        "/broken/entity.svg",
        Outcome::Rejected,
        Reason::Corrupt,
        "an SVG with an external entity",
    ),
    bad(
        "/broken/empty.gif",
        Outcome::Rejected,
        Reason::Empty,
        "no bytes at all",
    ),
];

/// Every line of the demo's list, in its order.
pub fn expected() -> Vec<Expectation> {
    EXPECTED.to_vec()
}
