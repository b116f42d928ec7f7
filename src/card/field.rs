//! One reader's field as a state machine: presence signals and verdicts in,
//! facts out. What lives here: the rule that a card is told whole or not at all
//! (`Tapped` is always followed by one `Removed`; a card that left during its
//! identification is not told). What does not: I/O, clocks, the log.

use super::verdict::{CardIdentity, Refusal, Verdict};

/// One stay of a card in the field; rises with every card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stay(pub u64);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A card came, or took the place of another within one look.
    Present(Stay),
    /// The field is empty, or the reader is gone.
    Empty,
    /// An identification ended.
    Verdict(Stay, Verdict),
    /// An identification takes too long.
    Overdue(Stay),
    /// What stood in the way of an identification may be over.
    Again,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Identify the card of this stay.
    Identify(Stay),
    /// Give up whoever still identifies.
    Abandon,
    /// Tell: a card is in the field.
    Tapped(Stay, CardIdentity),
    /// Tell: the card that was told is no longer there.
    Removed,
    /// Tell: this will not do.
    Refused(Refusal),
}

/// The field of one reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    present: Option<Stay>,
    identifying: Option<Stay>,
    told: bool,
    /// It left by its own word, and the reader says that one lies there: taken away and laid back
    /// between two looks, it is no change that a reader tells.
    left: bool,
    /// What was last told against the card that is there.
    refused: Option<Refusal>,
}

impl Field {
    /// Whether something is in the field.
    #[must_use]
    pub fn is_occupied(&self) -> bool {
        self.present.is_some()
    }

    /// The stay now being identified.
    #[must_use]
    pub fn identifying(&self) -> Option<Stay> {
        self.identifying
    }

    /// Whether a card lies there that was not asked to the end: the reader stood in the way, or it left
    /// and is back.
    #[must_use]
    pub fn may_be_asked_again(&self) -> bool {
        let blocked = self.refused.is_some_and(Refusal::is_the_readers);
        self.present.is_some() && self.identifying.is_none() && !self.told && (blocked || self.left)
    }

    /// The next state, and what to do, in order.
    #[must_use]
    pub fn next(mut self, input: Input) -> (Self, Vec<Output>) {
        let mut outputs = Vec::new();
        match input {
            Input::Present(stay) => {
                self.card_left(&mut outputs);
                self.present = Some(stay);
                self.identify(&mut outputs);
            }
            Input::Empty => self.card_left(&mut outputs),
            Input::Verdict(stay, verdict) if self.identifying == Some(stay) => {
                self.identifying = None;
                if self.present == Some(stay) {
                    self.tell(stay, verdict, &mut outputs);
                } else {
                    self.identify(&mut outputs);
                }
            }
            // From someone already given up.
            Input::Verdict(..) => {}
            Input::Overdue(stay) if self.identifying == Some(stay) => {
                self.identifying = None;
                outputs.push(Output::Abandon);
                if self.present == Some(stay) {
                    self.refuse(Refusal::NoAnswer, &mut outputs);
                } else {
                    self.identify(&mut outputs);
                }
            }
            Input::Overdue(_) => {}
            Input::Again if self.may_be_asked_again() => self.identify(&mut outputs),
            Input::Again => {}
        }
        (self, outputs)
    }

    fn card_left(&mut self, outputs: &mut Vec<Output>) {
        self.present = None;
        self.refused = None;
        self.left = false;
        if std::mem::take(&mut self.told) {
            outputs.push(Output::Removed);
        }
    }

    fn identify(&mut self, outputs: &mut Vec<Output>) {
        if let (Some(stay), None) = (self.present, self.identifying) {
            self.identifying = Some(stay);
            self.left = false;
            outputs.push(Output::Identify(stay));
        }
    }

    fn tell(&mut self, stay: Stay, verdict: Verdict, outputs: &mut Vec<Output>) {
        match verdict {
            Verdict::Card(card) => {
                self.told = true;
                outputs.push(Output::Tapped(stay, card));
            }
            Verdict::Refused(refusal) => self.refuse(refusal, outputs),
            Verdict::Left => self.left = true,
        }
    }

    /// Told once for a card, however often it is asked again.
    fn refuse(&mut self, refusal: Refusal, outputs: &mut Vec<Output>) {
        if self.refused.replace(refusal) != Some(refusal) {
            outputs.push(Output::Refused(refusal));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::verdict::Standing;
    use crate::event::card::Technology;

    fn card(uid: &str) -> CardIdentity {
        CardIdentity {
            uid: uid.parse().unwrap(),
            technology: Technology::Ntag213,
            atr: None,
            code: None,
            standing: Standing::Identified,
            opened: None,
        }
    }

    fn run(inputs: Vec<Input>) -> Vec<Output> {
        let mut field = Field::default();
        let mut all = Vec::new();
        for input in inputs {
            let (next, outputs) = field.next(input);
            field = next;
            all.extend(outputs);
        }
        all
    }

    #[test]
    fn stories() {
        let (a, b) = (Stay(1), Stay(2));
        let known = |stay, uid| Input::Verdict(stay, Verdict::Card(card(uid)));
        let cases = [
            (
                "tap and remove",
                vec![Input::Present(a), known(a, "04AA"), Input::Empty],
                vec![Output::Identify(a), Output::Tapped(a, card("04AA")), Output::Removed],
            ),
            (
                "left during identification, verdict too late",
                vec![Input::Present(a), Input::Empty, known(a, "04AA")],
                vec![Output::Identify(a)],
            ),
            (
                "swapped within one look",
                vec![Input::Present(a), known(a, "04AA"), Input::Present(b), known(b, "04BB")],
                vec![
                    Output::Identify(a),
                    Output::Tapped(a, card("04AA")),
                    Output::Removed,
                    Output::Identify(b),
                    Output::Tapped(b, card("04BB")),
                ],
            ),
            (
                "swapped during identification: the first card's verdict is not the second's",
                vec![
                    Input::Present(a),
                    Input::Empty,
                    Input::Present(b),
                    known(a, "04AA"),
                    known(b, "04BB"),
                    Input::Empty,
                ],
                vec![
                    Output::Identify(a),
                    Output::Identify(b),
                    Output::Tapped(b, card("04BB")),
                    Output::Removed,
                ],
            ),
            (
                "never answers, then another card",
                vec![
                    Input::Present(a),
                    Input::Overdue(a),
                    Input::Empty,
                    Input::Present(b),
                    known(a, "04AA"),
                    known(b, "04BB"),
                ],
                vec![
                    Output::Identify(a),
                    Output::Abandon,
                    Output::Refused(Refusal::NoAnswer),
                    Output::Identify(b),
                    Output::Tapped(b, card("04BB")),
                ],
            ),
            (
                "overdue after the card was swapped: nothing is told of the first",
                vec![Input::Present(a), Input::Present(b), Input::Overdue(a)],
                vec![Output::Identify(a), Output::Abandon, Output::Identify(b)],
            ),
            (
                "refused cards are not removed",
                vec![
                    Input::Present(a),
                    Input::Verdict(a, Verdict::Refused(Refusal::Unreadable)),
                    Input::Empty,
                ],
                vec![Output::Identify(a), Output::Refused(Refusal::Unreadable)],
            ),
            (
                "asked again when the reader is free: refused once, then told",
                vec![
                    Input::Present(a),
                    Input::Verdict(a, Verdict::Refused(Refusal::ReaderBusy)),
                    Input::Again,
                    Input::Verdict(a, Verdict::Refused(Refusal::ReaderBusy)),
                    Input::Again,
                    known(a, "04AA"),
                    Input::Again,
                    Input::Empty,
                ],
                vec![
                    Output::Identify(a),
                    Output::Refused(Refusal::ReaderBusy),
                    Output::Identify(a),
                    Output::Identify(a),
                    Output::Tapped(a, card("04AA")),
                    Output::Removed,
                ],
            ),
            (
                "a card that refused itself is not asked again",
                vec![
                    Input::Present(a),
                    Input::Verdict(a, Verdict::Refused(Refusal::Unreadable)),
                    Input::Again,
                ],
                vec![Output::Identify(a), Output::Refused(Refusal::Unreadable)],
            ),
            (
                "laid back before the reader saw it leave",
                vec![
                    Input::Present(a),
                    Input::Verdict(a, Verdict::Left),
                    Input::Again,
                    known(a, "04AA"),
                    Input::Again,
                ],
                vec![Output::Identify(a), Output::Identify(a), Output::Tapped(a, card("04AA"))],
            ),
            (
                "left, and gone",
                vec![Input::Present(a), Input::Verdict(a, Verdict::Left), Input::Empty, Input::Again],
                vec![Output::Identify(a)],
            ),
            (
                "left, says the card's own verdict",
                vec![Input::Present(a), Input::Verdict(a, Verdict::Left), Input::Empty],
                vec![Output::Identify(a)],
            ),
        ];
        for (name, inputs, expected) in cases {
            assert_eq!(run(inputs), expected, "{name}");
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// In every interleaving: Tapped and Removed alternate, at most one
        /// identification runs, and only the card of the present stay is told.
        #[test]
        fn told_whole_or_not_at_all(choices in proptest::collection::vec((0u8..8, 0u64..3), 0..60)) {
            let mut field = Field::default();
            let (mut stay, mut in_field, mut running, mut told) = (0, None, None, false);
            for (choice, back) in choices {
                let about = Stay(stay - back.min(stay));
                let input = match choice {
                    0 | 1 => { stay += 1; in_field = Some(Stay(stay)); Input::Present(Stay(stay)) }
                    2 => { in_field = None; Input::Empty }
                    3 => Input::Overdue(about),
                    4 => Input::Verdict(about, Verdict::Card(card("04AA"))),
                    5 => Input::Verdict(about, Verdict::Refused(Refusal::ReaderBusy)),
                    6 => Input::Again,
                    _ => Input::Verdict(about, Verdict::Refused(Refusal::Unreadable)),
                };
                if let Input::Verdict(about, _) | Input::Overdue(about) = &input
                    && running == Some(*about) { running = None; }
                let (next, outputs) = field.next(input);
                field = next;
                for output in outputs {
                    match output {
                        Output::Identify(stay) => {
                            assert_eq!(running.replace(stay), None);
                            assert_eq!(Some(stay), in_field);
                        }
                        Output::Tapped(stay, _) => { assert!(!told); assert_eq!(Some(stay), in_field); told = true; }
                        Output::Removed => { assert!(told); told = false; }
                        Output::Abandon => assert_eq!(running, None),
                        Output::Refused(_) => assert!(!told),
                    }
                }
                assert_eq!(field.identifying(), running);
                assert_eq!(field.is_occupied(), in_field.is_some());
                assert!(!told || in_field.is_some());
            }
        }
    }
}
