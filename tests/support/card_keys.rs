//! Keys of member cards for a test's gateway, as docs/card-keys.md has the credential made.

/// The store whose cards they are.
pub const STORE: &str = "SH-0042";

/// What stands in the file `card-keys` of the credentials' folder.
pub fn credential() -> String {
    let mut text = format!("store {STORE}\ncurrent 1\n");
    for (place, purpose) in (1_u8..).zip(["record", "debit", "credit", "manage", "sun"]) {
        text.push_str(&format!("1 {purpose} {}\n", hex::encode(master(place))));
    }
    text.push_str(&format!("1 cpu-maintain {}\n", hex::encode(cpu_maintain())));
    text
}

/// What the maker of a CPU card personalises it for.
pub fn cpu_maintain() -> [u8; 16] {
    master(7)
}

fn master(place: u8) -> [u8; 16] {
    std::array::from_fn(|i| (i as u8).wrapping_mul(73).wrapping_add(place.wrapping_mul(41)) ^ 0x5A)
}
