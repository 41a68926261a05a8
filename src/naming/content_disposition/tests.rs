use super::*;
use proptest::prelude::*;

/// Headers that name a file, and the name.
#[rustfmt::skip]
const NAMED: &[(&[u8], &str)] = &[
    // RFC 6266, the plain forms.
    (b"attachment; filename=\"a.jpg\"", "a.jpg"),
    (b"attachment; filename=a.jpg", "a.jpg"),
    (b"inline; filename=\"a.jpg\"", "a.jpg"),
    (b"inline;filename=a.jpg", "a.jpg"),
    (b"ATTACHMENT; FILENAME=\"a.jpg\"", "a.jpg"),
    (b"Attachment; FileName=a.jpg", "a.jpg"),
    (b"attachment; filename = \"a.jpg\"", "a.jpg"),
    (b"attachment; filename= a.jpg", "a.jpg"),
    (b"attachment; filename =a.jpg", "a.jpg"),
    (b"attachment;\tfilename\t=\t\"a.jpg\"", "a.jpg"),
    (b"attachment; size=7; filename=\"a.jpg\"; creation-date=\"Wed, 12 Feb 1997 16:29:51 -0500\"", "a.jpg"),
    (b"attachment; creation-date=\"Wed, 12 Feb; 1997\"; filename=a.jpg", "a.jpg"),
    (b"form-data; name=\"file\"; filename=\"a.jpg\"", "a.jpg"),
    (b"attachment; filename=\"a b  c.jpg\"", "a b  c.jpg"),
    (b"attachment; filename=\" a.jpg \"", "a.jpg"),
    (b"attachment; filename=\"a;b.jpg\"", "a;b.jpg"),
    (b"attachment; filename=\"a=b.jpg\"", "a=b.jpg"),
    (b"attachment; filename=\"a,b.jpg\"", "a,b.jpg"),
    (b"attachment; filename=\"a'b.jpg\"", "a'b.jpg"),
    (b"attachment; filename=\"0000000000111111111122222222223333333333.jpg\"", "0000000000111111111122222222223333333333.jpg"),
    // Escapes.
    (b"attachment; filename=\"f\\oo.jpg\"", "foo.jpg"),
    (b"attachment; filename=\"say \\\"hi\\\".jpg\"", "say \"hi\".jpg"),
    (b"attachment; filename=\"\\\"\\\\\\\".jpg\"", "\".jpg"),
    (b"attachment; x=\"\\\"; filename=no.jpg\"; filename=a.jpg", "a.jpg"),
    (b"attachment; x=\"\\\"\\\\\";filename=\"a.jpg\"", "a.jpg"),
    (b"attachment; filename=\"a\\;b.jpg\"", "a;b.jpg"),
    // What is no token, without quotes.
    (b"attachment; filename=my cat.jpg", "my cat.jpg"),
    (b"attachment; filename=my cat.jpg; size=3", "my cat.jpg"),
    (b"attachment; filename=a,b.jpg", "a,b.jpg"),
    (b"attachment; filename=a=b.jpg", "a=b.jpg"),
    (b"attachment; filename=a[1](2).jpg", "a[1](2).jpg"),
    (b"attachment; filename=a@b:c.jpg", "a@b:c.jpg"),
    (b"attachment; filename='a.jpg'", "'a.jpg'"),
    (b"attachment; filename=a'b.jpg", "a'b.jpg"),
    (b"attachment; filename=a\"b.jpg", "a\"b.jpg"),
    // Quotes that are missing, doubled or followed by something.
    (b"attachment; filename=\"a.jpg", "a.jpg"),
    (b"attachment; filename=a.jpg\"", "a.jpg"),
    (b"attachment; filename=\"my cat.jpg", "my cat.jpg"),
    (b"attachment; filename=\"a.jpg; size=3", "a.jpg"),
    (b"attachment; filename=\"a;b.jpg", "a;b.jpg"),
    (b"attachment; filename=\"a.jpg; filename*=UTF-8''b.jpg", "b.jpg"),
    (b"attachment; filename=\"a.jpg\\", "a.jpg"),
    (b"attachment; filename=\"a.jpg\".txt", "a.jpg"),
    (b"attachment; filename=\"a.jpg\" ; size=3", "a.jpg"),
    (b"attachment; filename=\"a.jpg\"\"", "a.jpg"),
    (b"attachment; filename=\"a.jpg\" junk; filename*=UTF-8''b.jpg", "b.jpg"),
    // Semicolons and other delimiters.
    (b"attachment; filename=\"a.jpg\";", "a.jpg"),
    (b"attachment; filename=a.jpg;;;", "a.jpg"),
    (b"attachment; filename=a.jpg ; ", "a.jpg"),
    (b"attachment;;filename=a.jpg", "a.jpg"),
    (b"attachment; ;filename=a.jpg", "a.jpg"),
    (b"attachment filename=a.jpg", "a.jpg"),
    (b"attachment filename=\"a.jpg\"", "a.jpg"),
    (b"attachment, filename=a.jpg", "a.jpg"),
    (b"attachment:filename=a.jpg", "a.jpg"),
    (b"attachment; foo filename=a.jpg", "a.jpg"),
    // The type is missing, odd, or doubled.
    (b"filename=a.jpg", "a.jpg"),
    (b"filename=\"a.jpg\"", "a.jpg"),
    (b"filename*=UTF-8''a.jpg", "a.jpg"),
    (b"filename=\"a.png\"; filename*=UTF-8''..", "a.png"),
    (b"; filename=a.jpg", "a.jpg"),
    (b"filename=a.jpg; attachment", "a.jpg"),
    (b": inline; attachment; filename=a.jpg", "a.jpg"),
    (b"inline; attachment; filename=a.jpg", "a.jpg"),
    (b"\"attachment\"; filename=a.jpg", "a.jpg"),
    (b"\"a; filename=no.jpg\"; filename=a.jpg", "a.jpg"),
    (b"*; filename=a.jpg", "a.jpg"),
    (b"=; filename=a.jpg", "a.jpg"),
    (b"x/y; filename=a.jpg", "a.jpg"),
    (b"\xff\xfe; filename=a.jpg", "a.jpg"),
    (b"  attachment  ; filename=a.jpg", "a.jpg"),
    // Parameters that only look like it.
    (b"attachment; xfilename=no.jpg; filename=a.jpg", "a.jpg"),
    (b"attachment; filenames=no.jpg; filename=a.jpg", "a.jpg"),
    (b"attachment; x-filename=\"filename=no.jpg\"; filename=a.jpg", "a.jpg"),
    (b"attachment; filename; filename=a.jpg", "a.jpg"),
    // The same parameter twice.
    (b"attachment; filename=a.jpg; filename=b.jpg", "a.jpg"),
    (b"attachment; filename=\"a.jpg\"; filename=\"b.jpg\"", "a.jpg"),
    (b"attachment; filename*=UTF-8''a.jpg; filename*=UTF-8''b.jpg", "a.jpg"),
    (b"attachment; filename=x=y.jpg; filename=b.jpg", "x=y.jpg"),
    // RFC 8187.
    (b"attachment; filename*=UTF-8''a.jpg", "a.jpg"),
    (b"attachment; filename*=utf-8''%e2%82%ac%20rates.jpg", "€ rates.jpg"),
    (b"attachment; filename*=UTF-8''%E7%8C%AB.jpg", "猫.jpg"),
    (b"attachment; filename*=UTF-8''%F0%9F%98%80.jpg", "😀.jpg"),
    (b"attachment; filename*=UTF-8'en'%c2%a3.jpg", "£.jpg"),
    (b"attachment; filename*=UTF-8'de-CH'Z%C3%BCrich.jpg", "Zürich.jpg"),
    (b"attachment; filename*=iso-8859-1''foo-%E4.jpg", "foo-ä.jpg"),
    (b"attachment; filename*=ISO-8859-1'en'%A3%20rates.jpg", "£ rates.jpg"),
    (b"attachment; filename*=iso-8859-15''%A4.jpg", "€.jpg"),
    (b"attachment; filename*=windows-1252''%80.jpg", "€.jpg"),
    (b"attachment; filename*=Shift_JIS''%94%4C.jpg", "猫.jpg"),
    (b"attachment; filename*=gb18030''%C3%A8.jpg", "猫.jpg"),
    (b"attachment; filename*=koi8-r''%EB%EF%F4.jpg", "КОТ.jpg"),
    (b"attachment; filename*=UTF-8''a%cc%88.jpg", "a\u{308}.jpg"),
    (b"attachment; filename*=UTF-8''A-%2541.jpg", "A-%41.jpg"),
    (b"attachment; filename*=UTF-8''a'b.jpg", "a'b.jpg"),
    (b"attachment; filename*=UTF-8''a%27b.jpg", "a'b.jpg"),
    (b"attachment; filename*=UTF-8''a%22b.jpg", "a\"b.jpg"),
    (b"attachment; filename*=UTF-8''a%3Bb.jpg", "a;b.jpg"),
    (b"attachment; FILENAME*=utf-8''a.jpg", "a.jpg"),
    (b"attachment; filename*=UTF-8''a.jpg;", "a.jpg"),
    // Both: the extended one wins, wherever it stands.
    (b"attachment; filename=\"a.jpg\"; filename*=UTF-8''%c3%a4.jpg", "ä.jpg"),
    (b"attachment; filename*=UTF-8''%c3%a4.jpg; filename=\"a.jpg\"", "ä.jpg"),
    (b"attachment; filename=\"EURO rates\"; filename*=utf-8''%e2%82%ac%20rates", "€ rates"),
    (b"attachment; filename*=UTF-8''b.jpg; filename*0=\"c\"; filename*1=\".jpg\"", "b.jpg"),
    (b"attachment; filename=\"\"; filename*=UTF-8''b.jpg", "b.jpg"),
    // RFC 8187, not quite.
    (b"attachment; filename*=\"UTF-8''a%20b.jpg\"", "a b.jpg"),
    (b"attachment; filename*= UTF-8''a.jpg", "a.jpg"),
    (b"attachment; filename* =UTF-8''a.jpg", "a.jpg"),
    (b"attachment; filename *=UTF-8''a.jpg", "a.jpg"),
    (b"attachment; filename*=UTF-8''my cat.jpg", "my cat.jpg"),
    (b"attachment; filename*=UTF-8''caf\xc3\xa9.jpg", "café.jpg"),
    (b"attachment; filename*=''a%20b.jpg", "a b.jpg"),
    (b"attachment; filename*=utf8''%c3%a4.jpg", "ä.jpg"),
    // A broken extended one gives way to the plain one.
    (b"attachment; filename*=UTF-8''%E4.jpg; filename=a.jpg", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=UTF-8''%ff%fe.jpg", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=UTF-8''b%.jpg", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=UTF-8''b%zz.jpg", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=UTF-8''b%2", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=b.jpg", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=UTF-8'b.jpg", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=no-such-charset''b.jpg", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=UTF-8''", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=\"\"", "a.jpg"),
    (b"attachment; filename=a.jpg; filename*=''", "a.jpg"),
    // Raw bytes.
    (b"attachment; filename=\"caf\xc3\xa9.jpg\"", "café.jpg"),
    (b"attachment; filename=caf\xc3\xa9.jpg", "café.jpg"),
    (b"attachment; filename=\"caf\xe9.jpg\"", "café.jpg"),
    (b"attachment; filename=caf\xe9.jpg", "café.jpg"),
    (b"attachment; filename=\"\xe7\x8c\xab.jpg\"", "猫.jpg"),
    (b"attachment; filename=\"\x80.jpg\"", "€.jpg"),
    (b"attachment; filename=\"\xef\xbb\xbfa.jpg\"", "\u{feff}a.jpg"),
    // Percent signs in the plain form are no escapes.
    (b"attachment; filename=\"100%.jpg\"", "100%.jpg"),
    (b"attachment; filename=\"foo-%41.jpg\"", "foo-%41.jpg"),
    (b"attachment; filename=a%20b.jpg", "a%20b.jpg"),
    (b"attachment; filename=\"..%2f..%2fa.jpg\"", "..%2f..%2fa.jpg"),
    // Encoded words.
    (b"attachment; filename=\"=?UTF-8?B?w6QuanBn?=\"", "ä.jpg"),
    (b"attachment; filename==?UTF-8?B?w6QuanBn?=", "ä.jpg"),
    (b"attachment; filename=\"=?utf-8?b?w6QuanBn?=\"", "ä.jpg"),
    (b"attachment; filename=\"=?UTF-8?B?4oKs?=\"", "€"),
    (b"attachment; filename=\"=?UTF-8?B?w6Q?=.jpg\"", "ä.jpg"),
    (b"attachment; filename=\"=?ISO-8859-1?Q?foo-=E4.jpg?=\"", "foo-ä.jpg"),
    (b"attachment; filename==?ISO-8859-1?Q?foo-=E4.jpg?=", "foo-ä.jpg"),
    (b"attachment; filename=\"=?UTF-8?Q?my_caf=C3=A9.jpg?=\"", "my café.jpg"),
    (b"attachment; filename=\"=?UTF-8?Q?a?= =?UTF-8?Q?b.jpg?=\"", "ab.jpg"),
    (b"attachment; filename=\"=?UTF-8?Q?a=C3?= =?UTF-8?Q?=A4.jpg?=\"", "aä.jpg"),
    (b"attachment; filename=\"=?UTF-8?Q?a?= b =?ISO-8859-1?Q?=E4.jpg?=\"", "a b ä.jpg"),
    (b"attachment; filename=\"=?UTF-8*en?Q?a.jpg?=\"", "a.jpg"),
    (b"attachment; filename=\"=?UTF-8?Q?a=2F..=2Fb.jpg?=\"", "b.jpg"),
    (b"attachment; filename=\"=?UTF-8?X?a.jpg?=\"", "=?UTF-8?X?a.jpg?="),
    (b"attachment; filename=\"=?nope?Q?a.jpg?=\"", "=?nope?Q?a.jpg?="),
    (b"attachment; filename=\"=?UTF-8?Q?a=ZZ.jpg?=\"", "=?UTF-8?Q?a=ZZ.jpg?="),
    (b"attachment; filename=\"=?UTF-8?Q?a.jpg\"", "=?UTF-8?Q?a.jpg"),
    (b"attachment; filename=\"a=?b.jpg\"", "a=?b.jpg"),
    // Continuations.
    (b"attachment; filename*0=\"foo.\"; filename*1=\"jpg\"", "foo.jpg"),
    (b"attachment; filename*1=\"jpg\"; filename*0=\"foo.\"", "foo.jpg"),
    (b"attachment; filename*0=foo; filename*1=.jpg", "foo.jpg"),
    (b"attachment; filename*0=\"foo\"; filename*1=\"\\b\\a\\r.jpg\"", "foobar.jpg"),
    (b"attachment; filename*0*=UTF-8''foo-%c3%a4; filename*1=\".jpg\"", "foo-ä.jpg"),
    (b"attachment; filename*0*=UTF-8''f%c3; filename*1*=%a4.jpg", "fä.jpg"),
    (b"attachment; filename*0*=UTF-8''a%20; filename*1=\"%20\"; filename*2*=%20b.jpg", "a %20 b.jpg"),
    (b"attachment; filename*0=\"foo\"; filename*2=\"bar\"", "foo"),
    (b"attachment; filename*0=\"foo\"; filename*01=\"bar\"", "foo"),
    (b"attachment; FileName*0=\"foo\"; FILENAME*1=\".jpg\"", "foo.jpg"),
    (b"attachment; filename=\"a.jpg\"; filename*0=\"b\"; filename*1=\".jpg\"", "a.jpg"),
    (b"attachment; filename*=bad; filename*0=\"a\"; filename*1=\".jpg\"", "a.jpg"),
    // Paths.
    (b"attachment; filename=\"/etc/passwd\"", "passwd"),
    (b"attachment; filename=/etc/passwd", "passwd"),
    (b"attachment; filename=\"../../../a.jpg\"", "a.jpg"),
    (b"attachment; filename=\"..\\..\\a.jpg\"", "a.jpg"),
    (b"attachment; filename=\"..\\\\..\\\\a.jpg\"", "a.jpg"),
    (b"attachment; filename=..\\..\\a.jpg", "a.jpg"),
    (b"attachment; filename=\"C:\\Users\\ann\\a.jpg\"", "a.jpg"),
    (b"attachment; filename=\"C:\\\\Users\\\\ann\\\\a.jpg\"", "a.jpg"),
    (b"attachment; filename=C:\\a.jpg", "a.jpg"),
    (b"attachment; filename=\"\\\\foo.jpg\"", "foo.jpg"),
    (b"attachment; filename=\"\\\\\\\\host\\\\share\\\\a.jpg\"", "a.jpg"),
    (b"attachment; filename=\"dir/\\\\a.jpg\"", "a.jpg"),
    (b"attachment; filename*=UTF-8''%2fetc%2fpasswd", "passwd"),
    (b"attachment; filename*=UTF-8''..%2F..%2Fa.jpg", "a.jpg"),
    (b"attachment; filename*=UTF-8''..%5c..%5Ca.jpg", "a.jpg"),
    (b"attachment; filename*=UTF-8''../../a.jpg", "a.jpg"),
    (b"attachment; filename*=UTF-8''dir%2f; filename=a.jpg", "a.jpg"),
    // For `sanitise` to judge.
    (b"attachment; filename=\".htaccess\"", ".htaccess"),
    (b"attachment; filename=\"a\0b.jpg\"", "a\0b.jpg"),
    (b"attachment; filename*=UTF-8''a%00b.jpg", "a\0b.jpg"),
    (b"attachment; filename*=UTF-8''%E2%80%AEgpj.exe", "\u{202e}gpj.exe"),
    (b"attachment; filename=CON", "CON"),
];

const NAMELESS: &[&[u8]] = &[
    b"",
    b" ",
    b";",
    b";;;",
    b"=",
    b"\"",
    b"\"\"",
    b"inline",
    b"attachment",
    b"attachment;",
    b"\"inline\"",
    b"attachment; filename",
    b"attachment; filename=",
    b"attachment; filename=;",
    b"attachment; filename=\"\"",
    b"attachment; filename=\"",
    b"attachment; filename=\" \"",
    b"attachment; filename=\"/\"",
    b"attachment; filename=\"a/\"",
    b"attachment; filename*=",
    b"attachment; filename*=UTF-8''",
    b"attachment; filename*=UTF-8''%2F",
    b"attachment; filename=; filename*=''",
    b"attachment; filename*=UTF-8'x.png",
    b"attachment; filename*=UTF-8''a%2",
    b"attachment; filename*=a%20b.jpg",
    b"attachment; filename*=\"a%20b.jpg\"",
    b"attachment; filename*=UTF-8'a%20b.jpg",
    b"attachment; filename*=UTF-8''%E4.jpg",
    b"attachment; filename*=UTF-8''100%.jpg",
    b"attachment; filename*=UTF-8''f%oo.jpg",
    b"attachment; filename*=nope''a.jpg",
    b"attachment; xfilename=a.jpg",
    b"attachment; name=a.jpg",
    b"attachment; example=\"filename=a.jpg\"",
    b"attachment; filename*1=\"foo.\"; filename*2=\"jpg\"",
    b"attachment; filename*0*=foo",
    b"attachment; filename**=UTF-8''a.jpg",
    b"\xff\xfe\xfd",
];

#[test]
fn headers_as_origins_send_them_name_their_file() {
    let wrong: Vec<_> = NAMED
        .iter()
        .map(|&(header, name)| (header, content_disposition(header), name))
        .filter(|(_, found, name)| found.as_deref() != Some(*name))
        .map(|(header, found, name)| format!("{}: {found:?}, not {name:?}", header.escape_ascii()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn headers_without_a_name_give_none() {
    for header in NAMELESS {
        let name = content_disposition(header);
        assert_eq!(name, None, "{}", header.escape_ascii());
    }
}

#[test]
fn a_huge_header_is_read_in_linear_time() {
    let long = "x".repeat(10_000);
    let header = format!("attachment; filename=\"{long}.jpg\"");
    assert_eq!(
        content_disposition(header.as_bytes()),
        Some(format!("{long}.jpg"))
    );
    for piece in [
        ";",
        "filename=",
        "filename*0=a;",
        "\"",
        "\\",
        "=?",
        "=?a?b?",
        "; a",
        "%",
    ] {
        let header = format!("attachment; filename=\"{}", piece.repeat(100_000));
        content_disposition(header.as_bytes());
        content_disposition(header.replace('"', "").as_bytes());
    }
}

/// Bytes from the pieces that this header is made of.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"attachment",
        b";",
        b"; ",
        b"filename",
        b"*",
        b"*0",
        b"*1*",
        b"=",
        b"\"",
        b"\\",
        b"'",
        b"UTF-8''",
        b"iso-8859-1'",
        b"%",
        b"%41",
        b"%e4",
        b"\xc3\xa4",
        b"\xe4",
        b"=?",
        b"?=",
        b"?Q?",
        b"?B?",
        b"utf-8",
        b"/",
        b"..",
        b" ",
        b"\0",
        b"a.jpg",
    ];
    let piece = proptest::sample::select(pieces).prop_map(<[u8]>::to_vec);
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_header_panics_or_gives_a_path(header in prop_oneof![nasty(), any::<Vec<u8>>()]) {
        if let Some(name) = content_disposition(&header) {
            prop_assert!(!name.is_empty() && !name.contains(['/', '\\']), "{name:?}");
        }
    }

    #[test]
    fn a_name_comes_back_from_a_proper_header(name in "[^/\\\\\\s\\p{C}][^/\\\\\\p{C}]{0,40}[^/\\\\\\s\\p{C}]") {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let header = format!("attachment; filename=x; filename*=UTF-8''{}", utf8_percent_encode(&name, NON_ALPHANUMERIC));
        let found = content_disposition(header.as_bytes());
        prop_assert_eq!(found.as_ref(), Some(&name));
        prop_assume!(!name.contains("=?"));
        let header = format!("inline; filename=\"{}\"", name.replace('"', "\\\""));
        prop_assert_eq!(content_disposition(header.as_bytes()), Some(name));
    }
}
