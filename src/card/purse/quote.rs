//! What a sale costs on this card, line by line, and what it is paid with. The same input
//! gives the same lines, whenever and wherever it is asked.
//!
//! ```text
//!  items ─ discount of the class on labour, on parts = due
//!  due = coupon + points + what the till took (cash, WeChat …) + purse (principal, bonus),
//!  each of them a line again, with a minus (`pay-coupon` … `pay-bonus`)
//! ```

use super::plan::{Plan, add, share_down, share_half_up, subtract, written};
use super::{Effect, Refusal};
use crate::config::purse::{ClassRule, CouponRule, PurseTable, SpendOrder};
use crate::event::Text;
use crate::event::ledger::{Category, Item, Tender, TenderKind, TransactionKind};
use crate::money::{CouponId, Fen, Holding};

/// Items of a sale, at most: the event that tells it has 64 KiB.
pub const MAX_ITEMS: usize = 100;
/// Of one item, at most.
pub const MAX_QUANTITY: u32 = 10_000;
/// The longest name of an item or an order, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Ways of paying in one sale that the card knows nothing of, at most.
pub const MAX_TENDERS: usize = 16;

/// What a till asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sale {
    /// What is sold.
    pub items: Vec<Item>,
    /// The card's discount class; one that is not configured has no discount.
    pub class: u8,
    /// A coupon of the card to use.
    pub coupon: Option<CouponId>,
    /// Points to pay with.
    pub points: i64,
    /// What the till took, and what the purse is to pay. Empty: the purse pays what is left.
    /// Otherwise all of it must add up. A quote's own tenders will do.
    pub tenders: Vec<Tender>,
}

/// Calculates a sale.
///
/// # Errors
/// [`Refusal`].
pub fn quote(holding: &Holding, sale: &Sale, rules: &PurseTable) -> Result<Plan, Refusal> {
    let mut plan = Plan::new(TransactionKind::Spend);
    let class = rules.class.iter().find(|class| class.class == sale.class);
    let mut net = Net::default();
    for item in check(sale)? {
        let amount = item_line(&mut plan, item)?;
        *net.of(item.category) = add(*net.of(item.category), amount)?;
    }
    if let Some(class) = class {
        class_discounts(&mut plan, &mut net, class)?;
    }
    plan.items.clone_from(&sale.items);
    let mut rest = plan.due_fen;
    if let Some(id) = sale.coupon {
        let rule = rules.coupon.iter().find(|rule| rule.id == id).ok_or(Refusal::CouponUnknown)?;
        let amount_fen = coupon_worth(rule, &mut net, plan.due_fen)?;
        plan.tender(Tender { kind: TenderKind::Coupon, amount_fen });
        rest = subtract(rest, amount_fen)?;
        plan.coupon = Some(id);
    }
    let by_points = points_worth(sale.points, holding, rest, rules)?;
    plan.tender(Tender { kind: TenderKind::Points, amount_fen: by_points });
    rest = subtract(rest, by_points)?;
    let (told, by_purse) = split_told(&sale.tenders, &plan.tenders, rest)?;
    for tender in sale.tenders.iter().filter(|tender| tender.kind.is_told()) {
        plan.tender(*tender);
    }
    plan.tender(Tender { kind: TenderKind::Purse, amount_fen: by_purse });
    let (principal, bonus) = split_purse(holding, by_purse, rules.spend_order)?;
    plan.points_used = sale.points;
    plan.points_earned = earned(add(principal, told)?, rules).unwrap_or(0);
    let points = plan.points_earned.checked_sub(sale.points).ok_or(Refusal::AmountNotAllowed)?;
    plan.effect = Effect {
        principal_fen: subtract(Fen(0), principal)?,
        bonus_fen: subtract(Fen(0), bonus)?,
        points,
        take: sale.coupon,
        give: None,
        ..Effect::default()
    };
    payment_lines(&mut plan, rules)?;
    Ok(plan)
}

/// What it is paid with, line by line, each with a minus: with them the lines add up to nothing.
fn payment_lines(plan: &mut Plan, rules: &PurseTable) -> Result<(), Refusal> {
    let coupon = rules.coupon.iter().find(|rule| Some(rule.id) == plan.coupon);
    let coupon = coupon.map_or_else(|| Text::new("", ""), |rule| rule.name.clone());
    for tender in plan.tenders.clone() {
        let (code, zh, en) = match tender.kind {
            TenderKind::Coupon => {
                ("pay-coupon", format!("优惠券 {}", coupon.zh), format!("Coupon {}", coupon.en))
            }
            TenderKind::Points => {
                let points = plan.points_used;
                ("pay-points", format!("积分抵扣 {points}"), format!("Points {points}"))
            }
            TenderKind::Cash => ("pay-cash", "现金".into(), "Cash".into()),
            TenderKind::Wechat => ("pay-wechat", "微信".into(), "WeChat".into()),
            TenderKind::Alipay => ("pay-alipay", "支付宝".into(), "Alipay".into()),
            TenderKind::Bank => ("pay-bank", "银行卡".into(), "Bank card".into()),
            // In its two parts below.
            TenderKind::Purse => continue,
        };
        plan.paid(code, zh, en, subtract(Fen(0), tender.amount_fen)?);
    }
    let Effect { principal_fen, bonus_fen, .. } = plan.effect;
    plan.paid("pay-principal", "本金", "Principal", principal_fen);
    plan.paid("pay-bonus", "赠送金", "Bonus", bonus_fen);
    Ok(())
}

/// What is left to pay, by category, after discounts.
#[derive(Default)]
struct Net {
    labour: Fen,
    parts: Fen,
    goods: Fen,
    gift: Fen,
}

impl Net {
    fn of(&mut self, category: Category) -> &mut Fen {
        match category {
            Category::Labour => &mut self.labour,
            Category::Parts => &mut self.parts,
            Category::Goods => &mut self.goods,
            Category::Gift => &mut self.gift,
        }
    }
}

fn check(sale: &Sale) -> Result<&[Item], Refusal> {
    // Beside what the till took: purse, points and coupon, as a quote gives them.
    let tenders = sale.tenders.len() <= MAX_TENDERS + 3
        && sale.tenders.iter().filter(|tender| tender.kind.is_told()).count() <= MAX_TENDERS;
    let sound = !sale.items.is_empty() && tenders && sale.points >= 0;
    if !sound {
        return Err(Refusal::AmountNotAllowed);
    }
    check_items(&sale.items)?;
    Ok(&sale.items)
}

/// Whether items can be told: the event that does has 64 KiB.
pub(super) fn check_items(items: &[Item]) -> Result<(), Refusal> {
    let counts = |item: &Item| {
        (1..=MAX_QUANTITY).contains(&item.quantity)
            && (0..=crate::config::purse::MAX_FEN).contains(&item.price_fen.0)
    };
    if items.len() > MAX_ITEMS || !items.iter().all(counts) {
        return Err(Refusal::AmountNotAllowed);
    }
    items.iter().try_for_each(|item| check_name(&item.sku))
}

/// What a till calls something: short, and nothing that a printer or a log would act on.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let sound = name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control);
    if sound { Ok(()) } else { Err(Refusal::NameNotAllowed) }
}

fn item_line(plan: &mut Plan, item: &Item) -> Result<Fen, Refusal> {
    let amount =
        item.price_fen.0.checked_mul(item.quantity.into()).map(Fen).ok_or(Refusal::AmountNotAllowed)?;
    let (zh, en) = match item.category {
        Category::Labour => ("工时", "Labour"),
        Category::Parts => ("配件", "Parts"),
        Category::Goods => ("商品", "Goods"),
        Category::Gift => ("礼品", "Gift"),
    };
    let Item { sku, quantity, .. } = item;
    plan.line("item", format!("{zh} {sku} × {quantity}"), format!("{en} {sku} × {quantity}"), amount)?;
    Ok(amount)
}

/// On the sum of a category, once: what the customer reads on the receipt can be checked with
/// a pocket calculator.
fn class_discounts(plan: &mut Plan, net: &mut Net, class: &ClassRule) -> Result<(), Refusal> {
    for (category, per_mille, code, zh, en) in [
        (Category::Labour, class.labour_off_per_mille, "discount-labour", "工时优惠", "labour discount"),
        (Category::Parts, class.parts_off_per_mille, "discount-parts", "配件优惠", "parts discount"),
    ] {
        let gross = *net.of(category);
        let off = share_half_up(gross.0, per_mille.into(), 1000).map(Fen).ok_or(Refusal::AmountNotAllowed)?;
        if off.0 == 0 {
            continue;
        }
        let percent = format!("{}.{}%", per_mille / 10, per_mille % 10);
        let (zh, en) =
            (format!("{}{zh} −{percent}", class.name.zh), format!("{} {en} −{percent}", class.name.en));
        plan.line(code, zh, en, subtract(Fen(0), off)?)?;
        plan.discount_fen = add(plan.discount_fen, off)?;
        *net.of(category) = subtract(gross, off)?;
    }
    Ok(())
}

fn coupon_worth(rule: &CouponRule, net: &mut Net, due: Fen) -> Result<Fen, Refusal> {
    let of = rule.category.map_or(due, |category| *net.of(category));
    let off = match (rule.off_fen, rule.off_per_mille) {
        (Some(off), _) => off.min(of),
        (None, Some(share)) => {
            share_half_up(of.0, share.into(), 1000).map(Fen).ok_or(Refusal::AmountNotAllowed)?.min(of)
        }
        (None, None) => Fen(0),
    };
    if off.0 <= 0 || due < rule.from_fen { Err(Refusal::CouponNotApplicable) } else { Ok(off) }
}

fn points_worth(points: i64, holding: &Holding, rest: Fen, rules: &PurseTable) -> Result<Fen, Refusal> {
    if points == 0 {
        return Ok(Fen(0));
    }
    if points > holding.points {
        return Err(Refusal::NotEnoughPoints);
    }
    let worth = points.checked_mul(rules.points.worth_fen.0).ok_or(Refusal::PointsOverShare)?;
    let most = share_down(rest.0, rules.points.max_share_per_mille.into(), 1000);
    if worth == 0 || most.is_none_or(|most| worth > most) {
        return Err(Refusal::PointsOverShare);
    }
    Ok(Fen(worth))
}

/// What the till took, and what the purse has to pay. Coupon and points need not be named among
/// the tenders; where they are, as in a quote that is sent back, it is with what they are worth.
fn split_told(tenders: &[Tender], card_pays: &[Tender], rest: Fen) -> Result<(Fen, Fen), Refusal> {
    let (mut told, mut purse) = (Fen(0), Fen(0));
    for tender in tenders {
        let amount = written(tender.amount_fen)?;
        match tender.kind {
            TenderKind::Purse => purse = add(purse, amount)?,
            TenderKind::Points | TenderKind::Coupon
                if card_pays.contains(tender)
                    && tenders.iter().filter(|other| other.kind == tender.kind).count() == 1 => {}
            TenderKind::Points | TenderKind::Coupon => return Err(Refusal::TendersDoNotAddUp),
            _ => told = add(told, amount)?,
        }
    }
    if tenders.is_empty() {
        purse = rest;
    }
    if add(told, purse)? == rest { Ok((told, purse)) } else { Err(Refusal::TendersDoNotAddUp) }
}

/// Principal and bonus of an amount that the purse pays.
pub(super) fn split_purse(holding: &Holding, amount: Fen, order: SpendOrder) -> Result<(Fen, Fen), Refusal> {
    let balance = holding.balance().ok_or(Refusal::AmountNotAllowed)?;
    if amount > balance {
        return Err(Refusal::NotEnoughBalance);
    }
    let bonus = match order {
        SpendOrder::PrincipalFirst => subtract(amount, amount.min(holding.principal_fen))?,
        SpendOrder::BonusFirst => amount.min(holding.bonus_fen),
        SpendOrder::Proportional if balance.0 == 0 => Fen(0),
        SpendOrder::Proportional => {
            let bonus = share_half_up(amount.0, holding.bonus_fen.0, balance.0).map(Fen);
            // Rounding may ask for a fen that the other half has.
            let least = subtract(amount, amount.min(holding.principal_fen))?;
            bonus.ok_or(Refusal::AmountNotAllowed)?.clamp(least, amount.min(holding.bonus_fen))
        }
    };
    Ok((subtract(amount, bonus)?, bonus))
}

/// Points for what was paid with real money.
fn earned(paid: Fen, rules: &PurseTable) -> Option<i64> {
    paid.0.checked_div(rules.points.earn_per_fen.0)?.checked_mul(rules.points.earn_points.into())
}
