//! The column of cards that are given out: each cut is on a card of its own, which is issued again
//! where it did not come to be.

use baygate::event::ledger::{CardType, TransactionKind as Kind};
use baygate::money::Holding;
use baygate::sim::card::Technology as Sim;
use baygate::store::requests::RequestState;

use super::table::Way;
use super::world::World;
use crate::cut_shop::number;

pub struct Issues {
    pub world: World,
    /// The last card.
    n: usize,
    /// What a whole issue says.
    commands: Vec<Vec<u8>>,
}

impl Issues {
    pub async fn open(mut world: World) -> Self {
        let card = world.put(0).await;
        let begun = card.apdus().len();
        world.issued(0, CardType::Named, 0).await;
        let commands = world.put(0).await.apdus().split_off(begun);
        Self { world, n: 0, commands }
    }

    pub fn measured(&self) -> (usize, Vec<usize>) {
        let begun = self.world.said() - self.commands.len();
        self.world.talk(begun)
    }

    /// Half of such a write leaves a card that nobody can open any more.
    pub fn is_thrown_away(&self, at: usize) -> bool {
        let command = &self.commands[at];
        // A trailer whose half is ones locks its sector for ever, lock bytes of ones the whole chip;
        // half a code is nobody's.
        let is_trailer = command[1] == 0xD6 && command.len() == 21 && command[3] % 4 == 3;
        let is_lock = command[1] == 0xD6 && command.len() == 9 && command[3] == 2;
        is_trailer || is_lock || self.change_of_code() == Some(at)
    }

    /// The SLE4442's: from the note before it to its end two codes are possible.
    fn change_of_code(&self) -> Option<usize> {
        self.commands.iter().position(|command| self.world.sim == Sim::Sle4442 && command[1] == 0xD2)
    }

    /// Cut once; whether it had to be issued again.
    pub async fn cut(&mut self, at: usize, way: Way) -> bool {
        let in_doubt = self.change_of_code().is_some_and(|change| (change - 2..=change).contains(&at));
        self.n += 1;
        let n = self.n;
        let (card_no, what) = (number(n), format!("{:?} {way:?} at {at}", self.world.sim));
        let card = self.world.put(n).await;
        let begun = card.apdus().len();
        card.fault_after(at, way.fault(at));
        let id = self.world.ask_issue(n, CardType::Named).await;
        self.world.until_cut(n, id, at, begun, way).await;
        let shop = &self.world.shop;
        // Killed before it was begun it still waits for a card, and this is one.
        let request = shop.answered(id).await;
        assert!(request.state.is_settled(), "{what}: {request:?}");
        let again = request.state == RequestState::Failed && shop.known(&card_no).await.is_none();
        if again {
            let mut row = shop.answered(self.world.ask_issue(n, CardType::Named).await).await;
            // Of two codes that it can have one is tried an action.
            if in_doubt && row.state == RequestState::Failed {
                row = shop.answered(self.world.ask_issue(n, CardType::Named).await).await;
            }
            let why = (row.outcome, request.outcome);
            assert_eq!(row.state, RequestState::Done, "{what}: {why:?}");
        }
        assert_eq!(shop.known(&card_no).await, Some(Holding::default()), "{what}");
        // It is a card like any other.
        let topup = shop.answered(shop.deal(&card_no, Kind::Topup, 100).await).await;
        assert_eq!(topup.state, RequestState::Done, "{what}: {:?}", topup.outcome);
        again
    }

    /// Each card was given out once.
    pub async fn close(mut self) {
        self.world.add_up(0..=self.n).await;
        let told = self.world.shop.told().await;
        let issued = told.iter().filter(|(kind, _)| kind == "card.issued");
        let mut issued: Vec<&str> = issued.map(|(_, data)| data["card_no"].as_str().unwrap()).collect();
        let cards = issued.len();
        issued.sort_unstable();
        issued.dedup();
        assert_eq!((cards, issued.len()), (self.n + 1, self.n + 1), "{:?}", self.world.sim);
        self.world.close().await;
    }
}
