use proptest::prelude::*;

use super::*;

const A: &str = "1M8GDM9AXKP042788";
const B: &str = "1D4GP00R55B123456";

fn vin(text: &str) -> Vin {
    Vin::new(text).unwrap()
}

fn car(text: &str) -> Seen {
    Seen::Car(SeenVin::Read(vin(text)))
}

/// Plays (second, seen) and returns what was done, with the second.
fn play(start: Presence, story: &[(u64, Seen)]) -> Vec<(u64, Action)> {
    let patience = Patience::default();
    let mut presence = start;
    let mut done = Vec::new();
    for (second, seen) in story {
        let (next, actions) = presence.next(seen.clone(), Duration::from_secs(*second), &patience);
        presence = next;
        done.extend(actions.into_iter().map(|action| (*second, action)));
    }
    done
}

#[test]
fn stories() {
    use Action::{Arrive, Depart, Identify};
    use DepartureReason as R;
    let still = Seen::Car(SeenVin::NotAsked);
    let none = Seen::Car(SeenVin::NotGiven);
    for (name, story, expected) in [
        (
            "comes and is unplugged",
            vec![(0, car(A)), (5, Seen::NoCar), (9, Seen::NoCar)],
            vec![(0, Arrive(Some(vin(A)))), (9, Depart(R::Unplugged))],
        ),
        (
            "a loose plug is no departure",
            vec![(0, car(A)), (5, Seen::NoCar), (6, car(A)), (7, Seen::NoCar), (9, car(A))],
            vec![(0, Arrive(Some(vin(A))))],
        ),
        (
            "ignition off",
            vec![(0, car(A)), (5, Seen::BusSilent), (10, Seen::BusSilent), (15, Seen::BusSilent)],
            vec![(0, Arrive(Some(vin(A)))), (15, Depart(R::IgnitionOff))],
        ),
        (
            "one lost answer",
            vec![(0, car(A)), (5, Seen::BusSilent), (6, still.clone()), (20, still.clone())],
            vec![(0, Arrive(Some(vin(A))))],
        ),
        (
            "link lost",
            vec![(0, car(A)), (5, Seen::LinkDown), (20, Seen::LinkDown)],
            vec![(0, Arrive(Some(vin(A)))), (20, Depart(R::LinkLost))],
        ),
        (
            "link back in time, same car",
            vec![(0, car(A)), (5, Seen::LinkDown), (19, car(A))],
            vec![(0, Arrive(Some(vin(A))))],
        ),
        (
            "link back in time, other car",
            vec![(0, car(A)), (5, Seen::LinkDown), (10, car(B))],
            vec![(0, Arrive(Some(vin(A)))), (10, Depart(R::Swapped)), (10, Arrive(Some(vin(B))))],
        ),
        (
            "swapped without anybody noticing",
            vec![(0, car(A)), (30, car(B))],
            vec![(0, Arrive(Some(vin(A)))), (30, Depart(R::Swapped)), (30, Arrive(Some(vin(B))))],
        ),
        (
            "VIN once not readable is no swap",
            vec![(0, car(A)), (30, none.clone()), (31, car(A))],
            vec![(0, Arrive(Some(vin(A))))],
        ),
        (
            "VIN comes later",
            vec![(0, none.clone()), (30, car(A))],
            vec![(0, Arrive(None)), (30, Identify(vin(A)))],
        ),
        (
            "plugged in, ignition off: no visit",
            vec![(0, Seen::Powered), (1, Seen::BusSilent), (60, Seen::BusSilent)],
            vec![],
        ),
        (
            "nobody asks a tired battery's car: it stays",
            vec![(0, car(A)), (5, Seen::Powered), (500, Seen::Powered)],
            vec![(0, Arrive(Some(vin(A))))],
        ),
        (
            "lost link, then no plug: patience counts from the first",
            vec![(0, car(A)), (5, Seen::LinkDown), (9, Seen::NoCar)],
            vec![(0, Arrive(Some(vin(A)))), (9, Depart(R::Unplugged))],
        ),
    ] {
        assert_eq!(play(Presence::Away, &story), expected, "{name}");
    }
}

#[test]
fn visits_left_open_by_a_crash() {
    use Action::{Arrive, Depart};
    use DepartureReason::LinkLost;
    let recovered = |text: Option<&str>| Presence::recovered(text.map(vin), Duration::ZERO);
    for (name, start, story, expected) in [
        ("the same car", recovered(Some(A)), vec![(1, Seen::Powered), (2, car(A)), (90, car(A))], vec![]),
        (
            "another car",
            recovered(Some(A)),
            vec![(2, car(B))],
            vec![(2, Depart(LinkLost)), (2, Arrive(Some(vin(B))))],
        ),
        (
            "a car without VIN proves nothing",
            recovered(None),
            vec![(2, Seen::Car(SeenVin::NotGiven))],
            vec![(2, Depart(LinkLost)), (2, Arrive(None))],
        ),
        (
            "nobody",
            recovered(Some(A)),
            vec![(2, Seen::NoCar), (16, Seen::NoCar)],
            vec![(16, Depart(LinkLost))],
        ),
        (
            "silent",
            recovered(Some(A)),
            vec![(2, Seen::Powered), (9, Seen::BusSilent), (11, Seen::BusSilent)],
            vec![(11, Depart(LinkLost))],
        ),
        (
            "no link",
            recovered(Some(A)),
            vec![(2, Seen::LinkDown), (16, Seen::LinkDown)],
            vec![(16, Depart(LinkLost))],
        ),
    ] {
        assert_eq!(play(start, &story), expected, "{name}");
    }
}

#[test]
fn the_vin_is_wanted_after_every_doubt() {
    let patience = Patience::default();
    let (here, _) = Presence::Away.next(car(A), Duration::ZERO, &patience);
    assert!(!here.wants_vin());
    for doubt in [Seen::LinkDown, Seen::NoCar, Seen::BusSilent] {
        let (doubtful, _) = here.clone().next(doubt, Duration::from_secs(1), &patience);
        assert!(doubtful.wants_vin());
        let (powered, _) = doubtful.next(Seen::Powered, Duration::from_secs(2), &patience);
        assert!(powered.wants_vin());
        let (again, _) = powered.next(car(A), Duration::from_secs(3), &patience);
        assert!(!again.wants_vin());
    }
}

fn any_seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        Just(Seen::LinkDown),
        Just(Seen::NoCar),
        Just(Seen::Powered),
        Just(Seen::BusSilent),
        Just(Seen::Car(SeenVin::NotAsked)),
        Just(Seen::Car(SeenVin::NotGiven)),
        Just(car(A)),
        Just(car(B)),
    ]
}

proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// Whatever is seen, arrivals and departures alternate, and a visit's VIN never changes.
    #[test]
    fn arrivals_and_departures_alternate(
        story in proptest::collection::vec((0_u64..8, any_seen()), 0..80),
        recovered in any::<bool>(),
    ) {
        let mut presence =
            if recovered { Presence::recovered(Some(vin(A)), Duration::ZERO) } else { Presence::Away };
        let mut open = recovered;
        let mut now = 0;
        for (wait, seen) in story {
            now += wait;
            let (next, actions) = presence.next(seen, Duration::from_secs(now), &Patience::default());
            presence = next;
            for action in actions {
                match action {
                    Action::Arrive(_) => { prop_assert!(!open); open = true; }
                    Action::Depart(_) => { prop_assert!(open); open = false; }
                    Action::Identify(_) => prop_assert!(open),
                }
            }
            prop_assert_eq!(open, matches!(presence, Presence::Here(_)));
        }
    }
}
