//! Carries out what the machine says, as the driver would, and holds every word of
//! it against what broker, headquarters and disk really have.

use std::collections::VecDeque;

use baygate::event::Class;
use baygate::store::outbox::ClassCursor;
use baygate::uplink::session::{Input, Outcome, Output, PAGE, Row as Page, Token};

use super::deed::LAST;
use super::peers::Id;
use super::world::{Flying, Row, Sent, Trouble, World, is_final};

fn broken<T>(why: String) -> Result<T, Trouble> {
    Err(Trouble::Broken(why))
}

/// What the driver has before it.
enum Todo {
    Said(Output<Id>),
    Handed { class: Class, after: ClassCursor, rows: Vec<Id> },
}

impl World {
    pub fn feed(&mut self, input: Input<Id>) -> Result<(), Trouble> {
        let mut todo: VecDeque<Todo> =
            self.session.step(self.now, input).into_iter().map(Todo::Said).collect();
        loop {
            let mut wanted = Vec::new();
            while let Some(next) = todo.pop_front() {
                match next {
                    Todo::Said(Output::Fetch { class, after }) => wanted.push((class, after)),
                    Todo::Said(other) => self.carry_out(other)?,
                    Todo::Handed { class, after, rows } => self.handed(class, after, rows),
                }
            }
            if wanted.is_empty() {
                return Ok(());
            }
            for (class, after) in wanted {
                let rows = self.page(class, after);
                todo.push_back(Todo::Handed {
                    class,
                    after,
                    rows: rows.iter().map(|row| row.load).collect(),
                });
                let said = self.session.step(self.now, Input::Rows { class, after, rows });
                todo.extend(said.into_iter().map(Todo::Said));
            }
        }
    }

    /// The machine has them in its hands: from now on they wait for their slot.
    fn handed(&mut self, class: Class, after: ClassCursor, mut rows: Vec<Id>) {
        // What is too large is set aside without a slot.
        rows.retain(|id| self.row(*id).is_some_and(|row| row.bytes <= self.setting.packet));
        if let Some(line) = &mut self.line {
            let ready = line.ready.entry(class).or_default();
            ready.retain(|(_, at)| *at <= after);
            if rows.iter().any(|row| line.sent.contains_key(row)) {
                // It begins again, minutes later: its wait is a new one.
                line.skipped.insert(class, 0);
                line.began_again.insert(class, line.last_token);
                line.steady.remove(&class);
            }
            ready.extend(rows);
        }
    }

    fn page(&self, class: Class, after: ClassCursor) -> Vec<Page<Id>> {
        let rows = self.disk.log.get(&class).map(Vec::as_slice).unwrap_or_default();
        let page = |row: &Row| Page {
            class,
            cursor: row.cursor,
            offset: baygate::store::Offset(row.offset),
            bytes: row.bytes,
            load: (class, row.cursor),
        };
        rows.iter().filter(|row| row.cursor > after).take(PAGE).map(page).collect()
    }

    fn carry_out(&mut self, output: Output<Id>) -> Result<(), Trouble> {
        self.tell(|| format!("    {output:?}"));
        match output {
            Output::Publish { token, class, load } => self.published(token, class, load)?,
            Output::Delivered { class, to } => {
                self.passes(class, to, &[])?;
                self.notes.note(class, to, self.now);
                self.leave_out(class);
            }
            Output::SetAside { class, rows, .. } => {
                let ids: Vec<Id> = rows.iter().map(|(_, at)| (class, *at)).collect();
                self.set_aside(class, &ids)?;
                self.leave_out(class);
            }
            Output::Refused { class, .. } => {
                self.resting.insert(class);
                if let Some(line) = &mut self.line {
                    line.ready.entry(class).or_default().clear();
                }
            }
            Output::TakenAgain { .. } | Output::Fetch { .. } => {}
        }
        Ok(())
    }

    /// What is delivered or set aside waits no more.
    fn leave_out(&mut self, class: Class) {
        let to = self.said.get(&class).copied().unwrap_or_default();
        if let Some(line) = &mut self.line {
            line.ready.entry(class).or_default().retain(|(_, at)| *at > to);
        }
    }

    fn set_aside(&mut self, class: Class, ids: &[Id]) -> Result<(), Trouble> {
        let Some((_, to)) = ids.last().copied() else { return broken("nothing is set aside".into()) };
        if self.disk.full {
            return Err(Trouble::Lost);
        }
        for id in ids {
            if self.mark(class) >= id.1 {
                return broken(format!("{id:?} is set aside, but it is marked as delivered"));
            }
        }
        self.passes(class, to, ids)?;
        let known = |id: &&Id| self.row(**id).is_some();
        let there: Vec<Id> = ids.iter().filter(known).copied().collect();
        let to_tell: Vec<Id> = there
            .iter()
            .filter(|id| self.row(**id).is_some_and(|row| row.tells.is_empty()))
            .copied()
            .collect();
        self.disk.aside.extend(there);
        let mark = self.disk.mark.entry(class).or_default();
        *mark = (*mark).max(to);
        self.notes.passed(class, to);
        if !to_tell.is_empty() {
            self.commit(Class::Gateway, 50, to_tell);
        }
        Ok(())
    }

    /// The position of a class moves to `to`: nothing may be passed over.
    fn passes(&mut self, class: Class, to: ClassCursor, aside: &[Id]) -> Result<(), Trouble> {
        let from = self.said.insert(class, to).unwrap_or_default();
        if to <= from {
            return broken(format!("{class}: delivered {from:?} and then {to:?}"));
        }
        let rows = self.disk.log.get(&class).map(Vec::as_slice).unwrap_or_default();
        for row in rows.iter().filter(|row| row.cursor > from && row.cursor <= to) {
            let id = (class, row.cursor);
            let with_hq = self.hq.has.contains(&id) || self.hq.cannot_take(id);
            let there = if self.setting.by_headquarters() { with_hq } else { self.broker.had.contains(&id) };
            if !there && !aside.contains(&id) && !self.disk.aside.contains(&id) {
                return broken(format!("{id:?} counts as delivered; nobody has it"));
            }
        }
        let trimmed = self.disk.trimmed.contains_key(&(class, to));
        if !trimmed && !rows.iter().any(|row| row.cursor == to) {
            return broken(format!("{class}: {to:?} counts as delivered; there is no such row"));
        }
        Ok(())
    }

    fn published(&mut self, token: Token, class: Class, id: Id) -> Result<(), Trouble> {
        if class != id.0 {
            return broken(format!("{id:?} is published as {class}"));
        }
        let from = self.said.get(&class).copied().unwrap_or_default().max(self.mark(class));
        if from >= id.1 || self.disk.aside.contains(&id) {
            return broken(format!("{id:?} is published; it is marked as delivered or set aside"));
        }
        let Some(line) = &self.line else { return broken("published without a connection".into()) };
        let earlier = self.disk.log.get(&class).into_iter().flatten();
        for row in earlier.filter(|row| row.cursor > from && row.cursor < id.1) {
            let before = (class, row.cursor);
            let sent = matches!(line.sent.get(&before), Some(Sent::Flying | Sent::Taken | Sent::Rejected));
            let too_large = row.bytes > self.setting.packet;
            // Headquarters may have it from before a restart, and have said so.
            let skipped = self.hq.has.contains(&before) || self.hq.cannot_take(before);
            if !sent && !too_large && !skipped && !self.disk.aside.contains(&before) {
                return broken(format!("{id:?} is published before {before:?}"));
            }
        }
        let bytes = self.row(id).map(|row| row.bytes).or_else(|| self.disk.trimmed.get(&id).copied());
        let Some(bytes) = bytes else { return broken(format!("{id:?} is published; no such row")) };
        self.check_window(bytes, token)?;
        self.count_slots(class)?;
        let Some(line) = &mut self.line else { return Ok(()) };
        line.ready.entry(class).or_default().retain(|ready| *ready != id);
        self.resting.remove(&class);
        line.sent.insert(id, Sent::Flying);
        line.last_token = token;
        line.flying.push_back(Flying { token, id, bytes, overtakes: false });
        Ok(())
    }

    fn check_window(&self, bytes: u64, token: Token) -> Result<(), Trouble> {
        let Some(line) = &self.line else { return Ok(()) };
        let window = if line.narrow { 1 } else { usize::from(self.setting.window) };
        let under_way: u64 = line.flying.iter().map(|flying| flying.bytes).sum();
        if bytes > self.setting.packet {
            return broken(format!("a packet of {bytes} bytes, {} are allowed", self.setting.packet));
        }
        if line.flying.len() >= window {
            return broken(format!("{} in flight, the window is {window}", line.flying.len() + 1));
        }
        if under_way > 0 && under_way + bytes > self.setting.bytes {
            return broken(format!("{} bytes in flight", under_way + bytes));
        }
        if token <= line.last_token || !line.live {
            return broken("a token used twice, or a publish before the connection is live".into());
        }
        Ok(())
    }

    /// A class that could have gone gets one slot in sixteen, at least.
    fn count_slots(&mut self, goes: Class) -> Result<(), Trouble> {
        let waiting: Vec<Class> =
            Class::ALL.into_iter().filter(|class| *class != goes && self.could_go(*class)).collect();
        let Some(line) = &mut self.line else { return Ok(()) };
        for class in Class::ALL {
            let skipped = line.skipped.entry(class).or_default();
            *skipped = if waiting.contains(&class) { *skipped + 1 } else { 0 };
            if *skipped >= 16 {
                return broken(format!("{class} waits; sixteen slots went to others"));
            }
        }
        Ok(())
    }

    /// By what everybody can see: it has a row in the machine's hands, was not refused,
    /// is not feeling its way after a beginning, and is within its window. Counted where the
    /// broker's word is enough: what waits for headquarters' is held back by that as well.
    fn could_go(&self, class: Class) -> bool {
        let Some(line) = &self.line else { return false };
        let Some((_, next)) = line.ready.get(&class).and_then(VecDeque::front) else { return false };
        let flying = line.flying.iter().filter(|flying| flying.id.0 == class).count();
        let refused = line.sent.iter().any(|((of, _), sent)| *of == class && *sent == Sent::Refused);
        let from = self.said.get(&class).copied().unwrap_or_default();
        // Sent, or too large and waiting for its turn to be set aside.
        let before = self.disk.log.get(&class).into_iter().flatten();
        let outstanding = before.filter(|row| row.cursor > from && row.cursor < *next).count();
        (flying == 0 || line.steady.contains(&class))
            && !refused
            && !self.resting.contains(&class)
            && outstanding < usize::from(self.setting.window)
            && self.rate == 0
            && !self.setting.by_headquarters()
    }

    /// The publish at a place ends.
    pub fn settle(&mut self, place: usize, outcome: Outcome) -> Result<(), Trouble> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let place = if place == LAST { line.flying.len().saturating_sub(1) } else { place };
        let Some(flying) = line.flying.remove(place) else { return Ok(()) };
        let before: Vec<Flying> = line.flying.iter().take(place).cloned().collect();
        // A copy of it that was sent later says how it stands.
        let last = !line.flying.iter().any(|other| other.id == flying.id && other.token > flying.token);
        let outcome = match outcome {
            Outcome::Refused(code) if self.setting.sees_refusals() && is_final(code) => {
                self.hopeless.insert(flying.id);
                if last {
                    line.sent.insert(flying.id, Sent::Rejected);
                }
                self.resting.insert(flying.id.0);
                outcome
            }
            Outcome::Refused(_) if self.setting.sees_refusals() => {
                if last {
                    line.sent.insert(flying.id, Sent::Refused);
                }
                for later in line.flying.iter_mut().skip(place) {
                    later.overtakes |= later.id.0 == flying.id.0;
                }
                outcome
            }
            Outcome::Refused(_) => {
                self.hopeless.insert(flying.id);
                line.sent.insert(flying.id, Sent::Taken);
                Outcome::Accepted
            }
            Outcome::Accepted => {
                line.sent.insert(flying.id, Sent::Taken);
                let since = line.began_again.get(&flying.id.0).copied().unwrap_or_default();
                if flying.token > since && self.said.get(&flying.id.0).is_none_or(|at| *at < flying.id.1) {
                    line.steady.insert(flying.id.0);
                }
                self.reach_broker(&flying, &before).map_err(Trouble::Broken)?;
                outcome
            }
        };
        self.feed(Input::Settled { token: flying.token, outcome })
    }

    /// The broker takes it. First copies come in the order of their class, but for what
    /// was on its way when the broker refused, dropped or delayed an earlier row.
    pub fn reach_broker(&mut self, flying: &Flying, before: &[Flying]) -> Result<(), String> {
        let (class, at) = flying.id;
        if !self.broker.had.contains(&flying.id) && !flying.overtakes {
            let rows = self.disk.log.get(&class).map(Vec::as_slice).unwrap_or_default();
            for row in rows.iter().filter(|row| row.cursor < at) {
                let earlier = (class, row.cursor);
                let known = self.broker.had.contains(&earlier)
                    || self.disk.aside.contains(&earlier)
                    || self.hopeless.contains(&earlier)
                    || self.hq.cannot_take(earlier)
                    || row.bytes > self.setting.packet
                    || before.iter().any(|flying| flying.id == earlier);
                if !known {
                    return Err(format!("the broker sees {:?} before {earlier:?}", flying.id));
                }
            }
        }
        self.broker.had.insert(flying.id);
        if self.setting.by_headquarters() {
            self.broker.queue.push_back(flying.id);
        }
        Ok(())
    }

    /// After each deed: no deadline that has passed (it would spin the loop), no notes without a deadline.
    pub fn check_deadlines(&self) -> Result<(), String> {
        if self.session.wake_at().is_some_and(|at| at <= self.now) {
            return Err("the machine wants to be woken at a time that has passed".into());
        }
        let noted = self.notes.positions().next().is_some();
        if noted != self.notes.due(std::time::Duration::ZERO).is_some() {
            return Err("positions noted and not due, or due and not noted".into());
        }
        Ok(())
    }

    pub fn row(&self, id: Id) -> Option<&Row> {
        self.disk.log.get(&id.0)?.iter().find(|row| row.cursor == id.1)
    }

    /// Whether the publish at a place is a `gateway.gap`: a broker that never takes these cannot be told anything.
    pub fn gap_at(&self, place: usize) -> bool {
        let Some(line) = &self.line else { return false };
        let place = if place == LAST { line.flying.len().saturating_sub(1) } else { place };
        let id = line.flying.get(place).map(|flying| flying.id);
        id.and_then(|id| self.row(id)).is_some_and(|row| !row.tells.is_empty())
    }

    pub fn oldest_unsent(&self, class: Class) -> Option<Id> {
        let mark = self.mark(class);
        let rows = self.disk.log.get(&class)?;
        rows.iter().find(|row| row.cursor > mark).map(|row| (class, row.cursor))
    }
}
