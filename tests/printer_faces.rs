//! A face is drawn from the shipped template: the same data gives the same dots,
//! a character without a glyph is an error that names it, and a bad template is
//! refused with its line and column.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use baygate::printer::bitmap::{Bitmap, Canvas};
use baygate::printer::template::Template;
use baygate::printer::{FaceError, Faces};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The dots of [`member`]; changes only with the template, the fonts or the renderer,
/// and then together with the picture: `BAYGATE_WRITE_GOLDEN=1 cargo test --test printer_faces`.
const GOLDEN_SHA256: &str = "8ae2ac80a3c6832cc34615db6e679f8f5c3868dbdbd4036acceda876a4f2fa01";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn shipped() -> Faces {
    Faces::new(&root().join("config"))
}

fn member() -> Value {
    json!({
        "card_no": "8800004200001234", "points": 12_860, "balance_fen": 128_050, "level": "金卡 Gold",
        "offer": "机油滤芯免费更换一次", "offer_en": "One free oil filter change", "store": "上海浦东店",
        "qr": "https://m.example.com/c/8800004200001234"
    })
}

fn draw(fields: &Value) -> Result<Bitmap, FaceError> {
    shipped().render("member-face.svg", fields, Canvas::TCP300)
}

#[test]
fn the_same_data_gives_the_same_dots() {
    let face = draw(&member()).unwrap();
    assert_eq!(face, draw(&member()).unwrap());
    let golden = root().join("docs/images/member-face.png");
    if std::env::var_os("BAYGATE_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, face.to_png().unwrap()).unwrap();
    }
    let file = std::fs::File::open(golden).unwrap();
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
    let mut rows = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut rows).unwrap();
    let printed: Vec<u8> = rows.iter().map(|byte| !byte).collect();
    assert_eq!(printed, face.bytes(), "docs/images/member-face.png shows another face");
    assert_eq!(hex::encode(Sha256::digest(face.bytes())), GOLDEN_SHA256);
}

#[test]
fn what_may_be_absent_leaves_its_place_white() {
    let mut fields = member();
    for optional in ["balance_fen", "level", "offer_en", "store"] {
        fields.as_object_mut().unwrap().remove(optional);
    }
    let (full, bare) = (draw(&member()).unwrap(), draw(&fields).unwrap());
    let white = |face: &Bitmap| (20..312).all(|x| (120..170).all(|y| !face.dot(x, y)));
    assert!(white(&bare) && !white(&full));
}

/// The shipped font has what GB 2312 has: decoded here from its own table, not from the font's list.
#[test]
fn the_font_has_the_characters_that_names_and_offers_need() {
    let text = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按暗岸胺案座亍丌兀丐廿卅鼯鼹齄\
                ，。、；：？！“”‘’（）《》【】—…·￥％＃＠＋－＝０１２９ＡＺａｚ①Ⅷ℃¥€×÷°±ABCXYZabcxyz0189";
    let mut fields = member();
    for chunk in text.chars().collect::<Vec<_>>().chunks(14) {
        fields["offer"] = chunk.iter().collect::<String>().into();
        draw(&fields).unwrap();
    }
}

#[test]
fn data_is_refused_by_name_in_both_languages() {
    // (what, change, code, words)
    type Case<'c> = (&'c str, fn(&mut Value), &'c str, &'c [&'c str]);
    let cases: [Case<'_>; 10] = [
        (
            "emoji",
            |f| f["offer"] = "洗车😀".into(),
            "glyph-missing",
            &["U+1F600", "offer", "member-face.svg:31:"],
        ),
        ("rare hanzi", |f| f["store"] = "𠮷".into(), "glyph-missing", &["𠮷", "U+20BB7", "store"]),
        (
            "no card number",
            |f| drop(f.as_object_mut().unwrap().remove("card_no")),
            "field-missing",
            &["card_no", "member-face.svg:5:"],
        ),
        ("null", |f| f["qr"] = Value::Null, "field-missing", &["qr"]),
        ("mistyped", |f| f["ofer_en"] = "x".into(), "field-unknown", &["ofer_en", "offer_en"]),
        ("points in words", |f| f["points"] = "viele".into(), "field-invalid", &["points", "integer"]),
        ("a list", |f| f["level"] = json!(["x"]), "field-invalid", &["level"]),
        ("control character", |f| f["level"] = "a\u{1b}[2J".into(), "field-invalid", &["level", "control"]),
        (
            "offer too long",
            |f| f["offer"] = "优惠".repeat(20).into(),
            "text-too-wide",
            &["member-face.svg:31:", "292"],
        ),
        ("QR too long", |f| f["qr"] = "x".repeat(500).into(), "qr-too-large", &["qr"]),
    ];
    for (name, change, code, words) in cases {
        let mut fields = member();
        change(&mut fields);
        let error = shipped().check("member-face.svg", &fields).expect_err(name);
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(error.is_about_data(), "{name}");
        let text = error.text();
        assert!(words.iter().all(|word| text.en.contains(word)), "{name}: {}", text.en);
        assert!(text.zh.chars().any(|c| ('\u{4e00}'..'\u{9fff}').contains(&c)), "{name}: {}", text.zh);
    }
}

#[test]
fn values_are_text_never_markup() {
    let mut fields = member();
    fields["offer"] = "<b>&amp;</b>".into();
    draw(&fields).unwrap();
    fields["offer"] = "</text><image href='x'/>".into();
    draw(&fields).unwrap();
}

#[test]
fn a_long_offer_is_shrunk_to_its_width() {
    let mut fields = member();
    fields["offer"] = "机油滤芯免费更换一次另送玻璃水".into();
    let face = draw(&fields).unwrap();
    assert!((313..320).all(|x| (210..245).all(|y| !face.dot(x, y))), "nothing reaches over the edge");
}

#[test]
fn bad_templates_are_refused_with_line_and_column() {
    let head = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"81mm\" height=\"54mm\" viewBox=\"0 0 480 320\"\n data-fields=\"card_no offer?\">\n";
    // (what, body between head and `</svg>`, line, column, words)
    let cases = [
        ("picture", "<image href=\"#x\"/>", 3, 1, "<image> is not allowed"),
        ("script", " <script>1</script>", 3, 2, "<script> is not allowed"),
        ("style sheet", "<style>@import url(http://x/y.css);</style>", 3, 1, "<style> is not allowed"),
        ("foreign object", "<g>\n<foreignObject/></g>", 4, 1, "<foreignObject> is not allowed"),
        ("use of another file", "<use href=\"other.svg#a\"/>", 3, 6, "outside itself"),
        (
            "xlink",
            "<use xmlns:xlink=\"http://www.w3.org/1999/xlink\" xlink:href=\"http://x/a.svg\"/>",
            3,
            49,
            "outside itself",
        ),
        ("url in fill", "<rect fill=\"url(http://x/y#z)\"/>", 3, 7, "outside itself"),
        ("url in style", "<rect style=\"fill: URL( 'data:x')\"/>", 3, 7, "outside itself"),
        ("event handler", "<rect onload=\"x()\"/>", 3, 7, "outside itself"),
        ("use in use", "<g id=\"a\"><use href=\"#a\"/></g>", 3, 11, "<use>"),
        ("CDATA", "<text><![CDATA[{{card_no}}]]></text>", 3, 7, "CDATA"),
        ("not closed", "<g>", 3, 4, "well-formed"),
        ("unknown entity", "<text>&evil;</text>", 3, 7, "well-formed"),
        ("undeclared", "<text>卡{{card_nr}}</text>", 3, 8, "did you mean card_no?"),
        ("far off", "<text>{{x}}</text>", 3, 7, "data-fields"),
        ("filter", "<text>{{card_no|grp}}</text>", 3, 7, "known: group, number, yuan"),
        ("not ended", "<text>{{card_no</text>", 3, 7, "does not end"),
        ("in an attribute", "<text x=\"{{card_no}}\">1</text>", 3, 7, "attribute"),
        ("undeclared condition", "<g data-if=\"level\"/>", 3, 4, "not declared"),
        (
            "moved QR",
            "<g transform=\"scale(2)\"><rect data-qr=\"card_no\" x=\"0\" y=\"0\" width=\"9\" height=\"9\"/></g>",
            3,
            25,
            "whole dots",
        ),
        ("QR without a place", "<rect data-qr=\"card_no\" width=\"9\" height=\"9\"/>", 3, 1, "whole dots"),
        ("width without size", "<text data-max-width=\"20\">1</text>", 3, 7, "font-size"),
        ("tiny dashes", "<path d=\"M0 0H9\" stroke-dasharray=\"0.001\"/>", 3, 18, "dash"),
    ];
    let file = Path::new("face.svg");
    for (name, body, line, column, words) in cases {
        let error = Template::parse(file, &format!("{head}{body}</svg>")).map(|_| ()).expect_err(name);
        let FaceError::Template { place, advice } = &error else { panic!("{name}: {error}") };
        assert_eq!((place.line, place.column), (line, column), "{name}: {error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("face.svg:{line}:{column}: ")), "{name}: {text}");
        assert!(text.contains(words), "{name}: {text}");
        assert!(!advice.hint.zh.is_empty() && error.text().zh.contains("建议"), "{name}");
    }
    for (name, whole, words) in [
        (
            "DOCTYPE",
            "<!DOCTYPE svg [<!ENTITY a \"b\">]><svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            "face.svg:1:1: DOCTYPE",
        ),
        ("not SVG", "<html/>", "face.svg:1:1: the root"),
        ("no size", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "face.svg:1:1: the canvas"),
        (
            "no fields",
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"81mm\" height=\"54mm\" viewBox=\"0 0 480 320\"/>",
            "face.svg:1:1: the root element declares no fields",
        ),
        (
            "twice",
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"81mm\" height=\"54mm\" viewBox=\"0 0 480 320\" data-fields=\"a b a\"/>",
            "face.svg:1:107: field name",
        ),
        ("nothing", "", "well-formed"),
    ] {
        let error = Template::parse(file, whole).map(|_| ()).expect_err(name).to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
    let many = format!("{head}{}</svg>", ["<g>".repeat(40), "</g>".repeat(40)].concat());
    assert!(Template::parse(file, &many).is_err_and(|error| error.to_string().contains("32 levels")));
    let large = format!("{head}<!--{}--></svg>", "x".repeat(300_000));
    assert!(Template::parse(file, &large).is_err_and(|error| error.to_string().contains("256 KiB")));
}

#[test]
fn a_template_of_another_shape_is_refused() {
    let source = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"54mm\" height=\"81mm\" viewBox=\"0 0 320 480\" data-fields=\"\"/>";
    let template = Template::parse(Path::new("tall.svg"), source).unwrap();
    let error = shipped().draw(&template, &json!({}), Canvas::TCP300).unwrap_err().to_string();
    assert!(error.contains("480 × 320") && error.contains("81mm"), "{error}");
}

#[test]
fn names_outside_the_folder_are_unknown_and_a_template_turned_bad_does_not_stop_printing() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["../member-face.svg", "/etc/passwd", ".svg", "a/b.svg", "none.svg", ""] {
        let error = shipped().check(name, &member()).unwrap_err();
        assert_eq!(error.code(), "template-unknown", "{name}");
        assert!(error.to_string().contains("member-face.svg"), "{error}");
    }
    let faces = Faces::of(dir.path().to_owned(), root().join("config/fonts"));
    let path = dir.path().join("member-face.svg");
    std::fs::copy(root().join("config/templates/member-face.svg"), &path).unwrap();
    let good = faces.render("member-face.svg", &member(), Canvas::TCP300).unwrap();
    std::fs::write(&path, "<svg").unwrap();
    assert_eq!(faces.faults().len(), 1, "`baygate check` tells it");
    assert_eq!(faces.render("member-face.svg", &member(), Canvas::TCP300).unwrap(), good);
    let fresh = Faces::of(dir.path().to_owned(), root().join("config/fonts"));
    assert!(matches!(fresh.check("member-face.svg", &member()), Err(FaceError::Template { .. })));
}

#[test]
fn an_installation_without_fonts_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for (name, file) in [("empty", None), ("garbage", Some("x.otf"))] {
        if let Some(file) = file {
            std::fs::write(dir.path().join(file), "not a font").unwrap();
        }
        let faces = Faces::of(root().join("config/templates"), dir.path().to_owned());
        let error = faces.check("member-face.svg", &member()).unwrap_err();
        assert_eq!(error.code(), "fonts-missing", "{name}");
    }
}
