//! Logins that are a command or two. Keys stand in the commands alone, and those
//! show nothing of them.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::card::apdu::Command;

/// Login to a Classic sector: two commands, one behind the other, on the same card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicLogin {
    /// Loads the key into the reader's volatile slot.
    pub load: Command,
    /// Authenticates with it. After a failure the card is halted: select it anew.
    pub authenticate: Command,
}

/// Password login of an NTAG21x or Ultralight EV1 (NTAG213/215/216 data sheet rev. 3.2 §10.7).
#[derive(Clone)]
pub struct TagLogin {
    pub(super) password: Zeroizing<[u8; 4]>,
    pub(super) pack: Zeroizing<[u8; 2]>,
}

impl fmt::Debug for TagLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagLogin(…)")
    }
}

impl TagLogin {
    /// PWD_AUTH relayed by the PN53x inside a reader (InCommunicateThru).
    #[must_use]
    pub fn through_pn53x(&self) -> Command {
        let [a, b, c, d] = *self.password;
        let relayed = Zeroizing::new([0xD4, 0x42, 0x1B, a, b, c, d]);
        Command::direct_transmit(&relayed[..]).secret().counted_by_the_card()
    }

    /// Whether the two bytes of the answer are the card's PACK: an imitation that
    /// takes any password does not know it.
    #[must_use]
    pub fn is_answered_by(&self, pack: &[u8]) -> bool {
        pack.ct_eq(&self.pack[..]).into()
    }
}
