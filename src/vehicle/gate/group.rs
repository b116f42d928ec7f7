//! Requests for a parameter group on a J1939 bus (SAE J1939-21 §5.4.2, PGN 59904 `EA00`): three
//! bytes that name the group wanted. What lives here: the groups that may be asked for, each
//! of which only tells; a group that acts when it is asked for (DM3 and DM11 clear codes) has
//! no variant. What does not: hearing the answers (`vehicle::j1939`, `vehicle::can`).

/// Of off-board diagnostic tools, the first (SAE J1939-81 table B2, address 249).
pub const TOOL: u8 = 0xF9;
/// Priority 6, request, to all (`FF`), from [`TOOL`]. To all, so that a long answer is
/// broadcast (BAM) and needs no grant from us (J1939-21 §5.4.2).
const TO_ALL: u32 = 0x18EA_FF00;

/// A group that may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupRequest {
    /// DM2, PGN 65227: codes that were active before (SAE J1939-73 §5.7.2: told on request).
    PreviouslyActive,
    /// VI, PGN 65260: the vehicle identification number (SAE J1939-71, told on request).
    VehicleIdentification,
}

impl GroupRequest {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::PreviouslyActive, Self::VehicleIdentification];

    /// The group's number.
    #[must_use]
    pub const fn group(self) -> u32 {
        match self {
            Self::PreviouslyActive => 65227,
            Self::VehicleIdentification => 65260,
        }
    }

    /// The 29-bit identifier of the request.
    #[must_use]
    pub const fn id(self) -> u32 {
        TO_ALL | TOOL as u32
    }

    /// Its data: the group, low byte first.
    #[must_use]
    pub const fn data(self) -> [u8; 3] {
        let [low, middle, high, _] = self.group().to_le_bytes();
        [low, middle, high]
    }
}

impl std::fmt::Display for GroupRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PGN {}", self.group())
    }
}
