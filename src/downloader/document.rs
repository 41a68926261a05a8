//! Documents: the kind `document`, PDF and the files of office programs.
//!
//! What can be told cheaply is checked: the end of a PDF, the end of a ZIP archive, the directory of an OLE
//! compound file.

use super::sniff::{self, Look};
use super::window::{Window, corrupt};
use super::{Body, Downloader, Facts, Format, HEAD_BYTES, Hints, Rejection, Verdict};
use crate::target::Reason;

/// Downloads documents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Document;

/// What a document is packed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Pdf,
    Rtf,
    Zip,
    Ole,
}

macro_rules! documents {
    ($($name:literal in $container:ident: $media_type:literal;)*) => {
        const DOCUMENTS: &[(Format, Container)] = &[$((
            Format { name: $name, media_type: $media_type, extensions: &[$name] },
            Container::$container,
        ),)*];
        const ACCEPT: &str = concat!($($media_type, ",",)* "*/*;q=0.1");
    };
}

documents! {
    "pdf" in Pdf: "application/pdf";
    "docx" in Zip: "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
    "xlsx" in Zip: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
    "pptx" in Zip: "application/vnd.openxmlformats-officedocument.presentationml.presentation";
    "odt" in Zip: "application/vnd.oasis.opendocument.text";
    "ods" in Zip: "application/vnd.oasis.opendocument.spreadsheet";
    "odp" in Zip: "application/vnd.oasis.opendocument.presentation";
    "epub" in Zip: "application/epub+zip";
    "doc" in Ole: "application/msword";
    "xls" in Ole: "application/vnd.ms-excel";
    "ppt" in Ole: "application/vnd.ms-powerpoint";
    "rtf" in Rtf: "application/rtf";
}

/// The document format of that name.
pub(super) fn format_named(name: &str) -> Option<Format> {
    named(name).map(|(format, _)| format)
}

fn named(name: &str) -> Option<(Format, Container)> {
    DOCUMENTS
        .iter()
        .copied()
        .find(|(format, _)| format.name == name)
}

/// The format of `container` that the origin or a name claims.
fn hinted(hints: &Hints<'_>, container: Container) -> Option<Format> {
    let extension = hints
        .name
        .and_then(|name| name.rsplit_once('.'))
        .map(|(_, e)| e.to_ascii_lowercase());
    DOCUMENTS
        .iter()
        .find(|(format, packed)| {
            *packed == container
                && (hints.media_type == Some(format.media_type)
                    || extension.as_deref() == Some(format.name))
        })
        .map(|(format, _)| *format)
}

impl Downloader for Document {
    fn kind(&self) -> &str {
        "document"
    }

    fn accept(&self) -> &str {
        ACCEPT
    }

    fn sniff(&self, head: &[u8], hints: &Hints<'_>) -> Verdict {
        if head.is_empty() && hints.complete {
            return Verdict::Reject(Rejection::new(Reason::Empty, "the body has no bytes"));
        }
        let last = hints.complete || head.len() >= HEAD_BYTES;
        let look = sniff::look(head, last);
        let found = match look {
            Look::Undecided => return Verdict::More,
            Look::Known(known) => match known.extension {
                "zip" => match zip_entries(head).find_map(office_format) {
                    Some(format) => Some(format),
                    None if !last => return Verdict::More,
                    None => hinted(hints, Container::Zip),
                },
                // Which program wrote a compound file stands in its directory, which may be anywhere.
                "msi" => {
                    hinted(hints, Container::Ole).or_else(|| named("doc").map(|(format, _)| format))
                }
                other => named(other).map(|(format, _)| format),
            },
            _ => None,
        };
        match found {
            Some(format) => Verdict::Accept(format),
            None => Verdict::Reject(Rejection::new(
                Reason::WrongKind,
                format!("the body looks like {}, not a document", look.phrase()),
            )),
        }
    }

    fn inspect(&self, body: &Body, format: Format) -> Result<Facts, Rejection> {
        if body.is_empty() {
            return Err(Rejection::new(Reason::Empty, "the body has no bytes"));
        }
        let (_, container) = named(format.name).ok_or_else(|| {
            Rejection::new(
                Reason::WrongKind,
                format!("`{}` is no document format", format.name),
            )
        })?;
        let window = &mut Window::new(body);
        let format = match container {
            Container::Pdf => check_pdf(window).map(|()| format),
            Container::Rtf => check_rtf(window).map(|()| format),
            Container::Zip => check_zip(window).map(|()| format),
            Container::Ole => check_ole(window, format),
        }?;
        Ok(Facts::of(format))
    }
}

/// Names of the entries whose local headers (APPNOTE 4.3.7) are in `head`.
fn zip_entries(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    memchr::memmem::find_iter(head, b"PK\x03\x04").filter_map(|at| {
        let length = head.get(at + 26..at + 28)?;
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        head.get(at + 30..at + 30 + length)
    })
}

/// The format whose parts have such names.
fn office_format(entry: &[u8]) -> Option<Format> {
    let name = [(&b"word/"[..], "docx"), (b"xl/", "xlsx"), (b"ppt/", "pptx")]
        .iter()
        .find(|(folder, _)| entry.starts_with(folder))?
        .1;
    named(name).map(|(format, _)| format)
}

/// ISO 32000-1, 7.5.5, and what readers put up with: the end mark is in the last kilobyte, or at least
/// somewhere behind the first half of the file.
fn check_pdf(window: &mut Window<'_>) -> Result<(), Rejection> {
    match window.rfind(window.len() / 2, b"%%EOF")? {
        Some(_) => Ok(()),
        None => Err(corrupt(
            "the PDF is truncated: there is no `%%EOF` at its end",
        )),
    }
}

/// The last group has to be closed.
fn check_rtf(window: &mut Window<'_>) -> Result<(), Rejection> {
    let tail = window.len().saturating_sub(1024).max(5);
    match window.rfind(tail, b"}")? {
        Some(_) => Ok(()),
        None => Err(corrupt(
            "the RTF is truncated: its last group is not closed",
        )),
    }
}

/// The end of central directory record (APPNOTE 4.3.16) stands at the end, before a comment of at most
/// 64 KiB, and what it points to is inside the file.
fn check_zip(window: &mut Window<'_>) -> Result<(), Rejection> {
    let tail = window.len().saturating_sub(22 + 0xffff);
    let truncated = || corrupt("the archive is truncated: it has no central directory");
    let end = window.rfind(tail, b"PK\x05\x06")?.ok_or_else(truncated)?;
    let (size, offset) = (window.le32(end + 12)?, window.le32(end + 16)?);
    // Both are all ones where ZIP64 has the real ones.
    if size != u32::MAX && offset != u32::MAX && u64::from(size) + u64::from(offset) > end {
        return Err(truncated());
    }
    Ok(())
}

/// Which program wrote a compound file, by the names in the first sector of its directory ([MS-CFB] 2.6).
fn check_ole(window: &mut Window<'_>, claimed: Format) -> Result<Format, Rejection> {
    let shift = window.le16(30)?;
    if !matches!(shift, 9 | 12) {
        return Err(corrupt("the compound file has a damaged header"));
    }
    let sector = 1_u64 << shift;
    let directory = (u64::from(window.le32(48)?) + 1) * sector;
    window.require(directory, sector.min(512))?;
    for entry in window
        .up_to(directory, sector as usize)?
        .as_chunks::<128>()
        .0
    {
        let length = usize::from(u16::from_le_bytes([entry[64], entry[65]])).clamp(2, 64);
        let units = entry[..length - 2].as_chunks::<2>().0;
        let name: String = char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit)))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        let format = match name.as_str() {
            "WordDocument" => "doc",
            "Workbook" | "Book" => "xls",
            "PowerPoint Document" => "ppt",
            _ => continue,
        };
        return Ok(named(format).map_or(claimed, |(format, _)| format));
    }
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: Hints<'_> = Hints {
        media_type: None,
        name: None,
        complete: true,
    };

    fn check(bytes: &[u8]) -> Result<&'static str, Reason> {
        match Document.sniff(bytes, &COMPLETE) {
            Verdict::Accept(format) => Document
                .inspect(&Body::Memory(bytes.to_vec().into()), format)
                .map(|facts| facts.format.name)
                .map_err(|rejection| rejection.reason),
            Verdict::Reject(rejection) => Err(rejection.reason),
            Verdict::More => panic!("a complete head is judged"),
        }
    }

    fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, content) in entries {
            let offset = file.len() as u32;
            let mut fields = [0_u8; 22];
            fields[14..18].copy_from_slice(&(content.len() as u32).to_le_bytes());
            fields[18..22].copy_from_slice(&(content.len() as u32).to_le_bytes());
            let fields = [&fields[..], &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
            file.extend(
                [
                    b"PK\x03\x04",
                    &fields[..],
                    name.as_bytes(),
                    content.as_bytes(),
                ]
                .concat(),
            );
            directory.extend(
                [
                    b"PK\x01\x02\0\0",
                    &fields[..],
                    &[0; 10],
                    &offset.to_le_bytes(),
                    name.as_bytes(),
                ]
                .concat(),
            );
        }
        let (at, size) = (file.len() as u32, directory.len() as u32);
        file.extend(directory);
        file.extend(
            [
                b"PK\x05\x06",
                &[0_u8; 8][..],
                &size.to_le_bytes(),
                &at.to_le_bytes(),
                &[0, 0],
            ]
            .concat(),
        );
        file
    }

    fn ole(stream: &str) -> Vec<u8> {
        let mut file = vec![0; 3 * 512];
        file[..8].copy_from_slice(&[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1]);
        file[30] = 9;
        file[48] = 1;
        let name: Vec<u8> = stream.encode_utf16().flat_map(u16::to_le_bytes).collect();
        file[1024 + 128..][..name.len()].copy_from_slice(&name);
        file[1024 + 128 + 64] = name.len() as u8 + 2;
        file
    }

    #[test]
    fn each_format_is_known_and_its_end_is_looked_for() {
        let office = |part| {
            zip(&[
                ("[Content_Types].xml", "<Types/>"),
                ("_rels/.rels", "<r/>"),
                (part, "x"),
            ])
        };
        let open = |kind: &str| zip(&[("mimetype", kind), ("content.xml", "<x/>")]);
        let mut pdf = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n".repeat(9);
        pdf.extend(b"%%EOF\n\0\0\0");
        for (name, file) in [
            ("pdf", pdf),
            ("docx", office("word/document.xml")),
            ("xlsx", office("xl/workbook.xml")),
            ("pptx", office("ppt/presentation.xml")),
            ("odt", open("application/vnd.oasis.opendocument.text")),
            (
                "ods",
                open("application/vnd.oasis.opendocument.spreadsheet"),
            ),
            (
                "odp",
                open("application/vnd.oasis.opendocument.presentation"),
            ),
            ("epub", open("application/epub+zip")),
            ("doc", ole("WordDocument")),
            ("xls", ole("Workbook")),
            ("ppt", ole("PowerPoint Document")),
            ("rtf", b"{\\rtf1 some text}\n".to_vec()),
        ] {
            assert_eq!(check(&file), Ok(name));
            assert_eq!(
                check(&file[..file.len() * 3 / 5]),
                Err(Reason::Corrupt),
                "{name}"
            );
            for n in 0..file.len() {
                let _ = check(&file[..n]);
            }
        }
    }

    #[test]
    fn other_files_are_of_the_wrong_kind() {
        for other in [
            &b"<!DOCTYPE html><html>"[..],
            b"plain",
            b"\x89PNG\r\n\x1a\n",
            b"\0\x01\x02",
            &zip(&[("a", "b")]),
        ] {
            assert_eq!(check(other), Err(Reason::WrongKind));
        }
        assert_eq!(check(b""), Err(Reason::Empty));
    }
}
