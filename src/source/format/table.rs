//! CSV (RFC 4180) and TSV, with and without a header.
//!
//! A quote opens a cell only where another one closes it: many writers, of TSV above all, do not quote at all. So a
//! quote that nobody closes is a character like any other, and costs no more than its row.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Read};

use serde_json::{Map, Value};

use crate::source::Entry;
use crate::source::address::looks_like_url;
use crate::source::decode::Input;
use crate::source::error::Stop;
use crate::source::lines::{Lines, MAX_LINE_BYTES};
use crate::source::row::{self, Column, Row, RowReader, url_column};
use crate::source::sink::SharedSink;

/// Longest row of several lines, in bytes. A quote that is not closed within it opens nothing.
const MAX_ROW_BYTES: usize = MAX_LINE_BYTES;

/// One entry for each row; `delimiter` is found in the first one where it is not given.
pub(super) fn parse(input: Input, delimiter: Option<u8>, sink: &SharedSink) -> Result<(), Stop> {
    let mut rows = Rows {
        lines: Lines::new(input),
        back: VecDeque::new(),
        text: Vec::new(),
        delimiter,
        url: None,
        overlong: false,
        line: 0,
    };
    let Some(mut table) = head(&mut rows)? else {
        return Ok(());
    };
    rows.url = Some((table.url, table.columns.len()));
    if table.first_is_row {
        let entry = table.entry(&rows);
        sink.borrow_mut().push(entry)?;
    }
    while rows.next()? {
        let entry = table.entry(&rows);
        sink.borrow_mut().push(entry)?;
    }
    Ok(())
}

/// Reads the first row, which is a header unless a URL stands in it; `None` where there is no row.
fn head(rows: &mut Rows<Input>) -> Result<Option<Table>, Stop> {
    loop {
        if !rows.next()? {
            return Ok(None);
        }
        // Spreadsheets write `sep=;` above the header.
        if let [b's', b'e', b'p', b'=', delimiter] = *rows.text.as_slice() {
            rows.delimiter = Some(delimiter);
            if !rows.next()? {
                return Ok(None);
            }
            break;
        }
        if rows.text[0] != b'#' {
            break;
        }
    }
    let delimiter = *rows
        .delimiter
        .get_or_insert_with(|| likely_delimiter(&rows.text));
    Table::new(rows, delimiter).map(Some)
}

/// The delimiter that divides most; a comma where none does.
fn likely_delimiter(row: &[u8]) -> u8 {
    let mut quoted = false;
    let mut counts = [(0, b','), (0, b';'), (0, b'\t')];
    for byte in row {
        quoted ^= *byte == b'"';
        for (count, delimiter) in &mut counts {
            *count += usize::from(!quoted && byte == delimiter);
        }
    }
    let [comma, others @ ..] = counts;
    others
        .into_iter()
        .fold(
            comma,
            |best, other| if other.0 > best.0 { other } else { best },
        )
        .1
}

/// What the first row tells of all others.
struct Table {
    columns: Vec<(Column, String)>,
    url: usize,
    delimiter: u8,
    first_is_row: bool,
    reader: RowReader,
}

impl Table {
    fn new(rows: &Rows<Input>, delimiter: u8) -> Result<Self, Stop> {
        if rows.overlong {
            return Err(Stop::broken(rows.line, "the first row is too long"));
        }
        let cells = split(&rows.text, delimiter);
        let cells: Vec<_> = cells
            .iter()
            .map(|cell| String::from_utf8_lossy(cell))
            .collect();
        let mut table = Self {
            columns: Vec::new(),
            url: 0,
            delimiter,
            first_is_row: false,
            reader: RowReader::default(),
        };
        if let Some(url) = cells.iter().position(|cell| looks_like_url(cell)) {
            table.url = url;
            table.first_is_row = true;
            // Without a header, the number of a column is its name.
            table.columns = (0..cells.len())
                .map(|at| (Column::Other, numbered(at)))
                .collect();
            return Ok(table);
        }
        for cell in &cells {
            let name = cell.trim();
            let taken = table.columns.iter().any(|(_, other)| other == name);
            let name = if name.is_empty() || taken {
                numbered(table.columns.len())
            } else {
                name.to_owned()
            };
            table.columns.push((Column::of(cell), name));
        }
        let Some(url) = url_column(table.columns.iter().map(|(column, _)| *column)) else {
            let names = cells.join(", ");
            let names = names.chars().take(200);
            let names: String = names.filter(|c| !c.is_control()).collect();
            return Err(Stop::not_a_list(
                "a table without a column for the URL",
                format!("call the column `url` (there are: {names})"),
            ));
        };
        table.url = url;
        Ok(table)
    }

    fn entry(&mut self, rows: &Rows<Input>) -> Entry {
        if rows.overlong {
            return row::overlong(rows.line, &rows.text);
        }
        // In a table of one column there is nothing to divide, and URLs may hold commas.
        if self.columns.len() == 1 && opening(&rows.text, 0).is_none() {
            let row = Row {
                url: &rows.text,
                ..Row::default()
            };
            return self.reader.entry(row, rows.line);
        }
        let cells = split(&rows.text, self.delimiter);
        let mut row = Row::default();
        let (mut album, mut sha256, mut group) = (Cow::default(), Cow::default(), Cow::default());
        let mut metadata = Map::new();
        for (at, cell) in cells.iter().enumerate() {
            if at == self.url {
                row.url = cell;
                continue;
            }
            if cell.is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(cell);
            match self.columns.get(at).map(|(column, _)| *column) {
                Some(Column::Name) => row.name = Some(text.into_owned()),
                Some(Column::Album) => album = text,
                Some(Column::Sha256) => sha256 = text,
                Some(Column::Group) => group = text,
                _ => {
                    let name = self
                        .columns
                        .get(at)
                        .map_or_else(|| numbered(at), |(_, name)| name.clone());
                    metadata.insert(name, Value::String(text.into_owned()));
                }
            }
        }
        row.album = Some(&album);
        row.sha256 = Some(&sha256);
        row.group = Some(&group);
        row.metadata = metadata;
        if row.url.trim_ascii().is_empty() {
            return row::invalid(rows.line, &rows.text, "the URL is empty");
        }
        self.reader.entry(row, rows.line)
    }
}

fn numbered(at: usize) -> String {
    format!("column {}", at + 1)
}

/// What a cell that begins with a quote turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    /// It is quoted, and its closing quote stands there.
    To(usize),
    /// The text ends before its closing quote; all before this place is seen.
    Open(usize),
    /// Something stands behind its closing quote: the quotes are part of it.
    Stray,
}

/// Returns the position of the quote that opens the cell at `begin`. Some writers put spaces before it.
fn opening(text: &[u8], begin: usize) -> Option<usize> {
    let at = text.get(begin..)?.iter().position(|byte| *byte != b' ')?;
    (text[begin + at] == b'"').then_some(begin + at)
}

/// Looks for the closing quote from `at` on, which is behind the opening one.
fn quoted(text: &[u8], mut at: usize, is_delimiter: impl Fn(u8) -> bool) -> Quoted {
    while let Some(quote) = memchr::memchr(b'"', &text[at..]) {
        let end = at + quote;
        if text.get(end + 1) == Some(&b'"') {
            at = end + 2;
            continue;
        }
        let next = text[end + 1..].iter().find(|byte| **byte != b' ');
        return if next.is_none_or(|next| is_delimiter(*next)) {
            Quoted::To(end)
        } else {
            Quoted::Stray
        };
    }
    Quoted::Open(text.len())
}

/// Divides a row into its cells.
fn split(row: &[u8], delimiter: u8) -> Vec<Cow<'_, [u8]>> {
    let mut cells = Vec::new();
    let mut begin = 0;
    loop {
        let open = opening(row, begin).map_or(begin, |quote| quote + 1);
        let quoted = match open == begin {
            true => Quoted::Stray,
            false => quoted(row, open, |byte| byte == delimiter),
        };
        let (cell, behind) = match quoted {
            Quoted::To(end) => (unquoted(&row[open..end]), end),
            Quoted::Open(_) | Quoted::Stray => {
                let length = memchr::memchr(delimiter, &row[begin..]);
                let end = length.map_or(row.len(), |length| begin + length);
                (Cow::Borrowed(&row[begin..end]), end)
            }
        };
        cells.push(cell);
        match memchr::memchr(delimiter, &row[behind..]) {
            Some(at) => begin = behind + at + 1,
            None => return cells,
        }
    }
}

/// The content of a quoted cell, in which quotes are doubled.
fn unquoted(cell: &[u8]) -> Cow<'_, [u8]> {
    let mut plain = Vec::new();
    let mut rest = cell;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        plain.extend_from_slice(&rest[..=quote]);
        rest = rest.get(quote + 2..).unwrap_or_default();
    }
    if plain.is_empty() {
        return Cow::Borrowed(cell);
    }
    plain.extend_from_slice(rest);
    Cow::Owned(plain)
}

/// Rows as they are written. A row is several lines where a quoted cell has line ends.
struct Rows<R> {
    lines: Lines<R>,
    /// Lines that were read in search of a closing quote, and are none of that cell.
    back: VecDeque<OwnLine>,
    /// The row; line ends in it are LF.
    text: Vec<u8>,
    /// `None`: not known yet.
    delimiter: Option<u8>,
    /// The column of the URL, and how many there are; `None` before the header is read.
    url: Option<(usize, usize)>,
    overlong: bool,
    /// Where the row begins.
    line: u64,
}

/// A line that is kept.
struct OwnLine {
    number: u64,
    bytes: Vec<u8>,
    overlong: bool,
}

impl<R: Read> Rows<R> {
    /// Goes to the next row that is not blank; `false` at the end.
    fn next(&mut self) -> Result<bool, Stop> {
        self.text.clear();
        while self.text.is_empty() {
            let Some(line) = self.next_line()? else {
                return Ok(false);
            };
            (self.line, self.overlong) = line;
            if self.text.trim_ascii().is_empty() {
                self.text.clear();
            }
        }
        if !self.overlong && memchr::memchr(b'"', &self.text).is_some() {
            self.close_quotes()?;
        }
        Ok(true)
    }

    /// Adds the next line to the text; answers with its number and whether it is overlong.
    fn next_line(&mut self) -> io::Result<Option<(u64, bool)>> {
        if let Some(line) = self.back.pop_front() {
            self.text.extend_from_slice(&line.bytes);
            return Ok(Some((line.number, line.overlong)));
        }
        let line = self.lines.next()?;
        Ok(line.map(|line| {
            self.text.extend_from_slice(line.bytes);
            (line.number, line.overlong)
        }))
    }

    /// Adds lines as long as a quoted cell is open.
    fn close_quotes(&mut self) -> io::Result<()> {
        let mut begin = 0;
        loop {
            if let Some(quote) = opening(&self.text, begin) {
                begin = self.close_cell(quote)?;
            }
            let rest = &self.text[begin..];
            match rest.iter().position(|byte| self.is_delimiter(*byte)) {
                Some(at) => begin += at + 1,
                None => return Ok(()),
            }
        }
    }

    /// Reads the cell that begins with the quote at `begin` to its end, and answers where that is, or where the
    /// search for it goes on. Lines that are none of the cell are kept for later.
    fn close_cell(&mut self, begin: usize) -> io::Result<usize> {
        let first_line = self.text.len();
        let mut lines: Vec<(u64, bool, usize)> = Vec::new();
        let mut at = begin + 1;
        loop {
            match quoted(&self.text, at, |byte| self.is_delimiter(byte)) {
                Quoted::To(end) if !self.has_swallowed_rows(begin, &lines) => return Ok(end),
                Quoted::To(_) | Quoted::Stray => break,
                Quoted::Open(seen) => at = seen,
            }
            self.text.push(b'\n');
            let start = self.text.len();
            let Some((number, overlong)) = self.next_line()? else {
                self.text.pop();
                break;
            };
            lines.push((number, overlong, start));
            if overlong || self.text.len() > MAX_ROW_BYTES {
                break;
            }
        }
        let mut end = self.text.len();
        for (number, overlong, start) in lines.into_iter().rev() {
            self.back.push_front(OwnLine {
                number,
                bytes: self.text[start..end].to_vec(),
                overlong,
            });
            end = start - 1;
        }
        self.text.truncate(first_line);
        // It is no quoted cell, so it ends at the next delimiter.
        Ok(begin)
    }

    /// Whether `lines`, taken for part of the cell at `begin`, are rows: a quote far below closed a stray one.
    fn has_swallowed_rows(&self, begin: usize, lines: &[(u64, bool, usize)]) -> bool {
        let (Some((url, columns)), Some(delimiter)) = (self.url, self.delimiter) else {
            return false;
        };
        // The end of the cell that begins a row looks like the beginning of another row.
        let begins_row = self.text[..begin].iter().all(|byte| *byte == b' ');
        let last = lines.len() - usize::from(begins_row && !lines.is_empty());
        columns > 1
            && lines[..last].iter().any(|(_, _, start)| {
                let line = &self.text[*start..];
                let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
                let cells = split(line, delimiter);
                cells.len() == columns
                    && cells
                        .get(url)
                        .is_some_and(|cell| looks_like_url(&String::from_utf8_lossy(cell)))
            })
    }

    fn is_delimiter(&self, byte: u8) -> bool {
        match self.delimiter {
            Some(delimiter) => byte == delimiter,
            None => matches!(byte, b',' | b';' | b'\t'),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::source::ListFormat::{Csv, Tsv};
    use crate::source::testing::{entries, failure, said, targets};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn named_columns_are_understood_and_others_are_kept() {
        let digest = "cd".repeat(32);
        let list = format!(
            "id,URL,File Name,album,sha256,group,\"image\"\r\n7,https://a.example/1,one.jpg,pets/cats,{digest},g1,x\r\n\
             \r\n8,https://a.example/2,,,,,\r\n"
        );
        let all = entries(Csv, list.as_bytes()).unwrap();
        let found = targets(&all);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].line, Some(2));
        assert_eq!(found[0].name.as_deref(), Some("one.jpg"));
        assert_eq!(found[0].album.as_ref().unwrap().as_str(), "pets/cats");
        assert_eq!(found[0].sha256.unwrap().to_string(), digest);
        assert_eq!(found[0].group.as_deref(), Some("g1"));
        assert_eq!(
            serde_json::Value::Object(*found[0].metadata.clone().unwrap()),
            json!({"id": "7", "image": "x"})
        );
        assert_eq!((found[1].line, found[1].name.as_deref()), (Some(4), None));
    }

    #[test]
    fn quotes_delimiters_and_ragged_rows() {
        for (format, list, wanted) in [
            (
                Csv,
                "url;name\nhttps://a.example/1,2;x",
                vec!["2 https://a.example/1,2"],
            ),
            (
                Csv,
                "sep=;\nurl;name\nhttps://a.example/1;x",
                vec!["3 https://a.example/1"],
            ),
            (
                Csv,
                "note,url\n\"two\r\nlines, and \"\"more\"\"\",https://a.example/1\nx,https://a.example/2",
                vec!["2 https://a.example/1", "4 https://a.example/2"],
            ),
            (
                Csv,
                "name,link\n5\" disk,https://a.example/1\ny,https://a.example/2",
                vec!["2 https://a.example/1", "3 https://a.example/2"],
            ),
            (
                Csv,
                "url\nhttps://a.example/1,2\n\"https://a.example/3,4\"",
                vec!["2 https://a.example/1,2", "3 https://a.example/3,4"],
            ),
            (
                Csv,
                "name,url\na\nb,https://a.example/1,c,d\n,\n",
                vec![
                    "2 !invalid-url a",
                    "3 https://a.example/1",
                    "4 !invalid-url ,",
                ],
            ),
            (
                Csv,
                "x,https://a.example/1\ny,https://a.example/2",
                vec!["1 https://a.example/1", "2 https://a.example/2"],
            ),
            (
                Csv,
                "# made by hand\nurl,name\nhello,x",
                vec!["3 !invalid-url hello"],
            ),
            (
                Tsv,
                "a cat\thttps://a.example/1\na, \"dog\"\thttps://a.example/2",
                vec!["1 https://a.example/1", "2 https://a.example/2"],
            ),
            (
                Tsv,
                "caption\turl\rx\thttps://a.example/1\r",
                vec!["2 https://a.example/1"],
            ),
            (
                Csv,
                "ID, \"URL\"\n1, \"https://a.example/1\"\n2,  \"https://a.example/2,3\" \n \"3\",https://a.example/4",
                vec![
                    "2 https://a.example/1",
                    "3 https://a.example/2,3",
                    "4 https://a.example/4",
                ],
            ),
            (
                Csv,
                "note, \"URL\"\nx, \"https://a.example/\n1\"\n \"two\nlines\", https://a.example/2",
                vec![
                    "2 !invalid-url https://a.example/\u{fffd}1",
                    "4 https://a.example/2",
                ],
            ),
            (
                Csv,
                " \"url\"\n \"https://a.example/1,2\"",
                vec!["2 https://a.example/1,2"],
            ),
            (
                Csv,
                "name,src,image_url\nx,s,https://a.example/1",
                vec!["2 https://a.example/1"],
            ),
            (Csv, "url,name\n", vec![]),
            (Csv, "", vec![]),
        ] {
            assert_eq!(said(format, list), wanted, "{list:?}");
        }
    }

    #[test]
    fn a_cell_that_makes_no_sense_spoils_its_row_only() {
        let list = "url,album,sha256\nhttps://a.example/1,../x,\nhttps://a.example/2,,zz\nhttps://a.example/3,ok,\n";
        assert_eq!(
            said(Csv, list),
            [
                "2 !invalid-url https://a.example/1",
                "3 !invalid-url https://a.example/2",
                "4 https://a.example/3"
            ]
        );
        let long = format!("url,a\n{},b\nhttps://a.example/1,c", "x".repeat(10_000_000));
        assert_eq!(entries(Csv, long.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn a_table_without_urls_is_an_error() {
        assert!(failure(Csv, "id,title\n1,x\n").contains("(there are: id, title)"));
        assert!(failure(Csv, "ID,'URL'\n1,x\n").contains("(there are: ID, 'URL')"));
    }

    #[test]
    fn a_quote_that_nobody_closes_is_part_of_its_cell() {
        let name = |format, list: &str, at: usize| {
            let all = entries(format, list.as_bytes()).unwrap();
            targets(&all)[at].name.clone().unwrap_or_default()
        };
        for (format, list, wanted, names) in [
            (
                Tsv,
                "url\tname\nhttps://a.example/1\t\"hello\nhttps://a.example/2\tx\n",
                vec!["2 https://a.example/1", "3 https://a.example/2"],
                vec!["\"hello", "x"],
            ),
            // What looks like the closing quote is none: something stands behind it.
            (
                Tsv,
                "url\tname\nhttps://a.example/1\t\"hello\nhttps://a.example/2\t\"well\" said\tx",
                vec!["2 https://a.example/1", "3 https://a.example/2"],
                vec!["\"hello", "\"well\" said"],
            ),
            // It could be one, but rows would be lost.
            (
                Tsv,
                "url\tname\nhttps://a.example/1\t\"hello\nhttps://a.example/2\tx\nhttps://a.example/3\t5\"",
                vec![
                    "2 https://a.example/1",
                    "3 https://a.example/2",
                    "4 https://a.example/3",
                ],
                vec!["\"hello", "x", "5\""],
            ),
            (
                Csv,
                "name,url\n\"a,https://a.example/1\n\"b, c\",https://a.example/2\n\"d\ne\",https://a.example/3\n",
                vec![
                    "2 https://a.example/1",
                    "3 https://a.example/2",
                    "4 https://a.example/3",
                ],
                vec!["\"a", "b, c", "d\ne"],
            ),
            // A cell that is open behind one that has line ends.
            (
                Csv,
                "name,url,x\n\"a\nb\",https://a.example/1,\"c\nd,https://a.example/2,\n",
                vec!["2 https://a.example/1", "4 https://a.example/2"],
                vec!["a\nb", "d"],
            ),
            (
                Csv,
                "name,url\n\"say \"\"hi\"\"\" ,https://a.example/1\n\"\",https://a.example/2\n",
                vec!["2 https://a.example/1", "3 https://a.example/2"],
                vec!["say \"hi\"", ""],
            ),
            (
                Csv,
                "\"the\nname\";url\nx;https://a.example/1",
                vec!["3 https://a.example/1"],
                vec![""],
            ),
            (
                Csv,
                "url,a\nhttps://a.example/1,b\n\"x,c\n",
                vec!["2 https://a.example/1", "3 !invalid-url \"x"],
                vec![""],
            ),
        ] {
            assert_eq!(said(format, list), wanted, "{list:?}");
            for (at, wanted) in names.iter().enumerate() {
                assert_eq!(name(format, list, at), *wanted, "{list:?}");
            }
        }
    }

    #[test]
    fn a_cell_of_more_than_64_kib_is_not_quoted() {
        for (lines, wanted) in [(1_000, 2), (40_000, 40_002)] {
            let list = format!(
                "url,a\nhttps://a.example/1,\"{}\"\nhttps://a.example/2,c\n",
                "x\n".repeat(lines)
            );
            assert_eq!(entries(Csv, list.as_bytes()).unwrap().len(), wanted);
        }
        // An overlong line is one too.
        let list = format!(
            "url,a\nhttps://a.example/1,\"\n{}\nhttps://a.example/2,c\n",
            "x".repeat(1_000_000)
        );
        let said = said(Csv, &list);
        assert_eq!(said.len(), 3);
        assert_eq!(said[2], "4 https://a.example/2");
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(
            rows in proptest::collection::vec(("[a\",; \n\t]{0,8}", "[a\",;\n]{0,8}"), 1..8)
        ) {
            let quote = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
            let mut list = "name,url,x\n".to_owned();
            for (name, other) in &rows {
                list += &format!("{},https://a.example/,{}\n", quote(name), quote(other));
            }
            let all = entries(Csv, list.as_bytes()).unwrap();
            let found = targets(&all);
            prop_assert_eq!(found.len(), rows.len());
            for (target, (name, other)) in found.iter().zip(&rows) {
                let blank = name.trim().is_empty();
                prop_assert_eq!(target.name.clone(), (!blank).then(|| name.clone()));
                let x = target.metadata.as_ref().and_then(|all| all["x"].as_str()).unwrap_or_default();
                prop_assert_eq!(x, other);
            }
        }

        #[test]
        fn no_row_is_lost_to_stray_quotes(cells in proptest::collection::vec("[a\" ]{0,4}", 1..30)) {
            let list: String = cells.iter().map(|cell| format!("https://a.example/\t{cell}\n")).collect();
            prop_assert_eq!(entries(Tsv, format!("url\tname\n{list}").as_bytes()).unwrap().len(), cells.len());
        }
    }
}
