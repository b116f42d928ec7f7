//! The members that a shop had before, as it lists them: a CSV file like that of a batch
//! (`new_cards`), without faces. Pure. Line by line: one that is wrong is told and keeps no other
//! out. What does not live here: which of them are known already (`api::routes::members`).
//!
//! ```text
//!  card_no,type,tier,discount_class,valid_until      卡号,类型,等级,折扣类别,有效期至
//!  8800000042,named,2,0,
//! ```

use std::collections::HashMap;

use super::new_cards::{CardDefaults, Column, ListFault, card, columns, records};
use crate::event::Text;
use crate::event::ledger::ListedMember;
use crate::ident::CardNo;

/// A member of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// The line it stands in.
    pub line: u32,
    /// Its card's number.
    pub card_no: CardNo,
    /// What its card is to carry.
    pub member: ListedMember,
}

/// A list as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// The good lines, in order.
    pub members: Vec<NewMember>,
    /// What is wrong with the others, in order.
    pub faults: Vec<ListFault>,
}

/// The members of a CSV text whose first line names the columns. The line behind it counts as
/// `first_line`: a long file comes in parts.
///
/// # Errors
/// What is wrong with the first line: nothing can be read then.
pub fn members(text: &str, first_line: u32, defaults: &CardDefaults) -> Result<Members, ListFault> {
    let mut lines = text.strip_prefix('\u{FEFF}').unwrap_or(text).lines();
    let head = lines.next().unwrap_or_default();
    let head = records(head)?.into_iter().next().map(|(_, fields)| fields).ok_or_else(|| {
        ListFault::at(
            1,
            "首行须为列名，如 card_no,type",
            "the first line names the columns, e.g. card_no,type",
        )
    })?;
    let columns = columns(&head).map_err(first)?;
    if columns.iter().any(|column| matches!(column, Column::Face(_))) {
        return Err(ListFault::at(
            1,
            "导入会员没有卡面字段；卡面在 card batch 发卡时印",
            "members have no fields of a face; faces are printed when cards are given out (card batch)",
        ));
    }
    let mut read = Members::default();
    let mut seen: HashMap<CardNo, u32> = HashMap::new();
    for (line, text) in (first_line..).zip(lines) {
        match member(line, text, &columns, defaults) {
            Ok(None) => {}
            Ok(Some(new)) => match seen.insert(new.card_no.clone(), line) {
                // The first one counts, however often the file comes.
                Some(earlier) => {
                    let no = new.card_no.clone();
                    seen.insert(new.card_no, earlier);
                    read.faults.push(ListFault::at(
                        line,
                        format!("卡号 {no} 与第 {earlier} 行重复，以第 {earlier} 行为准"),
                        format!("card number {no} stands in line {earlier} already, which counts"),
                    ));
                }
                None => read.members.push(new),
            },
            Err(text) => read.faults.push(ListFault { line: Some(line), text }),
        }
    }
    Ok(read)
}

fn first(faults: Vec<ListFault>) -> ListFault {
    let whole =
        || ListFault { line: Some(1), text: Text::new("首行不可读", "the first line cannot be read") };
    faults.into_iter().next().unwrap_or_else(whole)
}

/// One line; no field of a member goes over its end. `None`: there is nothing in it.
fn member(
    line: u32,
    text: &str,
    columns: &[Column],
    defaults: &CardDefaults,
) -> Result<Option<NewMember>, Text> {
    let mut records = records(text).map_err(|fault| fault.text)?;
    if records.len() > 1 {
        return Err(Text::new("行中含有换行符", "there is a line end within the line"));
    }
    let Some((_, fields)) = records.pop() else { return Ok(None) };
    // A spreadsheet saves rows that were emptied as commas alone.
    if fields.iter().all(|field| field.trim().is_empty()) {
        return Ok(None);
    }
    if fields.len() != columns.len() {
        let (has, wants) = (fields.len(), columns.len());
        return Err(Text::new(
            format!("有 {has} 列，列名有 {wants} 个"),
            format!("it has {has} columns, the first line {wants}"),
        ));
    }
    let card = card(line, columns, &fields, defaults)?;
    let member = ListedMember {
        card_type: card.card_type,
        tier: card.tier,
        discount_class: card.discount_class,
        valid_until: card.valid_until,
    };
    Ok(Some(NewMember { line, card_no: card.card_no, member }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::ledger::CardType;

    fn defaults() -> CardDefaults {
        CardDefaults {
            card_type: CardType::Named,
            tier: 0,
            discount_class: 0,
            valid_until: None,
            face: serde_json::Map::new(),
        }
    }

    fn told(text: &str) -> Vec<(u32, String)> {
        let read = members(text, 2, &defaults()).unwrap();
        read.faults.into_iter().map(|fault| (fault.line.unwrap(), fault.text.en)).collect()
    }

    #[test]
    fn good_lines_are_taken_and_the_others_told() {
        let text = "\u{FEFF}卡号,类型,等级,折扣类别,有效期至\r\n8800000001,记名,2,1,\r\n\r\n,,,,\r\n8800000002,anonymous,,,2035-12-31\r\n\
                    \"8800000003\",named,1,0,\r\n8800000001,named,9,9,\r\nabc,named,,,\r\n4,vip,,,\r\n5,named,300,,\r\n6,named,,,31.12.2030\r\n\
                    7,named\r\n\"8,named,,,\r\n9,named,,,\r\n";
        let read = members(text, 2, &defaults()).unwrap();
        let taken: Vec<(u32, &str)> =
            read.members.iter().map(|new| (new.line, new.card_no.as_str())).collect();
        assert_eq!(taken, [(2, "8800000001"), (5, "8800000002"), (6, "8800000003"), (14, "9")]);
        let ListedMember { card_type, tier, discount_class, valid_until } = read.members[0].member;
        assert_eq!((card_type, tier, discount_class, valid_until), (CardType::Named, 2, 1, None));
        assert_eq!(read.members[1].member.valid_until, Some("2035-12-31".parse().unwrap()));
        let lines: Vec<u32> = told(text).iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [7, 8, 9, 10, 11, 12, 13]);
        assert!(told(text)[0].1.contains("stands in line 2 already"));
        // A part of a long file.
        let part = members("card_no\n1\nx\n", 501, &defaults()).unwrap();
        assert_eq!((part.members[0].line, part.faults[0].line), (501, Some(502)));
    }

    #[test]
    fn without_its_columns_nothing_can_be_read() {
        for (text, part) in [
            ("", "first line"),
            ("type,tier\nnamed,1", "card_no is missing"),
            ("card_no,name\n1,王", "no column"),
            ("card_no,principal_fen\n1,100", "no column"),
            ("card_no,card_no\n1,1", "twice"),
            ("card_no,face.level\n1,Gold", "no fields of a face"),
            ("\"card_no", "not closed"),
        ] {
            let fault = members(text, 2, &defaults()).unwrap_err();
            assert!(fault.text.en.contains(part), "{text}: {fault:?}");
            assert_ne!(fault.text.zh, "");
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Every line is a member, a fault, or empty; no text panics.
        #[test]
        fn any_text_is_read(lines in prop::collection::vec("[0-9,\"a-z\u{20}\u{9}\u{d}卡]{0,24}", 0..12)) {
            let text = format!("card_no,type\n{}", lines.join("\n"));
            let read = members(&text, 2, &defaults()).unwrap();
            prop_assert!(read.members.len() + read.faults.len() <= lines.len());
            let mut at: Vec<u32> = read.members.iter().map(|new| new.line).collect();
            at.extend(read.faults.iter().filter_map(|fault| fault.line));
            at.sort_unstable();
            at.dedup();
            prop_assert_eq!(at.len(), read.members.len() + read.faults.len(), "a line is told once");
        }
    }
}
