//! Makers' own signals: the commands of signal sets that fit the car at hand, asked
//! through the gate like everything else, into windows and reports.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::Instant;

use super::Service;
use crate::clock::UtcMillis;
use crate::event::Text;
use crate::event::vehicle::{EcuReport, PidValue, RequestError, VehicleReport};
use crate::health::Trouble;
use crate::ident::Vin;
use crate::vehicle::adapter::Adapter;
use crate::vehicle::agenda::{Agenda, Due, NeverAsked};
use crate::vehicle::answer::Answer;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{Request, Target};
use crate::vehicle::report;
use crate::vehicle::signal_set::Value;
use crate::vehicle::sources;

/// Commands asked between two looks, so that voltage and requests are not kept waiting.
const AT_A_LOOK: usize = 6;
/// How long a report waits for makers' signals.
const FOR_A_REPORT: Duration = Duration::from_secs(4);
/// Commands that are never asked, named in a report one by one.
const NEVER_ASKED_NAMED: usize = 20;
/// Bytes of a message in one frame (ISO 15765-2 §9.6.2, normal addressing).
const SINGLE_FRAME: usize = 7;
/// This program was not written before this year: a clock before it is wrong.
const THIS_YEAR: u16 = 2026;

impl Service {
    /// Loads the files of the configuration; what is refused is told, the rest is used.
    pub(super) async fn load_sources(&mut self) {
        if self.table.signals.is_empty() && self.table.dbc.is_empty() {
            return;
        }
        let table = self.table.clone();
        let Ok((sources, refused)) = tokio::task::spawn_blocking(move || sources::load(&table)).await else {
            return;
        };
        tracing::info!(link = %self.table.id, signal_sets = sources.sets.len(), databases = sources.databases.len(), refused = refused.len(), "files loaded");
        for refused in &refused {
            tracing::warn!(link = %self.table.id, refused, "file refused");
        }
        let part = self.sources_part();
        if refused.is_empty() {
            self.health.well(&part);
        } else {
            let list = refused.join("; ");
            self.health.trouble(Trouble {
                part,
                code: "file-refused".into(),
                text: Text::new(
                    format!("以下文件无法使用，其余照常：{list}"),
                    format!("these files cannot be used, the others are: {list}"),
                ),
                blocks_ready: false,
            });
        }
        self.sources = sources;
    }

    /// Under which part of the health refused files stand.
    pub(super) fn sources_part(&self) -> String {
        format!("link/{}/files", self.table.id)
    }

    /// The car at hand is another one, or its VIN became known.
    pub(super) fn make_agenda(&mut self, vin: Option<&Vin>) {
        if self.sources.sets.is_empty() || self.agenda_for.as_ref().is_some_and(|known| known.as_ref() == vin)
        {
            return;
        }
        self.agenda = Agenda::for_car(&self.sources.sets, vin, latest_model_year());
        self.agenda_for = Some(vin.cloned());
        tracing::debug!(link = %self.table.id, commands = self.agenda.len(), "makers' commands for this car");
        for never in self.agenda.never_asked().chunk_by(|one, next| one.file == next.file) {
            let Some(first) = never.first() else { continue };
            tracing::warn!(
                link = %self.table.id, file = first.file, never_asked = never.len(),
                first = first.command, why = %first.why, "commands that this car is never asked"
            );
        }
    }

    /// Asks what is due, into the window.
    pub(super) async fn sample_makers(&mut self, adapter: &mut Adapter) -> Result<(), AdapterError> {
        let mut left = AT_A_LOOK;
        while left > 0 {
            let Some(due) = self.agenda.next(self.now()) else { break };
            if self.other_bus(adapter, &due).is_some() {
                continue;
            }
            left -= 1;
            for (_, values) in self.ask_maker(adapter, &due).await?.0 {
                let time = UtcMillis::now();
                values.iter().for_each(|value| self.window.add(value, time));
            }
        }
        Ok(())
    }

    /// Asks everything that fits, into a report. What failed is listed; what is wrong with the adapter
    /// shows at the next look.
    pub(super) async fn report_makers(&mut self, adapter: &mut Adapter, report: &mut VehicleReport) {
        report::add_errors(report, never_asked(self.agenda.never_asked()));
        self.agenda.all_due();
        let until = Instant::now() + FOR_A_REPORT;
        let begun = self.now();
        while let Some(due) = self.agenda.next(begun) {
            if Instant::now() >= until {
                let why = "the report would have taken too long";
                report::add_errors(report, report::left_out(self.agenda.due(begun), why));
                break;
            }
            if let Some(why) = self.other_bus(adapter, &due) {
                report::add_errors(report, report::left_out([due.request], &why));
                continue;
            }
            let (answers, failed) = match self.ask_maker(adapter, &due).await {
                Ok(asked) => asked,
                Err(error) => {
                    let failed = RequestError { request: due.request.to_string(), error: error.to_string() };
                    let now = self.now();
                    self.agenda.asked(&due, now, false);
                    let others = report::left_out(self.agenda.due(begun), "the adapter failed before");
                    report::add_errors(report, [Some(failed), others].into_iter().flatten());
                    break;
                }
            };
            for (address, values) in answers {
                match report.ecus.iter_mut().find(|ecu| ecu.address == address) {
                    Some(ecu) => ecu.values.extend(values),
                    None => report.ecus.push(EcuReport { address, values, ..EcuReport::default() }),
                }
            }
            let failed = failed.map(|error| RequestError { request: due.request.to_string(), error });
            report::add_errors(report, failed);
        }
        report::fit(report);
    }

    /// A command whose `proto` is not the car's bus has had its turn: why it is not asked.
    fn other_bus(&mut self, adapter: &Adapter, due: &Due) -> Option<String> {
        let theirs = adapter.protocol()?;
        let wanted = due.command()?.is_for_bus(theirs).err()?;
        let now = self.now();
        self.agenda.asked(due, now, true);
        Some(format!("it is for {wanted} (`proto`), and this car is on {}", theirs.name()))
    }

    /// One command: its values by control unit, and why it gave none. A reply that breaks off is one
    /// that gave none: the others are asked all the same.
    async fn ask_maker(&mut self, adapter: &mut Adapter, due: &Due) -> Result<Asked, AdapterError> {
        let answer = match adapter.ask(due.request, due.lines).await {
            Err(error) if !error.is_fatal() => {
                let now = self.now();
                self.agenda.asked(due, now, false);
                self.agenda.learned(due, None);
                return Ok((Vec::new(), Some(error.code().into())));
            }
            answer => answer?,
        };
        self.count_garbage(answer.garbage);
        let mut failed = answer.trouble();
        let Some(command) = due.command() else { return Ok((Vec::new(), failed)) };
        let silent = answer.is_silence();
        self.agenda.learned(due, sure_lines(due.request, &answer));
        let messages = command.of_its_unit(answer.messages);
        match (&failed, command.presumed_answer_id()) {
            (Some(why), Some(listened)) if silent => {
                failed = Some(format!(
                    "{why} on {listened}; if the unit answers elsewhere, the file must name it in `rax`"
                ));
            }
            (None, _) if messages.is_empty() => {
                failed = Some("only units that were not meant answered; see `rax` in the file".to_owned());
            }
            _ => {}
        }
        let now = self.now();
        self.agenda.asked(due, now, !messages.is_empty());
        let mut answers: Vec<(String, Vec<PidValue>)> = Vec::new();
        for message in &messages {
            let values: Vec<PidValue> = command
                .values(std::slice::from_ref(message))
                .into_iter()
                .map(|(signal, value)| PidValue {
                    pid: due.request.to_string(),
                    name: signal.id.clone(),
                    value: match value {
                        Value::Number(number) => Json::from(number),
                        Value::Text(text) => Json::String(text),
                    },
                    unit: signal.fmt.unit().to_owned(),
                })
                .collect();
            if !values.is_empty() {
                answers.push((message.sender.to_string(), values));
            }
        }
        Ok((answers, failed))
    }
}

/// The commands that are never asked, for `errors`: the first ones by name, the others by number.
fn never_asked(all: &[NeverAsked]) -> impl Iterator<Item = RequestError> + '_ {
    let more = all.len().saturating_sub(NEVER_ASKED_NAMED);
    let named = all.iter().take(NEVER_ASKED_NAMED).map(|NeverAsked { file, command, why }| RequestError {
        request: command.clone(),
        error: format!("{file}: never asked: {why}"),
    });
    let others = (more > 0).then(|| RequestError {
        request: "signals".into(),
        error: format!("{more} more commands are never asked; the log names their files"),
    });
    named.chain(others)
}

/// How many lines a command with a wait of its own (`tmo`) is answered with, where that is sure: what one
/// unit, asked by its own address, says in a single frame. The wait then ends with it.
fn sure_lines(request: Request, answer: &Answer) -> Option<u8> {
    let is_whole = answer.trouble().is_none() && answer.refusals.is_empty();
    let of_one = request.target() != Target::Functional;
    match answer.messages.as_slice() {
        [only] if of_one && is_whole && only.payload.len() <= SINGLE_FRAME => request.wait_steps().map(|_| 1),
        _ => None,
    }
}

type Asked = (Vec<(String, Vec<PidValue>)>, Option<String>);

/// Next year's models are sold this year.
fn latest_model_year() -> u16 {
    let today = UtcMillis::now().to_string();
    let year = today.get(..4).and_then(|year| year.parse().ok()).unwrap_or(THIS_YEAR);
    year.max(THIS_YEAR) + 1
}
