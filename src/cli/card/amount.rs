//! What people type for money: yuan with at most two decimals, never floating point.

use std::str::FromStr;

use crate::event::ledger::{Category, Item, Tender, TenderKind};
use crate::money::Fen;

/// An amount typed in yuan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Yuan(pub(super) Fen);

impl FromStr for Yuan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no amount in yuan; write 500 or 88.50");
        let (whole, part) = text.split_once('.').unwrap_or((text, "00"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || !(1..=2).contains(&part.len()) {
            return Err(wrong());
        }
        let part: i64 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        whole
            .checked_mul(100)
            .and_then(|fen| fen.checked_add(part))
            .map(|fen| Self(Fen(fen)))
            .ok_or_else(wrong)
    }
}

/// An amount typed in yuan that may have a minus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SignedYuan(pub(super) Fen);

impl FromStr for SignedYuan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, amount) = text.strip_prefix('-').map_or((1, text), |amount| (-1, amount));
        let Yuan(Fen(fen)) = amount.parse()?;
        Ok(Self(Fen(sign * fen)))
    }
}

/// `cash`, `wechat`, `alipay`, `bank` or `purse`.
pub(super) fn tender_kind(text: &str) -> Result<TenderKind, String> {
    serde_json::from_value(text.into())
        .map_err(|_| format!("{text:?} is no way of paying; use cash, wechat, alipay, bank or purse"))
}

/// `cash=20.00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TenderArg(pub(super) Tender);

impl FromStr for TenderArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, amount) = text.split_once('=').ok_or("write it as cash=20.00")?;
        let Yuan(amount_fen) = amount.parse()?;
        Ok(Self(Tender { kind: tender_kind(kind)?, amount_fen }))
    }
}

/// `oil-5w30:parts:4:45.00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ItemArg(pub(super) Item);

impl FromStr for ItemArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "write it as SKU:labour|parts|goods|gift:QUANTITY:YUAN, e.g. oil-5w30:parts:4:45.00";
        // A name may hold colons, the three at the end do not.
        let mut parts = text.rsplitn(4, ':');
        let (price, quantity, category, sku) = (
            parts.next().ok_or(FORM)?,
            parts.next().ok_or(FORM)?,
            parts.next().ok_or(FORM)?,
            parts.next().ok_or(FORM)?,
        );
        let Yuan(price_fen) = price.parse()?;
        let category: Category = serde_json::from_value(category.into()).map_err(|_| FORM)?;
        Ok(Self(Item { sku: sku.into(), category, quantity: quantity.parse().map_err(|_| FORM)?, price_fen }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yuan_become_fen_to_the_fen() {
        for (text, fen) in
            [("500", Some(50_000)), ("88.5", Some(8_850)), ("0.07", Some(7)), ("1.00", Some(100))]
        {
            assert_eq!(text.parse().ok().map(|Yuan(Fen(fen))| fen), fen, "{text}");
        }
        for text in ["", "-5", "1.", ".5", "1.234", "1e3", "１００", "1,000", "99999999999999999999"] {
            assert!(text.parse::<Yuan>().is_err(), "{text}");
        }
        for (text, fen) in
            [("-5.00", Some(-500)), ("0.07", Some(7)), ("--5", None), ("-", None), ("+5", None)]
        {
            assert_eq!(text.parse().ok().map(|SignedYuan(Fen(fen))| fen), fen, "{text}");
        }
    }

    #[test]
    fn items_and_tenders_as_typed() {
        let ItemArg(item) = "a:b:parts:4:45.00".parse().unwrap();
        assert_eq!((item.sku.as_str(), item.quantity, item.price_fen), ("a:b", 4, Fen(4_500)));
        let TenderArg(tender) = "cash=20".parse().unwrap();
        assert_eq!((tender.kind, tender.amount_fen), (TenderKind::Cash, Fen(2_000)));
        for text in ["oil", "oil:parts:4", "oil:other:1:1", "oil:parts:-1:1"] {
            assert!(text.parse::<ItemArg>().is_err(), "{text}");
        }
        assert!("gold=1".parse::<TenderArg>().is_err());
    }
}
