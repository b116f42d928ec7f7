//! Keys of member cards for a test's gateway, as docs/card-keys.md has the credential made.

/// The store whose cards they are.
pub const STORE: &str = "SH-0042";

/// What stands in the file `card-keys` of the credentials' folder.
pub fn credential() -> String {
    let mut text = format!("store {STORE}\ncurrent 1\n");
    for (place, purpose) in (1_u8..).zip(["record", "debit", "credit", "manage", "sun"]) {
        let key: [u8; 16] =
            std::array::from_fn(|i| (i as u8).wrapping_mul(73).wrapping_add(place * 41) ^ 0x5A);
        text.push_str(&format!("1 {purpose} {}\n", hex::encode(key)));
    }
    text
}
