//! The cards of a batch as somebody lists them: a CSV file with a header line, or a range of
//! numbers. Pure. What lives here: the form of the list and what is wrong with it, line by line.
//! What does not: whether a number is still free, and the giving out (`batch`).
//!
//! ```text
//!  card_no,type,tier,discount_class,valid_until,face.level      卡号,类型,等级,折扣类别,有效期至
//!  8800000042,named,2,0,2030-12-31,"金卡 Gold"
//! ```

use std::collections::HashMap;

use jiff::civil::Date;
use serde_json::{Map, Value, json};

use crate::card::record::MAX_CARD_NO_DIGITS;
use crate::event::Text;
use crate::event::ledger::CardType;
use crate::ident::CardNo;

/// Cards in a batch, at most.
pub const MAX_BATCH_CARDS: usize = 1000;
/// Mistakes told at a time.
const MAX_FAULTS: usize = 20;
/// Columns, at most.
const MAX_COLUMNS: usize = 32;
/// What stands before the name of a face's field in the header line.
const FACE: &str = "face.";

/// What a card gets where its line says nothing.
#[derive(Debug, Clone)]
pub struct CardDefaults {
    /// Named or anonymous.
    pub card_type: CardType,
    /// Its tier, 0 none.
    pub tier: u8,
    /// Its discount class, 0 none.
    pub discount_class: u8,
    /// The last day it is good.
    pub valid_until: Option<Date>,
    /// Fields of its face.
    pub face: Map<String, Value>,
}

/// A card of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCard {
    /// The line it stands in; of a range, its place from 1.
    pub line: u32,
    /// Its number.
    pub card_no: CardNo,
    /// Named or anonymous.
    pub card_type: CardType,
    /// Its tier, 0 none.
    pub tier: u8,
    /// Its discount class, 0 none.
    pub discount_class: u8,
    /// The last day it is good.
    pub valid_until: Option<Date>,
    /// Fields of its face, the number among them.
    pub face: Map<String, Value>,
}

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFault {
    /// In which line, from 1; `None`: with the whole.
    pub line: Option<u32>,
    /// What, and what to do.
    pub text: Text,
}

impl ListFault {
    /// With a line.
    #[must_use]
    pub fn at(line: u32, zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { line: Some(line), text: Text::new(zh, en) }
    }

    fn whole(zh: impl Into<String>, en: impl Into<String>) -> Vec<Self> {
        vec![Self { line: None, text: Text::new(zh, en) }]
    }

    /// With its line in front.
    #[must_use]
    pub fn told(&self) -> Text {
        match self.line {
            Some(line) => {
                Text::new(format!("第 {line} 行：{}", self.text.zh), format!("line {line}: {}", self.text.en))
            }
            None => self.text.clone(),
        }
    }
}

/// The cards of a CSV file (RFC 4180, comma, UTF-8, with or without a byte order mark).
///
/// # Errors
/// What is wrong, in the order of the lines, the first few.
pub fn from_csv(text: &str, defaults: &CardDefaults) -> Result<Vec<NewCard>, Vec<ListFault>> {
    let records = records(text.strip_prefix('\u{FEFF}').unwrap_or(text)).map_err(|fault| vec![fault])?;
    let Some(((_, head), lines)) = records.split_first() else {
        return Err(ListFault::whole(
            "文件为空；首行须为列名，如 card_no,type",
            "the file is empty; its first line names the columns, e.g. card_no,type",
        ));
    };
    let columns = columns(head)?;
    if lines.is_empty() {
        return Err(ListFault::whole(
            "列名之后没有任何卡",
            "there is no card behind the line of column names",
        ));
    }
    if lines.len() > MAX_BATCH_CARDS {
        return Err(too_many(lines.len()));
    }
    let (mut cards, mut faults) = (Vec::new(), Vec::new());
    let mut seen: HashMap<CardNo, u32> = HashMap::new();
    for (line, fields) in lines {
        if faults.len() >= MAX_FAULTS {
            break;
        }
        if fields.len() != columns.len() {
            let (has, wants) = (fields.len(), columns.len());
            faults.push(ListFault::at(
                *line,
                format!("有 {has} 列，列名有 {wants} 个"),
                format!("it has {has} columns, the first line {wants}"),
            ));
            continue;
        }
        match card(*line, &columns, fields, defaults) {
            Ok(card) => match seen.insert(card.card_no.clone(), *line) {
                Some(earlier) => faults.push(ListFault::at(
                    *line,
                    format!("卡号 {} 与第 {earlier} 行重复", card.card_no),
                    format!("card number {} stands in line {earlier} already", card.card_no),
                )),
                None => cards.push(card),
            },
            Err(text) => faults.push(ListFault { line: Some(*line), text }),
        }
    }
    if faults.is_empty() { Ok(cards) } else { Err(faults) }
}

/// The cards from one number to another, both included; both as long as each other.
///
/// # Errors
/// What is wrong.
pub fn from_range(from: &str, to: &str, defaults: &CardDefaults) -> Result<Vec<NewCard>, Vec<ListFault>> {
    let number = |text: &str| {
        let may = (1..=MAX_CARD_NO_DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        may.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (Some(first), Some(last), true) = (number(from), number(to), from.len() == to.len()) else {
        return Err(ListFault::whole(
            "卡号段的起止须为 1 到 16 位数字，位数相同",
            "a range goes from one number of 1 to 16 digits to another of as many digits",
        ));
    };
    if last < first {
        return Err(ListFault::whole("卡号段的终止号小于起始号", "the range ends before it begins"));
    }
    let count = usize::try_from(last - first).unwrap_or(usize::MAX).saturating_add(1);
    if count > MAX_BATCH_CARDS {
        return Err(too_many(count));
    }
    let width = from.len();
    let card = |(line, number): (u32, u64)| {
        let card_no = CardNo::new(format!("{number:0width$}")).ok()?;
        let CardDefaults { card_type, tier, discount_class, valid_until, .. } = *defaults;
        let face = face_of(&card_no, defaults.face.clone());
        Some(NewCard { line, card_no, card_type, tier, discount_class, valid_until, face })
    };
    Ok((1..).zip(first..=last).filter_map(card).collect())
}

fn too_many(count: usize) -> Vec<ListFault> {
    ListFault::whole(
        format!("共 {count} 张，一批最多 {MAX_BATCH_CARDS} 张；请分批"),
        format!("{count} cards; a batch has at most {MAX_BATCH_CARDS}, make several"),
    )
}

/// The number is on every face.
fn face_of(card_no: &CardNo, mut face: Map<String, Value>) -> Map<String, Value> {
    face.insert("card_no".into(), json!(card_no));
    face
}

/// What a column says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Column {
    CardNo,
    CardType,
    Tier,
    DiscountClass,
    ValidUntil,
    Face(String),
}

fn columns(head: &[String]) -> Result<Vec<Column>, Vec<ListFault>> {
    if head.len() > MAX_COLUMNS {
        return Err(vec![ListFault::at(
            1,
            format!("列过多（最多 {MAX_COLUMNS}）"),
            format!("more than {MAX_COLUMNS} columns"),
        )]);
    }
    let mut columns = Vec::new();
    for name in head {
        let column = match name.trim() {
            "card_no" | "卡号" => Column::CardNo,
            "type" | "类型" => Column::CardType,
            "tier" | "等级" => Column::Tier,
            "discount_class" | "折扣类别" => Column::DiscountClass,
            "valid_until" | "有效期至" => Column::ValidUntil,
            name => match name.strip_prefix(FACE) {
                Some(field) if !field.is_empty() && field != "card_no" => Column::Face(field.to_owned()),
                _ => {
                    let shown: String = name.chars().take(40).collect();
                    return Err(vec![ListFault::at(
                        1,
                        format!(
                            "不认识列名 {shown:?}；可用 card_no、type、tier、discount_class、valid_until，卡面字段写作 face.字段名"
                        ),
                        format!(
                            "there is no column {shown:?}; use card_no, type, tier, discount_class, valid_until, and face.NAME for a field of the face"
                        ),
                    )]);
                }
            },
        };
        if columns.contains(&column) {
            return Err(vec![ListFault::at(
                1,
                format!("列名 {name} 重复"),
                format!("column {name} stands twice"),
            )]);
        }
        columns.push(column);
    }
    if columns.contains(&Column::CardNo) {
        Ok(columns)
    } else {
        Err(vec![ListFault::at(
            1,
            "缺少列 card_no（卡号）；首行须为列名",
            "column card_no is missing; the first line names the columns",
        )])
    }
}

fn card(line: u32, columns: &[Column], fields: &[String], defaults: &CardDefaults) -> Result<NewCard, Text> {
    let CardDefaults { mut card_type, mut tier, mut discount_class, mut valid_until, .. } = *defaults;
    let (mut card_no, mut face) = (None, defaults.face.clone());
    for (column, field) in columns.iter().zip(fields) {
        let field = field.trim();
        match column {
            Column::CardNo => card_no = Some(number(field)?),
            // An empty cell says nothing.
            _ if field.is_empty() => {}
            Column::CardType => card_type = kind(field)?,
            Column::Tier => tier = small("tier", "等级", field)?,
            Column::DiscountClass => discount_class = small("discount_class", "折扣类别", field)?,
            Column::ValidUntil => valid_until = Some(day(field)?),
            Column::Face(name) => drop(face.insert(name.clone(), value(field))),
        }
    }
    let card_no = card_no.ok_or_else(|| Text::new("没有卡号", "there is no card number"))?;
    let face = face_of(&card_no, face);
    Ok(NewCard { line, card_no, card_type, tier, discount_class, valid_until, face })
}

fn shown(field: &str) -> String {
    field.chars().take(40).collect()
}

fn number(field: &str) -> Result<CardNo, Text> {
    let digits = (1..=MAX_CARD_NO_DIGITS).contains(&field.len()) && field.bytes().all(|b| b.is_ascii_digit());
    let card_no = digits.then(|| CardNo::new(field.to_owned()).ok()).flatten();
    card_no.ok_or_else(|| {
        let shown = shown(field);
        Text::new(
            format!("卡号 {shown:?} 须为 1 到 {MAX_CARD_NO_DIGITS} 位数字（表格软件可能已把它改成科学计数，请设为文本）"),
            format!("card number {shown:?} must be 1 to {MAX_CARD_NO_DIGITS} digits (a spreadsheet may have rewritten it; make the column text)"),
        )
    })
}

fn kind(field: &str) -> Result<CardType, Text> {
    match field {
        "named" | "记名" => Ok(CardType::Named),
        "anonymous" | "不记名" => Ok(CardType::Anonymous),
        _ => Err(Text::new(
            format!("类型 {:?} 须为 named（记名）或 anonymous（不记名）", shown(field)),
            format!("type {:?} must be named or anonymous", shown(field)),
        )),
    }
}

fn small(name: &str, zh: &str, field: &str) -> Result<u8, Text> {
    field.parse().map_err(|_| {
        let shown = shown(field);
        Text::new(format!("{zh} {shown:?} 须为 0 到 255"), format!("{name} {shown:?} must be 0 to 255"))
    })
}

fn day(field: &str) -> Result<Date, Text> {
    field.parse().ok().filter(|_| field.len() == 10).ok_or_else(|| {
        let shown = shown(field);
        Text::new(
            format!("有效期 {shown:?} 须写成 2030-12-31"),
            format!("valid_until {shown:?} must be written like 2030-12-31"),
        )
    })
}

/// A face's field: an integer as one, so that a template can write it with separators.
fn value(field: &str) -> Value {
    let plain = field.len() <= 15 && (field == "0" || !field.starts_with(['0', '+']));
    field.parse::<i64>().ok().filter(|_| plain).map_or_else(|| json!(field), |number| json!(number))
}

/// The records of a CSV text, each with the line it begins in; empty lines are none.
fn records(text: &str) -> Result<Vec<(u32, Vec<String>)>, ListFault> {
    let (mut records, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begun, mut quoted, mut was_quoted) = (1_u32, 1_u32, false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() && !was_quoted => (quoted, was_quoted) = (true, true),
            '\n' if quoted => {
                line += 1;
                field.push(c);
            }
            _ if quoted => field.push(c),
            ',' => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' if rest.peek() == Some(&'\n') => {}
            '\n' | '\r' => {
                end(&mut records, begun, &mut fields, &mut field);
                was_quoted = false;
                line += 1;
                begun = line;
            }
            _ if was_quoted || c == '"' => {
                return Err(ListFault::at(
                    line,
                    "引号位置不对：含逗号或引号的内容须整体加引号，其中引号写两个",
                    "a quotation mark is out of place: put the whole field in them, and write those within twice",
                ));
            }
            '\0' => {
                return Err(ListFault::at(
                    line,
                    "含有不可见字符；请另存为“CSV UTF-8”",
                    "there are invisible characters; save the file as CSV UTF-8",
                ));
            }
            _ => field.push(c),
        }
    }
    if quoted {
        return Err(ListFault::at(begun, "引号没有结束", "a quotation mark is not closed"));
    }
    end(&mut records, begun, &mut fields, &mut field);
    Ok(records)
}

fn end(records: &mut Vec<(u32, Vec<String>)>, begun: u32, fields: &mut Vec<String>, field: &mut String) {
    if !fields.is_empty() || !field.trim().is_empty() {
        fields.push(std::mem::take(field));
        records.push((begun, std::mem::take(fields)));
    }
    field.clear();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn defaults() -> CardDefaults {
        CardDefaults {
            card_type: CardType::Named,
            tier: 0,
            discount_class: 0,
            valid_until: None,
            face: Map::new(),
        }
    }

    #[test]
    fn a_list_of_members() {
        let text = "\u{FEFF}卡号,类型,等级,valid_until,face.level,face.points\r\n\
                    8800000001,记名,2,2030-12-31,\"金卡, \"\"Gold\"\"\",1200\r\n\r\n\
                    8800000002,不记名,,,\"two\nlines\",0012\n8800000003,,,,,";
        let cards = from_csv(text, &defaults()).unwrap();
        let told: Vec<_> = cards
            .iter()
            .map(|card| (card.line, card.card_no.as_str(), card.card_type, card.tier, card.valid_until))
            .collect();
        let last = Some(jiff::civil::date(2030, 12, 31));
        assert_eq!(
            told,
            [
                (2, "8800000001", CardType::Named, 2, last),
                (4, "8800000002", CardType::Anonymous, 0, None),
                (6, "8800000003", CardType::Named, 0, None),
            ]
        );
        assert_eq!(
            Value::Object(cards[0].face.clone()),
            json!({ "card_no": "8800000001", "level": "金卡, \"Gold\"", "points": 1200 })
        );
        assert_eq!(cards[1].face["points"], json!("0012"), "leading zeros are no number's");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let many = format!("card_no\n{}", "1\n".repeat(MAX_BATCH_CARDS + 1));
        // (text, line, part of what is told)
        let cases: [(&str, Option<u32>, &str); 15] = [
            ("", None, "empty"),
            ("card_no\n", None, "no card"),
            ("8800000001\n8800000002\n", Some(1), "no column \"8800000001\""),
            ("type\nnamed\n", Some(1), "card_no is missing"),
            ("card_no,卡号\n1,1\n", Some(1), "twice"),
            ("card_no,valid_untill\n1,2\n", Some(1), "valid_untill"),
            ("card_no,type\n1\n", Some(2), "1 columns"),
            ("card_no\n8.8E+09\n", Some(2), "digits"),
            ("card_no\n12345678901234567\n", Some(2), "digits"),
            ("card_no\n1\n\n1\n", Some(4), "line 2 already"),
            ("card_no,type\n1,gold\n", Some(2), "named or anonymous"),
            ("card_no,tier\n1,256\n", Some(2), "0 to 255"),
            ("card_no,valid_until\n1,2030-02-30\n", Some(2), "2030-12-31"),
            ("card_no,face.a\n1,\"open\n2,b\n", Some(2), "not closed"),
            (&many, None, "at most 1000"),
        ];
        for (text, line, part) in cases {
            let faults = from_csv(text, &defaults()).unwrap_err();
            assert_eq!(faults[0].line, line, "{text:?}: {faults:?}");
            let told = faults[0].told();
            assert!(told.en.contains(part) && !told.zh.is_empty(), "{text:?}: {told:?}");
        }
        let bad = format!("card_no\n{}", "x\n".repeat(100));
        assert_eq!(from_csv(&bad, &defaults()).unwrap_err().len(), MAX_FAULTS);
    }

    #[test]
    fn a_range_keeps_its_zeros() {
        let cards = from_range("0098", "0101", &defaults()).unwrap();
        let numbers: Vec<_> = cards.iter().map(|card| card.card_no.as_str()).collect();
        assert_eq!(numbers, ["0098", "0099", "0100", "0101"]);
        for (from, to) in [("98", "101"), ("5", "4"), ("", "1"), ("a", "b"), ("1", "12345678901234567")] {
            from_range(from, to, &defaults()).unwrap_err();
        }
        assert!(from_range("0000", "1000", &defaults()).is_err());
        assert_eq!(from_range("0001", "1000", &defaults()).unwrap().len(), MAX_BATCH_CARDS);
        from_range("0000000000000000", "9999999999999999", &defaults()).unwrap_err();
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn any_text_is_a_list_or_refused(text in "(card_no|[a-z,\"\n\r\u{FEFF}0-9 卡号])*") {
            match from_csv(&text, &defaults()) {
                Ok(cards) => prop_assert!(!cards.is_empty() && cards.len() <= MAX_BATCH_CARDS),
                Err(faults) => prop_assert!(!faults.is_empty() && faults.len() <= MAX_FAULTS),
            }
        }

        #[test]
        fn fields_come_back_as_they_were_written(level in "[a-z,\"\n 卡]{1,20}") {
            let text = format!("card_no,face.level\n7,\"{}\"\n", level.replace('"', "\"\""));
            let cards = from_csv(&text, &defaults()).unwrap();
            let got = cards[0].face.get("level").and_then(Value::as_str).unwrap_or("");
            prop_assert_eq!(got, level.trim());
        }
    }
}
