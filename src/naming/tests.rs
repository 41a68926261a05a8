use super::*;
use chrono::TimeZone as _;
use proptest::prelude::*;

use crate::target::{AlbumName, Sha256};

const JPEG: Format = Format {
    name: "jpeg",
    media_type: "image/jpeg",
    extensions: &["jpg", "jpeg", "jpe", "jfif"],
};
const SVG: Format = Format {
    name: "svg",
    media_type: "image/svg+xml",
    extensions: &["svg"],
};
const ANY: Format = Format {
    name: "any",
    media_type: "application/octet-stream",
    extensions: &[],
};

fn jpeg(raw: &str) -> Option<String> {
    sanitise(raw, &JPEG).map(|name| name.to_string())
}

fn any(raw: &str) -> Option<String> {
    sanitise(raw, &ANY).map(|name| name.to_string())
}

fn settings(order: &[NameFrom], template: &str) -> Settings {
    Settings {
        order: order.to_vec(),
        template: template.parse().unwrap(),
    }
}

#[test]
fn the_extension_agrees_with_the_format() {
    for (raw, name) in [
        ("cat.jpg", "cat.jpg"),
        ("cat.JPG", "cat.JPG"),
        ("cat.Jpeg", "cat.Jpeg"),
        ("cat.png", "cat.jpg"),
        ("cat.PHP", "cat.jpg"),
        ("cat.tmp", "cat.jpg"),
        ("cat", "cat.jpg"),
        ("cat.", "cat.jpg"),
        ("cat .html", "cat.jpg"),
        ("cat..jpg", "cat.jpg"),
        ("v1.2", "v1.2.jpg"),
        ("St. Mary", "St. Mary.jpg"),
        ("cat.jpg.html", "cat.jpg"),
        ("cat.jpg.png", "cat.jpg"),
        ("cat.png.html", "cat.png.jpg"),
        ("cat.tar.gz", "cat.tar.jpg"),
        ("image.php?id=7", "image.php_id=7.jpg"),
        ("2026-11-21 10.33.07", "2026-11-21 10.33.07.jpg"),
        ("jpg", "jpg.jpg"),
    ] {
        assert_eq!(jpeg(raw).as_deref(), Some(name), "{raw:?}");
    }
    assert_eq!(sanitise("a.jpg", &SVG).unwrap().as_str(), "a.svg");
}

#[test]
fn without_extensions_of_its_own_a_format_leaves_the_name() {
    for name in ["cat.php", "cat", "v1.2", "a.tar.gz", "St. Mary"] {
        assert_eq!(any(name).as_deref(), Some(name));
    }
}

#[test]
fn only_the_base_name_counts() {
    for raw in [
        "/etc/cat.jpg",
        "../../cat.jpg",
        "C:\\Users\\ann\\cat.jpg",
        "a/b\\cat.jpg",
        "\\\\host\\share\\cat.jpg",
    ] {
        assert_eq!(jpeg(raw).as_deref(), Some("cat.jpg"), "{raw:?}");
    }
}

#[test]
fn what_is_no_name_is_refused() {
    for raw in [
        "",
        ".",
        "..",
        "...",
        " ",
        ". .",
        "/",
        "a/",
        "a/..",
        "\0",
        "\r\n\t",
        "\u{202e}",
        "\u{200b}\u{feff}",
        "\u{a0}",
        "\\",
        "-",
        "--",
        "-.-",
        "a/ - ",
        ".jpg",
        "-.jpg",
        "-.JPG. ",
        "--.html",
        "x/.png",
    ] {
        assert_eq!(jpeg(raw), None, "{raw:?}");
        assert_eq!(any(raw), None, "{raw:?}");
    }
}

#[test]
fn what_file_systems_do_not_take_is_replaced_or_left_out() {
    for (raw, name) in [
        ("a<b>c:d\"e|f?g*h.jpg", "a_b_c_d_e_f_g_h.jpg"),
        ("a\0b\x1bc\x7f.jpg", "abc.jpg"),
        ("a\r\n b.jpg", "a   b.jpg"),
        ("a\tb.jpg", "a b.jpg"),
        ("a\u{2028}b.jpg", "a b.jpg"),
        ("gpj.\u{202e}exe.jpg", "gpj.exe.jpg"),
        ("a\u{200d}\u{feff}b\u{e0041}.jpg", "ab.jpg"),
        ("a\u{ffff}\u{fdd0}.jpg", "a.jpg"),
        (".hidden.jpg", "hidden.jpg"),
        ("...hidden.jpg", "hidden.jpg"),
        (" . .hidden.jpg", "hidden.jpg"),
        (".gannet", "gannet.jpg"),
        ("cat.jpg. . ", "cat.jpg"),
        ("-rf.jpg", "rf.jpg"),
        ("--output=x.jpg", "output=x.jpg"),
        ("- cat.jpg", "cat.jpg"),
        ("-.-cat.jpg", "cat.jpg"),
        ("\u{200b}-\u{202e}-cat.jpg", "cat.jpg"),
        ("x/-rf", "rf.jpg"),
        ("-con.jpg", "_con.jpg"),
        ("a-b-.jpg", "a-b-.jpg"),
        ("con", "_con.jpg"),
        ("CON.jpg", "_CON.jpg"),
        ("nul.tar.jpg", "_nul.tar.jpg"),
        ("COM1.jpg", "_COM1.jpg"),
        ("com¹.jpg", "_com¹.jpg"),
        ("LPT9 .jpg", "_LPT9.jpg"),
        ("conin$.jpg", "_conin$.jpg"),
        ("COM10.jpg", "COM10.jpg"),
        ("console.jpg", "console.jpg"),
        ("a\u{308}.jpg", "ä.jpg"),
        ("<\u{338}.jpg", "≮.jpg"),
        ("\u{212b}.jpg", "Å.jpg"),
        (
            "a&b=c;d,e'f`g$h(i)[j]{k}~!@#%^+.jpg",
            "a&b=c;d,e'f`g$h(i)[j]{k}~!@#%^+.jpg",
        ),
        ("猫 😀 Größe.jpg", "猫 😀 Größe.jpg"),
    ] {
        assert_eq!(jpeg(raw).as_deref(), Some(name), "{raw:?}");
    }
}

#[test]
fn a_long_name_is_cut_between_characters_and_keeps_its_extension() {
    let name = jpeg(&format!("{}.JPEG", "x".repeat(300))).unwrap();
    assert_eq!(name, format!("{}.JPEG", "x".repeat(250)));
    let name = jpeg(&"ä".repeat(300)).unwrap();
    assert_eq!(name, format!("{}.jpg", "ä".repeat(125)));
    let name = jpeg(&format!("{}.png", "猫".repeat(10_000))).unwrap();
    assert_eq!(name, format!("{}.jpg", "猫".repeat(83)));
    // 250 bytes, then a base with two marks that end at byte 255: all three go.
    let name = jpeg(&format!("{}q\u{308}\u{308}.jpg", "x".repeat(248))).unwrap();
    assert_eq!(name, format!("{}.jpg", "x".repeat(248)));
    let name = jpeg(&format!("{} . {}", "x".repeat(248), "y".repeat(9))).unwrap();
    assert_eq!(name, format!("{}.jpg", "x".repeat(248)));
    let name = jpeg(&format!("q{}", "\u{308}".repeat(300))).unwrap();
    assert_eq!(name, format!("q{}.jpg", "\u{308}".repeat(125)));
    let name = jpeg(&format!("con.{}", "x".repeat(300))).unwrap();
    assert_eq!(name, format!("_con.{}.jpg", "x".repeat(246)));
    let name = any(&format!("{}.abc", "x".repeat(300))).unwrap();
    assert_eq!(name, format!("{}.abc", "x".repeat(251)));
    let name = any(&format!("a.{}", "x".repeat(300))).unwrap();
    assert_eq!(name.len(), 255);
}

#[test]
fn a_random_name_is_twenty_characters_and_the_extension() {
    let name = random_name(&JPEG);
    let stem = name.as_str().strip_suffix(".jpg").unwrap();
    assert_eq!(stem.len(), 20);
    assert!(
        stem.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    );
    assert_ne!(name, random_name(&JPEG));
    assert_eq!(random_name(&ANY).as_str().len(), 20);
}

#[test]
fn the_first_usable_name_in_order_is_chosen() {
    use NameFrom::{Header, List, Random, Url as FromUrl};
    let url = Url::parse("https://example.org/pics/My%20cat.png?w=1").unwrap();
    let choose = |order: &[NameFrom], listed, header| {
        let header: Option<&[u8]> = header;
        let header = header.and_then(content_disposition);
        let wants = Wants {
            url: &url,
            listed,
            header: header.as_deref(),
            format: &JPEG,
        };
        let (name, from) = settings(order, "{name}").choose(&wants);
        (name.to_string(), from)
    };
    let order = [List, Header, FromUrl, Random];
    let header: &[u8] = b"attachment; filename=head.jpg";
    assert_eq!(
        choose(&order, Some("list.png"), Some(header)),
        ("list.jpg".into(), List)
    );
    assert_eq!(
        choose(&order, None, Some(header)),
        ("head.jpg".into(), Header)
    );
    assert_eq!(
        choose(&order, Some(".."), Some(header)),
        ("head.jpg".into(), Header)
    );
    assert_eq!(
        choose(&order, None, Some(b"inline")),
        ("My cat.jpg".into(), FromUrl)
    );
    assert_eq!(choose(&[List, Header], None, Some(b"inline")).1, Random);
    assert_eq!(choose(&[], Some("list.png"), None).1, Random);
    assert_eq!(choose(&[Random, List], Some("list.png"), None).1, Random);
}

#[test]
fn a_url_names_a_file_by_its_last_segment() {
    let segment = |url: &str| last_segment(&Url::parse(url).unwrap());
    assert_eq!(segment("https://h/a/b.jpg#x").as_deref(), Some("b.jpg"));
    assert_eq!(
        segment("https://h/a/%E7%8C%AB.jpg").as_deref(),
        Some("猫.jpg")
    );
    assert_eq!(
        segment("https://h/a%2F..%2Fb.jpg").as_deref(),
        Some("a/../b.jpg")
    );
    assert_eq!(segment("https://h/a/"), None);
    assert_eq!(segment("https://h"), None);
    assert_eq!(segment("https://h/%E4.jpg"), None);
    assert_eq!(segment("data:x"), None);
}

/// Facts about a file from a host whose name needs cleaning.
fn facts(album: Option<&AlbumName>) -> Facts<'_> {
    const DIGEST: &Sha256 = &Sha256([0xab; 32]);
    Facts {
        album,
        host: "[::1]",
        format: "jpeg",
        sha256: DIGEST,
        line: None,
        group: None,
        metadata: None,
        when: Utc.with_ymd_and_hms(2026, 11, 21, 7, 5, 9).unwrap(),
    }
}

fn place(template: &str, album: Option<&str>) -> String {
    let album = album.map(|a| AlbumName::new(a).unwrap());
    let name = FileName::new("cat.jpg").unwrap();
    settings(&[], template)
        .place(&name, &facts(album.as_ref()))
        .to_string()
}

#[test]
fn a_template_lays_out_folders() {
    for (template, path) in [
        ("{name}", "cat.jpg"),
        ("{album}/{name}", "pets/red/cat.jpg"),
        (
            "{album}/{date}/{host}/{name}",
            "pets/red/2026-11-21/[__1]/cat.jpg",
        ),
        (
            "{format}/{date}T{time}-{name}",
            "jpeg/2026-11-21T070509-cat.jpg",
        ),
        ("{name}-{time}", "cat-070509.jpg"),
        ("{name}/{name}", "cat.jpg/cat.jpg"),
        ("by album/x{album}/{name}", "by album/xpets/red/cat.jpg"),
        ("{album}-{name}", "pets_red-cat.jpg"),
    ] {
        assert_eq!(place(template, Some("pets/red")), path, "{template}");
    }
    assert_eq!(place("{album}/{name}", None), "cat.jpg");
    assert_eq!(place("a/{album}/{name}", None), "a/cat.jpg");
    assert_eq!(place("{album}{album}/{name}", None), "cat.jpg");
}

#[test]
fn a_template_has_what_the_list_and_the_bytes_say() {
    let metadata = serde_json::json!({
        "breed": "Beagle", "age": 3, "tame": true, "none": null, "list": [1], "up": "..", "path": "a/b\\c",
        "option": "-rf", "minus": -3, "odd key: 1": "x", "w/h": "4_3", "long": "x".repeat(1000), "nothing": "",
    });
    let facts = Facts {
        line: Some(42),
        group: Some("../pets/red"),
        metadata: metadata.as_object(),
        ..facts(None)
    };
    let name = FileName::new("cat.jpg").unwrap();
    let place = |template: &str| {
        let settings = settings(&[], template);
        settings.place(&name, &facts).to_string()
    };
    let digest = "ab".repeat(32);
    for (template, path) in [
        ("{line}-{name}", "42-cat.jpg"),
        ("{line:6}/{name}", "000042/cat.jpg"),
        ("{sha256:2}/{sha256:7}/{name}", "ab/abababa/cat.jpg"),
        ("{sha256}/{name}", &format!("{digest}/cat.jpg")),
        ("{group}/{name}", "_pets_red/cat.jpg"),
        (
            "{meta.breed}/{meta.age}/{meta.tame}/{name}",
            "Beagle/3/true/cat.jpg",
        ),
        ("{meta.path}/{name}", "a_b_c/cat.jpg"),
        ("{meta.option}/{name}", "_rf/cat.jpg"),
        ("{meta.option}{name}", "_rfcat.jpg"),
        ("{meta.minus}/{name}", "_3/cat.jpg"),
        ("{meta.age}/{name}", "3/cat.jpg"),
        ("{meta.other}-{meta.minus}/{name}", "_3/cat.jpg"),
        ("a{meta.minus}/{name}{meta.minus}", "a-3/cat-3.jpg"),
        ("{meta.minus}-{name}", "_3-cat.jpg"),
        ("{sha256:2}/{sha256}", &format!("ab/{digest}.jpg")),
        ("{sha256}-{line}", &format!("{digest}-42.jpg")),
        ("{meta.odd key: 1}/{name}", "x/cat.jpg"),
        ("a/{meta.w/h}/{name}", "a/4_3/cat.jpg"),
        (
            "{meta.long}/{name}",
            &format!("{}/cat.jpg", "x".repeat(255)),
        ),
        // A component without a value is left out.
        (
            "{meta.none}/{meta.list}/{meta.up}/{meta.nothing}/{meta.other}/{name}",
            "cat.jpg",
        ),
        ("a{meta.other}/{name}", "a/cat.jpg"),
        ("{meta.other}-{name}", "cat.jpg"),
        ("{name}-{meta.other}", "cat-.jpg"),
    ] {
        assert_eq!(place(template), path, "{template}");
    }
}

#[test]
fn a_file_that_is_there_goes_where_it_would_go_now() {
    use NameFrom::{Header, List, Random, Url as FromUrl};
    let url = Url::parse("https://example.org/pics/dog.png").unwrap();
    let when = Utc.with_ymd_and_hms(2026, 11, 21, 7, 5, 9).unwrap();
    let of_client =
        |by_client, order: &[NameFrom], template: &str, listed, header, path: &str, from| {
            let wants = Wants {
                url: &url,
                listed,
                header,
                format: &JPEG,
            };
            let facts = Facts {
                when,
                ..facts(None)
            };
            let settings = settings(order, template);
            let path = StorePath::new(path).unwrap();
            let placed = |path, name_from| Placed {
                path,
                name_from,
                by_client,
            };
            let (to, to_from) = settings.place_again(&wants, &facts, &placed(&path, from));
            // Placing a file again changes nothing, except for random names.
            let once_more = settings.place_again(&wants, &facts, &placed(&to, to_from));
            assert_eq!(
                once_more,
                (to.clone(), to_from),
                "{order:?} {template} {path}"
            );
            (to.to_string(), to_from)
        };
    let again = |order: &[NameFrom], template: &str, listed, header, path: &str, from| {
        of_client(false, order, template, listed, header, path, from)
    };
    // A client's name is kept in any order.
    for order in [&[List, FromUrl][..], &[FromUrl], &[Random]] {
        for (template, to) in [
            ("{name}", "best.jpg"),
            ("{format}/x-{name}", "jpeg/x-best.jpg"),
            ("{sha256}", "a/best.jpg"),
        ] {
            let moved = of_client(true, order, template, Some("cat"), None, "a/best.jpg", List);
            assert_eq!(moved, (to.to_owned(), List), "{order:?}");
        }
    }
    let order = [List, Header, FromUrl];
    for (template, listed, header, path, from, to) in [
        ("{name}", None, None, "x1.jpg", Random, ("dog.jpg", FromUrl)),
        (
            "{name}",
            Some("cat"),
            Some("h"),
            "x1.jpg",
            Random,
            ("cat.jpg", List),
        ),
        (
            "{name}",
            None,
            Some("head"),
            "dog.jpg",
            FromUrl,
            ("head.jpg", Header),
        ),
        (
            "{format}/{name}",
            None,
            None,
            "dog.jpg",
            FromUrl,
            ("jpeg/dog.jpg", FromUrl),
        ),
        // Names from a list, and from a header that was not recorded.
        ("{name}", None, None, "a/wish.jpg", List, ("wish.jpg", List)),
        (
            "{name}",
            None,
            None,
            "head.jpg",
            Header,
            ("head.jpg", Header),
        ),
        (
            "{date}-{name}-x",
            None,
            None,
            "wish.jpg",
            List,
            ("2026-11-21-wish-x.jpg", List),
        ),
        (
            "{date}-{name}-x",
            None,
            None,
            "2026-11-21-wish-x.jpg",
            List,
            ("2026-11-21-wish-x.jpg", List),
        ),
        (
            "{sha256:2}/{sha256}",
            None,
            None,
            "wish_20261121-091015-007.jpg",
            List,
            (&format!("ab/{}.jpg", "ab".repeat(32)), List),
        ),
        // Names from earlier versions.
        ("{name}", None, None, "-rf.jpg", List, ("rf.jpg", List)),
        // A series.
        (
            "{name}",
            None,
            None,
            "x_20261121-091015-007.jpg",
            Random,
            ("dog_20261121-091015-007.jpg", FromUrl),
        ),
        (
            "{name}",
            None,
            None,
            "wish_20261121-091015-007.jpg",
            List,
            ("wish_20261121-091015-007.jpg", List),
        ),
    ] {
        let (to, to_from) = to;
        let moved = again(&order, template, listed, header, path, from);
        assert_eq!(moved, (to.to_owned(), to_from), "{template} {path}");
    }
    let kept = again(&[Header], "{host}{name}", None, None, "[__1]x1.jpg", Random);
    assert_eq!(kept, ("[__1]x1.jpg".to_owned(), Random));
    // No name is replaced by a random one unless `order` asks for that first.
    for order in [&[Header][..], &[List, Header, Random], &[]] {
        let kept = again(order, "{format}/{name}", None, None, "dog.jpg", FromUrl);
        assert_eq!(kept, ("jpeg/dog.jpg".to_owned(), FromUrl));
    }
    let (random, from) = again(&[Random], "{name}", None, None, "dog.jpg", FromUrl);
    assert_eq!((random.len(), from), ("x.jpg".len() + 19, Random));
}

#[test]
fn a_path_is_told_from_one_that_had_to_give_way() {
    let is = |path: &str, first: &str| {
        let path = StorePath::new(path).unwrap();
        path.is_suffixed(&StorePath::new(first).unwrap())
    };
    assert!(is("a/b-1f2e3d4c.jpg", "a/b.jpg"));
    assert!(is(&format!("b-{}", "0".repeat(32)), "b"));
    for (path, first) in [
        ("b.jpg", "b.jpg"),
        ("b-1f2e3d4.jpg", "b.jpg"),
        ("b-1f2e3d4x.jpg", "b.jpg"),
        ("b-1f2e3d4c.png", "b.jpg"),
        ("c/b-1f2e3d4c.jpg", "b.jpg"),
    ] {
        assert!(!is(path, first), "{path}");
    }
}

#[test]
fn a_template_that_is_wrong_says_why() {
    for (template, why) in [
        ("", "a component is empty"),
        ("{album}", "must contain {name}"),
        ("{name}/x", "must contain {name}"),
        ("{sha256:63}", "or else {sha256}"),
        ("{sha256}/x", "or else {sha256}"),
        ("{name}{sha256}{name}", "must contain {name}, once"),
        ("{name}{name}", "must contain {name}, once"),
        (
            "{nam}",
            "unknown field `{nam}`; expected one of {album}, {name}",
        ),
        ("{name", "brace"),
        ("name}", "brace"),
        ("{album/{name}", "unknown field `{album/{name}`"),
        ("}/{name}", "brace"),
        ("/{name}", "a component is empty"),
        ("a//{name}", "a component is empty"),
        ("../{name}", "begins with a dot"),
        (".{name}", "begins with a dot"),
        (".gannet/{name}", "begins with a dot"),
        ("{name}.", "ends with a dot or space"),
        ("a /{name}", "ends with a dot or space"),
        ("c:/{name}", "control character"),
        ("a\\{name}", "control character"),
        ("a\n/{name}", "control character"),
        ("\u{202e}/{name}", "invisible"),
        ("-{name}", "begins with a dash"),
        ("--x/{name}", "begins with a dash"),
        (
            "{sha256:0}/{name}",
            "`{sha256:0}`: expected a number of digits from 1 to 64",
        ),
        ("{sha256:65}/{name}", "from 1 to 64"),
        ("{sha256:+2}/{name}", "from 1 to 64"),
        ("{sha256:}/{name}", "from 1 to 64"),
        ("{line:21}/{name}", "from 1 to 20"),
        ("{date:2}/{name}", "unknown field `{date:2}`"),
        ("{meta.}/{name}", "unknown field `{meta.}`"),
        ("{meta}/{name}", "{meta.COLUMN}"),
    ] {
        let error = template.parse::<Template>().unwrap_err().to_string();
        assert!(error.contains(why), "{template:?}: {error}");
    }
}

#[test]
fn a_suffix_stands_before_the_extension() {
    let with = |path: &str| {
        StorePath::new(path)
            .unwrap()
            .with_suffix("1f2e3d4c")
            .to_string()
    };
    assert_eq!(with("a/b.jpg"), "a/b-1f2e3d4c.jpg");
    assert_eq!(with("b"), "b-1f2e3d4c");
    assert_eq!(with("a/St. Mary"), "a/St. Mary-1f2e3d4c");
    assert_eq!(with("a.b/c.tar.gz"), "a.b/c.tar-1f2e3d4c.gz");
    let long = format!("a/{}.jpg", "ä".repeat(125));
    assert_eq!(with(&long), format!("a/{}-1f2e3d4c.jpg", "ä".repeat(121)));
    assert_eq!(
        StorePath::new("a.jpg")
            .unwrap()
            .with_suffix("../x")
            .as_str(),
        "a-.jpg"
    );
}

#[test]
fn a_store_path_never_leaves_the_store() {
    for bad in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "..",
        "../a",
        "a/../b",
        "a/.",
        ".gannet/x",
        "a/.hidden",
        "a\\b",
        "c:/x",
        "a\0b",
        "a\nb",
        "a. ",
        "dot.",
        &"x".repeat(256),
    ] {
        assert!(StorePath::new(bad).is_err(), "{bad:?}");
    }
    let path = StorePath::new("a/b/c.jpg").unwrap();
    assert_eq!(path.file_name(), "c.jpg");
    assert_eq!(path.folder(), Some("a/b"));
    assert_eq!(
        path.below("/root".as_ref()),
        std::path::Path::new("/root/a/b/c.jpg")
    );
}

/// Text from the characters that names stumble over.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(".".to_owned()),
        Just("/".to_owned()),
        Just("\\".to_owned()),
        Just(" ".to_owned()),
        Just("CON".to_owned()),
        Just("nul".to_owned()),
        Just(".jpg".to_owned()),
        Just(".html".to_owned()),
        Just("\u{308}".to_owned()),
        Just("\u{338}".to_owned()),
        Just("\u{202e}".to_owned()),
        Just("<".to_owned()),
        Just("\u{1100}".to_owned()),
        Just("\u{1161}".to_owned()),
        Just("\u{11a8}".to_owned()),
        Just("{name}".to_owned()),
        Just("-".to_owned()),
        Just("x".repeat(120)),
        Just("猫".repeat(40)),
        any_char(),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn any_char() -> impl Strategy<Value = String> {
    proptest::char::any().prop_map(String::from)
}

#[test]
fn a_series_sorts_as_it_came() {
    let at = |millis: i64| {
        Utc.timestamp_millis_opt(1_795_252_215_000 + millis)
            .unwrap()
    };
    let path = |text| StorePath::new(text).unwrap();
    let next = |template: &str, latest, fresh, millis| {
        let settings = Settings {
            order: Vec::new(),
            template: template.parse().unwrap(),
        };
        let next = settings.next_of_series(&path(latest), path(fresh), at(millis));
        next.as_str().to_owned()
    };
    let second = next("{album}/{name}", "cams/gate.jpg", "cams/x1.png", 7);
    assert_eq!(second, "cams/gate_20261121-091015-007.png");
    assert!(*"cams/gate.jpg" < *second);
    let third = next(
        "{album}/{name}",
        "cams/gate_20261121-091015-007.png",
        "cams/x2.png",
        61_042,
    );
    assert_eq!(third, "cams/gate_20261121-091116-042.png");
    assert!(second < third);
    // What only looks like a date is part of the name.
    let odd = next("{name}", "_20261121-091015-007.png", "x.png", 0);
    assert_eq!(odd, "_20261121-091015-007_20261121-091015-000.png");
    // A template that tells the time has its way.
    let by_time = next(
        "{date}/{time}-{name}",
        "2026-11-20/1-a.jpg",
        "2026-11-21/2-a.jpg",
        0,
    );
    assert_eq!(by_time, "2026-11-21/2-a.jpg");
    let by_day = next("{date}/{name}", "2026-11-20/a.jpg", "2026-11-21/a.jpg", 0);
    assert_eq!(by_day, "2026-11-21/a_20261121-091015-000.jpg");
    let long = format!("{}.jpg", "n".repeat(250));
    assert_eq!(next("{name}", &long, &long, 0).len(), 255);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_sanitised_name_keeps_every_promise_and_stays(raw in nasty()) {
        for format in [&JPEG, &SVG, &ANY] {
            if let Some(name) = sanitise(&raw, format) {
                prop_assert_eq!(FileName::new(name.as_str()), Ok(name.clone()));
                prop_assert!(!name.as_str().starts_with('-'));
                let again = sanitise(name.as_str(), format);
                prop_assert_eq!(again.as_ref(), Some(&name));
                prop_assert!(format.extensions.is_empty() || name.extension().is_some_and(
                    |e| format.extensions.iter().any(|known| known.eq_ignore_ascii_case(e))));
            }
        }
    }

    #[test]
    fn any_place_is_a_path_inside_the_store(
        raw in nasty(), host in nasty(), album in nasty(), value in nasty(), template in nasty(),
    ) {
        let Some(name) = sanitise(&raw, &JPEG) else { return Ok(()) };
        let album = AlbumName::new(&album).ok();
        let metadata = serde_json::json!({ "x": value });
        let facts = Facts {
            host: &host,
            group: Some(&value),
            metadata: metadata.as_object(),
            ..facts(album.as_ref())
        };
        let templates = [
            "{album}/{host}/{name}", "{host}{name}{album}", "{album}x/{name}-{format}",
            "{meta.x}/{group}{line}/{meta.x}{name}{meta.x}", "{group}-/{meta.x}-{name}", &template,
        ];
        for template in templates.iter().filter_map(|t| t.parse::<Template>().ok()) {
            let path = template.render(&name, &facts);
            prop_assert!(!path.as_str().split('/').any(|component| component.starts_with('-')), "{}", path);
            prop_assert!(path.as_str().split('/').count() < 20);
            prop_assert_eq!(StorePath::new(path.as_str()), Ok(path.clone()));
            let other = path.with_suffix("1f2e3d4c");
            prop_assert_eq!(StorePath::new(other.as_str()), Ok(other.clone()));
            prop_assert_ne!(path, other);
        }
    }
}
