//! What people type in about a visit: VIN, odometer, order, purpose, the member's
//! card. What lives here: what is acceptable, what is odd and only said, and how it
//! goes into a report. Pure. What does not: HTTP (`api`) and the rows (`store`).
//!
//! What the car itself told is never overridden: another VIN is refused, an
//! odometer reading of the car stays. A card is joined only with consent.

use crate::clock::UtcMillis;
use crate::event::Text;
use crate::event::vehicle::{OdometerSource, Purpose, StoreFacts, VehicleReport, VinCheck, VinSource};
use crate::ident::{CardNo, Vin};
use crate::store::visits::{TypedIn, VisitRow};

/// Beyond this no odometer has digits: seven of them, as on heavy trucks.
const MOST_KM: f64 = 9_999_999.0;
/// More in a day than two drivers taking turns on a motorway: 24 h at 100 km/h.
const MOST_KM_A_DAY: f64 = 2_400.0;
/// Readings rounded to whole kilometres, and a reading on the way to the bay.
const SLACK_KM: f64 = 10.0;
/// Longest workshop order number, in characters.
const MOST_ORDER: usize = 64;
const DAY_MS: f64 = 86_400_000.0;

/// What somebody typed in; what is absent stays as it was.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// VIN, in any case.
    pub vin: Option<String>,
    /// Odometer, kilometres.
    pub odometer_km: Option<f64>,
    /// Where it was read; dashboard when not said.
    pub odometer_source: Option<OdometerSource>,
    /// Workshop order.
    pub order: Option<String>,
    /// The member's card.
    pub card_no: Option<String>,
    /// The member agrees to be joined to the car. `false` undoes it.
    pub consent: Option<bool>,
    /// Why the car is here.
    pub purpose: Option<Purpose>,
}

/// Something is not acceptable; nothing of the entry takes effect.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TypedError {
    /// Not a VIN.
    #[error("a VIN has 17 letters and digits without I, O and Q; read it again from the windscreen")]
    VinForm,
    /// The car says otherwise.
    #[error("the car itself gave the VIN {read}; it cannot be typed over: is this the right bay?")]
    VinConflict {
        /// What the car gave.
        read: Vin,
    },
    /// Not an odometer reading.
    #[error("the odometer must be between 0 and {MOST_KM} km")]
    Odometer,
    /// The car does not say that by itself.
    #[error("`odometer_source` may be dashboard or order; obd is what the car says by itself")]
    OdometerSource,
    /// Not an order number.
    #[error("the order has 1 to {MOST_ORDER} characters without control characters")]
    Order,
    /// Not a card number.
    #[error("the card number has 1 to 32 of A-Z a-z 0-9 -")]
    CardNo,
    /// A card without consent.
    #[error(
        "a car is joined to a member only with consent: ask the customer, then send `consent`: true with `card_no`"
    )]
    Consent,
}

impl TypedError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::VinForm => "vin-invalid",
            Self::VinConflict { .. } => "vin-conflict",
            Self::Odometer => "odometer-invalid",
            Self::OdometerSource => "odometer-source-invalid",
            Self::Order => "order-invalid",
            Self::CardNo => "card-no-invalid",
            Self::Consent => "consent-missing",
        }
    }

    /// What to do, in both languages.
    #[must_use]
    pub fn text(&self) -> Text {
        let zh = match self {
            Self::VinForm => "车架号为 17 位字母和数字，不含 I、O、Q；请对照前风挡重新录入".to_owned(),
            Self::VinConflict { read } => {
                format!("车辆自身上报的车架号为 {read}，不能手工覆盖；请确认是否选错工位")
            }
            Self::Odometer => format!("里程须在 0 到 {MOST_KM} 公里之间"),
            Self::OdometerSource => {
                "odometer_source 只能是 dashboard 或 order；obd 由车辆自身上报".to_owned()
            }
            Self::Order => format!("工单号为 1 到 {MOST_ORDER} 个字符，不含控制字符"),
            Self::CardNo => "卡号为 1 到 32 位字母、数字或连字符".to_owned(),
            Self::Consent => {
                "须经客户同意才能将车辆与会员关联：请征得同意后同时提交 card_no 和 consent: true".to_owned()
            }
        };
        Text::new(zh, self.to_string())
    }
}

/// Something is odd and was taken nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The check digit is wrong: usual outside China and North America, else a typing error.
    VinCheckDigit,
    /// Less than at an earlier visit.
    OdometerWentBack,
    /// More than a car can drive since an earlier visit.
    OdometerJumped,
    /// The car's own reading differs; it stays in the report.
    OdometerDiffers,
}

impl Notice {
    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::VinCheckDigit => "vin-check-digit",
            Self::OdometerWentBack => "odometer-went-back",
            Self::OdometerJumped => "odometer-jumped",
            Self::OdometerDiffers => "odometer-differs",
        }
    }

    /// What it may mean, in both languages.
    #[must_use]
    pub fn text(self) -> Text {
        let (zh, en) = match self {
            Self::VinCheckDigit => (
                "车架号校验位（第 9 位）不符：部分进口车不使用校验位，否则可能录入有误，请核对",
                "the VIN's check digit (position 9) is wrong: some imported cars do not use it, else it is a typing error; compare it",
            ),
            Self::OdometerWentBack => (
                "里程低于该车以往记录：请核对；若更换过仪表请在工单中注明",
                "the odometer is below an earlier reading of this car: compare it; if the cluster was exchanged, note it in the order",
            ),
            Self::OdometerJumped => (
                "里程较上次记录增加过快：请核对是否多录一位",
                "the odometer rose by more than a car can drive since the last reading: is there a digit too many?",
            ),
            Self::OdometerDiffers => (
                "车辆自身上报的里程与录入不同：报告以车辆上报为准",
                "the car's own odometer reading differs: the report keeps the car's",
            ),
        };
        Text::new(zh, en)
    }
}

/// An odometer reading of an earlier visit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Kilometres.
    pub km: f64,
    /// When the visit began.
    pub at: UtcMillis,
}

impl Reading {
    /// The reading of a visit: typed in, else of its report.
    #[must_use]
    pub fn of(visit: &VisitRow) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Told {
            odometer_km: Option<f64>,
        }
        let told = || serde_json::from_str::<Told>(visit.report.as_ref()?.get()).ok()?.odometer_km;
        let km = visit.typed.odometer_km.or_else(told)?;
        Some(Self { km, at: visit.started_at })
    }
}

/// What a visit's facts are after an entry, and what is odd about it. `last`: the car's
/// reading of its latest earlier visit; `by_car`: the car's own reading in this visit.
///
/// # Errors
/// [`TypedError`]; nothing of the entry takes effect.
pub fn take(
    entry: &Entry,
    visit: &VisitRow,
    last: Option<Reading>,
    by_car: Option<f64>,
    now: UtcMillis,
) -> Result<(TypedIn, Vec<Notice>), TypedError> {
    let mut typed = visit.typed.clone();
    let mut notices = Vec::new();
    if let Some(text) = &entry.vin {
        let vin = vin_of(text)?;
        match &visit.vin {
            Some(read) if visit.vin_is_read && *read != vin => {
                return Err(TypedError::VinConflict { read: read.clone() });
            }
            _ => {}
        }
        if !vin.check_digit_ok() {
            notices.push(Notice::VinCheckDigit);
        }
        typed.vin = Some(vin);
    }
    if entry.odometer_source == Some(OdometerSource::Obd) {
        return Err(TypedError::OdometerSource);
    }
    if let Some(km) = entry.odometer_km {
        if !(0.0..=MOST_KM).contains(&km) {
            return Err(TypedError::Odometer);
        }
        notices.extend(odometer_notices(km, last, by_car, now));
        typed.odometer_km = Some(km);
        typed.odometer_source = Some(entry.odometer_source.unwrap_or(OdometerSource::Dashboard));
    }
    if let Some(order) = &entry.order {
        typed.order = Some(order_of(order)?);
    }
    typed.purpose = entry.purpose.or(typed.purpose);
    match (&entry.card_no, entry.consent) {
        (Some(text), Some(true)) => {
            let card_no = CardNo::new(text.trim()).map_err(|_| TypedError::CardNo)?;
            // The same card again keeps the time at which the member first agreed.
            let since = typed.member.as_ref().filter(|(known, _)| *known == card_no).map(|(_, since)| *since);
            typed.member = Some((card_no, since.unwrap_or(now)));
        }
        (Some(_), _) => return Err(TypedError::Consent),
        (None, Some(false)) => typed.member = None,
        (None, _) => {}
    }
    Ok((typed, notices))
}

/// A VIN as typed: blanks and dashes of form fields are no part of it.
///
/// # Errors
/// [`TypedError::VinForm`].
pub fn vin_of(text: &str) -> Result<Vin, TypedError> {
    let plain: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    Vin::new(plain.to_ascii_uppercase()).map_err(|_| TypedError::VinForm)
}

fn order_of(text: &str) -> Result<String, TypedError> {
    let order = text.trim();
    let fits = (1..=MOST_ORDER).contains(&order.chars().count()) && !order.chars().any(char::is_control);
    if fits { Ok(order.to_owned()) } else { Err(TypedError::Order) }
}

fn odometer_notices(km: f64, last: Option<Reading>, by_car: Option<f64>, now: UtcMillis) -> Option<Notice> {
    // The car counts in tenths and may round otherwise than its dashboard.
    if by_car.is_some_and(|own| (own - km).abs() > SLACK_KM + own * 0.005) {
        return Some(Notice::OdometerDiffers);
    }
    let last = last?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of centuries are exact in a double")]
    let days = (now.0.saturating_sub(last.at.0).max(0) as f64) / DAY_MS;
    if km < last.km - SLACK_KM {
        Some(Notice::OdometerWentBack)
    } else if km > last.km + SLACK_KM + days * MOST_KM_A_DAY {
        Some(Notice::OdometerJumped)
    } else {
        None
    }
}

/// What of it has no place of its own in an event.
#[must_use]
pub fn store_facts(typed: &TypedIn, vin_is_typed: bool) -> StoreFacts {
    let (card_no, consent_at) = typed.member.clone().unzip();
    StoreFacts { vin_typed: vin_is_typed.then_some(true), purpose: typed.purpose, card_no, consent_at }
}

/// Puts what was typed in into a report. What the car told stays; what was typed in
/// before and no longer holds goes.
pub fn put_into(report: &mut VehicleReport, typed: &TypedIn) {
    let was_typed = report.store_facts.vin_typed == Some(true);
    if was_typed {
        (report.vin, report.vin_source, report.vin_check) = (None, None, VinCheck::Missing);
    }
    let vin_is_typed = report.vin.is_none() && typed.vin.is_some();
    if let (true, Some(vin)) = (vin_is_typed, &typed.vin) {
        report.vin_check = VinCheck::of(vin);
        report.vin = Some(vin.clone());
        report.vin_source = Some(VinSource::Typed);
    }
    report.order.clone_from(&typed.order);
    if report.odometer_source.as_deref() != Some(OdometerSource::Obd.as_str()) {
        report.odometer_km = typed.odometer_km;
        report.odometer_source = typed.odometer_source.map(|source| source.as_str().to_owned());
    }
    report.store_facts = store_facts(typed, vin_is_typed);
}

#[cfg(test)]
mod tests;
