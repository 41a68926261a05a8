//! CSV (RFC 4180) and TSV, with and without a header.

use std::borrow::Cow;
use std::io::Read;

use csv::ByteRecord;
use serde_json::{Map, Value};

use crate::source::address::looks_like_url;
use crate::source::decode::Input;
use crate::source::error::Stop;
use crate::source::lines::Lines;
use crate::source::row::{self, Column, Row, RowReader, url_column};
use crate::source::sink::SharedSink;

/// Longest row, in bytes. A quote that nobody closes is found out here.
const MAX_ROW_BYTES: usize = 1024 * 1024;

/// One entry for each row; `delimiter` is found in the first one where it is not given.
pub(super) fn parse(input: Input, delimiter: Option<u8>, sink: &SharedSink) -> Result<(), Stop> {
    let mut rows = Rows {
        lines: Lines::new(input),
        text: Vec::new(),
        delimiter: delimiter.unwrap_or(b','),
        overlong: false,
        line: 0,
    };
    let Some(mut table) = head(&mut rows, delimiter.is_none())? else {
        return Ok(());
    };
    if table.first_is_row {
        let entry = table.entry(&rows)?;
        sink.borrow_mut().push(entry)?;
    }
    while rows.next()? {
        let entry = table.entry(&rows)?;
        sink.borrow_mut().push(entry)?;
    }
    Ok(())
}

/// Reads the first row, which is a header unless a URL stands in it; `None` where there is no row.
fn head(rows: &mut Rows<Input>, find_delimiter: bool) -> Result<Option<Table>, Stop> {
    loop {
        if !rows.next()? {
            return Ok(None);
        }
        // Spreadsheets write `sep=;` above the header.
        if let [b's', b'e', b'p', b'=', delimiter] = *rows.text.as_slice() {
            rows.delimiter = delimiter;
            break;
        }
        if rows.text[0] != b'#' {
            if find_delimiter {
                rows.delimiter = likely_delimiter(&rows.text);
            }
            return Table::new(rows).map(Some);
        }
    }
    if rows.next()? {
        Table::new(rows).map(Some)
    } else {
        Ok(None)
    }
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
    first_is_row: bool,
    record: ByteRecord,
    reader: RowReader,
}

impl Table {
    fn new(rows: &Rows<Input>) -> Result<Self, Stop> {
        let mut record = ByteRecord::new();
        if rows.overlong {
            return Err(Stop::broken(rows.line, "the first row is too long"));
        }
        split(&rows.text, rows.delimiter, &mut record)
            .map_err(|error| Stop::broken(rows.line, error.to_string()))?;
        let cells: Vec<_> = record.iter().map(String::from_utf8_lossy).collect();
        let mut table = Self {
            columns: Vec::new(),
            url: 0,
            first_is_row: false,
            record: ByteRecord::new(),
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
            let names: String = cells.join(", ").chars().take(200).collect();
            return Err(Stop::not_a_list(
                "a table without a column for the URL",
                format!(
                    "call the column `url` (there are: {})",
                    names.escape_debug()
                ),
            ));
        };
        table.url = url;
        Ok(table)
    }

    fn entry(&mut self, rows: &Rows<Input>) -> Result<crate::source::Entry, Stop> {
        if rows.overlong {
            return Ok(row::overlong(rows.line, &rows.text));
        }
        // In a table of one column there is nothing to divide, and URLs may hold commas.
        if self.columns.len() == 1 && !rows.text.contains(&b'"') {
            let row = Row {
                url: &rows.text,
                ..Row::default()
            };
            return Ok(self.reader.entry(row, rows.line));
        }
        if let Err(error) = split(&rows.text, rows.delimiter, &mut self.record) {
            return Ok(row::invalid(rows.line, &rows.text, error.to_string()));
        }
        let mut row = Row::default();
        let (mut album, mut sha256, mut group) = (Cow::default(), Cow::default(), Cow::default());
        let mut metadata = Map::new();
        for (at, cell) in self.record.iter().enumerate() {
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
            return Ok(row::invalid(rows.line, &rows.text, "the URL is empty"));
        }
        Ok(self.reader.entry(row, rows.line))
    }
}

fn numbered(at: usize) -> String {
    format!("column {}", at + 1)
}

/// Divides a row into its cells.
fn split(row: &[u8], delimiter: u8, record: &mut ByteRecord) -> Result<(), csv::Error> {
    record.clear();
    if memchr::memchr(b'"', row).is_none() {
        for cell in row.split(|byte| *byte == delimiter) {
            record.push_field(cell);
        }
        return Ok(());
    }
    csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(row.len())
        .from_reader(row)
        .read_byte_record(record)
        .map(drop)
}

/// Rows as they are written. A row is several lines where a quoted cell has line ends.
///
/// The csv package divides rows into cells; it does not divide the list into rows, since a row of
/// unbounded length, or a line number that is wrong after CR or blank lines, would be the price.
struct Rows<R> {
    lines: Lines<R>,
    /// The row; line ends in it are LF.
    text: Vec<u8>,
    delimiter: u8,
    overlong: bool,
    /// Where the row begins.
    line: u64,
}

impl<R: Read> Rows<R> {
    /// Goes to the next row that is not blank; `false` at the end.
    fn next(&mut self) -> Result<bool, Stop> {
        self.text.clear();
        while self.text.is_empty() {
            let Some(line) = self.lines.next()? else {
                return Ok(false);
            };
            self.line = line.number;
            self.overlong = line.overlong;
            if !line.bytes.trim_ascii().is_empty() {
                self.text.extend_from_slice(line.bytes);
            }
        }
        let mut state = Cell::Start;
        let mut seen = 0;
        while !self.overlong && self.is_open(&mut state, &mut seen) {
            let Some(line) = self.lines.next()? else {
                return Err(Stop::broken(self.line, "a quote is never closed"));
            };
            if line.overlong || self.text.len() + line.bytes.len() > MAX_ROW_BYTES {
                return Err(Stop::broken(
                    self.line,
                    format!("a quote is not closed within {} KiB", MAX_ROW_BYTES / 1024),
                ));
            }
            self.text.push(b'\n');
            self.text.extend_from_slice(line.bytes);
        }
        Ok(true)
    }

    /// Whether the row, read from `seen` on, ends within quotes. Only a quote that begins a cell counts.
    fn is_open(&self, state: &mut Cell, seen: &mut usize) -> bool {
        if *seen == 0 && memchr::memchr(b'"', &self.text).is_none() {
            return false;
        }
        for byte in &self.text[*seen..] {
            *state = match (*state, *byte) {
                (Cell::Quoted, b'"') => Cell::Quote,
                (Cell::Quoted, _) => Cell::Quoted,
                (Cell::Start | Cell::Quote, b'"') => Cell::Quoted,
                (_, byte) if byte == self.delimiter => Cell::Start,
                _ => Cell::Plain,
            };
        }
        *seen = self.text.len();
        *state == Cell::Quoted
    }
}

/// Where in a cell a byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Start,
    Plain,
    Quoted,
    /// Behind a quote inside quotes: their end, or half of a doubled one.
    Quote,
}

#[cfg(test)]
mod tests {
    use crate::source::ListFormat::{Csv, Tsv};
    use crate::source::testing::{entries, failure, said, targets};
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
    fn a_table_without_urls_or_with_an_open_quote_is_an_error() {
        assert!(failure(Csv, "id,title\n1,x\n").contains("(there are: id, title)"));
        assert!(
            failure(Csv, "url,a\nhttps://a.example/,b\n\"x,c\n")
                .contains("line 3: a quote is never closed")
        );
        let endless = format!("url,a\n\"{}", "x\n".repeat(2_000_000));
        assert!(failure(Csv, &endless).contains("line 2: a quote is not closed within"));
    }
}
